"""The reading process that is measured: one body for flightlog and its peers.

Each tracker's own environment runs this file, so it imports nothing but the standard
library before it knows which tracker it is:

    python read_bodies.py NAME prepare --home FOLDER --part PART
    python read_bodies.py NAME read --home FOLDER --what READ [--turns N]

A part is what one store holds: `listing` (1,000 runs of one row), `long` (one run of
100,000 rows of three keys), `sweep` (100 runs of 1,000 rows). `read` prints one JSON
object: seconds of the first read with all imports, of those after it, and what was
found.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ("main",)

PARTS = ("listing", "long", "sweep")
KEYS = ("loss", "accuracy", "rate")
CONFIG_KEYS = 10
PAGE_RUNS = 50
WANTED = 1  # Of config key c0, which one run in four has.
SPREAD = 100_003  # A prime: losses of up to so many runs differ, in no order.
MLFLOW_BATCH = 1000  # What its log_batch takes at most.

Row = dict[str, float]
Listed = list[tuple[dict[str, Any], float]]


@dataclass(frozen=True)
class Sizes:
    """How much the parts hold."""

    runs: int
    long_rows: int
    sweep_runs: int
    sweep_rows: int


@dataclass(frozen=True)
class Recording:
    """A run to be written."""

    project: str
    name: str
    config: dict[str, int]
    rows: list[Row]


def recordings(part: str, sizes: Sizes) -> Iterator[Recording]:
    if part == "long":
        rows = [
            {"loss": 1 / (step + 1), "accuracy": step * 1e-6, "rate": 0.1 + step * 1e-9}
            for step in range(sizes.long_rows)
        ]
        yield Recording(part, "long", {}, rows)
    elif part == "sweep":
        for number in range(sizes.sweep_runs):
            rows = [{"loss": step + number / 7} for step in range(sizes.sweep_rows)]
            yield Recording(part, f"run-{number}", {}, rows)
    else:
        for number in range(sizes.runs):
            config = {f"c{key}": number % (4 + key) for key in range(CONFIG_KEYS)}
            loss = (number * 7919 % SPREAD) / SPREAD
            yield Recording(part, f"run-{number}", config, [{"loss": loss}])


class Store(Protocol):
    """What a tracker must do; a read opens what it needs at its first call."""

    def write(self, recording: Recording) -> None: ...

    def settle(self) -> None:
        """Do what the tracker needs before all that was written can be read."""

    def listing(self) -> Listed:
        """Return config and loss of the page of wanted runs with the lowest loss."""

    def key(self) -> Any:
        """Return all losses of the long run with their steps as a pandas frame."""

    def rows(self) -> list[Row]:
        """Return all rows of the long run as dicts."""

    def frame(self) -> Any:
        """Return all losses of all runs of the sweep as one pandas frame."""


class Flightlog:
    """Through `flightlog.Api`, a new one a read: an Api keeps its answers."""

    def __init__(self, home: Path, sizes: Sizes) -> None:
        self._home, self._sizes = home, sizes

    def write(self, recording: Recording) -> None:
        import flightlog

        with flightlog.init(
            project=recording.project,
            id=recording.name,
            config=recording.config,
            home=self._home,
        ) as run:
            for row in recording.rows:
                run.log(row)

    def settle(self) -> None:
        """Do nothing: who started this waits for the daemon."""

    def _api(self) -> Any:
        import flightlog

        return flightlog.Api(home=self._home)

    def listing(self) -> Listed:
        runs = self._api().runs(
            "listing", filters={"config.c0": WANTED}, order="+summary_metrics.loss"
        )
        return [(dict(run.config), run.summary["loss"]) for run in runs[:PAGE_RUNS]]

    def key(self) -> Any:
        run = self._api().run("long/long")
        return run.history(samples=self._sizes.long_rows, keys=["loss"])

    def rows(self) -> list[Row]:
        return list(self._api().run("long/long").scan_history(keys=list(KEYS)))

    def frame(self) -> Any:
        runs = self._api().runs("sweep")
        rows = self._sizes.sweep_rows
        return runs.histories(samples=rows, keys=["loss"], format="pandas")


class Trackio:
    """Through the storage class that its command line and dashboard read with.

    Its public `Api` has neither histories nor summaries.
    """

    def __init__(self, home: Path, sizes: Sizes) -> None:
        del home  # TRACKIO_DIR, which it read when it was imported.
        self._sizes = sizes

    def write(self, recording: Recording) -> None:
        import trackio

        run = trackio.init(
            project=recording.project,
            name=recording.name,
            config=recording.config,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for row in recording.rows:
            run.log(row)
        trackio.finish()

    def settle(self) -> None:
        """Do nothing: `finish` has written all."""

    def _storage(self) -> Any:
        return importlib.import_module("trackio.sqlite_storage").SQLiteStorage

    def listing(self) -> Listed:
        found = self._storage().query_project(
            "listing",
            "SELECT CAST(c.config AS TEXT) AS config, max(m.step), "
            "json_extract(CAST(m.metrics AS TEXT), '$.loss') AS loss "
            "FROM configs c JOIN metrics m ON m.run_id = c.run_id "
            f"WHERE json_extract(CAST(c.config AS TEXT), '$.c0') = {WANTED} "
            f"GROUP BY c.run_id ORDER BY loss LIMIT {PAGE_RUNS}",
        )
        return [(_own(json.loads(row["config"])), row["loss"]) for row in found["rows"]]

    def key(self) -> Any:
        import pandas as pd

        return _loss(
            pd.DataFrame(self._storage().get_metric_values("long", "long", "loss"))
        )

    def rows(self) -> list[Row]:
        return self._storage().get_logs("long", "long")  # type: ignore[no-any-return]

    def frame(self) -> Any:
        import pandas as pd

        runs = [{"run": f"run-{number}"} for number in range(self._sizes.sweep_runs)]
        return pd.DataFrame(
            {"run": taken["run"], "_step": row["step"], "loss": row["loss"]}
            for taken in self._storage().get_logs_batch("sweep", runs)
            for row in taken["logs"]
        )


class Aim:
    """Through `aim.Repo`, whose index is made anew before reading."""

    def __init__(self, home: Path, sizes: Sizes) -> None:
        del sizes
        self._home = home
        self._opened: Any = None

    def _repo(self) -> Any:
        if self._opened is None:
            import aim

            self._opened = aim.Repo(str(self._home), init=True)
        return self._opened

    def write(self, recording: Recording) -> None:
        import aim

        run = aim.Run(
            repo=self._repo(),
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )
        if recording.config:
            run["config"] = recording.config
        for step, row in enumerate(recording.rows):
            for key, value in row.items():
                run.track(value, name=key, step=step)
        run.close()

    def settle(self) -> None:
        """Make the index; without its UI running nothing else does."""
        line = [Path(sys.executable).with_name("aim"), "storage", "--repo", self._home]
        subprocess.run([*line, "reindex", "--yes"], check=True, stdout=sys.stderr)

    def _metric(self, key: str) -> Any:
        from aim.storage.context import Context

        repo = self._repo()
        run = repo.get_run(next(iter(repo.list_all_runs())))
        return run.get_metric(key, Context({}))

    def listing(self) -> Listed:
        from aim.sdk.types import QueryReportMode

        found = self._repo().query_runs(
            f"run.config.c0 == {WANTED}", report_mode=QueryReportMode.DISABLED
        )
        listed = []
        for each in found.iter_runs():
            (info,) = each.run.collect_sequence_info("metric")["metric"]
            listed.append((info["values"]["last"], each.run))
        listed.sort(key=lambda pair: pair[0])  # It has no order of its own.
        return [(run["config"], loss) for loss, run in listed[:PAGE_RUNS]]

    def key(self) -> Any:
        return self._metric("loss").dataframe().rename(columns={"value": "loss"})

    def rows(self) -> list[Row]:
        columns = {}
        for key in KEYS:
            steps, (values, *_) = self._metric(key).data.items_list()
            columns[key] = values
        return [
            dict(zip(("_step", *KEYS), row, strict=True))
            for row in zip(steps, *columns.values(), strict=True)
        ]

    def frame(self) -> Any:
        import pandas as pd
        from aim.sdk.types import QueryReportMode

        found = self._repo().query_metrics(
            "metric.name == 'loss'", report_mode=QueryReportMode.DISABLED
        )
        frames = [
            metric.dataframe().assign(run=metric.run.hash)
            for run in found.iter_runs()
            for metric in run
        ]
        return pd.concat(frames).rename(columns={"value": "loss"})


class Mlflow:
    """Through `MlflowClient` on a SQLite file, which is its default store."""

    def __init__(self, home: Path, sizes: Sizes) -> None:
        del sizes
        self._home = home
        self._opened: Any = None

    def _client(self) -> Any:
        if self._opened is None:
            from mlflow import MlflowClient

            self._opened = MlflowClient(f"sqlite:///{self._home}/mlflow.db")
        return self._opened

    def _experiment(self, name: str) -> str:
        client = self._client()
        found = client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        return str(client.create_experiment(name, str(self._home / "artifacts")))

    def write(self, recording: Recording) -> None:
        from mlflow.entities import Metric, Param

        client = self._client()
        run = client.create_run(
            self._experiment(recording.project), run_name=recording.name
        ).info.run_id
        now_ms = int(time.time() * 1000)
        params = [Param(key, str(value)) for key, value in recording.config.items()]
        metrics = [
            Metric(key, value, now_ms, step)
            for step, row in enumerate(recording.rows)
            for key, value in row.items()
        ]
        client.log_batch(run, params=params)
        for start in range(0, len(metrics), MLFLOW_BATCH):
            client.log_batch(run, metrics=metrics[start : start + MLFLOW_BATCH])
        client.set_terminated(run)

    def settle(self) -> None:
        """Do nothing: its calls return when all is written."""

    def _runs(self, project: str, **query: Any) -> Any:
        return self._client().search_runs([self._experiment(project)], **query)

    def listing(self) -> Listed:
        runs = self._runs(
            "listing",
            filter_string=f"params.c0 = '{WANTED}'",
            order_by=["metrics.loss ASC"],
            max_results=PAGE_RUNS,
        )
        return [(run.data.params, run.data.metrics["loss"]) for run in runs]

    def _history(self, key: str) -> Any:
        (run,) = self._runs("long")
        return self._client().get_metric_history(run.info.run_id, key)

    def key(self) -> Any:
        import pandas as pd

        points = self._history("loss")
        return pd.DataFrame(
            {"_step": [p.step for p in points], "loss": [p.value for p in points]}
        )

    def rows(self) -> list[Row]:
        rows: dict[int, Row] = {}
        for key in KEYS:
            for point in self._history(key):
                rows.setdefault(point.step, {"_step": point.step})[key] = point.value
        return list(rows.values())

    def frame(self) -> Any:
        import pandas as pd

        return pd.DataFrame(
            {"run": run.info.run_name, "_step": point.step, "loss": point.value}
            for run in self._runs("sweep")
            for point in self._client().get_metric_history(run.info.run_id, "loss")
        )


STORES: dict[str, type[Flightlog | Trackio | Aim | Mlflow]] = {
    "flightlog": Flightlog,
    "trackio": Trackio,
    "aim": Aim,
    "mlflow": Mlflow,
}
READS = ("listing", "key", "rows", "frame")


def _loss(frame: Any) -> Any:
    return frame.rename(columns={"step": "_step", "value": "loss"})


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what trackio adds to a config."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def found(what: str, answer: Any) -> dict[str, float]:
    """Return what must be equal of all trackers' answers."""
    if what == "listing":
        return {
            "count": len(answer),
            "keys": sum(len(config) for config, _ in answer),
            "total": math.fsum(loss for _, loss in answer),
        }
    if what == "rows":
        keys = sum(key in row for row in answer for key in KEYS)
        values = [row[key] for row in answer for key in KEYS]
        return {"count": len(answer), "keys": keys, "total": math.fsum(values)}
    return {"count": len(answer), "keys": 1, "total": math.fsum(answer["loss"])}


