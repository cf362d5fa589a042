"""The commands and their options; what they do is in a module each.

Those modules are loaded when their command is called, so that help stays quick.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from flightlog._settings import find_home
from flightlog.cli.output import plain, talk
from flightlog.errors import BadArgumentError, CommError, NotFoundError
from flightlog_storage.errors import HomeLocked, StorageError
from flightlog_storage.home import Home

__all__ = ("main",)

FAILED, USAGE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 130

_home = click.option(
    "--home",
    metavar="FOLDER",
    help="Where the data lies. [default: FLIGHTLOG_HOME, else the user's own]",
)
_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for programs."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        code = flightlog.main(arguments, prog_name="flightlog", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flightlog", prog_name="flightlog")
def flightlog() -> None:
    """Look at what training runs have logged. Works with or without a daemon.

    \b
    flightlog ls                    all runs
    flightlog show demo/3kzq81mf    one of them
    flightlog verify --full         is all of it sound?

    Exit codes: 0 done, 1 failed or damaged, 2 wrong usage, 3 not found,
    4 no daemon answers, 130 Ctrl-C. Data goes to stdout, talk to stderr.
    """


@flightlog.command(short_help="List runs, of a project or all.")
@click.argument("project", required=False)
@click.option(
    "-k",
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Show this key of the summary too; may be given more than once.",
)
@_home
@_json
def ls(
    project: str | None, keys: tuple[str, ...], home: str | None, as_json: bool
) -> None:
    """List runs, oldest first: of PROJECT, or all.

    \b
    flightlog ls
    flightlog ls cv/resnet50 --key val.accuracy
    flightlog ls --json | jq -r '.data[] | select(.state == "crashed") | .path'

    On a terminal a table; in a pipe one line a run, fields separated by tabs.
    """
    from flightlog.cli.listing import list_runs

    with _telling():
        list_runs(_existing(home), project, keys, as_json=as_json)


@flightlog.command(short_help="Show one run: its end, config, summary, losses.")
@click.argument("run")
@click.option("--all", "is_all", is_flag=True, help="Show every key, however many.")
@_home
@_json
def show(run: str, is_all: bool, home: str | None, as_json: bool) -> None:
    """Show one run: how it ended, its config, summary, writers and losses.

    RUN is entity/project/id, project/id, or an id or name that no other run has.

    \b
    flightlog show demo/3kzq81mf
    flightlog show 3kzq81mf --json | jq .data.summary
    """
    from flightlog.cli.showing import show_run

    with _telling():
        show_run(_existing(home), run, is_all=is_all, as_json=as_json)


@flightlog.command(short_help="Check what lies on disk; exit code 1 if damaged.")
@click.option(
    "--full",
    is_flag=True,
    help="Also read every part and spool, and list what is known to be lost.",
)
@_home
@_json
def verify(full: bool, home: str | None, as_json: bool) -> None:
    """Check what lies on disk; exit code 1 if anything is damaged.

    Reads every frame of the event log and compares its checksums, and looks whether
    all Parquet parts are there. With --full also reads every part in whole, against
    its sha256 and its page checksums, and the spools. Changes nothing.

    \b
    flightlog verify
    flightlog verify --full --json | jq .data.problems
    """
    from flightlog.cli.checking import check_home

    with _telling():
        is_sound = check_home(_existing(home), full=full, as_json=as_json)
    if not is_sound:
        sys.exit(FAILED)


@flightlog.command(short_help="Rebuild states and histories from the event log.")
@click.option("--force", is_flag=True, help="Also from a log that is damaged.")
@_home
@_json
def replay(force: bool, home: str | None, as_json: bool) -> None:
    """Rebuild states and histories from the event log, which holds it all.

    Deletes state.db and the Parquet parts first. No daemon may serve the home
    meanwhile; what training processes log waits in their spools. A damaged log is
    refused, for the projections may hold what it has lost.

    \b
    flightlogd stop
    flightlog replay
    """
    from flightlog.cli.replaying import replay_home

    with _telling():
        replay_home(_existing(home), is_forced=force, as_json=as_json)


@contextmanager
def _telling() -> Iterator[None]:
    """Turn what can go wrong into a message and an exit code."""
    try:
        yield
    except NotFoundError as error:
        _fail(str(error), NOT_FOUND)
    except BadArgumentError as error:
        _fail(str(error), USAGE)
    except HomeLocked as error:
        message = f"a daemon serves {error.path}; stop it first: flightlogd stop"
        _fail(f"{message} --home {error.path}", FAILED)
    except (CommError, StorageError, OSError) as error:
        _fail(str(error), FAILED)


def _fail(message: str, code: int) -> NoReturn:
    talk(f"Error: {plain(message)}")
    sys.exit(code)


def _existing(name: str | None) -> Home:
    """Return the home, if there is one.

    Raises:
        NotFoundError: There is not.
    """
    home = find_home(name)
    if not home.log.is_dir():
        raise NotFoundError(
            f"nothing has been logged in {home.root}; name another folder with "
            "--home or FLIGHTLOG_HOME"
        )
    return home
