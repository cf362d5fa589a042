"""What lies still is read again by the daemon: damage is found, parts are mended."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.sdk.test_doctor import examine
from tests.storage.recording import Recorded, flip, rows_of
from tests.system.harness import daemon, status, wait_until

from flightlog_storage import projector
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import stage_bytes
from flightlog_storage.database import Database, SavedPart
from flightlog_storage.event import FileSaved
from flightlog_storage.home import Home
from flightlog_storage.projector import Projector, part_folder
from flightlog_storage.scrub import scrub
from flightlog_storage.scrubbing import Scrubbing, read_scrubbing, write_scrubbing
from flightlog_storage.staging import staging_folder
from flightlogd.scrubber import Scrubber

pytestmark = pytest.mark.once

OFTEN = {"FLIGHTLOG_SCRUB_INTERVAL_S": "0.1"}
ROWS = [(n, n / 2) for n in range(20)]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """A home with a part, a blob and several segments, all of it folded."""
    recorded = Recorded(tmp_path, segment_size_max=600)
    other = recorded.start("other", "o")
    writer = recorded.start("r")
    for n in range(0, len(ROWS), 5):
        recorded.rows(writer, *ROWS[n : n + 5])
        recorded.rows(other, (n, -1.0))
    store = BlobStore(recorded.home.blobs)
    staged = stage_bytes(b"kept", staging_folder(recorded.home.staging))
    store.keep(staged)
    found = staged.digests
    saved = FileSaved(
        time=3.0, name="x", blob=found.sha256, digest=found.md5, size=found.size
    )
    recorded.tell(writer, saved)
    recorded.finish(writer)
    recorded.finish(other)
    recorded.log.close()
    recorded.fold()
    return recorded


def parts(home: Home) -> list[SavedPart]:
    with Database.open_reader(home.state) as database:
        return database.parts()


def part_path(home: Home, part: SavedPart) -> Path:
    return part_folder(home, part.run) / part.name


def damaged(home: Home) -> list[str]:
    found = read_scrubbing(home.scrubbing)
    return [] if found is None else found.damaged


def test_what_is_sound_is_read_and_nothing_is_said(recorded: Recorded) -> None:
    read: list[int] = []

    found = [*scrub(recorded.home, "", read.append)]

    assert [each.what for each in found] == [None] * len(found)
    home = recorded.home
    blobs = sum(path.stat().st_size for path in home.blobs.glob("*/*"))
    history = sum(part.size for part in parts(home))
    *segments, _ = (path.stat().st_size for path in sorted(home.log.iterdir()))
    names = [each.name for each in found]
    assert names == sorted(names)
    assert len(names) == 1 + len(parts(home)) + len(segments)
    assert blobs + history < sum(read) <= blobs + history + sum(segments)


def test_a_pass_goes_on_behind_any_file(recorded: Recorded) -> None:
    names = [each.name for each in scrub(recorded.home, "", int)]

    for place, name in enumerate(names):
        rest = [each.name for each in scrub(recorded.home, name, int)]
        assert rest == names[place + 1 :]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_damaged_part_is_made_anew_while_the_daemon_runs(
    recorded: Recorded, is_gone: bool
) -> None:
    home = recorded.home
    for part in parts(home):
        path = part_path(home, part)
        if is_gone:
            path.unlink()
        else:
            flip(path, part.size // 2)

    with daemon(home, environ=OFTEN):
        wait_until(
            lambda: (
                home.daemon_log.read_text().count("made anew from the log")
                == len(parts(home))
            )
        )
        assert status(home)["scrub_damages"] == 0

    assert rows_of(home, "r") == ROWS
    assert not [e for e in examine(home, "--full")["findings"] if "part" in e["where"]]


def test_a_merged_part_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "TAIL_FRAMES_MAX", 1)
    recorded = Recorded(tmp_path, segment_size_max=600)
    home, writer = recorded.home, recorded.start("r")
    for row in ROWS:
        recorded.rows(writer, row)
    with closing(Projector(home)) as folder:
        while folder.project(recorded.log.durable):
            pass
        assert {part.level for part in parts(home)} == {0, 1}
        for part in parts(home):
            flip(part_path(home, part), part.size // 2)

            assert folder.mend(part)

        recorded.rows(writer, (100, 1.0))
        while folder.project(recorded.log.durable):
            pass

    assert rows_of(home, "r") == [*ROWS, (100, 1.0)]
    assert [each.what for each in scrub(home, "", int) if each.what] == []


def test_a_part_whose_events_are_lost_is_not_replaced(recorded: Recorded) -> None:
    home = recorded.home
    saved = {part_path(home, part): part for part in parts(home)}
    before = {path: path.read_bytes() for path in saved}
    sorted(home.log.iterdir())[1].unlink()

    with closing(Projector(home)) as projector:
        mended = [projector.mend(part) for part in saved.values()]

    assert False in mended
    assert {path: path.read_bytes() for path in saved} == before


def wrong_blob(home: Home) -> str:
    (blob,) = home.blobs.glob("*/*")
    blob.write_bytes(b"rot!")
    return f"blobs/{blob.parent.name}/{blob.name}"


def wrong_segment(home: Home) -> str:
    segment = sorted(home.log.iterdir())[0]
    flip(segment, 200)
    return f"log/{segment.name}"


@pytest.mark.parametrize("damage", [wrong_blob, wrong_segment])
def test_what_cannot_be_mended_is_told(
    recorded: Recorded, damage: Callable[[Home], str]
) -> None:
    home = recorded.home
    name = damage(home)

    with daemon(home, environ=OFTEN):
        wait_until(lambda: name in damaged(home))
        wait_until(lambda: status(home)["scrub_damages"] == 1)
        assert f"{name}: " in home.daemon_log.read_text()

    found = [e for e in examine(home)["findings"] if e["where"].startswith(name)]
    assert [each["level"] for each in found] == ["to do"]


def test_what_is_damaged_stays_told_until_it_is_read_again(recorded: Recorded) -> None:
    home = recorded.home
    blob = home.root / (name := wrong_blob(home))
    gone = f"blobs/00/{'0' * 64}"
    before = Scrubbing(began_at=1.0, ended_at=2.0, damaged=[name, gone])
    write_scrubbing(home.scrubbing, before)
    told: list[set[str]] = []

    class Watched(Scrubber):
        def _pace(self, size: int) -> None:
            found = read_scrubbing(home.scrubbing)
            told.append(set() if found is None else {*found.known})

    scrubber = Watched(home, 1.0, lambda part: False)
    scrubber.scrub()
    assert told[0] == told[-1] == {name, gone}
    assert damaged(home) == [name]

    blob.write_bytes(b"kept")
    write_scrubbing(home.scrubbing, before)
    scrubber.scrub()
    found = read_scrubbing(home.scrubbing)
    assert found is not None
    assert found.known == []


def test_a_pipe_among_blobs_is_not_waited_for(recorded: Recorded) -> None:
    folder = recorded.home.blobs / "ab"
    folder.mkdir()
    os.mkfifo(folder / ("ab" * 32))

    found = {each.name: each.what for each in scrub(recorded.home, "", int)}

    assert found[f"blobs/ab/{'ab' * 32}"] == "it cannot be read: it is no regular file"


def test_a_pass_is_made_when_the_last_is_long_ago(recorded: Recorded) -> None:
    home = recorded.home
    with daemon(home, environ=OFTEN):
        first = wait_until(lambda: ended_at(home))
        assert wait_until(lambda: ended_at(home) > first)


def ended_at(home: Home) -> float:
    found = read_scrubbing(home.scrubbing)
    return 0.0 if found is None else found.ended_at
