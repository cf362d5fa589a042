"""What asset calls cost the training loop: flightlog and Runicorn, side by side.

For each call: what it kept its caller, and how `log()` did in another thread until what
the call had begun was over.
"""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from _harness import (
    Daemon,
    Environment,
    Report,
    argument_parser,
    environments,
    percentile,
    run_verb,
    say,
    scratch_home,
)

BODY = Path(__file__).with_name("asset_bodies.py")
PEERS = ("runicorn==0.7.2",)
FOLDER_FILES = 1000
CHUNK = os.urandom(1 << 20)
HARM_MAX = 1.5  # Times the p99.9 of log() alone: beside each call it is to be unharmed.
DATASET_MAX_MS = 300.0  # The look of 250 ms, and the event.


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--dataset-files", type=int, default=200_000)
    parser.add_argument("--watched-files", type=int, default=100_000)
    parser.add_argument("--model-mb", type=int, default=2048)
    parser.add_argument("--code-files", type=int, default=2_000)
    parser.add_argument("--peers-dir", type=Path, help="where peers are installed")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    report = Report("asset_calls", arguments.json)
    ours = Environment("flightlog", Path(sys.executable), "this")
    peers = () if arguments.no_peers else PEERS
    trackers = [
        ours,
        *environments(peers, arguments.peers_dir, also=("numpy", "pillow")),
    ]
    with scratch_home(arguments.scratch) as folder:
        for call, source in sources(arguments, folder):
            for tracker in trackers:
                say(f"{tracker.name}: {call} …")
                home = folder / f"home-{tracker.name}-{call}"
                add(report, tracker, call, measure(tracker, call, home, source))
    report.show()


def sources(arguments: Namespace, folder: Path) -> list[tuple[str, Path]]:
    """Make what is given to the calls."""
    say("making files …")
    model = folder / "model.safetensors"
    with model.open("wb") as file:
        for _ in range(arguments.model_mb):
            file.write(CHUNK)
    made = {
        "log_dataset": (arguments.dataset_files, ".bin"),
        "watch_outputs": (arguments.watched_files, ".bin"),
        "snapshot": (arguments.code_files, ".py"),
    }
    for call, (count, suffix) in made.items():
        for number in range(count):
            below = folder / call / f"{number // FOLDER_FILES:04}"
            if number % FOLDER_FILES == 0:
                below.mkdir(parents=True)
            (below / f"{number % FOLDER_FILES:04}{suffix}").write_text(str(number))
    (folder / "watch_outputs/last.ckpt").write_bytes(CHUNK)
    return [
        ("log_image", folder),
        ("log_pretrained", model),
        *((call, folder / call) for call in made),
    ]


def measure(tracker: Environment, call: str, home: Path, source: Path) -> Any:
    home.mkdir()
    tracker = Environment(tracker.name.partition("=")[0], tracker.python, "")
    if tracker.name != "flightlog":
        return run_verb(tracker, call, body=BODY, home=home, source=source)
    with Daemon(home):
        return run_verb(tracker, call, body=BODY, home=home, source=source)


def add(report: Report, tracker: Environment, call: str, figures: Any) -> None:
    report.add(
        "in the caller, ms",
        what=f"{call}, {tracker.name}",
        call=figures["call_s"] * 1e3,
        until_done=figures["done_s"] * 1e3,
    )
    if "alone" in figures:
        for when in ("alone", "beside"):
            times = [nanoseconds / 1e3 for nanoseconds in figures[when]]
            report.add(
                "log() of 3 floats in another thread, µs",
                what=f"{call}, {tracker.name}, {when}",
                calls=len(times),
                median=percentile(times, 50),
                p99=percentile(times, 99),
                p999=percentile(times, 99.9),
                max=max(times),
            )
    if tracker.name != "flightlog":
        return
    if call == "log_dataset":
        report.check(call, figures["call_s"] * 1e3, "ms", DATASET_MAX_MS)
    if "beside" in figures:
        alone, beside = (percentile(figures[w], 99.9) for w in ("alone", "beside"))
        report.check(f"p99.9 of log() beside {call}", beside / alone, "alone", HARM_MAX)


if __name__ == "__main__":
    main()
