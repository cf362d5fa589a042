"""A home: where things live, who may touch them, and the lock of its one daemon."""

import fcntl
import os
import stat
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from flightlog_storage.errors import HomeLocked, HomeUnusable
from flightlog_storage.files import RealFiles, open_file, read_file
from flightlog_storage.process import ProcessIdentity

__all__ = (
    "HOME_FOLDERS",
    "NETWORK_FILE_SYSTEMS",
    "SOCKET_PATH_MAX",
    "DaemonInfo",
    "Home",
    "HomeLock",
    "check_closed",
    "choose_home",
    "file_system_type",
)

SOCKET_PATH_MAX = 107  # Bytes; sun_path has 108 with its terminating zero.
_OTHERS_WRITE = 0o022
# fmt: off
NETWORK_FILE_SYSTEMS = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph",
    "afs", "pvfs2", "orangefs", "9p", "wekafs", "fuse.ceph", "fuse.sshfs",
    "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs",
))
# Which tell a home from other folders.
HOME_FOLDERS = frozenset(("log", "histories", "spool", "quarantine"))
_FOLDERS_MADE = (*sorted(HOME_FOLDERS), "blobs", "inbox", "staging")
# What may lie in a home before all its folders do.
_NAMES = frozenset((
    *_FOLDERS_MADE, "files", "resume", "state.db", "state.db-wal", "state.db-shm",
    "blobs.lock", "daemon.lock", "daemon.log", "daemon.log.1", "daemon.sock",
    "materializer.lock", "worker.lock", "worker.job", "worker.progress",
    "worker.progress.new", "lost+found", "metrics.sock", "scrub.json", "scrub.json.new",
))
# fmt: on


class DaemonInfo(msgspec.Struct, frozen=True):
    """What a daemon says about itself in the lock file."""

    process: ProcessIdentity
    socket: str
    version: str
    key: bytes = b""  # Who shows it may speak for any writer; new with each daemon.


class Home(msgspec.Struct, frozen=True):
    """A home's paths. Nothing here changes the disk but `create`."""

    root: Path
    runtime: Path | None = None  # The user's runtime folder, if there is one.
    socket_override: Path | None = None

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def state(self) -> Path:
        return self.root / "state.db"

    @property
    def histories(self) -> Path:
        return self.root / "histories"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def progress(self) -> Path:
        """What says how far the worker is with its archive."""
        return self.root / "worker.progress"

    @property
    def scrubbing(self) -> Path:
        """What says how far the files at rest were read again."""
        return self.root / "scrub.json"

    @property
    def job(self) -> Path:
        """What says which file the worker makes."""
        return self.root / "worker.job"

    @property
    def lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        return self.root / "daemon.log"

    @property
    def daemon_log_before(self) -> Path:
        """What was in `daemon.log` until that became too long."""
        return self.root / "daemon.log.1"

    @property
    def socket(self) -> Path:
        """Where this home's daemon listens unless it was handed another socket."""
        if self.socket_override is not None:
            return self.socket_override
        beside = self.root / "daemon.sock"
        if self.runtime is not None:
            folder = self.runtime / "flightlog"
        elif len(os.fsencode(beside)) <= SOCKET_PATH_MAX:
            return beside
        else:
            folder = Path(f"/tmp/flightlog-{os.getuid()}")
        if self.root == _default_root():
            return folder / "daemon.sock"
        path = os.fsencode(self.root)
        return folder / f"{zlib.crc32(path):08x}{zlib.adler32(path):08x}.sock"

    @property
    def is_writable(self) -> bool:
        """Whether anything in it can be changed."""
        return os.access(self.root, os.W_OK)

    def create(self) -> None:
        """Make the home's folders, for their owner alone.

        Raises:
            HomeUnusable: They cannot be made, are not ours, or hold something else.
        """
        try:
            _make_folder(self.root)
            _check_owner(self.root)
            _check_ours(self.root)
            _make_private(self.root)
            for name in _FOLDERS_MADE:
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeUnusable(self.root, f"cannot be made: {error}") from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise HomeUnusable(self.root, "is not writable for you")

    def sync(self) -> None:
        """Make the names of its folders durable, and its own name.

        Raises:
            HomeUnusable: The disk refuses.
        """
        files = RealFiles()
        try:
            files.fsync_dir(self.root)
        except OSError as error:
            raise HomeUnusable(self.root, f"cannot be synced: {error}") from error
        for folder in self.root.parents:
            # They may have come with it, or lie where nothing can be synced.
            with suppress(OSError):
                if folder.stat().st_uid == os.getuid():
                    files.fsync_dir(folder)

    def create_socket_folder(self) -> Path:
        """Make the socket's folder, for its owner alone, and return it.

        Raises:
            HomeUnusable: It is not ours alone to write in, or the path is too long.
        """
        folder = self.socket.parent
        self.check_socket()
        try:
            _make_folder(folder)
            check_closed(folder)
        except OSError as error:
            raise HomeUnusable(folder, f"cannot be made: {error}") from error
        return folder

    def check_socket(self) -> None:
        """Look whether a daemon of ours can listen, as far as there is a folder.

        Raises:
            HomeUnusable: It is not ours alone to write in, or the path is too long.
        """
        if len(os.fsencode(self.socket)) > SOCKET_PATH_MAX:
            raise HomeUnusable(
                self.socket,
                f"is too long for a socket (at most {SOCKET_PATH_MAX} bytes); "
                "set FLIGHTLOG_SOCKET to a shorter path",
            )
        if self.socket.parent.exists():
            check_closed(self.socket.parent)

    @property
    def key(self) -> bytes:
        """What the last daemon takes as proof from who may read this home."""
        info = self.daemon()
        return b"" if info is None else info.key

    def daemon(self) -> DaemonInfo | None:
        """Return what the last daemon of this home said of itself."""
        try:
            return msgspec.json.decode(read_file(self.lock), type=DaemonInfo)
        except (OSError, msgspec.MsgspecError):
            return None


