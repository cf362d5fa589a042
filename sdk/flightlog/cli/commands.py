"""The commands and their options; what they do is in a module each.

Those modules are loaded when their command is called, so that help stays quick.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from flightlog._settings import find_home
from flightlog.cli.output import talk
from flightlog.errors import BadArgumentError, Error, NotFoundError
from flightlog_storage.errors import HomeLocked, StorageError
from flightlog_storage.export_format import SIZE_MAX
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
    all Parquet parts are there, all blobs of files and artifacts, and in the inbox
    what files are still to be made of. With --full also reads the parts and blobs in
    whole, against their sha256, and the spools. Notes say which runs lack events that
    were lost in a known way; that is no damage. Changes nothing.

    \b
    flightlog verify
    flightlog verify --full --json | jq .data.problems
    """
    from flightlog.cli.checking import check_home

    with _telling():
        is_sound = check_home(_existing(home), full=full, as_json=as_json)
    if not is_sound:
        sys.exit(FAILED)


@flightlog.command(short_help="Say what is wrong with a home, and what to do.")
@click.option(
    "--full", is_flag=True, help="Read all that flightlog verify --full does."
)
@_home
@_json
def doctor(full: bool, home: str | None, as_json: bool) -> None:
    """Say what is wrong with a home, why it matters, and what mends it.

    Looks for all damage that flightlog verify finds, and at what is around it: who may
    read the home, where it lies and how much room is left, whether the daemon answers
    and keeps up, what waits or was set aside, and what the machine allows. The exit
    code is 1 if there is something to do; notes are no reason. Changes nothing.

    \b
    flightlog doctor
    flightlog doctor --json | jq -r '.data.findings[] | .cure'
    """
    from flightlog.cli.doctor import examine_home

    with _telling():
        is_sound = examine_home(_existing(home), full=full, as_json=as_json)
    if not is_sound:
        sys.exit(FAILED)


@flightlog.command(short_help="Rebuild states and histories from the event log.")
@click.option("--force", is_flag=True, help="Also from a log that is damaged.")
@_home
@_json
def replay(force: bool, home: str | None, as_json: bool) -> None:
    """Rebuild states and histories from the event log, which holds it all.

    Deletes state.db and the Parquet parts first. No daemon may serve the home
    meanwhile; what training processes log waits in their spools. As they start the
    next daemon within a second, stop and replay in one line. A damaged log is
    refused, for the projections may hold what it has lost.

    \b
    flightlog replay                       where no daemon runs
    flightlogd stop && flightlog replay    where one does
    """
    from flightlog.cli.replaying import replay_home

    with _telling():
        replay_home(_existing(home), is_forced=force, as_json=as_json)


@flightlog.command(short_help="Show what the daemon has still to do.")
@click.option("--wait", "is_waiting", is_flag=True, help="Until nothing is owed.")
@_home
@_json
def jobs(is_waiting: bool, home: str | None, as_json: bool) -> None:
    """Show what is owed: images to encode, folders to look through and to archive.

    With how far the archive is that the daemon is at, and the archives that failed.
    With --wait, which Ctrl-C ends, it returns when nothing is owed; the exit code is 1
    if something failed meanwhile.

    \b
    flightlog jobs
    flightlog jobs --wait && rm -r data
    flightlog jobs --json | jq '.data.owed[].progress'
    """
    from flightlog.cli.job_list import list_jobs, wait_for_jobs

    is_done = True
    with _telling():
        if is_waiting:
            is_done = wait_for_jobs(_existing(home), as_json=as_json)
        else:
            list_jobs(_existing(home), as_json=as_json)
    if not is_done:
        sys.exit(FAILED)


@flightlog.command(short_help="Delete what nothing needs any more.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what there is.")
@click.option(
    "--grace",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How old it has to be: a number with s, min, h or d.",
)
@click.option(
    "--retain",
    metavar="TIME",
    help="First delete runs that ended longer ago, such as 90d.",
)
@_home
@_json
def gc(
    is_dry: bool, grace: str, retain: str | None, home: str | None, as_json: bool
) -> None:
    """Delete what no run, artifact or asset needs any more; exit code 1 if some stays.

    That is blobs, copies that killed processes left, and files in the inbox that nobody
    asked for. The daemon does the same each hour; no need to stop it, nor what trains.
    Where something that names blobs cannot be read, nothing is deleted. With --retain
    runs go that ended longer ago, measured from the newest row of the home; those
    tagged "keep" stay.

    \b
    flightlog gc --dry-run
    flightlog gc --retain 90d --dry-run
    flightlog gc --grace 0s        all of it, also what was stored just now
    """
    from flightlog.cli.collecting import collect_garbage, seconds_of

    with _telling():
        is_done = collect_garbage(
            _existing(home),
            seconds_of(grace),
            None if retain is None else seconds_of(retain),
            is_dry=is_dry,
            as_json=as_json,
        )
    if not is_done:
        sys.exit(FAILED)


