"""The systemd service of a home: its files, written and taken away again."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flightlog_storage.home import Home

__all__ = ("InstallRefused", "Service", "system_service", "user_service")

UNITS = Path(__file__).parent / "units"  # In a checkout a link to `systemd`.
MARK = "# Written by `flightlogd install-service`, which writes over it: use `edit`.\n"
NAMES = ("flightlog.socket", "flightlog.service")
# What systemd takes as it stands, unquoted, in each kind of line.
_PLAIN = re.compile(r"[\w/.+:,@=~-]+")


class InstallRefused(Exception):
    """Nothing was written or deleted, for a reason that the user can mend."""


@dataclass(frozen=True)
class Service:
    """What is to lie where, and what is then to be run."""

    contents: Mapping[Path, str]
    systemctl: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def enable(self) -> str:
        return f"{self.systemctl} enable --now {' '.join(NAMES)}"

    @property
    def disable(self) -> str:
        return f"{self.systemctl} disable --now {' '.join(NAMES)}"

    def write(self) -> None:
        """Write all files.

        Raises:
            InstallRefused: One is there that was not written by this.
            OSError: One cannot be written.
        """
        for path in self.contents:
            _check_ours(path)
        for path, text in self.contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)

    def delete(self) -> list[Path]:
        """Delete what is there of the files and return it.

        Raises:
            InstallRefused: One was not written by this, or the service is enabled.
            OSError: One cannot be deleted.
        """
        there = self.there()
        for path in there:
            path.unlink()
        return there

    def there(self) -> list[Path]:
        """Return what `delete` would delete.

        Raises:
            InstallRefused: As `delete` does.
        """
        there = [path for path in self.contents if path.exists()]
        for path in there:
            _check_ours(path)
            if any(path.parent.glob(f"*.wants/{path.name}")):
                raise InstallRefused(f"it is enabled; first: {self.disable}")
        return there


def user_service(home: Home, config: Path, root: Path = Path("/")) -> Service:
    """Return the service of a user's own home; `config` is their config folder.

    Raises:
        InstallRefused: A path cannot stand in a unit.
    """
    named = home.socket_override
    name = Home(home.root, Path("/")).socket.name  # As with a runtime folder.
    texts = _render(
        "user",
        {
            "%h/.local/bin/flightlogd": _program(),
            "%h/.local/share/flightlog": _plain(home.root),
            "%t/flightlog/daemon.sock": _plain(named or Path(f"%t/flightlog/{name}")),
        },
    )
    folder = _below(root, config / "systemd/user")
    return Service(
        {folder / name: text for name, text in texts.items()},
        "systemctl --user",
        after=("loginctl enable-linger    # or it ends when you log out",),
    )


def system_service(home: Path, root: Path = Path("/")) -> Service:
    """Return the machine's own service.

    Raises:
        InstallRefused: A path cannot stand in a unit.
    """
    changes = {
        "/opt/flightlog/bin/flightlogd": _program(),
        "/var/lib/flightlog": _plain(home),
    }
    contents = {
        _below(root, Path("/etc", folder, name)): text
        for kind, folder in (
            ("system", "systemd/system"),
            ("sysusers.d", "sysusers.d"),
            ("tmpfiles.d", "tmpfiles.d"),
        )
        for name, text in _render(kind, changes).items()
    }
    conf = [path for path in contents if path.suffix == ".conf"]
    before = (f"systemd-sysusers {conf[0]}", f"systemd-tmpfiles --create {conf[1]}")
    return Service(contents, "systemctl", before=before)


def _render(kind: str, changes: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((UNITS / kind).iterdir()):
        text = path.read_text()
        for shipped, wanted in changes.items():
            text = text.replace(shipped, wanted)
        body = re.sub(r"\A(#.*\n)+(?=\[)", "", text)  # Who it was shipped for.
        found[path.name] = MARK + body
    return found


def _program() -> str:
    return f"{_plain(Path(sys.executable))} -P -m flightlogd"


def _plain(path: Path) -> str:
    text = str(path)
    is_straight = not text.startswith("//") and ".." not in path.parts
    if not is_straight or not _PLAIN.fullmatch(text.removeprefix("%t")):
        raise InstallRefused(f"{text!r} cannot stand in a unit: choose a plainer path")
    return text


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _check_ours(path: Path) -> None:
    if path.is_symlink() or (path.exists() and MARK.encode() not in path.read_bytes()):
        raise InstallRefused(f"{path} was not written by this command: move it away")
