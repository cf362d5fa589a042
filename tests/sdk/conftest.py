"""What the SDK's tests share: homes with real daemons, and real programs."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.storage.recording import Recorded
from tests.system.harness import WAIT_TIMEOUT_S, kill_all, wait_until

import flightlog
from flightlog.apis.public import Run
from flightlog_storage.home import Home
from flightlog_storage.runstate import RunState

ROOT = Path(__file__).parent.parent.parent
SEEN_WITHIN_S = 5.0  # How soon the end of a process must be known.
PREFIXES = ("FLIGHTLOG_", "RANK", "SLURM_", "OMPI_", "PMI_", "PBS_", "LSB_", "MASTER_")


def clean_environment() -> dict[str, str]:
    found = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((*PREFIXES, "TORCHELASTIC_", "XDG_RUNTIME"))
    }
    paths = [str(ROOT / part) for part in ("sdk", "storage", "daemon")]
    return {
        **found,
        "FLIGHTLOG_QUIET": "1",
        "FLIGHTLOG_ENTITY": "someone",
        "PYTHONPATH": os.pathsep.join(paths),
    }


class Lab:
    """A home, and programs that log into it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {**clean_environment(), "FLIGHTLOG_HOME": str(home)}

    def start(self, code: str, **environ: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def execute(self, code: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end, whatever that is."""
        process = self.start(code, **environ)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess("", process.returncode, out, err)

    def run_script(self, code: str, **environ: str) -> str:
        """Run a program that must end well; return what it printed."""
        done = self.execute(code, **environ)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def wait_unreaped(self, process: "subprocess.Popen[str]") -> None:
        """Wait for a program's end and leave its exit status to be seen by others."""
        wait_until(
            lambda: (
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                is not None
            )
        )

    def find(self, run: str, project: str = "uncategorized") -> Run:
        return flightlog.Api(home=self.home).run(f"someone/{project}/{run}")

    def ended(
        self,
        run: str,
        timeout_s: float = WAIT_TIMEOUT_S,
        project: str = "uncategorized",
    ) -> Run:
        """Return a run once nobody writes it any more."""
        found: list[Run] = []

        def has_ended() -> bool:
            try:
                found[:] = [self.find(run, project)]
            except flightlog.NotFoundError:
                return False
            return found[0].state not in ("running", "preempting", "pending")

        wait_until(has_ended, timeout_s)
        return found[0]

    def serve(self, **environ: str) -> None:
        """Have a daemon, also where a program was killed before it had started one."""
        self._control("start", **environ)

    def stop(self) -> None:
        self._control("stop")

    def _control(self, command: str, **environ: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "flightlogd", command, "--home", str(self.home)],
            env={**self.environ, **environ},
            check=False,
            capture_output=True,
            timeout=60,
        )

    def close(self) -> None:
        """Leave no daemon behind, also none that a program has only just started."""
        self.stop()
        kill_all(Home(self.home))
        if (told := self.home / "daemon.log").exists():
            sys.stdout.write(told.read_text())  # Shown where a test failed.


def state_of(run: Run) -> RunState:
    """Return all that is folded of a run."""
    state = run.client.reader.state((run.entity, run.project, run.id))
    assert state is not None
    return state


def wait_done(run: Run) -> None:
    """Wait until nothing is owed of a run's assets."""
    wait_until(lambda: not any(a.job for a in state_of(run).assets.values()))


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files of a folder, and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def rows_of(run: Run, *keys: str) -> list[tuple[object, ...]]:
    """Return (step, value, …) of the rows that have all of the keys."""
    return [
        tuple(row[key] for key in ("_step", *keys))
        for row in run.scan_history(keys=list(keys))
    ]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith((*PREFIXES, "TORCHELASTIC_", "XDG_RUNTIME")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLIGHTLOG_QUIET", "1")
    monkeypatch.setenv("FLIGHTLOG_ENTITY", "someone")
    yield
    flightlog.finish()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A home and its daemon that the tests of a module share."""
    made = Lab(tmp_path_factory.mktemp("lab") / "home")
    yield made
    made.close()


@pytest.fixture
def home(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab's home, as this process's own."""
    monkeypatch.setenv("FLIGHTLOG_HOME", str(lab.home))
    return lab.home


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """A home of this test alone, whose log it fills itself."""
    return Recorded(tmp_path)


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[Lab]:
    """A home of this test alone."""
    made = Lab(tmp_path / "home")
    yield made
    made.close()
