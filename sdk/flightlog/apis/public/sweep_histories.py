"""The histories of many runs as one: a list, a data frame or a table."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flightlog._say import say
from flightlog.apis.public.frames import dicts, frame, shown
from flightlog.apis.public.histories import RunHistory, Sample
from flightlog.errors import BadArgumentError, Error, NotFoundError
from flightlog_storage.arrow import strings_of
from flightlog_storage.cells import History
from flightlog_storage.stacking import stack

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ("RUN_ID", "Format", "check_format", "sweep_histories")

Format = Literal["default", "pandas", "polars", "arrow"]
RUN_ID = "run_id"


def check_format(format_: object) -> str:
    """Return the name of a format that can be made here.

    Raises:
        BadArgumentError: There is no such format.
        Error: It needs a library that is not installed.
    """
    if not isinstance(format_, str) or format_ not in get_args(Format):
        known = ", ".join(map(repr, get_args(Format)))
        raise BadArgumentError(f"Invalid format: {format_}. Must be one of {known}")
    if format_ in ("pandas", "polars") and find_spec(format_) is None:
        raise Error(f"Exporting {format_} DataFrame requires {format_}")
    return format_


def sweep_histories(
    runs: Iterable[tuple[str, RunHistory]], wanted: Sample, format_: str
) -> Any:
    """Return the sampled rows of all runs, given with their ids, with a `run_id`.

    The format is one that `check_format` has passed. Runs without such rows are left
    out, and so are those that do not exist any more.

    Raises:
        BadArgumentError: An argument of the sample has a wrong type or value.
    """
    wanted.check()
    names = wanted.names()
    found: list[tuple[str, History]] = []
    if problem := wanted.problem():
        say(f"error: {problem}")
        names = None
    else:
        found = list(_sampled(runs, wanted))
    if format_ == "default":
        return [row for run, own in found for row in _to_dicts(run, own, names)]
    whole = stack([history for _, history in found])
    ids = np.repeat(
        np.array([run for run, _ in found], object),
        [len(history) for _, history in found],
    )
    if format_ == "pandas":
        return _to_pandas(whole, ids, names)
    table = _to_arrow(whole, ids, names)
    return table if format_ == "arrow" else _to_polars(table)


def _sampled(
    runs: Iterable[tuple[str, RunHistory]], wanted: Sample
) -> Iterator[tuple[str, History]]:
    for run, own in runs:
        try:
            history = own.sample(wanted)
        except NotFoundError:
            continue  # Deleted since its project was listed.
        if len(history):
            yield run, history


def _to_dicts(
    run: str, history: History, names: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    for row in dicts(history, names):
        row[RUN_ID] = run
        yield row


def _to_pandas(
    whole: History, ids: "NDArray[Any]", names: Sequence[str] | None
) -> "pd.DataFrame":
    data = frame(whole, names)
    if len(whole):
        data[RUN_ID] = ids
    return data.reindex(columns=sorted(data.columns))


def _to_arrow(
    whole: History, ids: "NDArray[Any]", names: Sequence[str] | None
) -> pa.Table:
    if not len(whole):
        return pa.table({})
    table = whole.to_arrow()
    if names is not None:
        table = table.select(shown(whole, names))
    if RUN_ID in table.column_names:
        table = table.drop_columns([RUN_ID])
    return table.append_column(RUN_ID, strings_of(ids.tolist()).cast(pa.string()))


def _to_polars(table: pa.Table) -> "pl.DataFrame":
    import polars as pl  # Optional.

    data = pl.from_arrow(table)
    assert isinstance(data, pl.DataFrame)
    return data
