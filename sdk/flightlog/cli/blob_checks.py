"""The bytes of files and artifacts, and of what files are to be made of, checked."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from flightlog.cli.contents import Contents, read_contents
from flightlog.cli.findings import Findings, Problem
from flightlog_storage.blobs import Blob, BlobStore, check_blob
from flightlog_storage.home import Home
from flightlog_storage.inbox import check_inbox
from flightlog_storage.named_blobs import NamedBlob
from flightlog_storage.runfiles import OwedFile

__all__ = ("check_blobs", "cure_of_blob")

USES_MAX = 5  # Named of one blob.


def check_blobs(
    home: Home, contents: Contents, findings: Findings, *, full: bool
) -> None:
    """Look for every blob that is needed, and for what files that are owed need.

    With `full` blobs are read. What is missing is looked up once more: files may have
    been made, or deleted, since the contents were read.
    """
    store = BlobStore(home.blobs)
    findings.counts["blobs"] = len({sha256 for sha256, _ in contents.blobs})
    if contents.owed:
        findings.counts["owed files"] = len(contents.owed)
    bad_blobs = {
        blob: what
        for blob in contents.blobs
        if (what := check_blob(store, *blob, full=full))
    }
    bad_owed = {
        token: what
        for token, (_, owed) in contents.owed.items()
        if (what := _check_owed(home, owed))
    }
    if bad_blobs or bad_owed:
        findings.problems += _problems(home, bad_blobs, bad_owed)


def _check_owed(home: Home, owed: OwedFile) -> str | None:
    try:
        return check_inbox(home.inbox, owed.token, owed.size)
    except OSError as error:
        return f"what it is to be made of cannot be read: {error.strerror}"


def _problems(
    home: Home, bad_blobs: dict[Blob, str], bad_owed: dict[str, str]
) -> Iterator[Problem]:
    now = read_contents(home, bad_blobs)
    for blob, what in bad_blobs.items():
        if blob in now.blobs:
            path = BlobStore(home.blobs).path(blob[0])
            yield _of_blob(path, what, now.blobs[blob])
    for token, what in bad_owed.items():
        if token in now.owed:
            yield _of_owed(token, what, now)


def _of_blob(path: Path, what: str, named_by: list[NamedBlob]) -> Problem:
    shown = ", ".join(named.use for named in named_by[:USES_MAX])
    left = len(named_by) - USES_MAX
    more = f" and {left:,} more" if left > 0 else ""
    runs = {named.run for named in named_by}
    return Problem(
        where=f"blobs/{path.parent.name}/{path.name}",
        what=f"{what}; needed by {shown}{more}",
        run=runs.pop() if len(runs) == 1 else None,
        events=0,
        cure=cure_of_blob(path),
    )


def cure_of_blob(path: Path) -> str:
    """Return how to have a blob back; what seems to be there is not written anew."""
    removed = f"rm {quote(str(path))}, then " if path.exists() else ""
    return f"{removed}copy it from a flightlog backup, or store the same file again"


def _of_owed(token: str, what: str, contents: Contents) -> Problem:
    run, owed = contents.owed[token]
    return Problem(
        where=f"inbox/{token}",
        what=f"{what}; needed by {run}/{owed.name}",
        run=run,
        events=1,
    )
