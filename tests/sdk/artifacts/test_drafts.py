"""Drafts of artifacts: what may be added, under which names, and what the digest is."""

import base64
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.storage.test_paths import BAD

import flightlog
from flightlog import Artifact, ArtifactFinalizedError, ArtifactNotLoggedError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone, in which no daemon runs."""
    monkeypatch.setenv("FLIGHTLOG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def draft() -> Artifact:
    return Artifact("model", "weights")


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def file(tmp_path: Path, name: str = "f", data: bytes = b"data") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def staged(home: Path) -> list[Path]:
    return [path for path in (home / "staging").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "name", ["", "a/b", "a:b", "a b", "ü", "..", ".", "x" * 129, "a\n"]
)
def test_names_have_letters_digits_and_three_signs(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Artifact(name, "t")


@pytest.mark.parametrize("type_", ["", "job", "wandb-x", "a/b", "a:b", "x" * 129])
def test_types_that_cannot_be(type_: str) -> None:
    with pytest.raises(ValueError, match="type"):
        Artifact("a", type_)


def test_names_and_types_that_can_be() -> None:
    assert Artifact("a-B_9.x" + "y" * 121, "job-like").type == "job-like"


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({str(n): n for n in range(101)}, ValueError),
        ({"a": {"b": math.inf}}, ValueError),
        ({"a": [-math.inf]}, ValueError),
        ({"a": object()}, TypeError),
        ([1], TypeError),
        ("text", TypeError),
    ],
)
def test_metadata_that_cannot_be(metadata: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="metadata"):
        Artifact("a", "t", metadata=metadata)


def test_metadata_is_kept_and_nan_becomes_none() -> None:
    full = {str(n): n for n in range(99)} | {"nan": {"deep": [math.nan, 1.5]}}

    artifact = Artifact("a", "t", metadata=full)

    assert artifact.metadata["nan"] == {"deep": [None, 1.5]}
    assert len(artifact.metadata) == 100


def test_other_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="name"):
        Artifact(3, "t")  # type: ignore[arg-type]  # That is what is tested.
    with pytest.raises(TypeError, match="description"):
        Artifact("a", "t", description=3)  # type: ignore[arg-type]  # As above.
    with pytest.raises(ValueError, match="new_draft"):
        Artifact("a", "t", incremental=True)


def test_the_digest_is_that_of_wandb(draft: Artifact, tmp_path: Path) -> None:
    draft.add_file(file(tmp_path, "b", b"two"))
    draft.add_file(file(tmp_path, "a", b"one"), name="x/a")
    draft.metadata["no"] = "part of it"
    lines = f"wandb-artifact-manifest-v1\nb:{md5(b'two')}\nx/a:{md5(b'one')}\n"

    assert draft.digest == hashlib.md5(lines.encode()).hexdigest()
    # As wandb gives it for an artifact without files.
    assert Artifact("e", "t").digest == "64e7c61456b10382e2f3b571ac24b659"


def test_a_draft_says_what_it_has(draft: Artifact, tmp_path: Path) -> None:
    entry = draft.add_file(file(tmp_path, data=b"12345"))
    draft.description = "new"

    assert (entry.path, entry.size, entry.digest) == ("f", 5, md5(b"12345"))
    assert (entry.ref, draft["f"].digest) == (None, entry.digest)
    assert entry.local_path is not None
    assert Path(entry.local_path).read_bytes() == b"12345"
    assert (draft.name, draft.type, draft.state) == ("model", "weights", "PENDING")
    assert (draft.size, draft.file_count, draft.description) == (5, 1, "new")
    assert (list(draft.manifest.entries), len(draft.manifest)) == (["f"], 1)
    assert draft.get("none") is None
    with pytest.raises(KeyError, match="none"):
        draft.get_entry("none")
    with pytest.raises(ValueError, match="nothing else"):
        entry.ref_target()


LOGGED_ONLY: list[Callable[[Artifact], Any]] = [
    lambda a: a.id,
    lambda a: a.entity,
    lambda a: a.project,
    lambda a: a.qualified_name,
    lambda a: a.collection,
    lambda a: a.version,
    lambda a: a.aliases,
    lambda a: a.tags,
    lambda a: a.created_at,
    lambda a: a.updated_at,
    lambda a: a.source_version,
    lambda a: a.download(),
    lambda a: a.checkout(),
    lambda a: a.verify(),
    lambda a: a.file(),
    lambda a: a.files(),
    lambda a: a.used_by(),
    lambda a: a.logged_by(),
    lambda a: a.delete(),
    lambda a: a.new_draft(),
    lambda a: a.wait(),
]


@pytest.mark.parametrize("use", LOGGED_ONLY)
def test_what_only_a_logged_one_has_is_refused(
    draft: Artifact, use: Callable[[Artifact], Any]
) -> None:
    with pytest.raises(ArtifactNotLoggedError, match="log it"):
        use(draft)
    with pytest.raises(AttributeError):
        use(draft)


def test_a_final_draft_is_not_changed(draft: Artifact, tmp_path: Path) -> None:
    entry = draft.add_file(file(tmp_path))
    draft.finalize()

    for change in (
        lambda: draft.add_file(file(tmp_path), name="g"),
        lambda: draft.add_dir(tmp_path),
        lambda: draft.add_reference("s3://a/b"),
        lambda: draft.new_file("g"),
        lambda: draft.add(entry, "g"),
        lambda: draft.remove("f"),
    ):
        with pytest.raises(ArtifactFinalizedError, match="new_draft"):
            change()


def test_what_was_added_stays_what_it_was(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    path = file(tmp_path)
    entry = draft.add_file(path)

    path.write_bytes(b"later")

    assert (entry.digest, entry.size) == (md5(b"data"), 4)
    assert [each.read_bytes() for each in staged(home)] == [b"data"]


def test_an_immutable_file_is_not_copied(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    path = file(tmp_path)

    entry = draft.add_file(path, policy="immutable")

    assert (entry.local_path, entry.digest) == (str(path), md5(b"data"))
    assert staged(home) == []
    with pytest.raises(ValueError, match="policy"):
        draft.add_file(path, "g", policy="none")  # type: ignore[arg-type]  # Tested.


def test_equal_content_may_come_again_and_other_may_not(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    draft.add_file(file(tmp_path))
    draft.add_file(file(tmp_path))
    with pytest.raises(ValueError, match="overwrite"):
        draft.add_file(file(tmp_path, data=b"other"))
    assert (draft.size, len(staged(home))) == (4, 1)

    draft.add_file(file(tmp_path, data=b"other"), overwrite=True)

    assert [each.read_bytes() for each in staged(home)] == [b"other"]


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("./a", "a//b")])
def test_names_that_lead_elsewhere_are_refused(
    draft: Artifact, tmp_path: Path, home: Path, name: str
) -> None:
    if name in (".", "a/"):  # These are tidied up, to nothing and to `a`.
        return
    adds: list[Callable[[], Any]] = [
        lambda: draft.add_file(file(tmp_path), name=name),
        lambda: draft.new_file(name).__enter__(),
    ]
    if name:
        adds.append(lambda: draft.add_reference("s3://bucket/x", name=name))
    if name.strip("/"):  # Else it is the top of the artifact.
        adds.append(lambda: draft.add_dir(file(tmp_path, "d/x").parent, name=name))

    for add in adds:
        with pytest.raises(ValueError, match="path"):
            add()
    assert (draft.manifest.entries, staged(home)) == ({}, [])


def test_names_are_tidied(draft: Artifact, tmp_path: Path) -> None:
    draft.add_file(file(tmp_path), name="./a//b/./c")
    draft.add_dir(file(tmp_path, "d/x").parent, name="./e/")

    assert list(draft.manifest.entries) == ["a/b/c", "e/x"]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b/c", "a/b")])
def test_a_file_below_a_file_is_refused(
    draft: Artifact, tmp_path: Path, first: str, second: str
) -> None:
    draft.add_file(file(tmp_path), name=first)
    with pytest.raises(ValueError, match="beside"):
        draft.add_file(file(tmp_path), name=second)

    draft.remove(first)
    draft.add_file(file(tmp_path), name=second)

    assert list(draft.manifest.entries) == [second]


def test_a_folder_is_added_as_a_whole(draft: Artifact, tmp_path: Path) -> None:
    for name in ("d/a", "d/sub/b", "d/.hidden"):
        file(tmp_path, name, name.encode())

    draft.add_dir(tmp_path / "d")
    draft.add_dir(str(tmp_path / "d"), name="again", policy="immutable")

    below = [".hidden", "a", "sub/b"]
    expected = sorted([*below, *(f"again/{name}" for name in below)])
    assert list(draft.manifest.entries) == expected


def test_links_are_followed_to_files_and_the_rest_is_told(
    draft: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = file(tmp_path, "d/a").parent
    (folder / "link").symlink_to(file(tmp_path, "outside", b"o"))
    (folder / "dangling").symlink_to(tmp_path / "none")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")

    draft.add_dir(folder)

    assert list(draft.manifest.entries) == ["a", "link"]
    assert draft["link"].digest == md5(b"o")
    assert "3 under" in capsys.readouterr().err


def test_what_is_not_there_is_refused(draft: Artifact, tmp_path: Path) -> None:
    path = file(tmp_path)
    for wrong in (tmp_path / "none", tmp_path, "/dev/null"):
        with pytest.raises(ValueError, match="file"):
            draft.add_file(wrong)
    for wrong in (tmp_path / "none", path):
        with pytest.raises(ValueError, match="folder"):
            draft.add_dir(wrong)
    with pytest.raises(TypeError, match="path"):
        draft.add_file(3)  # type: ignore[arg-type]  # That is what is tested.
    with pytest.raises(TypeError, match="name"):
        draft.add_file(path, name=3)  # type: ignore[arg-type]  # As above.


def test_a_new_file_is_added_when_it_is_closed(draft: Artifact, home: Path) -> None:
    with draft.new_file("t.txt", encoding="utf-8") as text:
        text.write("ü")
    with draft.new_file("b", mode="wb") as data:
        data.write(b"x")
    with draft.new_file("b", mode="wb") as data:
        data.write(b"yy")
    with pytest.raises(TypeError), draft.new_file("half") as broken:
        broken.write(b"no text")

    assert {p: e.size for p, e in draft.manifest.entries.items()} == {
        "b": 2,
        "t.txt": 2,
    }
    assert len(staged(home)) == 2
    for name, mode in (("b", "x"), ("c", "r"), ("c", "a")):
        with pytest.raises(ValueError, match=f"{mode}|already"):
            draft.new_file(name, mode=mode).__enter__()


def test_files_and_folders_are_taken_out(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    for name in ("a", "d/b", "d/e/c", "dd"):
        draft.add_file(file(tmp_path), name=name)

    draft.remove("d")
    draft.remove(draft["a"])

    assert list(draft.manifest.entries) == ["dd"]
    assert len(staged(home)) == 1
    with pytest.raises(FileNotFoundError, match="none"):
        draft.remove("none")


def test_references_are_where_bytes_are(draft: Artifact) -> None:
    (entry,) = draft.add_reference("s3://bucket/some/key.bin")
    draft.add_reference("https://host/path?version=3", name="named")

    assert (entry.path, entry.ref, entry.size) == (
        "key.bin",
        "s3://bucket/some/key.bin",
        0,
    )
    assert (entry.digest, entry.ref_target()) == (entry.ref, entry.ref)
    assert list(draft.manifest.entries) == ["key.bin", "named"]
    for wrong in ("/no/scheme", "", 3):
        with pytest.raises(ValueError, match="scheme"):
            draft.add_reference(wrong)  # type: ignore[arg-type]  # Tested.


def test_local_references_are_read_unless_they_must_not_be(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    path = file(tmp_path, "with space", b"12")
    (read,) = draft.add_reference(path.as_uri())
    (unread,) = draft.add_reference(path.as_uri(), name="u", checksum=False)

    assert (read.path, read.digest, read.size) == ("with space", md5(b"12"), 2)
    assert (unread.digest, unread.ref) == (path.as_uri(), path.as_uri())
    assert staged(home) == []
    with pytest.raises(ValueError, match="none"):
        draft.add_reference((tmp_path / "none").as_uri())


def test_a_local_folder_stands_for_its_files(draft: Artifact, tmp_path: Path) -> None:
    for name in ("d/a b", "d/sub/c"):
        file(tmp_path, name)
    uri = (tmp_path / "d").as_uri()

    entries = draft.add_reference(uri, name="n")

    assert [entry.path for entry in entries] == ["n/a b", "n/sub/c"]
    assert [entry.ref for entry in entries] == [f"{uri}/a%20b", f"{uri}/sub/c"]
    with pytest.raises(ValueError, match="more than 1"):
        draft.add_reference(uri, max_objects=1)


def test_only_files_of_artifacts_are_added_as_objects(
    draft: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="new_file"):
        draft.add({"a": 1}, "a")  # type: ignore[arg-type]  # That is what is tested.
    entry = Artifact("other", "t").add_file(file(tmp_path))
    with pytest.raises(ArtifactNotLoggedError):
        draft.add(entry, "a")


def test_a_draft_that_is_given_up_leaves_nothing(tmp_path: Path, home: Path) -> None:
    draft = Artifact("a", "t")
    draft.add_file(file(tmp_path))
    assert len(staged(home)) == 1

    del draft

    assert staged(home) == []


def test_a_forked_child_leaves_the_drafts_of_its_parent(
    draft: Artifact, tmp_path: Path, home: Path
) -> None:
    draft.add_file(file(tmp_path))

    pid = os.fork()
    if not pid:
        del draft
        os._exit(0)
    os.waitpid(pid, 0)

    assert len(staged(home)) == 1


def test_there_is_no_registry(draft: Artifact) -> None:
    with pytest.raises(flightlog.UsageError, match="registry"):
        draft.link("x")
    with pytest.raises(flightlog.UsageError, match="registry"):
        draft.unlink()
    with pytest.raises(flightlog.UsageError, match="init"):
        draft.save()
