"""Export and import of a run with large blobs and many rows, beside cp of the bytes.

    python benchmarks/moving.py [--blob-mib 1024] [--rows 1000000] [--folder /tmp]

All of it in one run of this script: the figures are of the same machine and disk.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINER = """
import os
import flightlog
with flightlog.init(project="moving", id="big") as run:
    artifact = flightlog.Artifact("weights", "model")
    artifact.add_file(os.environ["BLOB"])
    run.log_artifact(artifact).wait()
    for step in range(int(os.environ["ROWS"])):
        run.log({"loss": 1 / (step + 1), "lr": 0.1, "n": step})
"""


def timed(*command: str | Path, **environ: str) -> float:
    """Run a command that must succeed; return how many seconds it took."""
    started = time.monotonic()
    subprocess.run([*map(str, command)], check=True, env=os.environ | environ)
    return time.monotonic() - started


def measure(folder: Path, blob_mib: int, rows: int) -> None:
    python = sys.executable
    command = (python, "-c", "from flightlog.cli import main; main()")
    blob, file = folder / "blob", folder / "big.zip"
    with blob.open("wb") as out:
        for _ in range(blob_mib):
            out.write(os.urandom(1 << 20))
    homes = [folder / "from", folder / "to"]
    try:
        environ = {"BLOB": str(blob), "ROWS": str(rows), "FLIGHTLOG_QUIET": "1"}
        timed(python, "-c", TRAINER, FLIGHTLOG_HOME=str(homes[0]), **environ)
        export_s = timed(
            *command, "export", "moving/big", "--to", file, "--home", homes[0]
        )
        timed("sync")
        copy_s = timed("sh", "-c", f"cp {file} {folder}/copy && sync {folder}/copy")
        import_s = timed(*command, "import", file, "--home", homes[1])
    finally:
        for home in homes:
            timed(python, "-m", "flightlogd", "stop", "--home", home)
    size = file.stat().st_size / 1e6
    print(f"{size:,.0f} MB in the file: {blob_mib} MiB of blobs, {rows:,} rows")
    for what, seconds in (("cp, sync", copy_s), ("export", export_s)):
        print(f"{what:10} {seconds:7.2f} s  {size / seconds:7.0f} MB/s")
    print(f"{'import':10} {import_s:7.2f} s  {size / import_s:7.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blob-mib", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        measure(folder, arguments.blob_mib, arguments.rows)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
