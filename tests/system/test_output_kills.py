"""Outputs that are watched while trainer, worker and recorder are killed."""

import hashlib
import os
import random
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.system.harness import (
    environment,
    kill_all,
    kill_daemon,
    make_home,
    run_state,
    start_daemon,
    wait_until,
    worker_pid,
)

from flightlog_storage.assets import Asset
from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.home import Home
from flightlog_storage.manifest import decode_manifest

# Writes checkpoints of 1 MB, each whole at once, folders, and a log; to be killed.
TRAINER = """
import os, sys, pathlib, flightlog
out = pathlib.Path(sys.argv[1])
run = flightlog.init(
    entity="someone", project="project", id="run", workspace_root=out.parent
)
run.watch_outputs(
    output_dirs=[out], patterns=["*.pt", "*.log", "ck-*/"], interval_sec=0.05,
    min_age_sec=0, mode="versions", log_snapshot_interval_sec=0,
)
run.flush(60)
print("ready", flush=True)
for n in range(10**9):
    part = out / "part"
    part.write_bytes(b"%08d" % n * (1 << 17))
    os.replace(part, out / f"{n % 3}.pt")
    folder = out / f"ck-{n % 2}"
    folder.mkdir(exist_ok=True)
    (folder / "model").write_bytes(b"%d" % n)
    with open(out / "train.log", "a") as file:
        file.write(f"{n}\\n")
    run.log({"n": n})
"""


def outputs(home: Home) -> list[Asset]:
    state = run_state(home)
    return [] if state is None else list(state.assets.values())


def assert_is_whole(store: BlobStore, asset: Asset) -> None:
    if asset.manifest is None:
        assert check_blob(store, asset.blob or "", asset.size or 0, full=True) is None
        return
    with store.open_verified(asset.manifest) as file:
        for entry in decode_manifest(file.read()):
            assert check_blob(store, entry.blob or "", entry.size, full=True) is None


@pytest.mark.parametrize("seed", range(tries(3)))
def test_whoever_is_killed_the_last_of_all_outputs_is_kept_and_none_twice(
    tmp_path: Path, seed: int
) -> None:
    home, out = make_home(tmp_path), tmp_path / "work" / "out"
    out.mkdir(parents=True)

    train_and_kill(home, out, random.Random(seed))

    state = run_state(home)
    assert state is not None
    assert (state.state, state.lost_count) == ("crashed", 0)
    for path in (*out.glob("*.pt"), out / "train.log"):
        last = state.last_outputs[f"out/{path.name}"]
        assert last.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    for folder in out.glob("ck-*"):
        assert state.last_outputs[f"out/{folder.name}"].size == sum(
            path.stat().st_size for path in folder.iterdir()
        )
    store = BlobStore(home.blobs)
    before: dict[str, object] = {}
    for asset in state.assets.values():
        assert_is_whole(store, asset)
        assert before.get(asset.path or "") != asset.fingerprint
        before[asset.path or ""] = asset.fingerprint


def train_and_kill(home: Home, out: Path, chance: random.Random) -> None:
    """Kill the worker, the recorder, the trainer; return when all is looked through."""
    daemon = start_daemon(home)
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(out)],
        env=environment(home),
        stdout=subprocess.PIPE,
    )
    try:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"ready\n"
        wait_until(lambda: outputs(home))
        for _ in range(3):
            pause(chance, 0.5)
            with suppress(ProcessLookupError):
                os.kill(worker_pid(home), signal.SIGKILL)
                count("kills")
        kill_daemon(daemon)
        pause(chance, 0.3)
        daemon = start_daemon(home)
        pause(chance, 0.5)
        trainer.kill()
        pause(chance, 0.3)
        os.kill(worker_pid(home), signal.SIGKILL)
        count("kills", 5)  # The recorder with its children, the trainer, the worker.
        wait_until(lambda: (state := run_state(home)) and not state.watches)
    finally:
        trainer.kill()
        trainer.communicate()
        kill_daemon(daemon)
        kill_all(home)


def pause(chance: random.Random, longest_s: float) -> None:
    select.select([], [], [], chance.uniform(0, longest_s))
