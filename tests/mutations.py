"""Each sync, checksum and check of a sequence, taken out in turn: a test must fail.

`make mutants` runs this, in copies of the working tree. It fails when some change
survives, which its line names, and when a place has no tests here that should notice.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parent.parent
PACKAGES = ("storage/flightlog_storage", "daemon/flightlogd")
COPIED = ("sdk", "storage", "daemon", "tests", "docs", "pyproject.toml", "README.md")
TIMEOUT_S = 900  # Who hangs until then is noticed, too.

SYNCS = {"fsync", "fdatasync", "fsync_dir", "fsync_path", "_sync", "sync"}
CHECKSUM = re.compile(r"crc|sha256|digest|checksum")
FULL, OFF = "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"

STORAGE, DAEMON, SDK, SYSTEM = (
    f"tests/{each}/test_" for each in ("storage", "daemon", "sdk", "system")
)
POWER, HOME_POWER = (
    f"tests/simulation/test_{each}.py" for each in ("power_loss", "home_power_loss")
)
WRITES = f"{SYSTEM}recorded_writes.py"
# By module: the tests that should notice, the quick ones first.
TESTS = {
    "backup": (f"{SYSTEM}backup.py",),
    "blobs": (f"{STORAGE}blobs.py", HOME_POWER, WRITES),
    "carried": (f"{STORAGE}exports.py", f"{SDK}moving.py"),
    "catalog": (f"{STORAGE}catalog.py",),
    "compressed": (f"{STORAGE}compression.py",),
    "compression": (f"{STORAGE}compression.py", f"{SYSTEM}compression.py"),
    "connection": (f"{STORAGE}database.py", WRITES),
    "eventlog": (POWER, f"{STORAGE}eventlog.py", WRITES),
    "emptying": (f"{STORAGE}emptying.py",),
    "export_reader": (f"{STORAGE}exports.py", f"{SDK}moving.py"),
    "files": (f"{STORAGE}home.py", f"{STORAGE}projector.py", HOME_POWER, WRITES),
    "folder_copies": (f"{STORAGE}folder_copies.py", f"{SYSTEM}backup.py"),
    "folding": (f"{STORAGE}folding.py", f"{STORAGE}projector.py"),
    "frame": (f"{STORAGE}segment.py", f"{STORAGE}eventlog.py"),
    "home": (f"{STORAGE}home.py",),
    "known_frames": (
        f"{STORAGE}emptying.py",
        f"{STORAGE}exports.py",
        f"{SDK}moving.py",
    ),
    "logreader": (f"{STORAGE}eventlog.py",),
    "part_reader": (f"{STORAGE}parts.py", f"{SDK}cli.py"),
    "parts": (f"{STORAGE}parts.py", HOME_POWER, f"{STORAGE}projector.py", WRITES),
    "projector": (f"{STORAGE}projector.py", HOME_POWER, WRITES),
    "protocol": (f"{STORAGE}protocol.py",),
    "scan": (f"{STORAGE}segment.py", f"{STORAGE}eventlog.py"),
    "scrub": (f"{SYSTEM}scrubbing.py",),
    "segment": (f"{STORAGE}segment.py", f"{STORAGE}eventlog.py"),
    "spool_copies": (f"{SYSTEM}backup.py",),
    "spool_reader": (f"{STORAGE}spool.py",),
    "survey": (f"{STORAGE}eventlog.py",),
    "verification": (f"{STORAGE}eventlog.py", f"{SDK}cli.py"),
    "zips": (f"{STORAGE}exports.py", f"{STORAGE}snapshot.py", f"{SDK}asset_zips.py"),
    "adoption": (f"{DAEMON}adoption.py", f"{SYSTEM}daemon.py"),
    "intake": (f"{DAEMON}intake.py",),
    "main": (WRITES,),
    "system": (f"{DAEMON}system.py",),
}


@dataclass(frozen=True)
class Mutant:
    """A module with one expression replaced."""

    path: Path
    source: bytes
    node: ast.expr
    to: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.node.lineno}"
        return f"{place}: {ast.unparse(self.node)} → {self.to}"

    def write(self, root: Path) -> None:
        """Write the changed module below a copy of the tree."""
        lines = self.source.splitlines(keepends=True)
        start = sum(map(len, lines[: self.node.lineno - 1])) + self.node.col_offset
        assert self.node.end_lineno is not None
        assert self.node.end_col_offset is not None
        end = sum(map(len, lines[: self.node.end_lineno - 1]))
        end += self.node.end_col_offset
        changed = self.source[:start] + self.to.encode() + self.source[end:]
        (root / self.path).write_bytes(changed)


def mutants() -> Iterator[Mutant]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_bytes()
            for node in ast.walk(ast.parse(source)):
                for found, to in changes(node):
                    yield Mutant(path.relative_to(ROOT), source, found, to)


def changes(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield what of a node is to be replaced, and by what."""
    match node:
        case ast.Expr(
            ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) as call
        ) if name in SYNCS:
            yield call, "None"
        case ast.keyword(arg=str(name), value=ast.Constant(value=True) as value) if (
            CHECKSUM.search(name)
        ):
            yield value, "False"
        case ast.Constant(value=str(text)) if text == FULL:
            yield node, repr(OFF)
        case ast.Compare(ops=[operator]):
            yield from ((node, to) for to in outcomes(ast.unparse(node), operator))
        case _:
            pass