def command_prepare(store: Store, arguments: argparse.Namespace, sizes: Sizes) -> None:
    for recording in recordings(arguments.part, sizes):
        store.write(recording)
    store.settle()


def command_read(store: Store, arguments: argparse.Namespace, sizes: Sizes) -> None:
    del sizes
    read = getattr(store, arguments.what)
    times = []
    answer: Any = None
    for turn in range(1 + arguments.turns):
        answer = None  # Freed before the clock starts.
        before = time.perf_counter()
        if turn == 0:  # Some import all they have at once, others when it is used.
            importlib.import_module(arguments.name)
        answer = read()
        times.append(time.perf_counter() - before)
    line = {"first_s": times[0], "times_s": times[1:], **found(arguments.what, answer)}
    print(json.dumps(line), file=sys.__stdout__, flush=True)


COMMANDS = {"prepare": command_prepare, "read": command_read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=STORES)
    parser.add_argument("verb", choices=COMMANDS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--what", choices=READS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--long-rows", type=int, default=100_000)
    parser.add_argument("--sweep-runs", type=int, default=100)
    parser.add_argument("--sweep-rows", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ.update(  # Some peers read these when they are imported.
        TRACKIO_DIR=str(arguments.home),
        HF_HUB_OFFLINE="1",
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
    )
    sizes = Sizes(
        arguments.runs,
        arguments.long_rows,
        arguments.sweep_runs,
        arguments.sweep_rows,
    )
    with contextlib.redirect_stdout(sys.stderr):  # Trackers talk; stdout is data.
        store = STORES[arguments.name](arguments.home, sizes)
        COMMANDS[arguments.verb](store, arguments, sizes)


if __name__ == "__main__":
    main()
