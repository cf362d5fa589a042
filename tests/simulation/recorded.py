"""What programs did to the disk and said on sockets, as strace saw it.

The programs are real and unmodified; their calls come with all bytes, in one order.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Call", "Moment", "can_trace", "read_trace", "trace")

_CALLS = (
    "openat,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,"
    "sendfile,fsync,fdatasync,sync_file_range,ftruncate,truncate,fallocate,rename,"
    "renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,"
    "symlinkat,sendto,sendmsg,recvfrom,recvmsg"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>|(\w+)\()(.*)")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"(.*)\) += (-?\d+)(?:<([^>]*)>)?[^)]*(?:\([^)]*\))?$")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_TARGET = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>(?!\(deleted\))")
_NUMBER = re.compile(r"(?<=, )-?\d+(?=,|$)")


@dataclass(frozen=True)
class Call:
    """A system call: its name, what it was given, and what it returned.

    `target` is what its first argument is open on, `source` its second one, `opened`
    its result; `strings` are its paths or bytes, `numbers` those behind the first one.
    """

    name: str
    target: str = ""
    source: str = ""
    strings: tuple[bytes, ...] = ()
    numbers: tuple[int, ...] = ()
    flags: str = ""
    result: int = 0
    opened: str = ""


@dataclass(frozen=True)
class Moment:
    """A call begins or, with `is_end`, has returned."""

    call: Call
    is_end: bool


def can_trace() -> bool:
    """Whether strace is here and may trace."""
    command = ["strace", "-o", "/dev/null", "true"]
    return (
        bool(shutil.which("strace"))
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )


def trace(
    command: Sequence[str], output: Path, environ: Mapping[str, str], timeout_s: float
) -> None:
    """Run a command and all that it starts to their end, and record them."""
    options = ("-f", "--seccomp-bpf", "-y", "-xx", "-s", str(1 << 26))
    subprocess.run(
        [
            *("strace", *options, "-e", "signal=none", "-e", f"trace={_CALLS}"),
            *("-o", str(output), *command),
        ],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=timeout_s,
    )


def read_trace(path: Path) -> list[Moment]:
    """Return the moments of a trace, in order; calls that failed are left out."""
    texts: list[str] = []
    moments = list(_read_lines(path, texts))
    calls = {number: call for number, text in enumerate(texts) if (call := _call(text))}
    return [Moment(calls[n], is_end) for n, is_end in moments if n in calls]


def _read_lines(path: Path, texts: list[str]) -> Iterator[tuple[int, bool]]:
    """Yield which call begins or ends; put together what each was given."""
    begun: dict[str, int] = {}
    with path.open() as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue  # A process has ended.
            process, name, rest = found.groups()
            if name is not None:
                begun[process] = len(texts)
                texts.append(name + " ")
                yield begun[process], False
            number = begun[process]
            texts[number] += rest.removesuffix(_UNFINISHED)
            if not rest.endswith(_UNFINISHED):
                yield number, True


def _call(text: str) -> Call | None:
    name, _, rest = text.partition(" ")
    found = _RESULT.match(rest)
    if found is None or found[2].startswith("-"):
        return None
    given, result, opened = found.groups()
    targets: list[str] = _TARGET.findall(given) if _TARGET.match(given) else []
    target, source, *_ = *targets, "", ""
    flags = _BYTES.sub("", given)
    return Call(
        name,
        _plain(target).decode(),
        _plain(source).decode(),
        tuple(map(_plain, _BYTES.findall(given))),
        tuple(map(int, _NUMBER.findall(flags))),
        flags,
        int(result),
        _plain(opened or "").decode(),
    )


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
