"""Media as values of log(): recorded, made by the daemon, read back."""

import hashlib
import io
import json
import os
import signal
import threading
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import ImageSequence
from tests.effort import tries
from tests.sdk.conftest import Lab, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog import Audio, Histogram, Html, Image, Table, Video
from flightlog.apis.public import Api, Run

COLOUR = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@pytest.fixture
def live(lab: Lab, home: Path) -> flightlog.Run:
    return flightlog.init(project="media", reinit="create_new")


def read(live: flightlog.Run) -> Run:
    """Return the run once all its files are made."""
    live.finish()
    run = Api(home=live.home.root).run(live.path)
    wait_until(lambda: not state_of(run).owed)
    return run


def content(run: Run, path: str) -> bytes:
    (file,) = [each for each in run.files() if each.name == path]
    return Path(file.url.removeprefix("file://")).read_bytes()


def row_of(run: Run) -> dict[str, Any]:
    (row,) = run.scan_history()
    return row


# Rows


def test_a_row_with_media_is_one_row_at_one_step(live: flightlog.Run) -> None:
    live.log({"loss": 1.0, "x": Image(COLOUR), "h": Histogram([1, 2])})
    live.log({"loss": 2.0, "x": Image(COLOUR)})
    live.log({"loss": 3.0, "x": Image(COLOUR)}, step=9)
    run = read(live)

    rows = list(run.scan_history())

    assert [(row["_step"], row["loss"]) for row in rows] == [(0, 1.0), (1, 2.0), (9, 3)]
    assert [image.step for image in run.images("x")] == [0, 1, 9]


def test_media_stand_in_rows_as_their_descriptors(live: flightlog.Run) -> None:
    live.log({"a/b": Image(COLOUR, caption="c"), "n": {"t": Table(["x"], [[1]])}})
    run = read(live)

    row = row_of(run)

    image, table = row["a/b"], row["n.t"]
    assert image.pop("path").startswith("media/images/a/b_")
    assert image == {
        "_type": "image-file",
        "format": "png",
        "width": 8,
        "height": 6,
        "caption": "c",
    }
    assert table["path"].startswith("media/table/n.t_")
    assert table["path"].endswith(".table.json")
    assert (table["_type"], table["ncols"], table["nrows"]) == ("table-file", 1, 1)
    assert table["size"] == len(content(run, table["path"]))
    assert table["sha256"] == hashlib.sha256(content(run, table["path"])).hexdigest()
    assert run.summary["a/b"]["caption"] == "c"


def test_what_is_wrong_in_a_row_with_media_leaves_nothing(
    live: flightlog.Run,
) -> None:
    for data, step in (
        ({"x": Image(COLOUR), "y": object()}, None),
        ({"x": Image(COLOUR), 3: 1.0}, None),
        ({"x": Image(COLOUR), "_step": 1}, None),
        ({"x": Image(COLOUR), "y": "long" * (1 << 21)}, None),
        ({"x": Image(COLOUR)}, "one"),
        ({"x": Image(COLOUR)}, -1),
        ({3: Image(COLOUR)}, None),
        ({"x": {Image(COLOUR)}}, None),
    ):
        with pytest.raises((TypeError, ValueError)):
            live.log(data, step=step)  # type: ignore[arg-type]

    run = read(live)
    assert (run.lastHistoryStep, state_of(run).lost_count) == (-1, 0)
    assert list(run.files()) == []
    wait_until(lambda: not os.listdir(live.home.inbox))


def test_after_the_end_media_are_refused_as_other_values(live: flightlog.Run) -> None:
    live.finish()

    with pytest.raises(flightlog.UsageError, match="is finished"):
        live.log({"x": Image(COLOUR)})


def test_a_file_that_goes_away_before_it_is_logged_is_told(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"sound")
    sound = Audio(path)
    path.unlink()

    with pytest.raises(FileNotFoundError, match=r"x\.wav"):
        live.log({"x": sound, "y": Image(COLOUR)})

    assert list(read(live).files()) == []


