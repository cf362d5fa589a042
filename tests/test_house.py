"""Rules of the house that no linter knows.

The named sets at the top are the exceptions. Adding to one is a decision: a module
that joins has a reason that its own comment gives.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "flightlog": ROOT / "sdk/flightlog",
    "flightlogd": ROOT / "daemon/flightlogd",
    "flightlog_storage": ROOT / "storage/flightlog_storage",
}
CONTRACT = {
    f"flightlog_storage.{module}"
    for module in (
        "blob_lock",
        "blobs",
        "budget",
        "codec",
        "copies",
        "disk",
        "errors",
        "event",
        "frame",
        "home",
        "inbox",
        "manifest",
        "names",
        "paths",
        "picture_layout",
        "process",
        "protocol",
        "spool",
        "spool_reader",
        "spool_room",
        "spool_writer",
        "staging",
        "terminal",
        "trees",
    )
}
# Who may import whom: the longest entry that a module lies within counts. The SDK's
# writing side sees the contract only; its reading side, which is loaded on first use,
# may use storage's readers.
ALLOWED = {
    "flightlog": {"flightlog", *CONTRACT},
    "flightlog._resume": {"flightlog", "flightlog_storage"},
    "flightlog._artifact_types": {"flightlog", "flightlog_storage"},
    "flightlog._outputs": {"flightlog", "flightlog_storage"},
    "flightlog._archives": {"flightlog", "flightlog_storage"},
    "flightlog._reuse": {"flightlog", "flightlog_storage"},
    "flightlog._code": {"flightlog", "flightlog_storage"},
    "flightlog._snapshot": {"flightlog", "flightlog_storage"},
    "flightlog.apis": {"flightlog", "flightlog_storage"},
    "flightlog.cli": {"flightlog", "flightlog_storage"},
    "flightlogd": {"flightlogd", "flightlog_storage"},
    "flightlog_storage": {"flightlog_storage"},
}
# Where a service ends and tells what went wrong: one `except Exception` each, at most.
MAY_CATCH_ALL: set[str] = {
    "flightlog_storage.folding",
    "flightlog._arguments",  # Foreign configs raise anything, item by item.
    "flightlog._sender",
    "flightlog._storing",
    "flightlog._values",
    "flightlogd.probe",
    "flightlogd.system",
    "flightlogd.watching",
}
MAY_SLEEP: set[str] = {
    "flightlog._daemon",
    "flightlogd.cli",
}
MAY_READ_ENVIRONMENT: set[str] = {
    "flightlog._daemon",  # Passes it on.
    "flightlog._settings",
    "flightlogd.config",
}
# Run by their name, not imported.
ENTRY_POINTS = {
    "flightlog",
    "flightlogd",
    "flightlog_storage",
    "flightlog.__main__",
    "flightlogd.__main__",
    "flightlog.cli",
    "flightlogd.cli",
}
# What would run, or unpack anywhere, what a file says.
UNSAFE_MODULES = {
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
    "yaml",
}
UNSAFE_CALLS = {"eval", "exec", "extract", "extractall", "system", "unpack_archive"}
TOO_HEAVY = {
    "aiosqlite",
    "anyio",
    "asyncio",
    "click",
    "numpy",
    "pandas",
    "pyarrow",
    "rich",
    "sqlite3",
    "torch",
}


@dataclass(frozen=True)
class Module:
    """One of our modules, parsed."""

    package: str
    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())


def modules() -> Iterator[Module]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            yield Module(package, ".".join(parts), path)


MODULES = list(modules())
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield what a tree imports; `from a import b` may name a module `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that a module's top level binds."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in node.names)
            case ast.If() | ast.Try():
                yield from defined(node.body + node.orelse)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                yield from (
                    leaf.id
                    for leaf in ast.walk(node)
                    if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store)
                )


def public_names(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert isinstance(node.value, ast.Tuple), "__all__ is a tuple"
            return [str(ast.literal_eval(name)) for name in node.value.elts]
    return None


def uses(module: Module, *names: str) -> bool:
    """Tell whether a module mentions a dotted name, or imports it by its last part."""
    mentioned = {
        ast.unparse(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
    }
    return bool(set(names) & (mentioned | set(imported(module.tree))))


@each_module
def test_imports_keep_their_direction(module: Module) -> None:
    entries = [entry for entry in ALLOWED if within(module.name, {entry})]
    allowed = ALLOWED[max(entries, key=len)]

    # `from flightlog_storage import frame` is told by its second, longer name.
    ours = {name for name in imported(module.tree) if within(name, set(PACKAGES))}
    packages_alone = {"flightlog_storage"} - allowed
    strangers = {name for name in ours - packages_alone if not within(name, allowed)}
    assert strangers == set()


@each_module
def test_nothing_imports_the_root_package_back(module: Module) -> None:
    known = {other.name for other in MODULES}
    taken = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.module in PACKAGES
        for alias in node.names
    }
    assert taken - known == set()


@each_module
def test_no_module_level_state(module: Module) -> None:
    assert not any(isinstance(node, ast.Global) for node in ast.walk(module.tree))


@each_module
def test_all_is_present_and_true(module: Module) -> None:
    if module.path.name in ("__init__.py", "__main__.py"):
        return

    public = public_names(module)

    assert public is not None, "every module says what it offers"
    assert set(public) - set(defined(module.tree.body)) == set()
    assert len(set(public)) == len(public)


@each_module
def test_catching_everything_is_rare(module: Module) -> None:
    caught = [
        handler.lineno
        for handler in ast.walk(module.tree)
        if isinstance(handler, ast.ExceptHandler)
        and (
            handler.type is None
            or ast.unparse(handler.type) in ("Exception", "BaseException")
        )
        and ast.unparse(handler.body[-1]) != "raise"  # Undoes something, goes on up.
    ]
    assert len(caught) <= (module.name in MAY_CATCH_ALL), f"lines {caught}"


@each_module
def test_only_named_modules_sleep(module: Module) -> None:
    assert module.name in MAY_SLEEP or not uses(module, "time.sleep")


@each_module
def test_only_named_modules_read_the_environment(module: Module) -> None:
    names = ("os.environ", "os.getenv", "os.environb")
    assert module.name in MAY_READ_ENVIRONMENT or not uses(module, *names)


@each_module
def test_first_line_says_what_the_module_holds(module: Module) -> None:
    assert ast.get_docstring(module.tree)


def test_every_module_is_used() -> None:
    sources = [module.path for module in MODULES]
    sources += sorted((ROOT / "tests").rglob("*.py"))
    used = {
        name
        for path in sources
        for name in imported(ast.parse(path.read_text()))
        if within(name, set(PACKAGES))
    }
    # A process that another starts by name, `python -m …`, is used too.
    texts = {path: path.read_text() for path in sources}

    unused = {
        module.name
        for module in MODULES
        if module.name not in used | ENTRY_POINTS
        and not any(
            f'"{module.name}"' in text
            for path, text in texts.items()
            if path != module.path
        )
    }

    assert unused == set()


def test_named_sets_name_modules_that_exist() -> None:
    named = MAY_CATCH_ALL | MAY_SLEEP | MAY_READ_ENVIRONMENT
    assert named - {module.name for module in MODULES} == set()


def test_import_is_light() -> None:
    code = "import flightlog, sys; print('\\n'.join(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(str(path.parent) for path in PACKAGES.values())},
        timeout=60,
    )

    assert "flightlog" in done.stdout.split()
    assert set(done.stdout.split()) & TOO_HEAVY == set()


@each_module
def test_module_runs_nothing_that_data_says(module: Module) -> None:
    assert {name.split(".")[0] for name in imported(module.tree)} & UNSAFE_MODULES == (
        set()
    )
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = getattr(called, "attr", getattr(called, "id", ""))
            assert name not in UNSAFE_CALLS, node.lineno
            for keyword in node.keywords:
                assert keyword.arg != "shell", f"a shell, line {node.lineno}"
            assert not any(
                keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True)
                for keyword in node.keywords
            ), node.lineno