def outcomes(comparison: str, operator: ast.cmpop) -> tuple[str, ...]:
    """Return what a check is to say instead: that all is well; of sequences, both."""
    if CHECKSUM.search(comparison) and isinstance(operator, ast.Eq | ast.NotEq):
        return (str(isinstance(operator, ast.Eq)),)
    is_order = not isinstance(operator, ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return ("True", "False") if is_order and "sequence" in comparison else ()


def failure(root: Path, tests: tuple[str, ...]) -> str:
    """Return what pytest says of the first of the tests that fails in a copy."""
    for test in tests:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", test, "-x", "-q", "--no-header"),
                *("-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S)),
            ],
            cwd=root,
            env=os.environ | {"FLIGHTLOG_EFFORT": "10" if test == WRITES else "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.stdout + done.stderr
    return ""


def survivors(chosen: list[Mutant], folder: Path, jobs: int) -> list[Mutant]:
    """Try each change in one of several copies; return those that nothing notices."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        copies.put(copy_of_tree(folder / str(number)))

    def survives(mutant: Mutant) -> bool:
        root = copies.get()
        mutant.write(root)
        found = not failure(root, TESTS[mutant.path.stem])
        (root / mutant.path).write_bytes(mutant.source)
        copies.put(root)
        say(f"{'SURVIVES' if found else 'noticed '} {mutant}")
        return found

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(survives, chosen))
    return [mutant for mutant, lives in zip(chosen, found, strict=True) if lives]


def copy_of_tree(target: Path) -> Path:
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target / name)
    return target


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="only these, such as `eventlog`")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    every = list(mutants())
    unknown = {each.path.stem for each in every} ^ set(TESTS)
    if unknown:
        say(f"not in both the table of tests and the code: {sorted(unknown)}")
        return 2
    chosen = [
        each for each in every if not given.modules or each.path.stem in given.modules
    ]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # A change within a second counts.
    with tempfile.TemporaryDirectory() as folder:
        clean = copy_of_tree(Path(folder) / "clean")
        tests = sorted({test for each in chosen for test in TESTS[each.path.stem]})
        if found := failure(clean, tuple(tests)):
            say(f"tests fail without any change:\n{found}")
            return 2
        alive = survivors(chosen, Path(folder), given.jobs)
    say(f"{len(chosen)} changes, {len(chosen) - len(alive)} noticed")
    for mutant in alive:
        say(f"survives: {mutant}")
    return bool(alive)


if __name__ == "__main__":
    sys.exit(main())
