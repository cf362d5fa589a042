"""A code snapshot: the files of a workspace as one zip archive.

Equal content makes equal bytes, with the same zlib: names are sorted, the time is
always the same, and of a file's mode only stays whether it is executable.
"""

import errno
import shutil
import stat
import zipfile
from pathlib import Path

from flightlog_storage.copies import Staged, read_small, stage_file
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.real_paths import read_real_link
from flightlog_storage.workspace import Entry, Request, Workspace
from flightlog_storage.zips import member, written_zip

__all__ = ("write_snapshot",)

READ_SIZE_MAX = 1 << 20  # A larger file is copied first, not held in memory.
_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def write_snapshot(request: Request, found: Workspace, target: Path) -> Workspace:
    """Write what was found to `target`; return what is in it, which may be less.

    A file is in it whole, as it was while it was read, or not at all. The archive
    appears when it is whole and durable; until then what was at `target` stays.

    Raises:
        ValueError: The files have grown beyond the limits.
        OSError: The archive cannot be written.
    """
    stored = Workspace(skipped=list(found.skipped))
    with written_zip(target) as (archive, scratch):
        for entry in found.entries:
            content = _read(request, entry, scratch, stored)
            if content is not None:
                size = _put(archive, entry, content)
                stored.add(entry._replace(size=size), request.limits)
    return stored


def _read(
    request: Request, entry: Entry, scratch: Path, stored: Workspace
) -> bytes | Staged | None:
    """Return what a file or link holds, a large file as a copy; skip what cannot be.

    Raises:
        OSError: There is no room for the copy.
    """
    source = Path(request.root, entry.path)
    try:
        if stat.S_ISLNK(entry.mode):
            return read_real_link(source)
        data = read_small(source, READ_SIZE_MAX)
        return stage_file(source, scratch, follow=False) if data is None else data
    except SourceUnusable as error:
        stored.skip(entry.path, error.why)
    except OSError as error:
        if error.errno in _DISK_REFUSES:
            raise
        stored.skip(entry.path, error)
    return None


def _put(archive: zipfile.ZipFile, entry: Entry, content: bytes | Staged) -> int:
    """Put one file or link into the archive; return its size."""
    if isinstance(content, bytes):
        archive.writestr(member(entry.path, entry.mode), content)
        return len(content)
    info = member(entry.path, entry.mode, content.digests.size)
    with open(content.path, "rb") as copy, archive.open(info, "w") as target:
        shutil.copyfileobj(copy, target, READ_SIZE_MAX)
    content.path.unlink()
    return content.digests.size
