"""Artifacts and files folded: the same from the log's tail, from state.db, replayed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from tests.storage.recording import Recorded, Settle, rows_of

from flightlog_storage.artifact_state import (
    Artifact,
    ArtifactKey,
    Role,
    Version,
    VersionKey,
)
from flightlog_storage.catalog import Catalog
from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.database import Database
from flightlog_storage.event import (
    ArtifactChanged,
    ArtifactDeleted,
    ArtifactLogged,
    ArtifactUsed,
    Event,
    FileDeleted,
    FileSaved,
    ManifestEntry,
    RunCreated,
    RunDeleted,
)
from flightlog_storage.reader import HomeReader

MODEL = ArtifactKey("e", "p", "model")
TOKENS = ("tx", "ty", "tz", "none")


@pytest.fixture(params=["tail", "folded", "step by step", "replayed"])
def settle(request: pytest.FixtureRequest, recorded: Recorded) -> Settle:
    """Fold the log at each call, or once, or leave it to the reader."""

    def fold() -> None:
        if request.param == "step by step":
            recorded.fold()

    def last() -> None:
        fold()
        if request.param in ("folded", "replayed"):
            recorded.fold()
        if request.param == "replayed":
            recorded.replay()

    last.between = fold  # type: ignore[attr-defined]  # For tests of several steps.
    return last


def between(settle: Settle) -> None:
    settle.between()  # type: ignore[attr-defined]


def logged(digest: str, **fields: Any) -> ArtifactLogged:
    given = {"name": "model", "type": "weights", "token": f"t{digest}"}
    return ArtifactLogged(time=5.0, digest=digest, **(given | fields))


def edit(recorded: Recorded, run: str, *events: Event, name: str = "ed") -> None:
    editor = recorded.join(run, name, EDITOR_RANK)
    for event in events:
        recorded.tell(editor, event)


def ask(recorded: Recorded, question: Callable[[Catalog], Any]) -> Any:
    return HomeReader(recorded.home).catalog(question)


def artifact(recorded: Recorded, key: ArtifactKey = MODEL) -> Artifact:
    found = ask(recorded, lambda catalog: catalog.artifact(key))
    assert isinstance(found, Artifact)
    return found


def version(recorded: Recorded, number: int) -> Version | None:
    found: Version | None = ask(
        recorded, lambda catalog: catalog.version(VersionKey(MODEL, number))
    )
    return found


def numbers(recorded: Recorded) -> list[int]:
    found: list[int] = ask(recorded, lambda catalog: catalog.numbers(MODEL))
    return found


def resolved(recorded: Recorded, alias: str) -> int | None:
    found: int | None = ask(recorded, lambda catalog: catalog.resolve(MODEL, alias))
    return found


def links(recorded: Recorded, run: str, role: Role) -> list[int]:
    found = ask(recorded, lambda catalog: catalog.links_of_run(("e", "p", run), role))
    return [link.version.number for link in found]


def runs(recorded: Recorded, number: int, role: Role) -> list[str]:
    key = VersionKey(MODEL, number)
    found = ask(recorded, lambda catalog: catalog.links_of_version(key, role))
    return [link.run[2] for link in found]


def refused(recorded: Recorded) -> list[str]:
    recorded.fold()
    with Database.open_reader(recorded.home.state) as database:
        return [letter.reason for letter in database.dead_letters()]


def test_versions_are_numbered_in_the_order_of_the_log(
    recorded: Recorded, settle: Settle
) -> None:
    one, two = recorded.start("r", "a", 0), recorded.start("r", "b", 1)
    for writer, digest in ((one, "x"), (two, "y"), (one, "z")):
        recorded.tell(writer, logged(digest))
        between(settle)
    settle()

    assert numbers(recorded) == [0, 1, 2]
    found = [version(recorded, number) for number in range(3)]
    assert [each.digest for each in found if each is not None] == ["x", "y", "z"]
    assert artifact(recorded).newest == 2
    assert links(recorded, "r", Role.LOGGED) == [0, 1, 2]
    tokens = ask(recorded, lambda catalog: [*map(catalog.logged_as, TOKENS)])
    assert tokens == [*(VersionKey(MODEL, n) for n in range(3)), None]


def test_all_that_is_said_of_a_version_is_kept(
    recorded: Recorded, settle: Settle
) -> None:
    entries = [
        ManifestEntry(path="a/b", digest="d", size=3, blob="f" * 64),
        ManifestEntry(path="c", digest="s3://c", reference="s3://c"),
    ]
    event = logged(
        "x",
        size=3,
        file_count=2,
        entries=entries,
        manifest="e" * 64,
        manifest_size=7,
        description="text",
        metadata={"lr": math.inf, "deep": {"a": [1, None]}, "big": 2**63},
        tags=["b", "a", "b"],
        aliases=["best"],
    )
    recorded.tell(recorded.start("r"), event)
    settle()

    found = version(recorded, 0)

    assert found is not None
    assert (found.size, found.file_count, found.manifest) == (3, 2, "e" * 64)
    assert (found.manifest_size, found.description) == (7, "text")
    assert found.metadata == {"lr": math.inf, "deep": {"a": [1, None]}, "big": 2**63}
    assert (found.tags, found.created_at) == (["b", "a"], 5.0)
    key = VersionKey(MODEL, 0)
    assert ask(recorded, lambda catalog: catalog.entries(key)) == entries
    assert artifact(recorded).type == "weights"


def test_content_of_the_newest_version_is_no_new_one(
    recorded: Recorded, settle: Settle
) -> None:
    writer, other = recorded.start("r"), recorded.start("s", "v")
    recorded.tell(writer, logged("x", aliases=["a"], tags=["one"]))
    between(settle)
    recorded.tell(other, logged("x", token="again", aliases=["b"], tags=["two"]))
    between(settle)
    recorded.tell(writer, logged("y"))
    recorded.tell(writer, logged("x", token="back"))
    settle()

    assert numbers(recorded) == [0, 1, 2]
    assert artifact(recorded).aliases == {"a": 0, "b": 0}
    found = version(recorded, 0)
    assert found is not None
    assert found.tags == ["one", "two"]
    assert runs(recorded, 0, Role.LOGGED) == ["r", "s"]
    token = ask(recorded, lambda catalog: catalog.logged_as("again"))
    assert token == VersionKey(MODEL, 0)


def test_aliases_move_and_the_implied_ones_cannot(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x", aliases=["best", "latest", "v7", ""]))
    between(settle)
    recorded.tell(writer, logged("y", aliases=["best", "v0"]))
    settle()

    assert artifact(recorded).aliases == {"best": 1}
    assert resolved(recorded, "best") == 1
    assert resolved(recorded, "latest") == 1
    assert (resolved(recorded, "v0"), resolved(recorded, "v1")) == (0, 1)
    for alias in ("v7", "v" + "9" * 40, "worst", ""):
        assert resolved(recorded, alias) is None


def test_a_version_of_another_type_has_the_first_ones(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x", type="weights"))
    between(settle)
    recorded.tell(writer, logged("y", type="dataset"))
    settle()

    assert artifact(recorded).type == "weights"
    assert numbers(recorded) == [0, 1]


def test_projects_do_not_share_names(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), logged("x"))
    settle()

    def found(entity: str, project: str) -> list[str]:
        listed: list[Artifact] = ask(
            recorded, lambda catalog: catalog.artifacts(entity, project)
        )
        return [each.key.name for each in listed]

    assert found("e", "p") == ["model"]
    assert (found("e", "q"), found("f", "p")) == ([], [])


def test_what_is_said_of_a_version_can_be_changed(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x", aliases=["a", "b"], tags=["one", "two"]))
    recorded.tell(writer, logged("y", aliases=["c"]))
    between(settle)
    changed = ArtifactChanged(
        time=9.0,
        name="model",
        number=0,
        changes={"description": "new", "metadata": {"k": 1}},
        aliases_added=["c", "latest"],
        aliases_removed=["a", "none"],
        tags_added=["three"],
        tags_removed=["one"],
    )
    edit(recorded, "", changed)
    settle()

    found = version(recorded, 0)

    assert found is not None
    assert (found.description, found.metadata) == ("new", {"k": 1})
    assert (found.tags, found.updated_at) == (["two", "three"], 9.0)
    assert artifact(recorded).aliases == {"b": 0, "c": 0}
    assert resolved(recorded, "latest") == 1


def test_an_alias_is_taken_only_from_where_it_is(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x"))
    recorded.tell(writer, logged("y", aliases=["a"]))
    edit(
        recorded,
        "",
        ArtifactChanged(time=9.0, name="model", number=0, aliases_removed=["a"]),
    )
    settle()

    assert artifact(recorded).aliases == {"a": 1}


def test_a_deleted_version_is_gone_and_its_number_not_given_again(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x", aliases=["keep"]))
    recorded.tell(writer, logged("y", aliases=["best"]))
    between(settle)
    edit(recorded, "", ArtifactDeleted(time=9.0, name="model", number=1))
    between(settle)
    assert (numbers(recorded), resolved(recorded, "latest")) == ([0], 0)
    assert links(recorded, "r", Role.LOGGED) == [0]
    recorded.tell(writer, logged("y", token="new"))
    settle()

    assert numbers(recorded) == [0, 2]
    assert artifact(recorded).aliases == {"keep": 0}
    assert version(recorded, 1) is None
    assert ask(recorded, lambda catalog: catalog.logged_as("ty")) is None
    assert ask(recorded, lambda catalog: catalog.entries(VersionKey(MODEL, 1))) == []
    assert links(recorded, "r", Role.LOGGED) == [0, 2]


def test_an_artifact_without_versions_is_none_and_may_change_its_type(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x"))
    between(settle)
    edit(recorded, "", ArtifactDeleted(time=9.0, name="model", number=0))
    between(settle)
    assert ask(recorded, lambda catalog: catalog.artifacts("e", "p")) == []
    assert resolved(recorded, "latest") is None
    recorded.tell(writer, logged("x", type="dataset"))
    settle()

    assert (numbers(recorded), artifact(recorded).type) == ([1], "dataset")


def test_runs_use_versions_of_any_project(recorded: Recorded, settle: Settle) -> None:
    used = ArtifactUsed(
        time=6.0, entity="e", project="p", name="model", number=0, use_as="init"
    )
    recorded.tell(recorded.start("r"), logged("x"))
    between(settle)
    user = recorded.start("s", "v")
    recorded.tell(user, used)
    recorded.tell(user, used)
    between(settle)
    recorded.tell(user, used)
    edit(recorded, "r", used)
    settle()

    assert links(recorded, "s", Role.USED) == [0]
    assert runs(recorded, 0, Role.USED) == ["s", "r"]
    assert runs(recorded, 0, Role.LOGGED) == ["r"]


def test_a_run_may_declare_a_version_its_output(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), logged("x"))
    recorded.finish(recorded.start("s", "v"))
    between(settle)
    event = logged("", type="", token="t", existing=0, aliases=["a"], tags=["t"])
    edit(recorded, "s", event)
    settle()

    assert numbers(recorded) == [0]
    assert links(recorded, "s", Role.LOGGED) == [0]
    assert artifact(recorded).aliases == {"a": 0}


def test_a_deleted_run_leaves_its_artifacts(recorded: Recorded, settle: Settle) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x"))
    recorded.tell(writer, FileSaved(time=1.0, name="f", blob="b", digest="d", size=1))
    between(settle)
    edit(recorded, "r", RunDeleted(time=7.0))
    recorded.tell(writer, logged("y"))
    edit(
        recorded,
        "",
        ArtifactChanged(time=9.0, name="model", number=0, tags_added=["left"]),
        name="pe",
    )
    between(settle)
    again = recorded.start("r", "again")
    recorded.tell(again, logged("z"))
    settle()

    assert numbers(recorded) == [0, 1]
    assert runs(recorded, 0, Role.LOGGED) == []
    assert links(recorded, "r", Role.LOGGED) == [1]
    found = version(recorded, 0)
    assert found is not None
    assert found.tags == ["left"]
    state = HomeReader(recorded.home).state(("e", "p", "r"))
    assert state is not None
    assert state.files == {}


def test_who_speaks_for_a_project_is_no_run(recorded: Recorded, settle: Settle) -> None:
    edit(recorded, "", RunCreated(time=1.0), RunDeleted(time=2.0))
    settle()

    assert HomeReader(recorded.home).runs() == []
    assert HomeReader(recorded.home).state(("e", "p", "")) is None


def test_what_cannot_be_is_a_dead_letter(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, logged("x"))
    recorded.tell(writer, logged("x", name=""))
    recorded.tell(writer, logged("x", type=""))
    recorded.tell(writer, logged("x", existing=5))
    for event in (
        ArtifactUsed(time=1.0, entity="e", project="p", name="model", number=9),
        ArtifactChanged(time=1.0, name="none", number=0),
        ArtifactChanged(time=1.0, name="model", number=0, changes={"metadata": 3}),
        ArtifactDeleted(time=1.0, name="model", number=9),
    ):
        recorded.tell(writer, event)

    assert len(refused(recorded)) == 7
    assert numbers(recorded) == [0]


@pytest.mark.parametrize("field", ["size", "file_count", "manifest_size", "existing"])
@pytest.mark.parametrize("value", [-1, 2**63])
def test_numbers_that_no_database_holds_are_refused(
    recorded: Recorded, field: str, value: int
) -> None:
    recorded.tell(recorded.start("r"), logged("x", **{field: value}))

    assert len(refused(recorded)) == 1
    assert numbers(recorded) == []


def test_files_are_saved_replaced_and_deleted(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    for name, size in (("a", 1), ("b/c", 2), ("a", 3), ("d", 4), ("", 5)):
        saved = FileSaved(time=4.0, name=name, blob="b", digest="m", size=size)
        recorded.tell(writer, saved)
        between(settle)
    edit(
        recorded,
        "r",
        FileDeleted(time=5.0, name="d"),
        FileDeleted(time=5.0, name="none"),
        FileSaved(time=math.nan, name="e", blob="b", digest="m", size=6),
    )
    settle()

    state = HomeReader(recorded.home).state(("e", "p", "r"))

    assert state is not None
    found = {file.name: (file.size, file.updated_at) for file in state.files.values()}
    assert found == {"a": (3, 4.0), "b/c": (2, 4.0), "e": (6, 0.0)}


def test_only_an_editor_deletes_a_run(recorded: Recorded, settle: Settle) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 1.0))
    recorded.tell(writer, RunDeleted(time=2.0))
    settle()

    assert rows_of(recorded.home, "r") == [(0, 1.0)]
