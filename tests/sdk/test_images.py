"""Images: logged, encoded by the daemon, read back."""

import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow
from tests.sdk.conftest import Lab, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog import BadArgumentError, CommError, NotFoundError
from flightlog._images import LoggedPicture
from flightlog._inbox import Inbox
from flightlog._media_log import MediaLog
from flightlog._pictures import read_picture
from flightlog.apis.public import Api, Run
from flightlog.apis.public.images import Image
from flightlog.cli.checking import check_home
from flightlog_storage.blobs import BlobStore
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
from flightlogd.client import ask_status

COLOUR = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def png(array: Any = COLOUR) -> bytes:
    buffer = io.BytesIO()
    pillow.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def pixels(image: Image) -> Any:
    with image.open() as file:
        return np.asarray(pillow.open(file))


@pytest.fixture
def live(lab: Lab, home: Path) -> flightlog.Run:
    return flightlog.init(project="images", reinit="create_new")


@pytest.fixture
def switches() -> Iterator[None]:
    """Have threads change places as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def read(live: flightlog.Run) -> Run:
    live.finish()
    return Api(home=live.home.root).run(live.path)


def test_an_image_is_read_back_as_it_was_logged(live: flightlog.Run) -> None:
    path = live.log_image("val/pred", COLOUR, step=7, caption="the best")

    (image,) = read(live).images()

    assert path.startswith("media/images/val/pred_")
    assert (image.key, image.step, image.caption) == ("val/pred", 7, "the best")
    assert (image.width, image.height, image.format) == (8, 6, "png")
    assert image.path == path
    assert np.array_equal(pixels(image), COLOUR)


def test_the_array_may_change_when_the_call_has_returned(live: flightlog.Run) -> None:
    array = COLOUR.copy()
    live.log_image("x", array)
    array[:] = 0

    assert np.array_equal(pixels(read(live).images()[0]), COLOUR)


class _Tensor:
    """Looks like a tensor of torch on another device."""

    def __init__(self, array: Any, dtype: str = "torch.float32") -> None:
        self._array, self.dtype, self.shape = array, dtype, array.shape

    def detach(self) -> "_Tensor":
        return self

    def cpu(self) -> "_Tensor":
        return self

    def float(self) -> "_Tensor":
        return _Tensor(self._array.astype(np.float32))

    def __array__(self, *_: object, **__: object) -> Any:
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self._array


class _Figure:
    """Looks like a figure of matplotlib."""

    def savefig(self, file: io.BytesIO, format: str) -> None:
        pillow.fromarray(COLOUR).save(file, format)


class _Drawing:
    """Looks like nothing that is known, and can save itself."""

    def save(self, file: io.BytesIO, format: str) -> None:
        pillow.fromarray(COLOUR).save(file, format)


class _Axes:
    figure = _Figure()


@pytest.mark.parametrize(
    "image",
    [
        COLOUR,
        np.moveaxis(COLOUR, -1, 0),
        COLOUR.astype(np.float64) / 255,
        COLOUR.astype(np.int64),
        np.asfortranarray(COLOUR),
        COLOUR[::-1][::-1],
        pillow.fromarray(COLOUR),
        pillow.fromarray(np.dstack([COLOUR, np.full((6, 8), 255, np.uint8)])),
        _Tensor(np.moveaxis(COLOUR, -1, 0).astype(np.float32) / 255),
        _Tensor(COLOUR / 255, "torch.bfloat16"),
        _Figure(),
        _Axes(),
        _Drawing(),
        png(),
        bytearray(png()),
        memoryview(png()),
    ],
    ids=lambda image: type(image).__name__,
)
def test_anything_that_is_an_image_is_taken(live: flightlog.Run, image: Any) -> None:
    live.log_image("x", image)

    (found,) = read(live).images()

    assert (found.width, found.height) == (8, 6)
    assert np.array_equal(pixels(found)[..., :3], COLOUR)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
)
def test_images_of_pillow_in_any_mode_are_taken(live: flightlog.Run, mode: str) -> None:
    given = pillow.fromarray(COLOUR)
    steps = {"PA": ("P", "PA"), "I;16": ("L", "I;16"), "F": ("L", "F")}
    for step in steps.get(mode, (mode,)):
        given = given.convert(step)
    live.log_image("x", given)

    with read_picture(given, "png", 90) as picture:
        assert picture.pixels is not None, "the daemon encodes it"
    (found,) = read(live).images()
    with found.open() as file:
        assert np.array_equal(colours(pillow.open(file)), colours(given))


def colours(image: pillow.Image) -> Any:
    is_deep = image.mode in ("I", "I;16", "F")
    return np.asarray((image.convert("L") if is_deep else image).convert("RGB"))


def test_bytes_stay_as_they_are(live: flightlog.Run) -> None:
    live.log_image("odd", b"no image at all", format="webp")
    live.log_image("named", png(), format="jpeg")

    named, odd = read(live).images()

    with odd.open() as file:
        assert file.read() == b"no image at all"
    assert (odd.format, odd.path[-5:]) == ("webp", ".webp")
    with named.open() as file:
        assert file.read() == png()
    assert (named.format, named.path[-4:]) == ("png", ".png"), "what they are"
    with pytest.raises(flightlog.CommError, match="is no image"):
        assert odd.width


def test_a_file_is_kept_as_it_is(live: flightlog.Run, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpeg"
    path.write_bytes(png())
    (tmp_path / "drawn.svg").write_bytes(b"<svg/>")
    live.log_image("path", path)
    live.log_image("text", str(path), format="webp")
    drawn = live.log_image("drawn", tmp_path / "drawn.svg")
    path.unlink()

    assert drawn.endswith(".svg")
    images = read(live).images()
    assert len(images) == 3
    for image in (each for each in images if each.path != drawn):
        with image.open() as file:
            assert file.read() == png()
        assert image.path.endswith(".png")
        assert (image.width, image.height) == (8, 6)


@pytest.mark.parametrize(
    ("head", "extension"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"GIF89a", "gif"),
        (b"BM", "bmp"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"\0\0\0\x20ftypavif", "avif"),
        (b"\0\0\0\x20ftypheic", "heic"),
        (b"<svg", "svg"),
    ],
)
def test_the_extension_is_what_the_bytes_are_else_what_the_name_says(
    tmp_path: Path, head: bytes, extension: str
) -> None:
    path = tmp_path / "image.SVG"
    path.write_bytes(head)
    path.with_suffix("").write_bytes(head)

    with read_picture(path, "webp", 90) as named:
        assert named.extension == extension
    with read_picture(path.with_suffix(""), "webp", 90) as unnamed:
        assert unnamed.extension == extension.replace("svg", "webp")


@pytest.mark.parametrize("make", [np.asarray, pillow.fromarray])
def test_format_and_quality_are_heard(
    live: flightlog.Run, make: Callable[[Any], Any]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    live.log_image("x", make(noise), step=0, format="JPG", quality=5)
    live.log_image("x", make(noise), step=1, format="jpeg", quality=95)

    coarse, fine = read(live).images()

    assert (coarse.format, fine.format) == ("jpg", "jpeg")
    with coarse.open() as small, fine.open() as large:
        assert pillow.open(small).format == "JPEG"
        assert small.seek(0, os.SEEK_END) < large.seek(0, os.SEEK_END) / 2


@pytest.mark.parametrize(
    "key", ["a/b/c", "ünï/コード", "../../up", "/", "a" * 300, " ", "\0", "x.y"]
)
def test_any_key_will_do(live: flightlog.Run, key: str) -> None:
    path = live.log_image(key, COLOUR)

    (image,) = read(live).images(key)

    assert image.key == key
    assert path.startswith("media/images/")
    assert ".." not in Path(path).parts


def test_images_are_files_of_the_run_and_values_of_their_rows(
    live: flightlog.Run,
) -> None:
    live.log({"loss": 1.0}, commit=False)
    path = live.log_image("pred", COLOUR)
    live.log({"acc": 2.0})
    live.log({"loss": 3.0})
    run = read(live)
    run.images()[0].open().close()

    assert [file.name for file in run.files()] == [path]
    first, second = run.scan_history()
    assert (first["loss"], first["acc"], second["loss"]) == (1.0, 2.0, 3.0)
    assert first["pred"] == {
        "_type": "image-file",
        "path": path,
        "format": "png",
        "width": 8,
        "height": 6,
    }


def test_images_of_one_key_come_by_step(live: flightlog.Run) -> None:
    for step in (3, 1, 2):
        live.log_image("a", np.full((2, 2), step, np.uint8), step=step)
        live.log_image("b", COLOUR, step=step)
    live.log({"other": [1, 2], "plain": {"_type": "else"}})
    run = read(live)

    images = run.images("a")

    assert [image.step for image in images] == [1, 2, 3]
    assert [int(pixels(image)[0, 0]) for image in images] == [1, 2, 3]
    assert len(run.images()) == 6
    assert run.images("none") == []
    with pytest.raises(BadArgumentError, match="key must be a str"):
        run.images(3)  # type: ignore[arg-type]


def test_an_image_is_written_to_a_file_or_into_a_folder(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = live.log_image("pred", png())
    (image,) = read(live).images()

    assert image.download(tmp_path / "one.png").read_bytes() == png()
    assert image.download(str(tmp_path)) == tmp_path / path
    assert (tmp_path / path).read_bytes() == png()
    for wrong in (3, "", "a\0b", "\ud800", "x" * 256):
        with pytest.raises(BadArgumentError, match="path"):
            image.download(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"key": 3}, TypeError, "key"),
        ({"key": ""}, ValueError, "key"),
        ({"image": None}, TypeError, "NoneType"),
        ({"image": [1, 2]}, TypeError, "list"),
        ({"image": 3}, TypeError, "int"),
        ({"image": np.zeros(3)}, ValueError, "HxW"),
        ({"image": np.zeros((2, 2), complex)}, TypeError, "bools, ints or floats"),
        ({"image": np.array([["a"]])}, TypeError, "bools, ints or floats"),
        ({"image": np.zeros((0, 3))}, ValueError, "0x3"),
        (
            {
                "image": np.lib.stride_tricks.as_strided(
                    np.zeros(1), (1 << 14, 1 << 14), (0, 0)
                )
            },
            ValueError,
            "too large",
        ),
        (
            {"image": "nowhere.png"},
            FileNotFoundError,
            "Image file not found: nowhere.png",
        ),
        ({"image": "/"}, ValueError, "/ is not a regular file"),
        ({"image": ""}, ValueError, "must name a file"),
        ({"image": "a\0b"}, ValueError, "must name a file"),
        ({"image": "\ud800"}, ValueError, "must name a file"),
        ({"image": b""}, ValueError, "has bytes"),
        ({"step": "one"}, TypeError, "step"),
        ({"step": -1}, ValueError, "step"),
        ({"caption": 3}, TypeError, "caption"),
        ({"format": "svg"}, ValueError, "png, jpeg"),
        ({"format": None}, TypeError, "format"),
        ({"quality": 0}, ValueError, "1 to 100"),
        ({"quality": 101}, ValueError, "1 to 100"),
        ({"quality": "high"}, TypeError, "quality"),
        ({"quality": True}, TypeError, "quality"),
        ({"quality": np.uint8(101)}, ValueError, "1 to 100"),
        ({"quality": 90.0}, TypeError, "quality"),
    ],
)
def test_what_is_wrong_is_told_at_the_call_and_leaves_nothing(
    live: flightlog.Run, change: dict[str, Any], error: Any, word: str
) -> None:
    with pytest.raises(error, match=word):
        live.log_image(**{"key": "x", "image": COLOUR, **change})

    run = read(live)
    state = state_of(run)
    assert run.images() == []
    assert (run.lastHistoryStep, state.owed, state.lost_count) == (-1, {}, 0)
    wait_until(lambda: not os.listdir(live.home.inbox))


def test_the_signature_is_as_people_know_it() -> None:
    parameters = inspect.signature(flightlog.Run.log_image).parameters

    assert [(name, each.default) for name, each in parameters.items()][3:] == [
        ("step", None),
        ("caption", None),
        ("format", "png"),
        ("quality", 90),
    ]
    assert list(parameters)[:3] == ["self", "key", "image"]
    kinds = {each.kind for each in parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_after_the_end_an_image_is_a_line_and_no_error(
    live: flightlog.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    live.finish()
    capfd.readouterr()

    assert live.log_image("x", COLOUR) == ""
    assert live.log_image("x", COLOUR) == ""

    told = capfd.readouterr().err
    assert told.count("is finished: log_image() comes too late, and is lost") == 1
    assert "spool" not in told


def test_a_disabled_run_takes_images() -> None:
    assert flightlog.init(mode="disabled").log_image("x", COLOUR) == ""


def test_a_forked_child_logs_images(own_lab: Lab) -> None:
    own_lab.run_script(
        """
        import os, flightlog, numpy as np
        run = flightlog.init(id="r", project="p")
        run.log_image("x", np.full((2, 2), 1, np.uint8), step=1)
        pid = os.fork()
        if pid == 0:
            run.log_image("x", np.full((2, 2), 2, np.uint8), step=2)
            run.finish()
            os._exit(0)
        os.waitpid(pid, 0)
        run.log_image("x", np.full((2, 2), 3, np.uint8), step=3)
        run.finish()
        """
    )

    images = own_lab.find("r", "p").images()

    assert [int(pixels(image)[0, 0]) for image in images] == [1, 2, 3]


LOG_AND_DIE = """
import os, flightlog, numpy as np
run = flightlog.init(id="r", project="p")
for n in range(20):
    run.log_image("x", np.full((64, 64), n, np.uint8), step=n)
