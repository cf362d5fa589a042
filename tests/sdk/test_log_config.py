"""What a script was started with: told by log_config(), read back as assets.config."""

import argparse
import datetime
import enum
import inspect
import math
import os
import signal
import types
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog._arguments import CYCLE
from flightlog.apis.public import Api, Run


class Colour(enum.Enum):
    RED = "red"
    DEEP = Path("a/b")


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Optimizer:
    lr: float = 0.1
    path: Path = Path("x")


@dataclass
class Arguments:
    optimizer: Optimizer = field(default_factory=Optimizer)
    many: list[Optimizer] = field(default_factory=lambda: [Optimizer(0.2)])


class Slotted:
    __slots__ = ()


class Omega(Mapping[str, Any]):
    """Looks like a config of OmegaConf: what is missing raises when it is read."""

    def __getitem__(self, key: str) -> Any:
        if key == "missing":
            raise RuntimeError("Missing mandatory value: missing")
        return {"lr": 0.1}

    def __iter__(self) -> Iterator[str]:
        return iter(["given", "missing"])

    def __len__(self) -> int:
        return 2


class Plain:
    """Has what it was given in its `__dict__` alone."""

    def __init__(self) -> None:
        self.lr = 0.1


class Attrs:
    """Looks like a class of attrs."""

    __attrs_attrs__ = (types.SimpleNamespace(name="a"),)

    def __init__(self) -> None:
        self.a = Path("p")
        self.hidden = 2


Point = namedtuple("Point", "x y")


@pytest.fixture
def live(lab: Lab, home: Path) -> flightlog.Run:
    return flightlog.init(project="config", reinit="create_new")


def read(live: flightlog.Run) -> Run:
    live.finish()
    return Api(home=live.home.root).run(live.path)


def test_the_signature_is_as_people_know_it() -> None:
    assert str(inspect.signature(flightlog.Run.log_config)) == (
        "(self, *, args: Any = None, extra: Any = None, config_files: Any = None)"
        " -> None"
    )


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (True, True),
        (1 << 80, 1 << 80),
        (math.inf, math.inf),
        ("text", "text"),
        ("\ud800", "\\ud800"),
        (b"\xffab", "\ufffdab"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Colour.DEEP, "a/b"),
        (Level.HIGH, 3),
        (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.timedelta(seconds=90), 90.0),
        (Decimal("1.5"), 1.5),
        ({3, 1, 2}, [1, 2, 3]),
        ([frozenset({1}), bytearray(b"ab")], [[1], "ab"]),
        ((1, (2,)), [1, [2]]),
        (range(3), [0, 1, 2]),
        (Point(1, 2), {"x": 1, "y": 2}),
        ({1: {"a": (Path("p"),)}}, {"1": {"a": ["p"]}}),
        ({Colour.RED: 1}, {"red": 1}),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.int64(3), 3),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.zeros(2000), [0.0] * 2000),
        (argparse.Namespace(a=argparse.Namespace(b=1)), {"a": {"b": 1}}),
        (types.SimpleNamespace(a=Path("p")), {"a": "p"}),
        (
            Arguments(),
            {
                "optimizer": {"lr": 0.1, "path": "x"},
                "many": [{"lr": 0.2, "path": "x"}],
            },
        ),
        (Attrs(), {"a": "p"}),
        (
            Omega(),
            {
                "given": {"lr": 0.1},
                "missing": "<cannot be read: RuntimeError: Missing mandatory value: "
                "missing>",
            },
        ),
        (math.sqrt, "math.sqrt"),
        (Optimizer, f"{__name__}.Optimizer"),
        (1 + 2j, "(1+2j)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_plain(
    live: flightlog.Run, value: object, stored: object
) -> None:
    live.log_config(extra={"value": value}, args={"value": value})

    config = read(live).assets.config

    assert config == {"args": {"value": stored}, "extra": {"value": stored}}
    assert type(config["extra"]["value"]) is type(stored)


def test_nan_is_kept(live: flightlog.Run) -> None:
    live.log_config(extra=[math.nan, -math.inf])

    first, second = read(live).assets.config["extra"]

    assert math.isnan(first)
    assert second == -math.inf


