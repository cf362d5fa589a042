import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage.home import Home
from flightlog_storage.workspace import LEFT_OUT, Limits, Request, Workspace, survey

PAGE = Path(__file__).parent.parent.parent / "docs/assets.md"
GIT = shutil.which("git")
NO_LIMITS = Limits(None, None)


def fill(root: Path, *paths: str, **texts: str) -> None:
    """Make files, and folders where a path ends with a slash."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_text(texts.get(path, path))


def look(root: Path, **changes: Any) -> Workspace:
    request = {"ignore_file": ".rnignore", "limits": NO_LIMITS, **changes}
    return survey(Request(root=os.path.realpath(root), **request))


def names(root: Path, **changes: Any) -> list[str]:
    return [entry.path for entry in look(root, **changes).entries]


def test_all_files_are_found_in_the_order_of_their_paths(tmp_path: Path) -> None:
    fill(tmp_path, "b.py", "a/z.py", "a.py", "a/é.py", "a-b/c.py", "empty/")

    assert names(tmp_path) == ["a-b/c.py", "a.py", "a/z.py", "a/é.py", "b.py"]


def test_sizes_and_modes_are_those_of_the_files(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "run.sh")
    (tmp_path / "run.sh").chmod(0o755)

    found = look(tmp_path)

    assert [(each.size, bool(each.mode & 0o100)) for each in found.entries] == [
        (4, False),
        (6, True),
    ]
    assert found.size == 10


# --- rules ---


def test_rules_of_a_deeper_file_beat_those_of_a_shallower_one(tmp_path: Path) -> None:
    fill(tmp_path, "a.log", "x/a.log", "x/b.log", "y/a.log")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "x/.gitignore").write_text("!a.log\n")

    assert names(tmp_path) == [".gitignore", "x/.gitignore", "x/a.log"]


def test_anchored_rules_of_a_nested_file_start_at_its_folder(tmp_path: Path) -> None:
    fill(tmp_path, "x/a", "x/y/a", "a")
    (tmp_path / "x/.gitignore").write_text("/a\n")

    assert names(tmp_path) == ["a", "x/.gitignore", "x/y/a"]


def test_the_ignore_file_beats_gitignore_and_excludes_beat_both(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "a", "b", "c", "x/a")
    (tmp_path / ".gitignore").write_text("a\nb\n")
    (tmp_path / "x").joinpath(".gitignore").write_text("a\n")
    (tmp_path / ".rnignore").write_text("!a\n!b\n")

    found = names(tmp_path, excludes=("b", ".rnignore", ".gitignore"))

    assert found == ["a", "c", "x/a"]


def test_the_ignore_file_may_be_nested_and_have_another_name(tmp_path: Path) -> None:
    fill(tmp_path, "a", "x/a", "x/b")
    (tmp_path / "x/.ignored").write_text("a\n")
    (tmp_path / "x/.rnignore").write_text("b\n")

    found = names(tmp_path, ignore_file=".ignored")

    assert found == ["a", "x/.ignored", "x/.rnignore", "x/b"]


def test_nothing_in_a_folder_that_is_out_can_be_brought_back(tmp_path: Path) -> None:
    fill(tmp_path, "out/keep", "out/.gitignore", "half/keep", "half/drop")
    (tmp_path / "out/.gitignore").write_text("!keep\n")
    excludes = ("/out/", "!/out/keep", "/half/*", "!/half/keep")

    assert names(tmp_path, excludes=excludes) == ["half/keep"]


def test_rules_that_are_a_link_or_no_file_are_none(tmp_path: Path) -> None:
    fill(tmp_path, "a", "rules", "x/a")
    (tmp_path / "rules").write_text("a\n")
    (tmp_path / ".gitignore").symlink_to("rules")
    os.mkfifo(tmp_path / "x/.gitignore")
    fill(tmp_path, "y/.gitignore/", "y/a")

    found = look(tmp_path)

    paths = [".gitignore", "a", "rules", "x/a", "y/a"]
    assert [entry.path for entry in found.entries] == paths
    assert sorted(path for path, why in found.skipped if "rules" in why) == [
        ".gitignore",
        "x/.gitignore",
        "y/.gitignore",
    ]


def test_endless_rules_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"a\n" * (1 << 20))

    with pytest.raises(ValueError, match="1,048,576 bytes of rules"):
        look(tmp_path)


NAME = st.sampled_from(("a", "b", "ab", "aabab", "a.log", "é", "!a", "a ", "a]"))
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
# fmt: off
WILD = st.sampled_from((
    "*", "**", "?", "a*", "*b", "*.log", "a**", "[ab]", "[!b]*", "a[^b-z]b",
    "[[:alpha:]]", "[a\\]]*", "\\a", "\\!a", "[a", "a\\", "***", "??", "#", "[+-z]b",
    "*a*b", "a*b*", "*a*a*b", "?*ab*", "*[!a]*a*",
))
# fmt: on


@st.composite
def lines(draw: st.DrawFn, paths: list[str]) -> str:
    """Draw a rule made of a part of a path, so that most rules match something."""
    parts = draw(st.sampled_from(paths)).split("/")
    start = draw(st.integers(0, len(parts) - 1))
    kept = parts[start : draw(st.integers(start + 1, len(parts)))]
    return "{}{}{}{}".format(
        draw(st.sampled_from(("", "!"))),
        draw(st.sampled_from(("", "", "/", "**/"))),
        "/".join(draw(st.just(part) | WILD) for part in kept),
        draw(st.sampled_from(("", "", "", "/", "/**", "/*", " ", "\\ ", "\r", "/**/"))),
    )


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], dict[str, str]]:
    """Draw the paths of files, and rules by the folders that they lie in."""
    paths = draw(st.lists(PATH, min_size=4, max_size=15))
    rules = st.lists(lines(paths), min_size=1, max_size=6).map("\n".join)
    nested = draw(st.dictionaries(PATH, rules, max_size=2))
    return paths, {".": draw(rules), **nested}


@pytest.fixture(scope="module")
def git_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GIT is None:
        pytest.skip("git is not installed")
    folder = tmp_path_factory.mktemp("git")
    subprocess.run([GIT, "init", "-q", folder], check=True)
    return folder / ".git"


@settings(max_examples=tries(200))
@given(tree=trees())
def test_what_git_ignores_is_left_out_and_nothing_else(
    git_folder: Path, tree: tuple[list[str], dict[str, str]]
) -> None:
    paths, rules = tree
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path in paths:
            place = root / path
            if not place.exists() and not any(map(Path.is_file, place.parents)):
                fill(root, path)
        for path, text in rules.items():
            if (root / path).is_dir():
                (root / path / ".gitignore").write_bytes(f"{text}\n".encode())

        assert names(root) == kept_by_git(root, git_folder)


def kept_by_git(root: Path, git_folder: Path) -> list[str]:
    command = ("git", "-c", "core.ignorecase=false", "ls-files", "-o", "-z")
    done = subprocess.run(
        [*command, "--exclude-per-directory=.gitignore"],
        cwd=root,
        env={**os.environ, "GIT_DIR": str(git_folder), "GIT_WORK_TREE": str(root)},
        check=True,
        capture_output=True,
    )
    return [os.fsdecode(path) for path in sorted(done.stdout.split(b"\0")) if path]


# --- what is out without a rule ---

# fmt: off
OUT = (
    ".env", ".env.local", "x/.env", "server.key", "cert.pem", "id_rsa", ".netrc",
    "x/id_ed25519", ".ssh/config", ".aws/credentials", "credentials.json",
    "__pycache__/a.so", "a.pyc", "node_modules/a.js", ".idea/a.xml", ".venv/a.py",
)
# fmt: on


@pytest.mark.parametrize("ignore_file", [None, ".gitignore", ".rnignore"])
def test_secrets_and_what_is_made_are_out_also_with_an_ignore_file(
    tmp_path: Path, ignore_file: str | None
) -> None:
    fill(tmp_path, *OUT, "a.py", ".env.example", "keys.py")
    if ignore_file is not None:
        (tmp_path / ignore_file).write_text("*.log\n")

    found = [path for path in names(tmp_path) if path != ignore_file]

    assert found == [".env.example", "a.py", "keys.py"]


def test_a_negated_rule_that_names_them_brings_them_in(tmp_path: Path) -> None:
    fill(tmp_path, ".env", "x/.env", "node_modules/a.js", "server.key")
    (tmp_path / ".rnignore").write_text("!/.env\n!node_modules/\n")

    assert names(tmp_path) == [".env", ".rnignore", "node_modules/a.js"]


def test_a_negated_rule_of_wildcards_brings_no_secret_in(tmp_path: Path) -> None:
    fill(tmp_path, ".env", "src/.env", "src/a.py", "env/pyvenv.cfg", "env/a.py")
    (tmp_path / ".rnignore").write_text("*\n!*/\n!*.py\n!src/**\n!.*\n")

    assert names(tmp_path) == [".rnignore", "src/a.py"]


def test_virtual_environments_are_out_unless_named(tmp_path: Path) -> None:
    fill(tmp_path, "one/pyvenv.cfg", "one/a.py", "x/two/pyvenv.cfg", "x/two/a.py")

    assert names(tmp_path) == []
    assert names(tmp_path, excludes=("!two/",)) == ["x/two/a.py", "x/two/pyvenv.cfg"]


def test_git_is_out_whatever_the_rules_say(tmp_path: Path) -> None:
    fill(tmp_path, ".git/config", "sub/.git", "sub/a.py")

    assert names(tmp_path, excludes=("!.git", "!.git/", "!sub/.git")) == ["sub/a.py"]


def test_a_home_is_out_whatever_it_is_called(tmp_path: Path) -> None:
    fill(tmp_path, "a.py")
    Home(tmp_path / "data/runs").create()
    fill(tmp_path, "data/runs/state.db")

    assert names(tmp_path, excludes=("!runs",)) == ["a.py"]
    with pytest.raises(ValueError, match="is a flightlog home"):
        look(tmp_path / "data/runs")


def test_what_is_never_to_be_in_is_not(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "out/x.zip", "out/y.zip", "home/z")
    never = (tmp_path / "out/x.zip", tmp_path / "home", tmp_path.parent)

    found = names(tmp_path, never=tuple(map(os.path.realpath, never)))

    assert found == ["a.py", "out/y.zip"]


def test_the_page_lists_what_is_left_out() -> None:
    listed = [line for line in LEFT_OUT.decode().split("\n") if line]
    page = PAGE.read_text()

    assert [line for line in listed if f"`{line}`" not in page] == []


# --- what is no file ---


def test_links_are_found_as_links_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    fill(tmp_path, "outside/secret", "root/x/a")
    (root / "file").symlink_to("x/a")
    (root / "folder").symlink_to("x")
    (root / "nowhere").symlink_to("nothing")
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(".")

    found = look(root)

    links = [each.path for each in found.entries if stat.S_ISLNK(each.mode)]
    assert links == ["away", "file", "folder", "loop", "nowhere"]
    assert len(found.entries) == 6
    assert found.skipped == []


def test_a_rule_for_folders_is_none_for_a_link_to_one(tmp_path: Path) -> None:
    fill(tmp_path, "x/a")
    (tmp_path / "y").symlink_to("x")

    assert names(tmp_path, excludes=("y/",)) == ["x/a", "y"]


def test_what_is_no_file_is_reported_unless_a_rule_leaves_it_out(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "a.py")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.out")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        found = look(tmp_path, excludes=("*.out",))

    assert [entry.path for entry in found.entries] == ["a.py"]
    assert sorted(found.skipped) == [("pipe", "is a FIFO"), ("socket", "is a socket")]


def test_names_that_are_not_utf_8_are_reported(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    for name in (b"/\xff/inside", b"/a\xe9.py", b"/ok.py"):
        with open(os.fsencode(tmp_path) + name, "wb"):
            pass

    found = look(tmp_path)

    assert [entry.path for entry in found.entries] == ["ok.py"]
    assert sorted(found.skipped) == [
        ("\\xff", "its name is not UTF-8"),
        ("a\\xe9.py", "its name is not UTF-8"),
    ]


def test_a_root_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "none")


# --- limits ---


def test_as_much_as_the_limits_allow_is_allowed(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c.out")

    assert names(tmp_path, limits=Limits(2, 2), excludes=("*.out",)) == ["a", "b"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(1, None), r"too large: too many files \(more than max_files=1\)"),
        (Limits(None, 1), r"too large: total bytes exceeded \(2 .*max_total_bytes=1\)"),
        (Limits(0, 0), "too many files"),
    ],
)
def test_more_than_the_limits_allow_is_refused(
    tmp_path: Path, limits: Limits, words: str
) -> None:
    fill(tmp_path, "a", "b")

    with pytest.raises(ValueError, match=words):
        look(tmp_path, limits=limits)