class HomeLock:
    """The right to serve a home; held until closed or the process dies."""

    def __init__(self, home: Home) -> None:
        """Take the lock at once.

        Raises:
            HomeLocked: Another daemon holds it.
        """
        self._home = home
        self._info: DaemonInfo | None = None
        self._fd = self._take()

    def write(self, info: DaemonInfo) -> None:
        self._info = info
        data = msgspec.json.encode(info)
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def keep(self) -> bool:
        """Take it anew where its file was deleted; return whether that was so.

        Raises:
            HomeLocked: Another daemon was faster: it serves the home now.
            OSError: The disk refuses.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._fd), os.stat(self._home.lock)):
                return False
        fd = self._take()
        self.close()
        self._fd = fd
        if self._info is not None:
            self.write(self._info)
        return True

    def close(self) -> None:
        os.close(self._fd)

    def _take(self) -> int:
        fd = open_file(self._home.lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise HomeLocked(self._home.root) from error
        return fd


def choose_home(
    explicit: str | os.PathLike[str] | None, environ: Mapping[str, str]
) -> Home:
    """Return the home to use: `explicit`, else FLIGHTLOG_HOME, else the user's own.

    A default on a network file system is replaced with a folder on this machine; one
    that was named explicitly is refused unless FLIGHTLOG_ALLOW_NETWORK_FS is 1.

    Raises:
        HomeUnusable: The home named is on a network file system, is "", or no UTF-8.
    """
    runtime_name = environ.get("XDG_RUNTIME_DIR")
    runtime = Path(runtime_name) if runtime_name else None
    if runtime is not None and not _is_private(runtime):
        runtime = None
    socket_name = environ.get("FLIGHTLOG_SOCKET")
    socket = Path(socket_name).absolute() if socket_name else None
    if explicit is not None and not os.fspath(explicit):
        raise HomeUnusable(Path(), "is given as '', which names no folder")
    named = explicit or environ.get("FLIGHTLOG_HOME")
    root = Path(named).expanduser().absolute() if named else _default_root()
    if not _is_utf8(root):
        raise HomeUnusable(root, "has a name that is no UTF-8: choose another")
    kind = file_system_type(root)
    if kind in NETWORK_FILE_SYSTEMS:
        if not named:
            root = Path(f"/var/tmp/flightlog-{os.getuid()}")
        elif environ.get("FLIGHTLOG_ALLOW_NETWORK_FS") != "1":
            raise HomeUnusable(
                root,
                f"is on a network file system ({kind}), where a kill or a second "
                "machine can damage it; name a folder on a local disk, or set "
                "FLIGHTLOG_ALLOW_NETWORK_FS=1 to use it all the same",
            )
    return Home(root, runtime, socket)


def _is_utf8(path: Path) -> bool:
    """Whether its name can be told: in the lock file, and to SQLite."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def file_system_type(path: Path) -> str:
    """Return the type of the file system that holds `path` (or will), as mounted."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        device = os.stat(existing).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo") as file:
            for line in file:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass  # No /proc: not Linux, nothing is known.
    return ""


def _default_root() -> Path:
    import platformdirs  # Late: `import flightlog` has to be light.

    return Path(platformdirs.user_data_path("flightlog", appauthor=False))


def _is_private(folder: Path) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, for their owner alone.

    Who may write above it could put another in its place.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        if folder.parent.is_dir():
            raise  # As in /proc, where none can be made.
        _make_folder(folder.parent)
        _make_folder(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _check_ours(root: Path) -> None:
    """Refuse a folder that holds something else and was named by a slip."""
    there = frozenset(os.listdir(root))
    if not there <= _NAMES and not there.issuperset(HOME_FOLDERS):
        raise HomeUnusable(
            root,
            f"holds other files: give a folder of its own, such as {root}/flightlog",
        )


def _check_owner(path: Path) -> os.stat_result:
    """Return the status of what is ours.

    Raises:
        HomeUnusable: It is another user's, or a link of another user's leads there.
    """
    status = os.stat(path)
    for uid in (os.lstat(path).st_uid, status.st_uid):
        if uid != os.getuid():
            raise HomeUnusable(
                path, f"belongs to uid {uid}, not to you ({os.getuid()})"
            )
    return status


def check_closed(path: Path) -> None:
    """Raise HomeUnusable if others have, or can put, something of theirs in there."""
    if _check_owner(path).st_mode & _OTHERS_WRITE:
        raise HomeUnusable(
            path, "is not yours alone: others can write in it (chmod go-w)"
        )


def _make_private(root: Path) -> None:
    """Close a folder that is new or that others could only read."""
    if os.listdir(root):
        check_closed(root)
    if os.stat(root).st_mode & 0o077:
        os.chmod(root, 0o700)
