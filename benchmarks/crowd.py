"""So many training processes at once, forked from one that has imported flightlog.

    python crowd.py HOME COUNT [--pace-ms N] [--seconds N] [--every N]

Prints two JSON objects, a line each. The first when each process has made its first row
durable; they wait then for a line on stdin. The second when all are done: rows, seconds
from the first log() until all is durable, and how long every Nth row took to be so.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import flightlog

__all__ = ("main",)

FLUSH_TIMEOUT_S = 300.0

Figures = dict[str, float | list[float]]


def percentiles(samples: Sequence[float]) -> list[float]:
    """Return median, p99 and maximum."""
    ordered = sorted(samples)
    return [
        ordered[min(len(ordered) - 1, int(len(ordered) * at))] for at in (0.5, 0.99, 1)
    ]


def member(arguments: argparse.Namespace, number: int, ready: int, go: int) -> Figures:
    """Be one of the processes."""
    run = flightlog.init(project="bench", id=f"crowd-{number}", home=arguments.home)
    run.log({"loss": 0.0, "accuracy": 0.0, "rate": 0.0})
    run.flush(FLUSH_TIMEOUT_S)
    os.write(ready, b".")
    os.read(go, 1)  # Its end is closed when all may go on.
    # Each at a time of its own: they are not to wake all at once, each second.
    time.sleep(arguments.pace_ms / 1000 * number / arguments.count)
    begun = time.monotonic()
    acks, rows = [], 0
    while time.monotonic() - begun < arguments.seconds:
        rows += 1
        run.log({"loss": 1 / rows, "accuracy": rows * 1e-6, "rate": 0.1 + rows * 1e-9})
        if rows % arguments.every == 0:
            asked = time.monotonic()
            run.flush(FLUSH_TIMEOUT_S)
            acks.append(1000 * (time.monotonic() - asked))
        if arguments.pace_ms:
            time.sleep(arguments.pace_ms / 1000)
    run.flush(FLUSH_TIMEOUT_S)
    ended = time.monotonic()
    run.finish()
    return {"rows": rows, "begun": begun, "ended": ended, "acks": acks}


def be_member(
    arguments: argparse.Namespace, number: int, ready: int, go: int, results: int
) -> None:
    code = 1
    try:
        words = json.dumps(member(arguments, number, ready, go)) + "\n"
        with open(results, "a", closefd=False) as file:  # One write, at the end.
            file.write(words)
        code = 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--pace-ms", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--every", type=int, default=sys.maxsize)
    arguments = parser.parse_args()
    ready, tell_ready = os.pipe()
    go, let_go = os.pipe()
    with ExitStack() as stack:
        path = arguments.home / "crowd.jsonl"
        results = os.open(
            path, os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_RDWR, 0o600
        )
        stack.callback(path.unlink)
        pids = []
        for number in range(arguments.count):
            pid = os.fork()
            if not pid:
                os.close(let_go)
                be_member(arguments, number, tell_ready, go, results)
            pids.append(pid)
        os.close(tell_ready)
        here = 0
        while here < arguments.count and (word := os.read(ready, 4096)):
            here += len(word)
        print(json.dumps({"ready": here}), flush=True)
        sys.stdin.readline()
        os.close(let_go)
        for pid in pids:
            os.waitpid(pid, 0)
        found = [json.loads(line) for line in path.read_text().splitlines()]
    acks = [ack for each in found for ack in each["acks"]]
    print(
        json.dumps(
            {
                "ended": len(found),
                "rows": sum(each["rows"] for each in found),
                "took_s": max(each["ended"] for each in found)
                - min(each["begun"] for each in found),
                "ack_ms": percentiles(acks) if acks else [],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
