"""The configs or summaries of many runs as one table, a row a run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flightlog.apis.public.run import Run

__all__ = ("configs_of", "summaries_of")


def configs_of(runs: Iterable[Run]) -> Any:
    """Return the configs as a data frame, without pandas as a list of dicts."""
    return _table(_row(run, run.config) for run in runs)


def summaries_of(runs: Iterable[Run]) -> Any:
    """Return the summaries as a data frame, without pandas as a list of dicts."""
    return _table(_row(run, run.summary_metrics) for run in runs)


def _table(rows: Iterable[dict[str, Any]]) -> Any:
    found = list(rows)
    try:
        import pandas as pd  # Optional, and slow to load.
    except ImportError:
        return found
    return pd.DataFrame.from_records(found)


def _row(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    own = {"run_id": run.id, "run_name": run.name, "run_state": run.state}
    # They come first, and win over a key of the same name.
    return {**own, **dict(_flat(values)), **own}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
