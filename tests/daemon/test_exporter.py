import http.client
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.system.harness import (
    Trainer,
    daemon,
    flightlogd,
    folded_offset,
    kill_all,
    make_home,
    start_daemon,
    status,
    stop_daemon,
    wait_until,
)

from flightlog_storage.home import Home
from flightlogd.config import read_config
from flightlogd.exporter import CONNECTIONS_MAX, REQUEST_SIZE_MAX

ROWS = 100


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a daemon that has metrics, and one run."""
    home = make_home(tmp_path_factory.mktemp("exporter"))
    with daemon(home, environ={"FLIGHTLOG_METRICS": "socket"}):
        wait_until(endpoint(home).exists)
        assert Trainer(home, ROWS).wait() == 0
        wait_until(lambda: folded_offset(home) == status(home)["end_offset"] > ROWS)
        yield home
    assert not endpoint(home).exists()
    kill_all(home)


def endpoint(home: Home) -> Path:
    return home.root / "metrics.sock"


def connect(home: Home) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(endpoint(home)))
    return connection


def ask(home: Home, request: bytes) -> http.client.HTTPResponse:
    with connect(home) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response


def scrape(home: Home) -> dict[str, float]:
    """Return what a scraper makes of the answer, as its own library reads it."""
    with connect(home) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200
        kind = response.getheader("Content-Type", "")
        assert kind.startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(response.read().decode())
        return {s.name: s.value for f in families for s in f.samples}


def test_what_is_scraped_is_what_the_status_says(served: Home) -> None:
    found = wait_until(lambda: _settled(served))
    done = flightlogd(served, "status", "--json")
    data = msgspec.json.decode(done.stdout)["data"]

    figures, counters = data["figures"], data["counters"]
    assert found["flightlog_up"] == 1
    assert found["flightlog_events_total"] == counters["events"] > ROWS
    assert found["flightlog_acks_total"] == counters["acks"] > 0
    assert found["flightlog_end_offset"] == data["end_offset"]
    assert found["flightlog_sync_seconds_count"] == counters["batches"]
    assert found["flightlog_sync_seconds_sum"] == counters["sync_s"]
    assert found["flightlog_sync_max_seconds"] == counters["sync_max_s"] > 0
    assert found["flightlog_lag_events"] == figures["lag_events"] == 0
    assert found["flightlog_runs"] == figures["totals"]["runs"] == 1
    assert found["flightlog_spools"] == figures["spools"] == 0
    assert found["flightlog_spool_bytes"] == figures["spool_size"] == 0
    assert found["flightlog_dead_letters"] == 0
    assert found["flightlog_lost_events"] == 0
    assert found["flightlog_disk_free_bytes"] > 0
    assert found["flightlog_owed_files"] == found["flightlog_owed_archives"] == 0


def test_each_figure_is_on_its_page(served: Home) -> None:
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    section = page.partition("## Metrics")[2].partition("## Sockets")[0]

    names = {name.removeprefix("flightlog_") for name in scrape(served)}

    assert {name for name in names if f"`{name}`" not in section} == set()


def _settled(home: Home) -> dict[str, float]:
    """Return what is scraped once nothing more comes."""
    found = scrape(home)
    answer = status(home)
    is_told = found["flightlog_acks_total"] == answer["counters"]["acks"]
    return found if is_told and not found["flightlog_spools"] else {}


def test_a_spool_that_waits_is_counted(served: Home) -> None:
    trainer = Trainer(served, 10, how="wait", run="waiting")
    trainer.expect("ready")

    wait_until(lambda: scrape(served)["flightlog_spools"] == 1)
    assert scrape(served)["flightlog_spool_bytes"] >= 4096
    assert wait_until(lambda: scrape(served)["flightlog_writers"] >= 1)

    trainer.go_on()
    assert trainer.wait() == 0
    wait_until(lambda: not scrape(served)["flightlog_spools"])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /else HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\x00" * REQUEST_SIZE_MAX, 405),
    ],
    ids=["path", "method", "query", "head", "garbage"],
)
def test_other_requests_are_answered(served: Home, request_: bytes, code: int) -> None:
    assert ask(served, request_).status == code


def test_scrapers_that_hang_or_flood_harm_nobody(served: Home) -> None:
    before = status(served)["counters"]["events"]
    hanging = [connect(served) for _ in range(4 * CONNECTIONS_MAX)]
    for connection in hanging[::2]:
        with suppress(BrokenPipeError):  # It was too many.
            connection.sendall(b"GET /met")

    trainer = Trainer(served, ROWS, run="flooded")

    assert trainer.wait() == 0
    wait_until(lambda: status(served)["counters"]["events"] > before + ROWS)
    for connection in hanging:
        assert _is_closed(connection), "in the end, by the other side"
    wait_until(lambda: scrape(served)["flightlog_up"] == 1)


def _is_closed(connection: socket.socket) -> bool:
    with connection, suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_the_socket_is_for_its_owner(served: Home) -> None:
    assert endpoint(served).stat().st_mode & 0o777 == 0o600


def test_a_port_of_this_machine_serves_as_well(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with daemon(home, environ={"FLIGHTLOG_METRICS": f"localhost:{port}"}):
        connection = wait_until(lambda: _http(port))
        connection.request("GET", "/metrics")
        assert b"flightlog_up 1\n" in connection.getresponse().read()
        connection.close()


def test_an_address_that_others_have_is_tried_again(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start_daemon(home, environ={"FLIGHTLOG_METRICS": f"127.0.0.1:{port}"})
        wait_until(lambda: "no metrics at" in home.daemon_log.read_text())
    try:
        connection = wait_until(lambda: _http(port))
        connection.request("GET", "/metrics")
        assert b"flightlog_up 1\n" in connection.getresponse().read()
        connection.close()
    finally:
        assert stop_daemon(process) == 0
    said = home.daemon_log.read_text()
    assert said.count("no metrics at") == 1
    assert "Traceback" not in said
    assert "metrics endpoint ended" not in said


def _http(port: int) -> http.client.HTTPConnection | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return None
    return connection


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with daemon(home) as process:
        wait_until((home.root / "worker.lock").exists)
        children = subprocess.run(
            ["ps", "-o", "args=", "--ppid", str(process.pid)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    assert "materialize" in children
    assert "expose" not in children


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_where_it_may_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    address: tuple[str, int],
) -> None:
    monkeypatch.setenv("FLIGHTLOG_METRICS", text)

    assert read_config(str(tmp_path)).metrics == address


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0:9464", ":9464", "*:9464", "[::]:9464", "host:9464", "9464"),
        *("127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:65536", "/tmp/metrics.sock"),
    ],
)
def test_where_others_would_reach_it_there_is_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    monkeypatch.setenv("FLIGHTLOG_METRICS", text)

    assert read_config(str(tmp_path)).metrics is None
    assert "there are no metrics" in caplog.text
