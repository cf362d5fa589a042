"""The metrics endpoint: a process of its own, so that no scraper meets the recorder.

However many scrapers come and however long they hang, the recorder is asked once in
REFRESH_S, and what they can take up is this process's alone.
"""

import logging
import os
import signal
import time
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import Listener, SocketStream

from flightlog_storage.home import Home
from flightlogd.client import ask_status
from flightlogd.config import MetricsAddress
from flightlogd.figures import FIGURES_ERRORS, exposition, read_figures
from flightlogd.wakes import read_wakes

__all__ = ("run",)

logger = logging.getLogger(__name__)

REFRESH_S = 1.0
RETRY_S = 5.0  # Until an address that another process has is tried again.
STATUS_TIMEOUT_S = 2.0
CONNECTIONS_MAX = 16
REQUEST_SIZE_MAX = 8192
CONNECTION_TIMEOUT_S = 5.0
_IGNORED = (signal.SIGINT, signal.SIGTERM)  # The recorder says when it is time.
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def run(home: Home, address: MetricsAddress, wake_fd: int) -> None:
    """Serve until the recorder closes the other end of `wake_fd`."""
    os.set_blocking(wake_fd, False)
    anyio.run(_serve, home, address, wake_fd)


async def _serve(home: Home, address: MetricsAddress, wake_fd: int) -> None:
    with anyio.open_signal_receiver(*_IGNORED):
        async with anyio.create_task_group() as services:
            services.start_soon(_answer_all, Exporter(home), address)
            is_open = True
            while is_open:
                await anyio.wait_readable(wake_fd)
                is_open, _ = read_wakes(wake_fd)
            services.cancel_scope.cancel()
    if isinstance(address, Path):
        address.unlink(missing_ok=True)


async def _answer_all(exporter: "Exporter", address: MetricsAddress) -> None:
    """Answer who comes to an address, as soon as that can be had."""
    is_told = False
    while True:
        try:
            listener = await _listen(address)
            break
        except OSError as error:
            if not is_told:
                logger.error("no metrics at %s: %s; it is tried again", address, error)
            is_told = True
            await anyio.sleep(RETRY_S)
    logger.info("metrics at %s", address)
    await listener.serve(exporter.answer)


async def _listen(address: MetricsAddress) -> Listener[SocketStream]:
    match address:
        case Path():
            address.unlink(missing_ok=True)  # We are the home's only one.
            return await anyio.create_unix_listener(address, mode=0o600)
        case (host, port):
            return await anyio.create_tcp_listener(local_host=host, local_port=port)


class Exporter:
    """Answers scrapers, with the same text within REFRESH_S."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._connections = 0
        self._reading = anyio.Lock()
        self._text = ""
        self._read_at = -REFRESH_S

    async def answer(self, stream: SocketStream) -> None:
        """Answer one request and close; of too many connections, close without."""
        if self._connections >= CONNECTIONS_MAX:
            await anyio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            with anyio.move_on_after(CONNECTION_TIMEOUT_S):
                await stream.send(await self._respond(await _request(stream)))
                await stream.send_eof()
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass  # It has left.
        finally:
            self._connections -= 1
            await anyio.aclose_forcefully(stream)

    async def _respond(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        if method != b"GET":
            return _response("405 Method Not Allowed", "only GET\n")
        if rest.partition(b" ")[0].partition(b"?")[0] != b"/metrics":
            return _response("404 Not Found", "see /metrics\n")
        return _response("200 OK", await self._read())

    async def _read(self) -> str:
        async with self._reading:
            if time.monotonic() - self._read_at >= REFRESH_S:
                self._text = await to_thread.run_sync(_read, self._home)
                self._read_at = time.monotonic()
            return self._text


def _read(home: Home) -> str:
    status = ask_status(home, STATUS_TIMEOUT_S)
    if status is None:
        return exposition(None, None)
    try:
        return exposition(status, read_figures(home, status))
    except FIGURES_ERRORS as error:
        logger.warning("the figures of the home cannot be read: %s", error)
        return exposition(status, None)


async def _request(stream: SocketStream) -> bytes:
    """Return the head of a request, or what came of it."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < REQUEST_SIZE_MAX:
        data += await stream.receive(REQUEST_SIZE_MAX)
    return data


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
