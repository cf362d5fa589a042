"""Makes the golden files of a version: `python tests/golden/make.py NAME COMMIT`.

The code of the commit runs from a worktree of its own, with the packages of the
interpreter that runs this. See README.md.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

import psutil
import zmq

__all__ = ("main",)

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TIMEOUT_S = 60.0

Said = list[tuple[str, list[bytes]]]

# That the files tell of no machine.
ELSEWHERE = """
import os, sys
sys.executable = "/usr/bin/python3"
os.uname = lambda: os.uname_result(("Linux", "machine", "6.1", "", "x86_64"))
os.chdir("/")
"""
# One run with all kinds of values, files and artifacts where the version has them.
FIRST = """
import math, os, pathlib, flightlog
run = flightlog.init(
    entity="ann", project="mnist", id="first", name="first run", notes="a note",
    tags=["old", "small"], group="g", job_type="train",
    config={"lr": 0.001, "net": {"layers": [64, 64]}, "big": 2**70, "none": None},
)
run.define_metric("loss", summary="min")
for n in range(60):
    run.log({"loss": 1 / (n + 1), "val": {"accuracy": n / 60}, "n": n})
run.log({"text": "a text", "flag": True, "list": [1, "two", None], "big": 2**70})
run.log({"nan": math.nan, "inf": math.inf, "none": None, "minus": -0.0})
run.log({"loss": 5.0, "n": "now a text"}, step=7)
run.summary["best"] = {"epoch": 3}
run.config.update({"lr": 0.01}, allow_val_change=True)
if hasattr(run, "log_artifact"):
    folder = pathlib.Path(os.environ["FLIGHTLOG_HOME"]).parent
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 8)
    artifact = flightlog.Artifact("weights", type="model", metadata={"layers": 2})
    artifact.add_file(str(folder / "weights.bin"))
    run.log_artifact(artifact, aliases=["best"])
    run.log_image("pred", __import__("numpy").zeros((4, 4, 3), "uint8"), step=3)
    run.log_config(args={"epochs": 3})
run.alert("done", "a text")
run.finish()
"""
# One that is killed when there is no daemon: its spool stays.
SECOND = """
import os, flightlog
run = flightlog.init(entity="ann", project="mnist", id="second", config={"lr": 1})
for n in range(50):
    run.log({"loss": n / 2})
os.kill(os.getpid(), 9)
"""
# One whose conversation with the daemon is recorded.
THIRD = """
import flightlog
run = flightlog.init(entity="ann", project="mnist", id="third", config={"lr": 2})
for n in range(30):
    run.log({"loss": n / 4})
run.finish()
"""
COMMAND_LINE = "from flightlog.cli import main; main()"
# What else may be asked: how it is, and by a writer of a protocol that is not known.
QUESTIONS = """
import sys
from base64 import b64encode
from flightlog_storage.protocol import PROTOCOL_VERSION, Hello, StatusRequest, encode
for question in (StatusRequest(), Hello(bytes(16), protocol=PROTOCOL_VERSION + 1)):
    print(b64encode(encode(question)).decode())
