"""Output patterns: which paths are outputs."""

import pytest

from flightlog_storage.output_patterns import Patterns, is_log


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        (["*.pt"], ["a.pt", "a/b/c.pt", ".pt"], ["a.pth", "a.PT", "a.pt/b"]),
        (["**/x.pt"], ["x.pt", "a/b/x.pt"], ["ax.pt"]),
        (["best/*.pt"], ["best/a.pt", "best/b/a.pt"], ["a/best/a.pt"]),
        (["a[0-9].pt", "?.bin"], ["a1.pt", "x.bin"], ["ab.pt", "xx.bin"]),
        (["new\nline*"], ["new\nline\n2"], ["newline"]),
    ],
)
def test_files_are_found_by_their_paths(
    patterns: list[str], matching: list[str], others: list[str]
) -> None:
    found = Patterns(patterns)

    assert all(found.match_file(path) for path in matching)
    assert not any(found.match_file(path) for path in others)
    assert not any(found.match_folder(path) for path in matching)


def test_a_pattern_with_a_slash_at_its_end_is_for_folders_alone() -> None:
    found = Patterns(["ckpt-*/", "**/best/"])

    assert found.match_folder("ckpt-1")
    assert found.match_folder("ckpt-1/deeper")
    assert found.match_folder("best")
    assert found.match_folder("a/best")
    assert not found.match_folder("a/ckpt-1")
    assert not found.match_file("ckpt-1"), "without one for files no file is an output"


@pytest.mark.parametrize(
    "name",
    [
        *("pth", "pt", "ckpt", "onnx", "safetensors", "bin", "h5", "npy", "npz", "pkl"),
        *("log", "json", "jsonl", "txt", "csv", "yaml", "yml", "html"),
        *("png", "jpg", "jpeg", "svg", "pdf"),
    ],
)
def test_by_default_what_is_usually_an_output_is_one(name: str) -> None:
    assert Patterns([]).match_file(f"a.{name}")
    assert Patterns([]).match_file(f"deep/er/a.{name}")


def test_by_default_event_files_are_outputs_and_code_is_not() -> None:
    found = Patterns([])

    assert found.match_file("runs/events.out.tfevents.1699.host.1.0")
    assert not found.match_file("train.py")
    assert not found.match_folder("checkpoints")


@pytest.mark.parametrize(
    "path", ["a.log", "a/B.TXT", "c.jsonl", "d.Csv", "x.tfevents.1"]
)
def test_what_is_written_bit_by_bit_is_known_by_its_name(path: str) -> None:
    assert is_log(path)


@pytest.mark.parametrize("path", ["a.pt", "log", "txt.json", "tfevents/a.pt"])
def test_other_files_are_not_logs(path: str) -> None:
    assert not is_log(path)