def test_a_disk_that_refuses_media_costs_them_and_not_the_row(
    live: flightlog.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    live.log({"loss": 0.0})
    live.home.inbox.rename(live.home.root / "away")
    live.home.inbox.touch()  # So no file can be made in it.
    try:
        live.log({"loss": 1.0, "x": Image(COLOUR), "h": Histogram([1])})
        live.log({"loss": 2.0, "list": [Image(COLOUR), Image(COLOUR)]})
        live.log({"x": Image(COLOUR)})
        assert live.log_image("x", COLOUR) == ""
    finally:
        live.home.inbox.unlink()
        (live.home.root / "away").rename(live.home.inbox)
    live.log({"loss": 4.0, "x": Image(COLOUR)})

    run = read(live)
    rows = list(run.scan_history())
    assert [row["_step"] for row in rows] == [0, 1, 2, 4]
    assert [row["loss"] for row in rows] == [0.0, 1.0, 2.0, 4.0]
    assert ["x" in row and row["x"] is not None for row in rows] == [False] * 3 + [True]
    assert sum(rows[1]["h"]["values"]) == 1
    assert state_of(run).lost_count == 4
    assert capfd.readouterr().err.count("the disk refused") == 1


def test_one_file_refused_of_a_value_takes_back_the_others(
    live: flightlog.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"picture")
    given = [Image(COLOUR), Image(path)]
    put = "flightlog._images.copy_into_inbox"
    monkeypatch.setattr(put, lambda path, source: os.write(-1, b""))

    live.log({"x": given, "y": Image(COLOUR)})

    run = read(live)
    row = row_of(run)
    assert "x" not in row
    assert [file.name for file in run.files()] == [row["y"]["path"]]
    wait_until(lambda: not os.listdir(live.home.inbox))


def test_media_belong_into_rows_alone(live: flightlog.Run) -> None:
    with pytest.raises(TypeError, match="which only log"):
        live.config["x"] = Image(COLOUR)
    with pytest.raises(TypeError, match="which only log"):
        live.summary["x"] = Histogram([1])


def test_a_disabled_run_takes_all() -> None:
    run = flightlog.init(mode="disabled")

    run.log({"a": Image(COLOUR), "b": [Table(["x"], [[1]])], "c": Html("<p>")})


def test_step_metrics_are_added_to_rows_of_media(live: flightlog.Run) -> None:
    live.define_metric("x", step_metric="epoch")
    live.log({"epoch": 3})
    live.log({"x": Image(COLOUR)})

    *_, row = read(live).scan_history()

    assert row["epoch"] == 3
    assert row["x"]["_type"] == "image-file"


LOG_ALL_AND_DIE = """
import os, flightlog as wandb, numpy as np
run = wandb.init(id="r", project="p")
frames = np.arange(3, dtype=np.uint8).repeat(3 * 8 * 8).reshape(3, 3, 8, 8)
for n in range(5):
    run.log({
        "loss": n,
        "image": wandb.Image(np.full((64, 64), n, np.uint8)),
        "images": [wandb.Image(np.full((64, 64), n, np.uint8), caption="c")] * 2,
        "histogram": wandb.Histogram([n]),
        "table": wandb.Table(columns=["n"], data=[[n]]),
        "html": wandb.Html(f"<p>{n}"),
        "audio": wandb.Audio(np.zeros(100), sample_rate=8000),
        "video": wandb.Video(frames, fps=8),
    })
os.kill(os.getpid(), 9)
"""


def test_media_outlive_the_process_that_logged_them(own_lab: Lab) -> None:
    assert own_lab.execute(LOG_ALL_AND_DIE).returncode == -signal.SIGKILL
    own_lab.serve()

    run = own_lab.ended("r", project="p")
    wait_until(lambda: not state_of(run).owed)
    wait_until(lambda: not os.listdir(own_lab.home / "inbox"))
    run = own_lab.find("r", "p")

    rows = list(run.scan_history())
    assert [row["loss"] for row in rows] == list(range(5))
    paths = {file.name for file in run.files()}
    for row in rows:
        for key in ("image", "table", "html", "audio", "video"):
            assert row[key]["path"] in paths
        assert set(row["images"]["filenames"]) < paths
    assert len(paths) == 5 * 7
    assert state_of(run).lost_count == 0
    assert json.loads(content(run, rows[4]["table"]["path"]))["data"] == [[4]]


def test_a_forked_child_logs_media(own_lab: Lab) -> None:
    own_lab.run_script(
        """
        import os, flightlog, numpy as np
        run = flightlog.init(id="r", project="p")
        def log(n):
            run.log({"x": flightlog.Image(np.full((2, 2), n, np.uint8))}, step=n)
        log(1)
        pid = os.fork()
        if pid == 0:
            log(2)
            run.finish()
            os._exit(0)
        os.waitpid(pid, 0)
        log(3)
        run.finish()
        """
    )

    images = own_lab.find("r", "p").images()

    assert [image.step for image in images] == [1, 2, 3]
    for image in images:
        with image.open() as file:
            assert np.asarray(pillow.open(file))[0, 0] == image.step


def test_other_threads_do_not_wait_while_media_are_copied(live: flightlog.Run) -> None:
    class Slow(Image):
        def described(self, key: str, files: Any) -> dict[str, Any]:
            worker = threading.Thread(target=live.log, args=({"other": 1},))
            worker.start()
            worker.join(60)
            assert not worker.is_alive(), "it waits for this call"
            return super().described(key, files)

    live.log({"loss": 1.0, "x": Slow(COLOUR)})

    rows = list(read(live).scan_history())
    assert sum("other" in row for row in rows) == 1


def test_threads_log_media_at_once(live: flightlog.Run) -> None:
    def log(step: int) -> None:
        live.log({"x": Image(np.full((2, 2), step, np.uint8)), "n": step}, step=step)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(log, range(100)))
    run = read(live)

    assert [row["n"] for row in run.scan_history()] == list(range(100))
    assert len({image.path for image in run.images()}) == 100


