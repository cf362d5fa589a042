"""What a `log_image()` costs the caller, against copies of the array in memory.

The pixels go to a file, whose pages are new to the process, as a queue in memory would
be: so the floor is a copy into new memory. One into memory that is warm is shown, too.
"""

import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _harness import Report, argument_parser, percentile, say, scratch_home

import flightlog

SHAPE = (1024, 1024, 3)
COPIES_MAX = 3.0  # A call is to cost at most so many copies.
P999_MAX_US = 100.0  # Of log() in another thread meanwhile.
PACE_S = 0.002


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    report = Report("log_image", arguments.json)
    with scratch_home(arguments.scratch) as home:
        run = flightlog.init(project="images", home=home)
        assert run.flush(60)
        say(f"logging {arguments.images} images …")
        measure_calls(report, run, arguments.images)
        say("logging rows beside images …")
        measure_rows(report, run, arguments.images)
        started = time.perf_counter()
        run.finish()
        wait_until_made(run.home.inbox)
        took_s = time.perf_counter() - started
        images = 2 * arguments.images
        report.add("the daemon", what="images made a second", value=images / took_s)
    report.show()


def measure_calls(report: Report, run: flightlog.Run, count: int) -> None:
    """Time calls and copies in turn."""
    image, warm = noise(), noise()
    measured: dict[str, tuple[Callable[[], object], list[float]]] = {
        "copy into warm memory": (partial(np.copyto, warm, image), []),
        "copy into new memory": (partial(copy_to_new_memory, image), []),
        "log_image": (partial(run.log_image, "noise", image), []),
    }
    for _ in range(count):
        for call, times in measured.values():
            times.append(timed(call))
        time.sleep(PACE_S)
    for name, (_, times) in measured.items():
        report.add(
            f"a uint8 image of {SHAPE}, ms",
            what=name,
            median=statistics.median(times) * 1e3,
            p99=percentile(times, 99) * 1e3,
            max=max(times) * 1e3,
        )
    medians = [statistics.median(times) for _, times in measured.values()]
    report.check("log_image", medians[2] / medians[1], "copies", COPIES_MAX)


def measure_rows(report: Report, run: flightlog.Run, count: int) -> None:
    """Time `log()` alone, and while another thread logs images."""
    image, ended = noise(), threading.Event()

    def log_images() -> None:
        for _ in range(count):
            run.log_image("beside", image)
            time.sleep(PACE_S)
        ended.set()

    alone = row_times(run, lambda n: n >= 20_000)
    thread = threading.Thread(target=log_images)
    thread.start()
    beside = row_times(run, lambda n: ended.is_set())
    thread.join()
    for name, times in (("alone", alone), ("beside images", beside)):
        report.add(
            "log() of 3 floats, µs",
            what=name,
            median=statistics.median(times) * 1e6,
            p99=percentile(times, 99) * 1e6,
            p999=percentile(times, 99.9) * 1e6,
            max=max(times) * 1e6,
        )
    p999 = percentile(beside, 99.9) * 1e6
    report.check("p99.9 of log() beside images", p999, "µs", P999_MAX_US)


def row_times(run: flightlog.Run, is_over: Callable[[int], bool]) -> list[float]:
    times: list[float] = []
    row = {"loss": 0.5, "accuracy": 0.5, "lr": 0.1}
    while not is_over(len(times)):
        times.append(timed(partial(run.log, row)))
        if len(times) % 100 == 0:
            time.sleep(PACE_S)
    return times


def noise() -> Any:
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def copy_to_new_memory(image: Any) -> None:
    with mmap.mmap(-1, image.nbytes) as memory:
        memory[:] = image.reshape(-1).data


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def wait_until_made(inbox: Any) -> None:
    while os.listdir(inbox):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
