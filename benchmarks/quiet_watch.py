"""What a watch of outputs costs while nothing changes, in processor time of the worker.

Checkpoints, each a folder of some files, are archived; then nobody touches them.
"""

import json
import time
from pathlib import Path

from _harness import Daemon, Report, argument_parser, process_cpu_s, say, scratch_home

import flightlog

__all__ = ("main",)

INTERVAL_S = 10.0  # The default.
CPU_MAX_PERCENT = 3.0


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--folders", type=int, default=1_000)
    parser.add_argument("--files", type=int, default=100, help="in each")
    parser.add_argument("--seconds", type=float, default=200.0)
    arguments = parser.parse_args()
    report = Report("quiet watch", arguments.json)
    with (
        scratch_home(arguments.scratch) as folder,
        Daemon(folder / "home") as daemon,
        flightlog.init(project="quiet", home=folder / "home") as run,
    ):
        say("making files …")
        make(folder / "outputs", arguments.folders, arguments.files)
        run.watch_outputs(output_dirs=folder / "outputs", patterns=["*/"])
        wait_archived(run, arguments.folders)
        say(f"{arguments.seconds:g} s of quiet …")
        time.sleep(2 * INTERVAL_S)
        worker = json.loads(daemon.control("status", "--json"))["data"]["worker_pid"]
        before = process_cpu_s(worker)
        time.sleep(arguments.seconds)
        cpu_s = process_cpu_s(worker) - before
        run.stop_outputs_watch()
    percent = 100 * cpu_s / arguments.seconds
    report.add(
        f"the worker's processor time, with a look each {INTERVAL_S:g} s",
        files=arguments.folders * arguments.files,
        folders=arguments.folders,
        an_interval_s=cpu_s / (arguments.seconds / INTERVAL_S),
        percent_of_a_core=percent,
    )
    report.check("a quiet watch", percent, "% of a core", CPU_MAX_PERCENT)
    report.show()


def make(outputs: Path, folders: int, files: int) -> None:
    for number in range(folders):
        folder = outputs / f"{number:04}"
        folder.mkdir(parents=True)
        for name in range(files):
            (folder / f"{name:04}.bin").write_bytes(b"layer")


def wait_archived(run: flightlog.Run, count: int) -> None:
    say("archiving …")
    read = flightlog.Api(home=run.home.root).run(run.path)
    while len(read.assets.outputs) < count:
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