@pytest.mark.parametrize(
    ("args", "stored"),
    [
        (argparse.Namespace(lr=0.1), {"lr": 0.1}),
        (Optimizer(), {"lr": 0.1, "path": "x"}),
        ({"lr": 0.1}, {"lr": 0.1}),
        (["--lr", "0.1"], ["--lr", "0.1"]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Attrs(), {"a": "p"}),
        (Plain(), {"lr": 0.1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_args_may_be_anything_with_fields(
    live: flightlog.Run, args: object, stored: object
) -> None:
    live.log_config(args=args)

    assert read(live).assets.config["args"] == stored


def test_what_holds_itself_is_cut(live: flightlog.Run) -> None:
    shared = [1]
    loop: dict[str, Any] = {"a": [shared], "b": shared}
    loop["self"] = loop
    inner = argparse.Namespace()
    inner.list = [inner]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    live.log_config(args=inner, extra={"loop": loop, "deep": deep})

    config = read(live).assets.config
    assert config["extra"]["loop"] == {"a": [[1]], "b": [1], "self": CYCLE}
    assert "nested too deeply" in repr(config["extra"]["deep"])
    assert "itself" in repr(config["args"])


def test_what_is_given_replaces_its_like_and_nothing_else(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1")
    live.log_config(args={"a": 1}, extra={"a": 1}, config_files=[path])
    live.log_config(extra={"b": 2})
    live.log_config()
    live.config["lr"] = 3

    run = read(live)

    assert run.assets.config == {
        "args": {"a": 1},
        "extra": {"b": 2},
        "config_files": [str(path)],
    }
    assert run.config == {"lr": 3}, "what was told is beside it"


def test_a_config_that_looks_like_an_asset_is_none(live: flightlog.Run) -> None:
    snapshot = {"saved": True, "archive_path": "/etc/passwd", "blob": "0" * 64}
    live.log_config(extra={"code": {"snapshot": snapshot}, "datasets": [snapshot]})
    run = read(live)

    assert (run.assets.code, run.assets.datasets, list(run.files())) == (None, [], [])


def test_a_config_read_back_may_be_changed_by_who_got_it(live: flightlog.Run) -> None:
    live.log_config(extra={"a": [1]})
    assets = read(live).assets

    assets.config["extra"]["a"].append(2)

    assert assets.config == {"extra": {"a": [1]}}


def test_config_files_are_kept_as_they_were(
    live: flightlog.Run, tmp_path: Path
) -> None:
    paths = [tmp_path / "a" / "c.yaml", tmp_path / "b" / "c.yaml", tmp_path / "d"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(path))
    live.log_config(config_files=[paths[0], str(paths[1]), paths[2], paths[0]])
    for path in paths:
        path.write_text("changed")
    run = read(live)
    wait_until(lambda: len(state_of(run).files) == 3)

    found = {}
    for file in run.files():
        with file.download(str(tmp_path / "out")) as text:
            found[file.name] = text.read()

    assert found == {
        "config/c.yaml": str(paths[0]),
        "config/c_2.yaml": str(paths[1]),
        "config/d": str(paths[2]),
    }
    assert run.assets.config["config_files"] == [*map(str, paths), str(paths[0])]


def test_one_path_is_a_list_of_it(live: flightlog.Run, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.touch()
    live.log_config(config_files=f"{tmp_path}//c.yaml")

    assert read(live).assets.config == {"config_files": [str(path)]}


def test_config_files_and_images_do_not_take_one_anothers_place(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    for n in range(3):
        path.write_text(f"{n}")
        live.log_config(config_files=path)
        live.log_image("x", b"image")
    run = read(live)
    wait_until(lambda: not state_of(run).owed)

    assert len(state_of(run).files) == 4
    assert state_of(run).lost_count == 0
    with run.file("config/c.yaml").download(str(tmp_path / "out")) as file:
        assert file.read() == "2"


@pytest.mark.parametrize(
    ("given", "error", "word"),
    [
        ({"args": 3}, TypeError, "args must be"),
        ({"args": "--lr"}, TypeError, "args must be"),
        ({"args": Slotted()}, TypeError, "args must be"),
        ({"args": Optimizer}, TypeError, "args must be"),
        ({"extra": {1: 1, "1": 2}}, TypeError, "two keys '1'"),
        ({"extra": "x" * (8 << 20)}, ValueError, "at most"),
        ({"config_files": 3}, TypeError, "config_files must be"),
        ({"config_files": b"c"}, TypeError, "config_files must be"),
        ({"config_files": [3]}, TypeError, "config_files must be"),
        ({"config_files": ["nowhere.yaml"]}, FileNotFoundError, "nowhere.yaml"),
        ({"config_files": [__file__, "nowhere.yaml"]}, FileNotFoundError, "nowhere"),
        ({"config_files": {__file__: 1}}, TypeError, "config_files must be"),
        ({"config_files": [""]}, ValueError, "config_files must name a file"),
        ({"config_files": "\ud800"}, ValueError, "config_files must name a file"),
        ({"config_files": ["a\0b"]}, ValueError, "config_files must name a file"),
        ({"config_files": ["/dev/null"]}, ValueError, "not a regular file"),
    ],
)
def test_what_is_wrong_is_told_at_the_call_and_leaves_nothing(
    live: flightlog.Run, given: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        live.log_config(**{"args": {"a": 1}, **given})

    run = read(live)
    assert run.assets.config == {}
    assert (state_of(run).owed, state_of(run).lost_count) == ({}, 0)


def test_after_the_end_it_is_a_line_and_no_error(
    live: flightlog.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    run = read(live)

    live.log_config(args={"a": 1})

    assert "log_config() comes too late" in capfd.readouterr().err
    assert run.assets.config == {}


def test_a_disabled_run_takes_it() -> None:
    flightlog.init(mode="disabled").log_config(args=3, config_files="nowhere")


def test_a_disk_that_refuses_a_file_is_told_once_and_counted(
    live: flightlog.Run,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "sendfile", refused)
        live.log_config(config_files=__file__)
        live.log_config(config_files=__file__)

    run = read(live)
    assert state_of(run).lost_count == 2
    assert capfd.readouterr().err.count("the disk refused") == 1
    assert run.assets.config == {"config_files": [__file__]}


def test_it_outlives_the_process_that_told_it(own_lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1")

    done = own_lab.execute(
        f"""
        import os, flightlog
        run = flightlog.init(id="r", project="p")
        run.log_config(args={{"a": 1}}, config_files={str(path)!r})
        os.unlink({str(path)!r})
        os.kill(os.getpid(), 9)
        """
    )
    assert done.returncode == -signal.SIGKILL
    own_lab.serve()

    run = own_lab.ended("r", project="p")
    assert run.assets.config == {"args": {"a": 1}, "config_files": [str(path)]}
    wait_until(lambda: "config/c.yaml" in state_of(run).files)
