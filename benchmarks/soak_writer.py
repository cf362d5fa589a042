"""A writer of soak.py: logs 0, 1, 2 … and counts, in a file, the calls that returned.

    python soak_writer.py HOME COUNTER RUN LIFE PACE_S new|resume

SIGTERM lets it finish its run. Of the processes without a run to go on with some end by
themselves, in each way that a training ends.
"""

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import flightlog

__all__ = ("main",)

LIFE_ROWS_MEAN = 20_000


def main() -> None:
    home, counter, run_id, life, pace_s, how = sys.argv[1:]
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    with open(counter, "r+b") as file:
        returned = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    resume = "allow" if how == "resume" else None
    run = flightlog.init(project="soak", id=run_id, home=Path(home), resume=resume)
    if run.life.is_refused:  # The disk is full: it begins when there is room.
        time.sleep(1)
        os._exit(1)
    rows = sys.maxsize
    if run_id != "0-0" and not resume:  # The first one is measured.
        rows = int(random.expovariate(1 / LIFE_ROWS_MEAN))
    for n in range(rows):
        run.log({"life": int(life), "n": n})
        returned[0] = n + 1
        if over:
            break
        time.sleep(float(pace_s))
    if not over and random.random() < 0.5:
        os._exit(1)
    run.finish()


if __name__ == "__main__":
    main()
