"""Garbage collected while real processes store, delete and are killed."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.counts import count
from tests.effort import tries
from tests.system.harness import (
    daemon,
    environment,
    kill_all,
    make_home,
    status,
    wait_until,
)

from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.garbage import find_garbage
from flightlog_storage.home import Home
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.projector import Projector
from flightlog_storage.reader import HomeReader

pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-c", "from flightlog.cli import main; main()"]
# Stores a few contents again and again, each in place of another: so each becomes
# garbage and is wanted again all the time. What names it lies in a spool.
STORER = """
import os, random, select, sys
from pathlib import Path
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import stage_bytes
from flightlog_storage.codec import RunKey, encode_event
from flightlog_storage.event import FileSaved, RunStarted
from flightlog_storage.home import Home
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_writer import SpoolWriter
from flightlog_storage.staging import staging_folder

home, name, count = Home(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
owner = SpoolOwner(os.urandom(16), this_process(), RunKey("e", "p", name, 0))
writer = SpoolWriter(home.spool, owner, lambda: None)
start = RunStarted(time=1.0, entity="e", project="p", run=name, rank=0)
writer.put(encode_event(start))
store, chance = BlobStore(home.blobs), random.Random(name)
found = None

def dawdle():
    select.select([], [], [], chance.random() * 0.02)

for number in range(count):
    staged = stage_bytes(b"%d" % chance.randrange(6), staging_folder(home.staging))
    dawdle()
    with store.holding():
        assert found is None or store.path(found.sha256).exists(), "it was named"
        found = staged.digests
        store.keep(staged)
        dawdle()
        event = FileSaved(
            time=1.0, name="x", blob=found.sha256, digest=found.md5, size=found.size
        )
        writer.put(encode_event(event))
    dawdle()
"""

# Collects until it is told to end; says how many blobs it deleted.
COLLECTOR = """
import select, sys
from pathlib import Path
from flightlog_storage.garbage import collect, find_garbage
from flightlog_storage.home import Home

home, deleted = Home(Path(sys.argv[1])), 0
while not select.select([sys.stdin], [], [], 0)[0]:
    deleted += collect(find_garbage(home, 0.0)).count
print(deleted)
"""

# Logs artifacts, files, images and datasets whose contents repeat, and says which
# artifacts are durable.
TRAINER = """
import random, sys
from pathlib import Path
import flightlog

folder, name = Path(sys.argv[1]), sys.argv[2]
chance = random.Random(name)
with flightlog.init(entity="e", project="p", id=name) as run:
    for number in range(30):
        path = folder / f"{name}-{number % 3}"
        path.write_bytes(b"%d" % chance.randrange(8) * 100)
        run.save(str(path), base_path=str(folder), policy="now")
        run.log_image("image", path)
        if number % 5 == 0:
            run.log_dataset(f"data {number}", folder / "data", save=True)
        artifact = flightlog.Artifact(f"{name}-{number}", "model")
        artifact.add_file(str(path))
        run.log_artifact(artifact).wait()
        print(f"{name}-{number}:v0", flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    yield home
    kill_all(home)


def started(home: Home, code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def named(home: Home) -> set[tuple[str, int]]:
    """Return the blobs that anything names."""
    store = BlobStore(home.blobs)
    return HomeReader(home).look(
        lambda database, folding: {
            (each.sha256, each.size) for each in named_blobs(database, folding, store)
        }
    )


def stored(home: Home) -> set[str]:
    return {path.name for path in home.blobs.glob("*/*")}


def assert_all_there(home: Home) -> None:
    store = BlobStore(home.blobs)
    bad = {
        blob: what
        for blob in named(home)
        if (what := check_blob(store, *blob, full=True))
    }
    assert bad == {}


def test_those_who_store_and_who_deletes_do_not_meet(home: Home) -> None:
    Projector(home).close()  # Makes an empty state.db.
    storers = [
        started(home, STORER, str(home.root), f"storer-{n}", "100") for n in range(3)
    ]
    collectors = [started(home, COLLECTOR, str(home.root)) for _ in range(2)]

    for storer in storers:
        _, errors = storer.communicate(timeout=120)
        assert (storer.returncode, errors) == (0, "")
    deleted = 0
    for collector in collectors:
        output, errors = collector.communicate("end\n", timeout=120)
        assert (collector.returncode, errors) == (0, "")
        deleted += int(output)

    assert deleted > 0, "they never met"
    assert_all_there(home)
    assert stored(home) <= {b for b, _ in named(home)} | garbage(home)


def garbage(home: Home) -> set[str]:
    return {item.path.name for item in find_garbage(home, 0.0).blobs}


def call(home: Home, *arguments: str) -> dict[str, Any]:
    """Return the data that a command prints as JSON."""
    done = subprocess.run(
        [*COMMAND, *arguments, "--json"],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    return data


class Collecting:
    """A process that collects meanwhile, and another after it was killed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process = started(home, COLLECTOR, str(home.root))

    def kill(self) -> None:
        self._process.kill()
        count("kills")
        self._process.communicate()
        self._process = started(self._home, COLLECTOR, str(self._home.root))

    def end(self) -> None:
        _, errors = self._process.communicate("end\n", timeout=120)
        assert (self._process.returncode, errors) == (0, "")


def kill_worker(home: Home) -> None:
    with suppress(psutil.NoSuchProcess):
        pid = wait_until(lambda: status(home)["worker_pid"])  # None is this process.
        psutil.Process(pid).kill()
        count("kills")


@pytest.mark.fault(54)
@pytest.mark.parametrize("seed", range(tries(2)))
def test_kills_at_any_moment_lose_nothing_and_leave_nothing(
    home: Home, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    for number in range(8):
        (folder / "data" / str(number)).write_bytes(b"%d" % number * 100)

    with daemon(home):
        collecting = Collecting(home)
        trainers = [started(home, TRAINER, str(folder), f"t{n}") for n in range(3)]
        harms: tuple[Callable[[], object], ...] = (
            trainers[0].kill,
            collecting.kill,
            partial(kill_worker, home),
            partial(delete, home, "t1"),
        )
        for harm in chance.sample(harms * 2, 6):
            least = chance.randrange(3, 7)
            wait_until(partial(has_blobs, home, least))
            harm()
        said = [trainer.communicate(timeout=180)[0] for trainer in trainers]
        wait_until(lambda: is_quiet(home))
        collecting.end()

    durable = "".join(said).split()
    assert sum(name.startswith("t2-") for name in durable) == 30, "nobody harmed it"
    assert call(home, "verify", "--full")["problems"] == []
    assert_all_there(home)
    assert_can_be_had(home, durable)
    call(home, "gc", "--grace", "0s")
    assert stored(home) == {sha256 for sha256, _ in named(home)}
    assert not any(home.inbox.iterdir())
    assert call(home, "gc", "--grace", "0s")["count"] == 0


def has_blobs(home: Home, count: int) -> bool:
    return len(stored(home)) >= count


def delete(home: Home, run: str) -> None:
    code = f"import flightlog; flightlog.Api().run('e/p/{run}').delete()"
    process = started(home, code)
    process.communicate(timeout=60)  # It may not be there yet.


def is_quiet(home: Home) -> bool:
    states = HomeReader(home).states()
    return not any(home.spool.iterdir()) and not any(
        state.owed or any(asset.job for asset in state.assets.values())
        for state in states
    )


def assert_can_be_had(home: Home, versions: list[str]) -> None:
    code = (
        "import flightlog, sys, tempfile\n"
        "for name in sys.argv[1:]:\n"
        "    flightlog.Api().artifact(name).download(tempfile.mkdtemp())"
    )
    process = started(home, code, *(f"e/p/{version}" for version in versions))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
