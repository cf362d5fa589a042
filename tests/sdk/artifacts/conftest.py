"""What the tests of artifacts share."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog import (
    Api,
    Artifact,
)

PROJECT = "art"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The name of an artifact of this test alone."""
    plain = "".join(c if c.isalnum() else "_" for c in request.node.name)
    return f"{plain[-80:]}-{time.time_ns()}"


@pytest.fixture
def run(home: Path) -> Any:
    return flightlog.init(project=PROJECT)


@pytest.fixture
def api(home: Path) -> Api:
    return Api({"project": PROJECT})


def made(name: str, type: str = "data", **files: str) -> Artifact:
    artifact = Artifact(name, type)
    for path, text in files.items():
        with artifact.new_file(path.replace("__", "/")) as file:
            file.write(text)
    return artifact


def logged(run: Any, name: str, aliases: Any = None, **files: str) -> Artifact:
    artifact: Artifact = run.log_artifact(made(name, **files), aliases=aliases)
    return artifact.wait(timeout=30)


def contents(root: str | Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in Path(root).rglob("*")
        if path.is_file()
    }


def again(artifact: Artifact) -> Artifact:
    return Api().artifact(artifact.qualified_name)


def command(lab: Lab, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from flightlog.cli import main; main()", *arguments],
        env=lab.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def blob_of(home: Path, text: str) -> Path:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return home / "blobs" / sha256[:2] / sha256
