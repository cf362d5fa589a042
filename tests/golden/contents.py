"""What a home holds, as its readers give it: printed as JSON.

Run by versions of flightlog of any age, so it asks for what is there.
"""

import json
import sys
from pathlib import Path
from typing import Any

import flightlog

__all__ = ("contents",)

DESCRIBED = ("name", "state", "tags", "notes", "group", "job_type", "lost_count")


def contents(home: Path, described: tuple[str, ...] = DESCRIBED) -> dict[str, Any]:
    """Return all runs of a home with their rows, config, summary, files, artifacts."""
    api = flightlog.Api(home=home)
    runs = {run.id: _run(run, described) for run in api.runs("ann/mnist")}
    found: dict[str, Any] = json.loads(json.dumps(runs, sort_keys=True, default=dict))
    return found


def _run(run: Any, described: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(run, name) for name in described}
    found["config"] = dict(run.config)
    found["summary"] = dict(run.summary)
    found["rows"] = sorted(run.scan_history(), key=lambda row: row["_step"])
    if hasattr(run, "files"):
        found["files"] = {file.name: file.digest for file in run.files()}
        found["artifacts"] = [
            [artifact.name, artifact.type, artifact.digest, artifact.aliases]
            for artifact in run.logged_artifacts()
        ]
    return found


if __name__ == "__main__":
    json.dump(contents(Path(sys.argv[1])), sys.stdout, indent=1, sort_keys=True)
