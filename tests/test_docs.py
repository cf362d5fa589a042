"""What the pages say, held against the code. Links are in test_links.py."""

import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import flightlog.apis.public
import flightlog_storage
import flightlogd
from flightlog.cli import commands

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "docs/operating.md").read_text()
PACKAGES = ("sdk", "storage", "daemon")
BLOCKS = re.findall(r"(?ms)^```python\n(.+?)^```", README)
SHELL = re.findall(r"(?ms)^```sh\n(.+?)^```", README + OPERATING)


def test_every_variable_is_on_the_page() -> None:
    code = "".join(
        path.read_text()
        for package in PACKAGES
        for path in ROOT.glob(f"{package}/**/*.py")
    )
    read = set(re.findall(r"FLIGHTLOG_[A-Z_]*[A-Z]", code))

    assert read == set(re.findall(r"FLIGHTLOG_[A-Z_]*[A-Z]", OPERATING))


def named_limits() -> list[str]:
    section = OPERATING.partition("## Limits")[2]
    return sorted(
        set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", section)) - {"FLIGHTLOG_SOCKET"}
    )


@pytest.fixture(scope="module")
def constants() -> set[str]:
    found: set[str] = set()
    for package in (flightlog, flightlog_storage, flightlogd):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                found |= vars(importlib.import_module(module.name)).keys()
    return found


@pytest.mark.parametrize("name", named_limits())
def test_every_limit_named_is_in_the_code(name: str, constants: set[str]) -> None:
    assert name in constants


@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_the_readme_compiles(block: str) -> None:
    compile(block, "README.md", "exec")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if "FLIGHTLOG" not in key}
    return kept | {"FLIGHTLOG_HOME": str(tmp_path / "home")}


def test_python_in_the_readme_runs(environment: dict[str, str], tmp_path: Path) -> None:
    home = environment["FLIGHTLOG_HOME"]
    try:
        outputs = [
            subprocess.run(
                [sys.executable, "-c", block],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                cwd=tmp_path,
                timeout=60,
            ).stdout
            for block in BLOCKS
        ]
    finally:
        subprocess.run(
            [sys.executable, "-m", "flightlogd", "stop", "--home", home],
            check=True,
            timeout=60,
        )

    assert [line.split()[0] for line in outputs[0].splitlines()] == [
        "0",
        "24",
        "49",
        "74",
        "99",
    ]
    assert "finished" in outputs[1]


@pytest.mark.parametrize(
    "line",
    sorted(
        {
            line.partition("#")[0].strip()
            for block in SHELL
            for line in block.splitlines()
            if line.startswith("flightlog ")
        }
    ),
)
def test_commands_on_the_pages_exist(line: str) -> None:
    _, name, *arguments = shlex.split(line)

    command = commands.flightlog.commands[name]

    command.make_context(name, arguments)


@pytest.mark.parametrize("name", ["Api", "Run"])
def test_the_reading_methods_are_on_their_page(name: str) -> None:
    page = (ROOT / "docs/read_api.md").read_text()
    public = [
        each for each in vars(getattr(flightlog.apis.public, name)) if each[0] != "_"
    ]

    assert [each for each in public if not re.search(rf"`[^`]*\b{each}\b", page)] == []
