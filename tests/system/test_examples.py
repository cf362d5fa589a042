"""The examples run as a newcomer runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.harness import flightlogd

import flightlog
from flightlog_storage.home import Home

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert flightlogd(Home(tmp_path / "home"), "stop").returncode == 0


def run_example(name: str, home: Path, work: Path | None = None) -> str:
    """Run an example as a newcomer does, in a folder of its own; return its output."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True,
        text=True,
        env=os.environ | {"FLIGHTLOG_HOME": str(home)},
        cwd=work or home.parent,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_digits_is_logged_and_read_back(home: Path) -> None:
    pytest.importorskip("sklearn")

    printed = run_example("digits.py", home)

    (run,) = flightlog.Api(home=home).runs()
    assert (run.state, run.lastHistoryStep) == ("finished", 299)
    assert len(list(run.scan_history())) == 300
    rows = re.findall(r"(?m)^ +\d+( +\d+\.\d{4}){4}$", printed)
    assert len(rows) == 10
    assert str(home) in printed
    assert run.summary["val/accuracy"] > 0.9


def test_a_sweep_is_compared(home: Path) -> None:
    printed = run_example("sweep.py", home)

    runs = flightlog.Api(home=home).runs("sweep")
    diverged = [run for run in runs if run.tags == ["diverged"]]
    assert len(runs) == 50
    assert 0 < len(diverged) < 50
    assert f"{50 - len(diverged)} runs did not diverge" in printed
    assert re.search(
        r"(?m)^  [a-z]+-[a-z]+-\d+ +lr \d\.\d+, batch \d+ +0\.\d+$", printed
    )
    assert (home.parent / "best-checkpoint/weights.npy").exists()


def test_what_a_training_writes_is_kept_with_its_code(home: Path) -> None:
    work = home.parent / "work"
    work.mkdir()
    (work / "train.py").write_text("# The code.\n")

    printed = run_example("watched_outputs.py", home, work)

    (run,) = flightlog.Api(home=home).runs()
    assert (run.project, run.state) == ("cv/resnet50/long-run", "finished")
    assert run.assets.code is not None
    kept = {output.name: output for output in run.assets.outputs}
    names = ["epoch-0.pt", "epoch-1.pt", "epoch-2.pt", "summary.json"]
    assert sorted(kept) == names
    for name in names:
        (path,) = work.rglob(name)
        with kept[name].open() as file:
            assert file.read() == path.read_bytes()
    assert len(printed.splitlines()) == 4


def test_a_dataset_and_a_model_are_referred_to(home: Path) -> None:
    work = home.parent / "work"
    work.mkdir()

    printed = run_example("dataset_reference.py", home, work)

    (run,) = flightlog.Api(home=home).runs()
    (dataset,), (model,) = run.assets.datasets, run.assets.pretrained
    assert dataset.uri == str(work / "data" / "train")
    assert dataset.fingerprint["file_count"] == 3
    assert (model.uri, model.source_type) == ("bert-base-uncased", "huggingface")
    assert "pretrained bert-base-uncased" in printed