def test_the_types_are_where_wandb_has_them(own_lab: Lab) -> None:
    loaded = own_lab.run_script(
        """
        import sys, flightlog as wandb
        from flightlog.data_types import Table
        assert wandb.data_types.Table is wandb.Table is Table
        run = wandb.init()
        run.log({"t": wandb.Table(["a"], [[1]]), "h": wandb.Html("<p>"),
                 "n": wandb.Histogram(np_histogram=([1], [0, 1]))})
        heavy = ("numpy", "PIL", "pyarrow", "sqlite3", "pandas")
        print(*(name for name in heavy if name in sys.modules))
        """
    )

    assert loaded == ""


# Images


def test_a_list_of_images_is_read_back_as_images(live: flightlog.Run) -> None:
    wide = np.zeros((6, 9, 3), np.uint8)
    live.log({"x": [Image(COLOUR, caption="one"), Image(COLOUR)], "y": [Image(wide)]})
    unlike = [Image(COLOUR), Image(wide, file_type="jpg")]
    live.log({"x": unlike, "mixed": [1, Image(wide)]})
    run = read(live)

    images = run.images()

    assert [(each.step, each.key, each.caption, each.width) for each in images] == [
        (0, "x", "one", 8),
        (0, "x", None, 8),
        (0, "y", None, 9),
        (1, "mixed", None, 9),
        (1, "x", None, 8),
        (1, "x", None, 9),
    ]
    assert next(run.scan_history())["x"] == {
        "_type": "images/separated",
        "width": 8,
        "height": 6,
        "format": "png",
        "count": 2,
        "filenames": [images[0].path, images[1].path],
        "captions": ["one", ""],
    }
    assert images[0].format == "png"


def test_an_array_is_copied_when_it_is_logged(live: flightlog.Run) -> None:
    array = COLOUR.copy()
    image = Image(array)
    live.log({"x": image})
    live.log({"y": image})
    array[:] = 0

    for each in read(live).images():
        with each.open() as file:
            assert np.array_equal(np.asarray(pillow.open(file)), COLOUR)