os.kill(os.getpid(), 9)
"""


def test_images_outlive_the_process_that_logged_them(own_lab: Lab) -> None:
    assert own_lab.execute(LOG_AND_DIE).returncode == -signal.SIGKILL

    images = own_lab.ended("r", project="p").images()

    assert [int(pixels(image)[0, 0]) for image in images] == list(range(20))
    wait_until(lambda: not os.listdir(own_lab.home / "inbox"))


@pytest.fixture
def owed(own_lab: Lab) -> Iterator[Path]:
    """A home with an image that is owed: what is to be made of it, in the inbox."""
    own_lab.run_script("import flightlog; flightlog.init(project='p').finish()")
    home = Home(own_lab.home)
    found: list[int] = []

    def has_worker() -> bool:
        status = ask_status(home, 5.0)
        found[:] = [status.worker_pid] if status and status.worker_pid else []
        return bool(found)

    wait_until(has_worker)
    os.kill(found[0], signal.SIGSTOP)
    own_lab.execute(LOG_AND_DIE.replace("range(20)", "range(1)"))
    own_lab.ended("r", project="p")
    (path,) = home.inbox.iterdir()
    yield path
    with suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGCONT)


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_missing_in_the_inbox_is_damage(
    owed: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(owed.parent.parent)

    def is_checked() -> bool:
        assert check_home(home, full=False, as_json=False)
        return "1 owed files" in capsys.readouterr().out

    wait_until(is_checked)
    if how == "gone":
        owed.unlink()
    else:
        os.truncate(owed, 10)

    assert not check_home(home, full=False, as_json=False)
    told = capsys.readouterr().out
    assert f"inbox/{owed.name}" in told
    assert "someone/p/r" in told


def test_in_a_home_that_cannot_be_written_nobody_waits_for_an_image(
    owed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = owed.parent.parent
    (image,) = Api(home=home).run("someone/p/r").images()
    # Root may write anywhere.
    monkeypatch.setattr(Home, "is_writable", property(lambda home: False))

    with pytest.raises(CommError, match="cannot be written"):
        image.open()


def test_a_lost_image_is_told_and_counted(own_lab: Lab) -> None:
    own_lab.stop()
    own_lab.run_script(
        """
        import os, flightlog, numpy as np
        import flightlog._daemon as d
        d.DaemonStarter.start = lambda self, now: "not now"
        run = flightlog.init(id="r", project="p")
        run.log_image("x", np.zeros((2, 2), np.uint8))
        (name,) = os.listdir(run.home.inbox)
        os.truncate(run.home.inbox / name, 1)
        run.finish()
        """
    )
    (image,) = own_lab.find("r", "p").images()

    with pytest.raises(NotFoundError, match="is lost"):
        image.open()

    assert state_of(own_lab.find("r", "p")).lost_count == 1


def test_damage_of_an_image_is_told(live: flightlog.Run) -> None:
    live.log_image("x", COLOUR)
    run = read(live)
    (image,) = run.images()
    image.open().close()
    (saved,) = state_of(run).files.values()
    blob = BlobStore(live.home.blobs).path(saved.blob)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")

    with pytest.raises(flightlog.CommError, match="not what it is named"):
        image.open()


def test_logging_images_loads_neither_pillow_nor_the_reading_side(own_lab: Lab) -> None:
    loaded = own_lab.run_script(
        """
        import sys, flightlog, numpy as np
        run = flightlog.init()
        run.log_image("x", np.zeros((2, 2), np.uint8))
        print(*(name for name in ("PIL", "pyarrow", "sqlite3") if name in sys.modules))
        """
    )

    assert loaded == ""


def test_threads_that_come_at_once_share_what_counts_their_files(
    live: flightlog.Run, switches: None
) -> None:
    barrier = threading.Barrier(8)

    def together(_: int) -> Inbox:
        barrier.wait()
        return live.life.inbox

    with ThreadPoolExecutor(8) as threads:
        for _ in range(300):
            live.life._inbox = None  # As in a new run.

            assert len(set(threads.map(together, range(8)))) == 1


def test_ctrl_c_leaves_no_row_without_its_image(live: flightlog.Run) -> None:
    def log_row(*arguments: Any) -> None:
        live.life.rows.log(*arguments)
        raise KeyboardInterrupt

    recording = live.life.writing("log_image")
    assert recording is not None
    media = MediaLog(live.life.inbox, log_row, live.life.record)
    with (
        read_picture(COLOUR + 1, "png", 90) as picture,
        pytest.raises(KeyboardInterrupt),
    ):
        media.log(recording, {"x": LoggedPicture(picture, None)}, None, False)

    (image,) = read(live).images()
    assert np.array_equal(pixels(image), COLOUR + 1)


def test_of_many_images_not_all_is_read_anew_for_each(
    live: flightlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(3):
        live.log_image("x", COLOUR + 2, step=step)
    run = read(live)
    images = run.images()
    images[-1].open().close()  # Now it is known where all are.
    monkeypatch.setattr(HomeReader, "state", None)

    for image in images:
        assert np.array_equal(pixels(image), COLOUR + 2)
