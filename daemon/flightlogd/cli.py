"""The command line of the daemon."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from flightlog_storage.errors import HomeLocked, HomeUnusable
from flightlog_storage.files import open_file
from flightlog_storage.home import Home
from flightlog_storage.terminal import plain, safe
from flightlogd.config import VERSION, DaemonConfig, read_config
from flightlogd.install import (
    InstallRefused,
    Service,
    system_service,
    user_service,
)

__all__ = ("main",)

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 40.0
POLL_INTERVAL_S = 0.02
SYSTEM_HOME = "/var/lib/flightlog"
EXIT_UNREACHABLE = 4

_home = click.option(
    "--home",
    metavar="FOLDER",
    help="The home to serve. [default: FLIGHTLOG_HOME, or the user's own]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="flightlogd")
def main() -> None:
    """The daemon of flightlog: takes in what training processes log.

    You need not start it: the first flightlog.init() does. One daemon serves one home.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 4 no daemon answers.
    """


@main.command()
@_home
def run(home: str | None) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C.

    Steps aside with exit code 0 when another daemon serves the home already.
    """
    config = _read_config(home)
    _close_inherited(config.passed_fd)
    # A thread that blocks SIGTERM may have started this.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    from flightlogd.main import run as serve  # Loaded late: help must be quick.

    _log_to_stderr()
    try:
        serve(config)
    except HomeLocked as error:
        click.echo(safe(f"flightlogd: {error}: this one steps aside"), err=True)
    except (HomeUnusable, OSError) as error:
        raise _failure(error) from error


@main.command()
@_home
def start(home: str | None) -> None:
    """Start a daemon in the background and wait until it answers."""
    found = _find_home(home)
    if _answers(found):
        click.echo("already running")
        return
    try:
        found.create()
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = open_file(found.daemon_log, append)
    except (HomeUnusable, OSError) as error:
        raise _failure(error) from error
    with open(descriptor, "wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "flightlogd",
                "run",
                "--home",
                str(found.root),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    if not _wait(lambda: _answers(found) or bool(process.poll()), START_TIMEOUT_S) or (
        process.returncode
    ):
        raise _failure(f"it did not start; see {found.daemon_log}")
    process.returncode = 0  # It lives on without us.
    click.echo("started")


@main.command()
@_home
def stop(home: str | None) -> None:
    """Stop the daemon; everything it accepted is on disk when this returns.

    While anything trains it does not stay stopped: training processes start the next
    daemon, mostly within a second. What they log meanwhile waits in their spools.
    """
    found = _find_home(home)
    info = found.daemon()
    if info is None or not info.process.is_alive():
        click.echo("not running")
        return
    with suppress(ProcessLookupError):
        os.kill(info.process.pid, signal.SIGTERM)
    if not _wait(lambda: not info.process.is_alive(), STOP_TIMEOUT_S):
        raise click.ClickException(f"process {info.process.pid} does not end")
    click.echo("stopped")


@main.command()
@_home
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(home: str | None, as_json: bool) -> None:
    """Show how the daemon is; exit code 4 when none answers."""
    from flightlogd.client import ask_status  # Loaded late: it brings ZeroMQ.
    from flightlogd.figures import FIGURES_ERRORS, read_figures

    found = _find_home(home)
    answer = ask_status(found, timeout_s=5.0)
    if answer is None:
        click.echo(safe(f"no daemon answers for {found.root}"), err=True)
        sys.exit(EXIT_UNREACHABLE)
    try:
        figures = msgspec.to_builtins(read_figures(found, answer))
    except FIGURES_ERRORS as error:
        click.echo(safe(f"the figures of the home cannot be read: {error}"), err=True)
        figures = {}
    if as_json:
        data = msgspec.to_builtins(answer) | {"figures": figures}
        document = {"schema": "flightlogd.status/1", "data": data}
        click.echo(msgspec.json.format(msgspec.json.encode(document)))
        return
    fields = msgspec.to_builtins(answer)
    counters = fields.pop("counters")
    disk = {f"disk_{name}": value for name, value in (fields.pop("disk") or {}).items()}
    figures |= figures.pop("totals", {})
    for name, value in (fields | disk | counters | figures).items():
        click.echo(safe(f"{name:22} {value}"))


_user = click.option("--user", is_flag=True, help="Your own, not the machine's.")
_dry = click.option("--dry-run", is_flag=True, help="Show it, and change nothing.")
_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    help="Below this folder, that of an image or a package.",
)