"""


class Version:
    """A version of flightlog, and the home that it writes."""

    def __init__(self, code: Path, home: Path) -> None:
        self.home = home
        self._socket = home.parent / "daemon.sock"
        paths = os.pathsep.join(
            str(code / part) for part in ("sdk", "storage", "daemon")
        )
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "FLIGHTLOG_HOME": str(home),
            "FLIGHTLOG_SOCKET": str(self._socket),
            "FLIGHTLOG_QUIET": "1",
            "FLIGHTLOG_SYSTEM_INTERVAL_S": "0",
            "PYTHONPATH": paths,
        }

    def run(self, *arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode in (0, -signal.SIGKILL), arguments
        return done.stdout

    def daemon(self, *arguments: str) -> None:
        self.run("-m", "flightlogd", *arguments)

    def end(self) -> None:
        """End all daemons, also those that are only just being started."""
        while found := [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.home) in (process.info["cmdline"] or ())
        ]:
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    @contextmanager
    def without_daemon(self) -> Iterator[None]:
        """Have no daemon be started meanwhile."""
        with open(self.home / "daemon.lock", "r+b") as lock:
            flock(lock, LOCK_EX)
            yield

    @contextmanager
    def overheard(self) -> Iterator[Said]:
        """Record what is said to the daemon, and what it answers."""
        said: Said = []
        beside = self._socket.with_name("proxy1.sock")
        lock = self.home / "daemon.lock"
        told = lock.read_bytes()
        lock.write_bytes(told.replace(str(self._socket).encode(), str(beside).encode()))
        over = threading.Event()
        with zmq.Context() as context:
            front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
            front.bind(f"ipc://{beside}")
            back.connect(f"ipc://{self._socket}")
            thread = threading.Thread(target=_relay, args=(front, back, said, over))
            thread.start()
            try:
                yield said
            finally:
                lock.write_bytes(told)
                over.set()
                thread.join()

    def ask(self) -> Said:
        said = []
        for line in self.run("-c", QUESTIONS).splitlines():
            question = [b64decode(line)]
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.connect(f"ipc://{self._socket}")
                socket.send_multipart(question)
                assert socket.poll(int(TIMEOUT_S * 1000))
                said += [("writer", question), ("daemon", socket.recv_multipart())]
        return said


def _relay(
    front: "zmq.Socket[bytes]",
    back: "zmq.Socket[bytes]",
    said: Said,
    over: threading.Event,
) -> None:
    """Pass on what the one writer and the daemon say, and note it."""
    peer = b""
    with front, back:
        while not over.is_set():
            if front.poll(20):
                peer, *parts = front.recv_multipart()
                said.append(("writer", parts))
                back.send_multipart(parts)
            if back.poll(20):
                parts = back.recv_multipart()
                said.append(("daemon", parts))
                front.send_multipart([peer, *parts])


def main(name: str, commit: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(code), commit], check=True)
        version = Version(code, Path(folder) / "home")
        try:
            _make(name, version)
        finally:
            version.end()
            subprocess.run([*git, "remove", "--force", str(code)], check=True)


def _make(name: str, version: Version) -> None:
    version.daemon("start")
    version.run("-c", ELSEWHERE + FIRST)
    if _has(version, b"jobs"):
        version.run("-c", COMMAND_LINE, "jobs", "--wait")
    with version.overheard() as said:
        version.run("-c", ELSEWHERE + THIRD)
    said += version.ask()
    if _has(version, b"export"):
        to = version.home.parent / "export.zip"
        version.run("-c", COMMAND_LINE, "export", "first", "--to", str(to))
        (HERE / f"{name}.export.zip").write_bytes(to.read_bytes())
    version.daemon("stop")
    with version.without_daemon():
        version.run("-c", ELSEWHERE + SECOND)
        found = version.run(str(HERE / "contents.py"), str(version.home))
        (HERE / f"{name}.json").write_bytes(found + b"\n")
        _pack(version.home, HERE / f"{name}.tar.xz")
    wire = [[who, [b64encode(part).decode() for part in parts]] for who, parts in said]
    (HERE / f"{name}.wire.json").write_text(json.dumps(wire, indent=1) + "\n")


def _has(version: Version, command: bytes) -> bool:
    return command in version.run("-c", COMMAND_LINE, "--help")


def _pack(home: Path, archive: Path) -> None:
    """Pack what a home holds but what its processes said of themselves."""
    for owner in home.glob("spool/*/owner"):  # As if the machine had started anew.
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        owner.write_bytes(owner.read_bytes().replace(boot, b"0" * len(boot)))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as tar:
        for path in sorted(home.rglob("*")):
            if path.is_file() and path.name not in ("daemon.lock", "daemon.log"):
                tar.add(path, path.relative_to(home), recursive=False)
    archive.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
