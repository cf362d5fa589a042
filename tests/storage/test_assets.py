"""Assets of a run: the same before and after the fold, and replayed."""

from tests.storage.recording import Recorded, Settle
from tests.storage.test_editors import edit, found

from flightlog_storage.assets import Asset
from flightlog_storage.database import Database
from flightlog_storage.event import (
    AssetCompleted,
    AssetFailed,
    AssetLogged,
    ConfigLogged,
    RunDeleted,
)


def test_what_log_config_told_last_of_each_part_is_kept(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, ConfigLogged(time=2.0, changes={"args": {"a": 1}, "x": 1}))
    settle()
    big = {"_type": "int", "value": str(1 << 70)}
    recorded.tell(writer, ConfigLogged(time=2.0, changes={"extra": [big, "\0"]}))
    recorded.tell(writer, ConfigLogged(time=2.0, changes={"args": {"b": 2}}))
    settle()

    state = found(recorded)

    assert state.logged_config == {"args": {"b": 2}, "extra": [1 << 70, "\0"]}
    assert state.config == {}


def test_of_a_deleted_run_no_config_is_left(recorded: Recorded, settle: Settle) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, ConfigLogged(time=2.0, changes={"args": {"a": 1}}))
    settle()
    edit(recorded, "r", RunDeleted(time=3.0))
    recorded.tell(writer, ConfigLogged(time=4.0, changes={"args": {"a": 1}}))
    settle()
    recorded.start("r", "again")
    settle()

    assert found(recorded).logged_config == {}


def logged(token: str, job: str | None = "archive") -> AssetLogged:
    return AssetLogged(
        time=2.0,
        kind="dataset",
        name="d",
        token=token,
        uri={"deep": [{"_type": "int", "value": str(1 << 70)}, b"x"]},
        path="/d",
        context="train",
        job=job,
        size_max=5,
    )


def completed(token: str, blob: str = "b") -> AssetCompleted:
    return AssetCompleted(
        time=3.0,
        token=token,
        fingerprint="f",
        size=9,
        file_count=2,
        manifest=blob,
        manifest_size=7,
        skipped=[("p", "why")],
        skipped_count=1,
    )


def test_an_asset_is_known_and_owed(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), logged("t"))
    settle()

    assert found(recorded).assets == {
        "t": Asset(
            token="t",
            kind="dataset",
            name="d",
            logged_at=2.0,
            uri={"deep": [1 << 70, "x"]},
            path="/d",
            context="train",
            job="archive",
            size_max=5,
        )
    }


def test_what_was_done_of_an_asset_is_said_once(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), logged("t"))
    settle()
    edit(recorded, "r", completed("t"), completed("t", "other"))
    edit(recorded, "r", AssetFailed(time=4.0, token="t", reason="late"))
    edit(recorded, "r", logged("t"), completed("unknown"))
    settle()

    state = found(recorded)

    (asset,) = state.assets.values()
    assert (asset.job, asset.manifest, asset.error) == (None, "b", None)
    assert (asset.fingerprint, asset.size, asset.file_count) == ("f", 9, 2)
    assert (asset.skipped, asset.skipped_count) == ((("p", "why"),), 1)
    assert state.lost_count == 0


def test_an_asset_that_failed_stays_and_counts_as_lost(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), logged("t"))
    edit(recorded, "r", *[AssetFailed(time=3.0, token="t", reason="no")] * 2)
    settle()

    state = found(recorded)

    assert (state.assets["t"].job, state.assets["t"].error) == (None, "no")
    assert state.lost_count == 1


def test_assets_stand_in_the_order_of_the_log(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    for token in ("c", "a", "b"):
        recorded.tell(writer, logged(token))
    settle()
    edit(recorded, "r", completed("a"))
    settle()

    assert list(found(recorded).assets) == ["c", "a", "b"]


def test_what_is_owed_is_listed_until_it_is_done(recorded: Recorded) -> None:
    recorded.tell(recorded.start("r", "w"), logged("t"))
    recorded.tell(recorded.start("s", "v"), logged("u"))
    recorded.tell(recorded.start("x", "y"), logged("none", None))
    recorded.fold()
    edit(recorded, "r", completed("t"), name="one")
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        owed = [(run[2], asset.token) for run, asset in database.owed_assets(9)]
        known = [asset.token for _, asset in database.all_assets()]

    assert owed == [("s", "u")]
    assert known == ["t", "u", "none"]


def test_a_deleted_run_has_no_assets(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), logged("t"))
    settle()
    edit(recorded, "r", RunDeleted(time=3.0))
    edit(recorded, "r", completed("t"))
    settle()
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        assert list(database.all_assets()) == []