@main.command()
@_home
@_user
@_dry
@_root
def install_service(home: str | None, user: bool, dry_run: bool, root: Path) -> None:
    """Write systemd's files for this home and interpreter; say what to run then.

    Without --user: a service of the machine, under a user "flightlog" of its own, whose
    home is /var/lib/flightlog unless --home is given.
    """
    try:
        service = _service(home, user, root)
        if not dry_run:
            service.write()
            if user:
                _find_home(home).create()
    except (InstallRefused, HomeUnusable, OSError) as error:
        raise _failure(error) from error
    for path, text in service.contents.items():
        click.echo(safe(f"{path}\n\n{text}" if dry_run else f"wrote {path}"))
    click.echo("then:")
    for line in (*service.before, f"{service.systemctl} daemon-reload"):
        click.echo(safe(f"  {line}"))
    for line in (service.enable, *service.after):
        click.echo(safe(f"  {line}"))


@main.command()
@_user
@_dry
@_root
def uninstall_service(user: bool, dry_run: bool, root: Path) -> None:
    """Delete what install-service wrote; homes stay."""
    try:
        service = _service(None, user, root)
        done = service.there() if dry_run else service.delete()
    except (InstallRefused, HomeUnusable, OSError) as error:
        raise _failure(error) from error
    for path in done:
        click.echo(safe(f"{'would delete' if dry_run else 'deleted'} {path}"))
    click.echo(f"then:\n  {service.systemctl} daemon-reload")


def _service(home: str | None, user: bool, root: Path) -> Service:
    if not user:
        return system_service(Path(home or SYSTEM_HOME).expanduser().absolute(), root)
    from platformdirs import user_config_path  # Loaded late: help must be quick.

    return user_service(_find_home(home), user_config_path(), root)


@main.command(hidden=True)
@click.option("--home", required=True)
@click.option("--wake-fd", type=int, required=True)
def materialize(home: str, wake_fd: int) -> None:
    """Fold the log into state and histories; started by the recorder."""
    from flightlogd.materializer import run as serve  # Loaded late: pyarrow is large.

    _log_to_stderr()
    serve(_read_config(home), wake_fd)


@main.command(hidden=True)
@click.option("--home", required=True)
@click.option("--wake-fd", type=int, required=True)
def work(home: str, wake_fd: int) -> None:
    """Do what the log says is owed; started by the recorder."""
    from flightlogd.worker import run as serve  # Loaded late: numpy is large.

    _log_to_stderr()
    serve(_read_config(home), wake_fd)


@main.command(hidden=True)
@click.option("--home", required=True)
@click.option("--wake-fd", type=int, required=True)
def expose(home: str, wake_fd: int) -> None:
    """Answer who scrapes metrics; started by the recorder."""
    from flightlogd.exporter import run as serve  # Loaded late: help must be quick.

    _log_to_stderr()
    config = _read_config(home)
    assert config.metrics is not None
    serve(config.home, config.metrics, wake_fd)


class _PlainFormatter(logging.Formatter):
    """One line an event, whatever the names in it: they come from what runs log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain(super().formatMessage(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        _PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _failure(why: object) -> click.ClickException:
    return click.ClickException(safe(str(why)))


def _find_home(home: str | None) -> Home:
    return _read_config(home).home


def _read_config(home: str | None) -> DaemonConfig:
    try:
        return read_config(home)
    except HomeUnusable as error:
        raise _failure(error) from error


def _close_inherited(passed_fd: int | None) -> None:
    """Let go of what the trainer that started this had open, its pipes above all."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != passed_fd:
            with suppress(OSError):
                os.close(descriptor)


def _answers(home: Home) -> bool:
    from flightlogd.client import ask_status  # Loaded late: it brings ZeroMQ.

    # The lock is left alone: a daemon that starts while we try it would step aside.
    return ask_status(home, timeout_s=1.0) is not None


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True
