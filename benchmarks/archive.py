"""Archiving: its throughput, and what unchanged and shared files cost.

The floor is `cp` and `sha256sum` of the same file, in turn with the archive; all three
sync what they wrote. The page cache is warm.
"""

import os
import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from _harness import Daemon, Report, argument_parser, say, scratch_home

import flightlog

SHARE_MIN = 0.7  # Of the floor's throughput.
TURNS = 3
CHUNK = 1 << 20
CHECKPOINTS = 10
SHARED_FILES = 20
FILE_MB = 4


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model-mb", type=int, default=2048)
    arguments = parser.parse_args()
    report = Report("archive", arguments.json)
    with (
        scratch_home(arguments.scratch) as folder,
        Daemon(folder / "home"),
        flightlog.init(project="archive", home=folder / "home") as run,
    ):
        model = folder / "outputs/model.ckpt"
        model.parent.mkdir()
        measure_throughput(report, run, model, arguments.model_mb)
        measure_unchanged(report, run, model)
        measure_shared(report, run, folder / "checkpoints")
    report.show()


def measure_throughput(
    report: Report, run: flightlog.Run, model: Path, megabytes: int
) -> None:
    read = flightlog.Api(home=run.home.root).run(run.path)
    floors, ours = [], []
    for turn in range(TURNS):
        say(f"archiving {megabytes:,} MB, turn {turn + 1} of {TURNS} …")
        write_noise(model, megabytes, seed=turn)
        floors.append(floor_s(model))
        started = time.perf_counter()
        run.log_pretrained(f"model-{turn}", path_or_uri=model, save=True)
        while not read.assets.pretrained[-1].saved:
            time.sleep(0.02)
        ours.append(time.perf_counter() - started)
    for name, times in (("cp and sha256sum", floors), ("archive", ours)):
        took_s = statistics.median(times)
        report.add(
            "one file, of the call until it is saved",
            what=name,
            median_s=took_s,
            min_s=min(times),
            max_s=max(times),
            mb_a_second=megabytes / took_s,
        )
    share = statistics.median(floors) / statistics.median(ours)
    report.check("throughput of the archive", share, "of cp + sha256sum", -SHARE_MIN)


def floor_s(model: Path) -> float:
    target = model.with_suffix(".copy")
    started = time.perf_counter()
    subprocess.run(["cp", model, target], check=True)
    subprocess.run(["sync", target], check=True)
    subprocess.run(["sha256sum", target], check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - started
    target.unlink()
    return took_s


def measure_unchanged(report: Report, run: flightlog.Run, model: Path) -> None:
    """Scan twice; the second scan finds nothing new."""
    say("scanning …")
    for what in ("first", "unchanged"):
        before, started = bytes_read(), time.perf_counter()
        found = run.scan_outputs_once(
            output_dirs=[model.parent], stable_required=1, min_age_sec=0
        )
        took_s, read = time.perf_counter() - started, bytes_read() - before
        report.add(
            f"a scan of a checkpoint of {model.stat().st_size / 1e6:,.0f} MB",
            what=what,
            archived=found["archived"],
            seconds=took_s,
            mb_read=read / 1e6,
        )
    report.check("read by a scan of what is unchanged", read / 1e6, "MB", 1.0)


def measure_shared(report: Report, run: flightlog.Run, folder: Path) -> None:
    """Archive checkpoints, as folders, that have all files but one in common."""
    say(f"archiving {CHECKPOINTS} checkpoints …")
    blobs = run.home.blobs
    before = size_below(blobs)
    shared = folder / "0"
    shared.mkdir(parents=True)
    for number in range(SHARED_FILES):
        write_noise(shared / f"layer-{number}.bin", FILE_MB, seed=100 + number)
    for number in range(1, CHECKPOINTS):
        shutil.copytree(shared, folder / str(number))
    for number in range(CHECKPOINTS):
        write_noise(folder / str(number) / "head.bin", FILE_MB, seed=200 + number)
    found = run.scan_outputs_once(
        output_dirs=[folder],
        patterns=["*/"],
        stable_required=1,
        min_age_sec=0,
        mode="overwrite_versions",
    )
    kept_mb = (size_below(blobs) - before) / 1e6
    needed_mb = (SHARED_FILES + CHECKPOINTS) * FILE_MB * CHUNK / 1e6
    report.add(
        "checkpoints that share all files but one",
        what=f"{found['archived']} of {SHARED_FILES + 1} files of {FILE_MB} MiB",
        mb_in_all=size_below(folder) / 1e6,
        mb_that_differ=needed_mb,
        mb_kept=kept_mb,
    )
    report.check("kept of what differs", kept_mb / needed_mb, "times", 1.01)


def write_noise(path: Path, megabytes: int, seed: int) -> None:
    noise = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(noise.randbytes(CHUNK))
        os.fsync(file.fileno())


def bytes_read() -> int:
    """Return what this process has read so far, from the page cache, too."""
    fields = dict(
        line.split(": ") for line in Path("/proc/self/io").read_text().splitlines()
    )
    return int(fields["rchar"])


def size_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