@flightlog.command(short_help="Copy a home while all goes on; the copy is one, too.")
@click.argument("target", metavar="FOLDER")
@_home
@_json
def backup(target: str, home: str | None, as_json: bool) -> None:
    """Copy a whole home into FOLDER, or bring an earlier copy there up to date.

    The daemon and what trains go on meanwhile. The copy has all that log() returned
    from before this began, and is a home itself: any command takes it as --home, and a
    daemon may serve it, which makes it a home of its own. A kill leaves what the last
    backup had. States and histories are made of the log: flightlog replay. The exit
    code is 1 if a blob is damaged; the rest is copied.

    \b
    flightlog backup /mnt/disk/flightlog
    flightlog verify --full --home /mnt/disk/flightlog
    """
    from flightlog.cli.backing_up import back_up_home

    with _telling():
        is_whole = back_up_home(_existing(home), target, as_json=as_json)
    if not is_whole:
        sys.exit(FAILED)


@flightlog.command(
    name="export", short_help="Write runs, with all their files, to a file."
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--to", "target", required=True, metavar="FILE", help="The file to make.")
@_home
@_json
def export_(
    runs: tuple[str, ...], target: str, home: str | None, as_json: bool
) -> None:
    """Write runs, with all their events, files, assets and artifacts, to a file.

    RUN is entity/project/id, project/id, or an id or name that no other run has.
    The file appears when it is whole; one that is there is never replaced. It is a
    zip archive, to be read by flightlog import.

    \b
    flightlog export demo/3kzq81mf --to best.zip
    flightlog export 3kzq81mf 9x81k2aa --to both.zip
    """
    from flightlog.cli.exporting import export_runs

    with _telling():
        export_runs(_existing(home), runs, target, as_json=as_json)


@flightlog.command(name="import", short_help="Bring the runs of an export into a home.")
@click.argument("file", metavar="FILE")
@click.option(
    "--max-size",
    "size_max",
    type=click.IntRange(min=0),
    default=SIZE_MAX,
    show_default=True,
    metavar="BYTES",
    help="How much it may be, unpacked.",
)
@click.option(
    "--lossy",
    "is_lossy",
    is_flag=True,
    help="Also what would lose events here, or mean other artifacts.",
)
@_home
@_json
def import_(
    file: str, size_max: int, is_lossy: bool, home: str | None, as_json: bool
) -> None:
    """Bring the runs of an export, made by flightlog export, into a home.

    Everything is checked before anything is recorded. A run that is there already is
    never changed: the same one is left as it is, another one of its name is refused.
    It may be repeated, also after it was killed.

    \b
    flightlog import best.zip
    """
    from flightlog.cli.importing import import_runs

    with _telling():
        import_runs(
            find_home(home),
            file,
            size_max=size_max,
            is_lossy=is_lossy,
            as_json=as_json,
        )


@flightlog.command(short_help="Ask anything in SQL, of all runs at once.")
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a header.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take.",
)
@click.option(
    "--memory",
    "memory_mb",
    type=int,
    default=1024,
    show_default=True,
    metavar="MB",
    help="What its work, and also its result, may take.",
)
@_home
@_json
def sql(
    query: str,
    as_csv: bool,
    timeout_s: float,
    memory_mb: int,
    home: str | None,
    as_json: bool,
) -> None:
    """Run one query, or that on stdin for "-", over runs, config, summary, history.

    It can read nothing else and change nothing. Needs: pip install "flightlog[sql]".

    \b
    flightlog sql "SELECT name, state, duration FROM runs ORDER BY created_at"
    flightlog sql "SELECT run_id, min(value) FROM history WHERE key = 'loss' GROUP BY 1"
    flightlog sql "DESCRIBE history"

    On a terminal a table; in a pipe one line a row, fields separated by tabs.
    """
    from flightlog.cli.querying import Form, print_query

    if as_csv and as_json:
        raise click.UsageError("--csv or --json, not both")
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE
    with _telling():
        print_query(
            _existing(home), query, form, timeout_s=timeout_s, memory_mb=memory_mb
        )


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
    except (Error, StorageError) as error:
        _fail(str(error), FAILED)
    except OSError as error:
        is_told = error.filename is not None and error.strerror is not None
        _fail(f"{error.filename}: {error.strerror}" if is_told else str(error), FAILED)


def _fail(message: str, code: int) -> NoReturn:
    talk(f"Error: {message}")
    sys.exit(code)


def _existing(name: str | None) -> Home:
    """Return the home, if there is one.

    Raises:
        NotFoundError: There is not.
    """
    home = find_home(name)
    if not home.log.is_dir() and not home.state.exists():
        raise NotFoundError(
            f"nothing has been logged in {home.root}; name another folder with "
            "--home or FLIGHTLOG_HOME"
        )
    return home
