"""The training process whose asset calls are measured: for flightlog and Runicorn.

Both have the same calls. Each tracker's own environment runs this file:

    python asset_bodies.py NAME CALL --home FOLDER --source PATH

CALL is one of CALLS. One JSON object is printed: `call_s`, what the call kept its
caller; `done_s`, until what it began was over; and the times of `log()` in another
thread, `alone` and `beside` it, as nanoseconds.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ("main",)

CALLS = ("log_image", "log_dataset", "log_pretrained", "watch_outputs", "snapshot")
PACE_S = 0.001
WARM_UP_CALLS = 300
ALONE_S = 2.0
BESIDE_MIN_S = 2.0  # Also beside what is over at once.
DONE_TIMEOUT_S = 300.0
INTERVAL_S = 1.0  # Of the watcher.
ROW = {"loss": 0.5, "accuracy": 0.5, "lr": 0.1}


class Rows:
    """A thread that logs at a steady pace, as a training loop, and is timed."""

    def __init__(self, log: Callable[[dict[str, float]], object]) -> None:
        self._log = log
        self._times: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Rows":
        self._thread.start()
        time.sleep(WARM_UP_CALLS * PACE_S)
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> list[int]:
        """Return the times since the last look."""
        taken, self._times = self._times, []
        return taken

    def _run(self) -> None:
        while not self._ended.is_set():
            started = time.perf_counter_ns()
            self._log(ROW)
            self._times.append(time.perf_counter_ns() - started)
            time.sleep(PACE_S)


def open_run(name: str, home: Path) -> Any:
    if name == "flightlog":
        import flightlog

        run = flightlog.init(project="bench", home=home)
        run.flush(60)
        return run
    import runicorn

    return runicorn.init(path="bench", storage=str(home))


def call_of(run: Any, call: str, source: str) -> Callable[[], object]:
    """Return the call, with all that it needs at hand."""
    match call:
        case "log_image":
            import numpy as np

            noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3))
            image = noise.astype(np.uint8)
            return lambda: run.log_image("noise", image)
        case "log_dataset":
            return lambda: run.log_dataset("data", source)
        case "log_pretrained":
            return lambda: run.log_pretrained("base", path_or_uri=source, save=True)
        case "watch_outputs":
            return lambda: run.watch_outputs(
                output_dirs=[source], interval_sec=INTERVAL_S, patterns=["*.ckpt"]
            )
        case _:
            raise ValueError(call)


def is_over(name: str, run: Any, call: str) -> Callable[[], bool]:
    """Return how to see that what the call began is over."""
    started = time.monotonic()
    if call == "watch_outputs":  # Some scans, without an end.
        return lambda: time.monotonic() - started > 4 * INTERVAL_S
    if name == "runicorn":
        return lambda: True  # All is done in the call.
    import flightlog

    read = flightlog.Api(home=run.home.root).run(run.path)
    if call == "log_image":
        return lambda: not os.listdir(run.home.inbox)
    if call == "log_dataset":
        return lambda: read.assets.datasets[0].fingerprint is not None
    return lambda: read.assets.pretrained[0].saved


def snapshot(name: str, home: Path, source: str) -> None:
    """Time a run that begins with a snapshot, against one without."""
    if name == "flightlog":
        import flightlog as tracker

        where: dict[str, Any] = {"project": "bench", "home": home}
    else:
        import runicorn as tracker

        where = {"path": "bench", "storage": str(home)}
    tracker.init(**where).finish()
    times = {}
    for wanted in (False, True):
        started = time.perf_counter()
        run = tracker.init(**where, snapshot_code=wanted, workspace_root=source)
        times[wanted] = time.perf_counter() - started
        run.finish()
    done_s = time.perf_counter() - started
    print(json.dumps({"call_s": times[True] - times[False], "done_s": done_s}))


def measure(name: str, call: str, home: Path, source: str) -> None:
    run = open_run(name, home)
    do = call_of(run, call, source)
    with Rows(run.log) as rows:
        time.sleep(ALONE_S)
        alone = rows.take()
        started = time.perf_counter()
        do()
        call_s = time.perf_counter() - started
        over = is_over(name, run, call)
        while not over() and time.perf_counter() - started < DONE_TIMEOUT_S:
            time.sleep(0.05)
        done_s = time.perf_counter() - started
        time.sleep(max(0.0, BESIDE_MIN_S - done_s))
        beside = rows.take()
    print(
        json.dumps(
            {"call_s": call_s, "done_s": done_s, "alone": alone, "beside": beside}
        )
    )
    sys.stdout.flush()
    run.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("flightlog", "runicorn"))
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--source", default="")
    arguments = parser.parse_args()
    if arguments.call == "snapshot":
        snapshot(arguments.name, arguments.home, arguments.source)
    else:
        measure(arguments.name, arguments.call, arguments.home, arguments.source)


if __name__ == "__main__":
    main()
