"""Outputs and watches of a run: the same before and after the fold, and replayed."""

from typing import Any

import pytest
from tests.storage.recording import Recorded, Settle
from tests.storage.test_editors import edit, found

from flightlog_storage.blobs import BlobStore
from flightlog_storage.database import Database
from flightlog_storage.event import (
    Looking,
    OutputArchived,
    OutputsWatchStarted,
    OutputsWatchStopped,
    RunDeleted,
    WriterLost,
)
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.reader import HomeReader
from flightlog_storage.watches import OpenWatch, Watch

LOOKING = Looking(dirs=["/out"], root="/", patterns=["*.pt", "é/"], min_age_s=0.5)


def archived(
    content: str, looked_ns: int, key: str = "out/a.pt", **rest: Any
) -> OutputArchived:
    fields: dict[str, Any] = {"mode": "rolling", "boot": "b"} | rest
    return OutputArchived(
        time=float(looked_ns),
        key=key,
        fingerprint=content,
        size=1,
        seen=f"seen {content}",
        looked_ns=looked_ns,
        blob=content * 64,
        **fields,
    )


def versions(recorded: Recorded) -> list[tuple[str, Any]]:
    return [(a.path or "", a.fingerprint) for a in found(recorded).assets.values()]


def test_rolling_replaces_an_output_in_its_place(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("a", 1))
    recorded.tell(writer, archived("b", 2, "/else/b.pt"))
    settle()
    recorded.tell(writer, archived("c", 3))
    settle()

    first, second = found(recorded).assets.values()

    assert (first.kind, first.name, first.path) == ("output", "a.pt", "./out/a.pt")
    assert (first.fingerprint, first.logged_at, first.size) == ("c", 3.0, 1)
    assert (second.name, second.path, second.fingerprint) == (
        "b.pt",
        "/else/b.pt",
        "b",
    )


def test_versions_are_one_a_change(recorded: Recorded, settle: Settle) -> None:
    writer = recorded.start("r")
    for looked_ns, content in enumerate("aabbba"):
        recorded.tell(writer, archived(content, looked_ns, mode="overwrite_versions"))
        settle_once = looked_ns == 2
        if settle_once:
            settle()
    settle()

    assert [content for _, content in versions(recorded)] == ["a", "b", "a"]


@pytest.mark.parametrize("mode", ["rolling", "overwrite_versions"])
def test_what_two_say_has_its_effect_once(
    recorded: Recorded, settle: Settle, mode: str
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("a", 2, mode=mode))
    settle()
    edit(recorded, "r", archived("a", 1, mode=mode), archived("a", 3, mode=mode))
    settle()

    (asset,) = found(recorded).assets.values()
    assert asset.logged_at == 2.0


def test_what_is_told_late_does_not_replace_what_is_newer(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("new", 2))
    settle()
    edit(recorded, "r", archived("old", 1))
    settle()

    assert versions(recorded) == [("./out/a.pt", "new")]


def test_a_version_that_is_told_late_is_kept_and_is_not_the_last(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("b", 2, mode="overwrite_versions"))
    edit(recorded, "r", archived("a", 1, mode="overwrite_versions"))
    settle()
    edit(recorded, "r", archived("b", 3, mode="overwrite_versions"), name="again")
    edit(recorded, "r", archived("a", 4, mode="overwrite_versions"), name="and")
    settle()

    assert [content for _, content in versions(recorded)] == ["b", "a", "a"]


def test_after_a_restart_of_the_machine_its_clock_begins_anew(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("old", 900))
    settle()
    recorded.tell(writer, archived("new", 1, boot="c"))
    settle()

    assert versions(recorded) == [("./out/a.pt", "new")]


def test_another_mode_of_what_did_not_change_adds_nothing(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, archived("a", 1))
    recorded.tell(writer, archived("a", 2, mode="overwrite_versions"))
    settle()
    recorded.tell(writer, archived("b", 3, mode="overwrite_versions"))
    settle()

    assert [content for _, content in versions(recorded)] == ["a", "b"]


def test_the_last_of_an_output_is_found_by_its_key(recorded: Recorded) -> None:
    writer = recorded.start("r")
    for looked_ns, content in enumerate("abc"):
        recorded.tell(writer, archived(content, looked_ns, mode="overwrite_versions"))
    edit(recorded, "r", archived("late", 1, mode="overwrite_versions"))
    other = recorded.start("s", "v")
    recorded.tell(other, archived("other", 9))
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        last = database.last_output(("e", "p", "r"), "out/a.pt")
        none = database.last_output(("e", "p", "r"), "out/b.pt")

    assert last is not None
    assert last.fingerprint == "c"
    assert none is None


def test_every_revision_needs_its_blob(recorded: Recorded, settle: Settle) -> None:
    writer = recorded.start("r")
    for looked_ns, content in enumerate("abc"):
        recorded.tell(writer, archived(content, looked_ns, mode="overwrite_versions"))
    recorded.tell(writer, archived("d", 9, "rolling.pt"))
    settle()
    recorded.tell(writer, archived("e", 10, "rolling.pt"))
    settle()

    store = BlobStore(recorded.home.blobs)
    needed = HomeReader(recorded.home).look(
        lambda database, folding: [*named_blobs(database, folding, store)]
    )

    assert [blob.sha256[0] for blob in needed] == ["a", "b", "c", "e"]


# --- watches ---


def watched(token: str = "t") -> OutputsWatchStarted:
    return OutputsWatchStarted(time=2.0, token=token, interval_s=9.0, looking=LOOKING)


def open_watches(recorded: Recorded) -> list[OpenWatch]:
    recorded.fold()
    with Database.open_reader(recorded.home.state) as database:
        return [watch for _, watch in database.open_watches(9)]


def test_a_watch_is_open_until_it_is_stopped(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, watched("t"))
    recorded.tell(writer, watched("u"))
    settle()
    assert found(recorded).watches["t"] == Watch("t", writer, 9.0, LOOKING)
    recorded.tell(writer, OutputsWatchStopped(time=3.0, token="t"))
    recorded.tell(writer, OutputsWatchStopped(time=3.0, token="unknown", failed=9))
    settle()

    assert list(found(recorded).watches) == ["u"]
    assert found(recorded).lost_count == 0


def test_what_a_watch_could_not_archive_is_lost(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), watched())
    settle()
    edit(recorded, "r", *[OutputsWatchStopped(time=3.0, token="t", failed=2)] * 2)
    settle()

    assert found(recorded).lost_count == 2


def test_a_watch_is_over_when_its_writer_has_ended(recorded: Recorded) -> None:
    ranks = [recorded.start("r", str(rank), rank) for rank in range(3)]
    for rank, writer in enumerate(ranks):
        recorded.tell(writer, watched(str(rank)))
    recorded.finish(ranks[0])
    recorded.tell(ranks[1], WriterLost(time=3.0, reason="killed", signal=9))

    watches = open_watches(recorded)

    assert [(each.token, each.is_over) for each in watches] == [
        ("0", True),
        ("1", True),
        ("2", False),
    ]
    assert watches[0].watch.looking == LOOKING


def test_a_deleted_run_has_no_watch_and_no_outputs(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, watched())
    recorded.tell(writer, archived("a", 1))
    settle()
    edit(recorded, "r", RunDeleted(time=3.0))
    recorded.tell(writer, watched("late"))
    recorded.tell(writer, archived("b", 2))
    settle()
    recorded.start("r", "again")
    settle()

    assert (found(recorded).watches, found(recorded).assets) == ({}, {})
    assert found(recorded).last_outputs == {}
    assert open_watches(recorded) == []