def test_an_image_is_made_of_another_without_what_is_drawn_on_it(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    pillow.fromarray(COLOUR).save(path)
    boxes: dict[str, Any] = {"b": {"box_data": []}}
    live.log({"a": Image(Image(COLOUR, caption="c", boxes=boxes))})
    live.log({"b": Image(Image(path), caption="d")})

    a, b = read(live).images()

    assert (a.caption, b.caption) == ("c", "d")
    for each in (a, b):
        with each.open() as file:
            assert np.array_equal(np.asarray(pillow.open(file)), COLOUR)


def test_boxes_stand_in_the_row_and_masks_are_files(
    live: flightlog.Run, tmp_path: Path
) -> None:
    mask = np.array([[0, 1, 7]])
    path = tmp_path / "mask.png"
    path.write_bytes(b"a mask")
    box = {"position": {"minX": 0.1, "maxX": 0.2, "minY": 0, "maxY": 1}, "class_id": 1}
    image = Image(
        COLOUR,
        grouping=3,
        classes=[{"id": 1, "name": "cat"}],
        boxes={"predictions": {"box_data": [box], "class_labels": {1: "cat"}}},
        masks={
            "truth": {"mask_data": mask, "class_labels": {7: "dog"}},
            "kept": {"path": path},
        },
    )
    live.log({"x": image, "list": [image]})
    run = read(live)

    row = row_of(run)

    found = row["x"]
    assert (found["grouping"], found["classes"]) == (3, [{"id": 1, "name": "cat"}])
    assert found["boxes"] == {
        "predictions": {"box_data": [box], "class_labels": {"1": "cat"}}
    }
    truth, kept = found["masks"]["truth"], found["masks"]["kept"]
    assert (truth["_type"], truth["class_labels"]) == ("mask", {"7": "dog"})
    shown = pillow.open(io.BytesIO(content(run, truth["path"])))
    assert np.array_equal(np.asarray(shown), mask)
    assert content(run, kept["path"]) == b"a mask"
    assert row["list"]["all_boxes"] == [found["boxes"]]
    assert len(run.images()) == 2


@pytest.mark.parametrize(
    ("array", "normalize", "expected"),
    [
        ([[0.0, 1000.0]], True, [0, 255]),
        ([[0.0, 1000.0]], False, [0, 255]),
        ([[0.5, 100.7]], False, [0, 100]),
        ([[-5, 7]], False, [0, 7]),
        ([[np.nan, 7.0]], False, [0, 7]),
    ],
)
def test_values_are_scaled_or_cut(
    live: flightlog.Run, array: Any, normalize: bool, expected: list[int]
) -> None:
    live.log({"x": Image(np.array(array), normalize=normalize)})

    (image,) = read(live).images()

    with image.open() as file:
        assert np.asarray(pillow.open(file)).tolist() == [expected]


def test_a_mode_converts_pil_images(live: flightlog.Run) -> None:
    colour = pillow.fromarray(COLOUR)
    live.log({"x": Image(colour, mode="L"), "y": Image(COLOUR, "RGB")})

    x, _ = read(live).images()

    with x.open() as file:
        assert pillow.open(file).mode == "L"


# Histograms


def test_a_histogram_stands_in_the_row(live: flightlog.Run) -> None:
    live.log({"a": Histogram([1, 2, 2, 4], num_bins=3)})
    live.log({"b": Histogram(np_histogram=np.histogram([0.0, 1.0], bins=2))})
    live.log({"c": Histogram([1.0, np.nan, np.inf, -np.inf])})

    rows = list(read(live).scan_history())

    bins = [1.0, 2.0, 3.0, 4.0]
    assert rows[0]["a"] == {"_type": "histogram", "values": [1, 2, 1], "bins": bins}
    assert rows[1]["b"]["values"] == [1, 1]
    assert (sum(rows[2]["c"]["values"]), rows[2]["c"]["not_finite"]) == (1, 3)


@settings(max_examples=tries(100))
@given(
    st.lists(st.floats() | st.floats(1e9, 1e9 + 1)),
    st.sampled_from([np.float16, np.float32, np.float64, list]),
    st.integers(1, 512),
)
def test_every_finite_value_is_in_one_bin(
    values: list[float], kind: Any, bin_count: int
) -> None:
    with np.errstate(over="ignore"):
        given = values if kind is list else np.array(values, kind)

    found = Histogram(given, num_bins=bin_count)

    assert len(found.histogram) == bin_count
    assert len(found.bins) == bin_count + 1
    assert sum(found.histogram) + found.not_finite == len(values)
    assert found.bins == sorted(set(found.bins))


# Tables


def test_a_table_is_read_back_as_it_was(live: flightlog.Run) -> None:
    table = Table(columns=["n", "text"])
    table.add_data(1, "eins")
    table.add_data(np.float64(2.5), "zw\udce9i")
    table.add_column("more", [[1, np.int64(2)], {"a": None}])
    live.log({"t": table})
    run = read(live)

    text = content(run, row_of(run)["t"]["path"])

    again = Table(**json.loads(text))
    assert again.columns == ["n", "text", "more"]
    assert again.data == [[1, "eins", [1, 2]], [2.5, "zw\\udce9i", {"a": None}]]
    assert again.data == table.data
    assert again.get_column("n") == [1, 2.5]
    assert again.get_column("n", convert_to="numpy").tolist() == [1.0, 2.5]
    assert again.get_index() == [0, 1]
    assert list(again.iterrows())[1] == (1, again.data[1])
    assert again.get_dataframe().shape == (2, 3)


@pytest.mark.parametrize("how", ["dataframe", "data", "array", "rows", "arrays"])
def test_tables_are_made_of_what_has_rows(how: str) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    made = {
        "dataframe": lambda: Table(dataframe=frame),
        "data": lambda: Table(data=frame),
        "array": lambda: Table(["a", "b"], frame.to_numpy()),
        "rows": lambda: Table(["a", "b"], rows=[(1, 3), (2, 4)]),
        "arrays": lambda: Table(["a", "b"], list(frame.to_numpy())),
    }

    table = made[how]()

    assert table.columns == ["a", "b"]
    assert table.data == [[1, 3], [2, 4]]


def test_cells_that_json_lacks_are_texts(live: flightlog.Run) -> None:
    frame = pd.DataFrame({"t": [pd.Timestamp("2026-01-02"), pd.NaT]})
    live.log({"f": Table(dataframe=frame)})
    numbers = [float("nan"), float("inf"), float("-inf"), [float("nan")], 2**70]
    live.log({"n": Table(list(range(5)), [numbers])})
    run = read(live)

    first, second = run.scan_history()

    data = json.loads(content(run, first["f"]["path"]))["data"]
    assert data == [["2026-01-02T00:00:00"], [None]]
    (row,) = json.loads(content(run, second["n"]["path"]))["data"]
    assert row == ["NaN", "Infinity", "-Infinity", ["NaN"], 2**70]


def test_media_in_cells_are_files_too(live: flightlog.Run) -> None:
    live.log({"t": Table(["image", "n"], [[Image(COLOUR), 1], [Image(COLOUR), 2]])})
    run = read(live)

    data = json.loads(content(run, row_of(run)["t"]["path"]))["data"]

    assert [row[0]["_type"] for row in data] == ["image-file"] * 2
    for row in data:
        image = pillow.open(io.BytesIO(content(run, row[0]["path"])))
        assert np.array_equal(np.asarray(image), COLOUR)


_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


class _Kept:
    """Takes files in as a run does, and keeps what they hold."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "kept"

    def leave(self, key: str, kind: Any, put: Any, pixels: object = None) -> str:
        self.path.unlink(missing_ok=True)
        put(self.path)
        return "kept"


@settings(max_examples=tries(60))
@given(st.lists(st.tuples(_CELLS, _CELLS), max_size=4))
def test_any_cells_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any]]
) -> None:
    kept = _Kept(tmp_path_factory.getbasetemp())

    Table(["a", "b"], rows).described("t", kept)

    found = json.loads(kept.path.read_bytes())["data"]
    assert found == json.loads(json.dumps(rows), parse_constant=str)


# Html, sounds, videos


def test_html_is_kept_as_it_is(live: flightlog.Run, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<p>é")
    live.log({"a": Html("<p>é"), "b": Html(path), "c": Html(str(path), inject=False)})
    both = [Html("<p>é"), Html(io.BytesIO("<p>é".encode()))]
    live.log({"d": Html(io.StringIO("<p>é")), "e": both})
    live.log({"f": Html(str(path), data_is_not_path=True)})
    run = read(live)

    first, second, third = run.scan_history()

    paths = [first[key]["path"] for key in "abc"] + [second["d"]["path"]]
    paths += [each["path"] for each in second["e"]["html"]]
    assert [content(run, each).decode() for each in paths] == ["<p>é"] * 6
    assert all(each.startswith("media/html/") for each in paths)
    assert (second["e"]["_type"], second["e"]["count"]) == ("html", 2)
    assert first["a"]["size"] == 5
    assert content(run, third["f"]["path"]).decode() == str(path)


def sound(run: Run, path: str) -> Any:
    with wave.open(io.BytesIO(content(run, path))) as file:
        kind = {1: np.uint8, 2: np.int16, 4: np.int32}[file.getsampwidth()]
        samples = np.frombuffer(file.readframes(file.getnframes()), kind)
        return file.getframerate(), samples.reshape(-1, file.getnchannels())


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 1.0, -1.0, 0.5], [[0], [32767], [-32767], [16384]]),
        ([2.0, -2.0, np.nan, np.inf], [[32767], [-32767], [0], [32767]]),
        (np.array([[1, 2], [3, 4]], np.int16), [[1, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]], ">i4"), [[1, 2], [3, 4]]),
        (np.array([1, 2, 255], np.uint8), [[1], [2], [255]]),
        (np.array([[0.0, 1.0], [1.0, 0.0]], np.float16).T, [[0, 32767], [32767, 0]]),
    ],
)
def test_samples_become_a_wav_file(
    live: flightlog.Run, samples: Any, expected: Any
) -> None:
    live.log({"x": Audio(samples, sample_rate=8000, caption="c")})
    run = read(live)

    found = row_of(run)["x"]

    rate, heard = sound(run, found["path"])
    assert rate == 8000
    assert heard.tolist() == expected
    assert found["duration"] == len(expected) / 8000
    assert (found["_type"], found["caption"]) == ("audio-file", "c")


def test_long_sounds_have_no_seams(live: flightlog.Run) -> None:
    samples = np.linspace(-1, 1, 300_000).reshape(-1, 3)
    live.log({"x": Audio(samples, sample_rate=44_100.0)})
    run = read(live)

    _, heard = sound(run, row_of(run)["x"]["path"])

    assert np.array_equal(heard, np.rint(samples.astype(np.float32) * 32767))


def test_files_of_sounds_and_videos_are_kept_as_they_are(
    live: flightlog.Run, tmp_path: Path
) -> None:
    for name in ("a.ogg", "b.MP4", "c"):
        (tmp_path / name).write_bytes(name.encode())
    live.log({"a": Audio(str(tmp_path / "a.ogg")), "c": Audio(tmp_path / "c")})
    live.log({"b": Video(tmp_path / "b.MP4", caption="c", fps=3)})
    odd = Video(io.BytesIO(b"odd"), format="webm")
    live.log({"d": odd, "e": [Video(b"GIF89a")]})
    run = read(live)

    first, second, third = run.scan_history()

    assert content(run, first["a"]["path"]) == b"a.ogg"
    assert [first[key]["path"].rpartition(".")[2] for key in "ac"] == ["ogg", "bin"]
    assert content(run, second["b"]["path"]) == b"b.MP4"
    assert (second["b"]["format"], second["b"]["caption"]) == ("mp4", "c")
    assert (third["d"]["format"], content(run, third["d"]["path"])) == ("webm", b"odd")
    (listed,) = third["e"]["videos"]
    assert (third["e"]["_type"], listed["format"]) == ("videos", "gif")


def test_frames_become_a_gif(live: flightlog.Run) -> None:
    frames = np.zeros((5, 3, 8, 12), np.uint8)
    frames += np.arange(5, dtype=np.uint8)[:, None, None, None] * 40
    live.log({"x": Video(frames, caption="c"), "y": Video(frames[None], fps=50)})
    run = read(live)

    row = row_of(run)

    x = row["x"]
    assert (x["_type"], x["width"], x["height"]) == ("video-file", 12, 8)
    shown = pillow.open(io.BytesIO(content(run, x["path"])))
    frames_shown = [each.convert("L") for each in ImageSequence.Iterator(shown)]
    assert [each.getpixel((0, 0)) for each in frames_shown] == [0, 40, 80, 120, 160]
    assert shown.info["duration"] == 250
    assert content(run, row["y"]["path"])[:4] == b"GIF8"


# What is wrong


_TABLE = Table(["a"], [[1]])


@pytest.mark.parametrize(
    ("make", "error", "word"),
    [
        (lambda: Image(None), TypeError, "NoneType"),
        (lambda: Image([[1]]), TypeError, "list"),
        (lambda: Image(np.zeros(3)), ValueError, "HxW"),
        (lambda: Image("nowhere.png"), FileNotFoundError, "nowhere"),
        (lambda: Image("/"), (ValueError, OSError), "/"),
        (lambda: Image(COLOUR, mode=3), TypeError, "mode"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, mode="XYZ"), ValueError, "RGB"),
        (lambda: Image(__file__, mode="XYZ"), ValueError, "RGB"),
        (lambda: Image(b""), ValueError, "has bytes"),
        (lambda: Image("\ud800"), ValueError, "must name a file"),
        (lambda: Image(COLOUR, file_type=""), ValueError, "file_type"),
        (lambda: Image(COLOUR, grouping=True), TypeError, "grouping"),
        (lambda: Image(COLOUR, grouping=2**70), ValueError, "grouping"),
        (lambda: Image(COLOUR, classes=b""), TypeError, "id and name"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, masks={"a": {"path": 3}}), TypeError, "must be a path"),
        (lambda: Image(COLOUR, mode="L"), ValueError, "3 channels"),
        (lambda: Image(COLOUR, caption=3), TypeError, "caption"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, grouping="a"), TypeError, "grouping"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, file_type="svg"), ValueError, "png"),
        (lambda: Image(COLOUR, file_type=3), TypeError, "file_type"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, normalize=1), TypeError, "normalize"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, classes=["a"]), TypeError, "id and name"),  # type: ignore[list-item]
        (lambda: Image(COLOUR, classes=3), TypeError, "id and name"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, boxes=[1]), TypeError, "dict of dicts"),  # type: ignore[arg-type]
        (lambda: Image(COLOUR, boxes={"a": {}}), TypeError, "box_data"),
        (lambda: Image(COLOUR, boxes={"a": {"box_data": [1]}}), TypeError, "position"),
        (lambda: Image(COLOUR, masks={"a": {}}), TypeError, "mask_data"),
        (lambda: Image(COLOUR, masks={"a": {"mask_data": COLOUR}}), ValueError, "HxW"),
        (
            lambda: Image(COLOUR, masks={"a": {"mask_data": np.array([[256]])}}),
            ValueError,
            "0 to 255",
        ),
        (lambda: Image(COLOUR, masks={"a": {"path": "no"}}), FileNotFoundError, "no"),
        (lambda: Histogram(), TypeError, "sequence"),
        (lambda: Histogram(["a"]), TypeError, "numbers"),
        (lambda: Histogram([1j]), TypeError, "numbers"),
        (lambda: Histogram([1], num_bins=0), ValueError, "1 to 512"),
        (lambda: Histogram([1], num_bins=513), ValueError, "1 to 512"),
        (lambda: Histogram([1], num_bins="a"), TypeError, "num_bins"),  # type: ignore[arg-type]
        (lambda: Histogram([1], num_bins=True), TypeError, "num_bins"),
        (lambda: Histogram(np_histogram=(3, 4)), TypeError, "np_histogram"),
        (lambda: Histogram(np_histogram=([1], [2, 1])), ValueError, "that grow"),
        (lambda: Histogram(np_histogram=([1], [np.nan, 1])), ValueError, "that grow"),
        (lambda: Histogram(np_histogram=([-1], [0, 1])), ValueError, "below 0"),
        (lambda: Histogram(np_histogram=([1], [2])), ValueError, "2 edges"),
        (lambda: Histogram(np_histogram=([1],)), ValueError, "counts, edges"),  # type: ignore[arg-type]
        (lambda: Histogram(np_histogram=(["a"], [0, 1])), TypeError, "numbers"),
        (
            lambda: Histogram(np_histogram=([0] * 513, [0] * 514)),
            ValueError,
            "1 to 512",
        ),
        (lambda: Table("ab"), TypeError, "columns"),
        (lambda: Table([1.5]), TypeError, "columns"),  # type: ignore[list-item]
        (lambda: Table(["a", "a"]), ValueError, "same name"),
        (lambda: Table(b"a"), TypeError, "columns"),
        (lambda: Table(["a"], [b"x"]), TypeError, "cells"),
        (lambda: Table(["a"], np.int64(3)), TypeError, "data must be a list"),
        (lambda: Table(["a"], [[1]], rows=3), ValueError, "give one of"),
        (lambda: Table(["a"], log_mode=np.arange(2)), ValueError, "IMMUTABLE"),  # type: ignore[arg-type]
        (lambda: Table(["a"], "text"), TypeError, "rows"),
        (lambda: Table(["a"], [1]), TypeError, "cells"),
        (lambda: Table(["a"], ["text"]), TypeError, "cells"),
        (lambda: Table(["a"], [[1, 2]]), ValueError, "1 cells"),
        (lambda: Table(["a"], [[object()]]), TypeError, "'a'"),
        (lambda: Table(["a"], [[[Image(COLOUR)]]]), TypeError, "Image"),
        (lambda: Table(dataframe=[[1]]), TypeError, "pandas"),
        (lambda: Table(["a"], log_mode="NEVER"), ValueError, "IMMUTABLE"),  # type: ignore[arg-type]
        (lambda: _TABLE.add_column("a", [1]), ValueError, "same name"),
        (lambda: _TABLE.add_column("b", [1, 2]), ValueError, "1 cells"),
        (lambda: _TABLE.add_column("b", "c"), TypeError, "list of cells"),
        (lambda: _TABLE.add_column("b", [object()]), TypeError, "'b'"),
        (lambda: _TABLE.add_column(None, [1]), TypeError, "columns"),  # type: ignore[arg-type]
        (lambda: _TABLE.get_column("none"), ValueError, "none"),
        (lambda: _TABLE.get_column("a", "list"), ValueError, "numpy"),  # type: ignore[arg-type]
        (lambda: Html(None), TypeError, "NoneType"),
        (lambda: Html(Path("nowhere")), FileNotFoundError, "nowhere"),
        (lambda: Html("<p>", inject=1), TypeError, "inject"),  # type: ignore[arg-type]
        (lambda: Html("<p>", True, 1), TypeError, "data_is_not_path"),  # type: ignore[arg-type]
        (lambda: Audio([0.0]), ValueError, "sample_rate"),
        (lambda: Audio([0.0], 0), ValueError, "sample_rate"),
        (lambda: Audio([0.0], "fast"), TypeError, "sample_rate"),  # type: ignore[arg-type]
        (lambda: Audio([0.0], float("nan")), ValueError, "sample_rate"),
        (lambda: Audio([0.0], 8000, 3), TypeError, "caption"),  # type: ignore[arg-type]
        (lambda: Audio(None, 8000), TypeError, "NoneType"),
        (lambda: Audio([], 8000), ValueError, "no sound"),
        (lambda: Audio(np.zeros((2, 100)), 8000), ValueError, "2x100"),
        (lambda: Audio(np.zeros(3, np.int64), 8000), TypeError, "int64"),
        (lambda: Audio(["a"], 8000), TypeError, "samples"),
        (lambda: Audio([0.0], np.arange(2)), TypeError, "sample_rate"),  # type: ignore[arg-type]
        (lambda: Audio("nowhere.wav"), FileNotFoundError, "nowhere"),
        (
            lambda: Audio(np.broadcast_to(np.float64(0), 1 << 28), 8000),
            ValueError,
            "too large",
        ),
        (lambda: Video(np.zeros((8, 8))), ValueError, "no video"),
        (lambda: Video(np.zeros((2, 3, 8, 8), complex)), TypeError, "bools"),
        (lambda: Video(np.zeros((2, 3, 8, 8)), format="mp4"), ValueError, "as a file"),
        (lambda: Video(np.zeros((2, 3, 8, 8)), fps=0), ValueError, "fps"),
        (lambda: Video(np.zeros((2, 3, 8, 8)), fps=101), ValueError, "fps"),
        (lambda: Video(np.zeros((2, 3, 8, 8)), fps="a"), TypeError, "fps"),  # type: ignore[arg-type]
        (lambda: Video(np.zeros((2, 3, 8, 8)), caption=3), TypeError, "caption"),  # type: ignore[arg-type]
        (lambda: Video(b"GIF89a", format="avi"), ValueError, "gif, mp4"),
        (lambda: Video(b"GIF89a", format=3), TypeError, "format"),  # type: ignore[arg-type]
        (lambda: Video(b"what is this"), ValueError, "gif, mp4"),
        (lambda: Video(3), TypeError, "int"),
        (lambda: Video("nowhere.mp4"), FileNotFoundError, "nowhere"),
        (lambda: Video(__file__), ValueError, "gif, mp4"),
        (
            lambda: Video(np.broadcast_to(np.uint8(0), (1 << 20, 3, 32, 32))),
            ValueError,
            "too large",
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_is_made(
    make: Any, error: Any, word: str
) -> None:
    with pytest.raises(error, match=word):
        make()
