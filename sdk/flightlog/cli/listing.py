"""`flightlog ls`: the runs of a home."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from flightlog.apis.public import Api
from flightlog.apis.public.reading import reading
from flightlog.cli.output import (
    age,
    emit_json,
    emit_table,
    flat,
    is_terminal,
    iso,
    shown,
    talk,
)
from flightlog.errors import NotFoundError
from flightlog_storage.database import RunRow
from flightlog_storage.home import Home
from flightlog_storage.names import default_name
from flightlog_storage.reader import HomeReader

__all__ = ("find_rows", "list_runs")


def list_runs(
    home: Home, project: str | None, keys: Sequence[str], *, as_json: bool
) -> None:
    """Print the runs of a project, or all."""
    reader = HomeReader(home)
    rows = find_rows(reader, home, project)
    values = [_values(reader, row, keys) for row in rows]
    if as_json:
        data = [_data(row, value) for row, value in zip(rows, values, strict=True)]
        emit_json("flightlog.runs/1", data)
        return
    now = time.time()
    header = ["STATE", "NAME", "RUN", "STEPS", "ROWS", "UPDATED", *keys]
    lines = [
        [*_line(row, now), *(shown(value.get(key, "")) for key in keys)]
        for row, value in zip(rows, values, strict=True)
    ]
    if any(row.lost_count for row in rows):
        header.append("LOST")
        for row, line in zip(rows, lines, strict=True):
            line.append(str(row.lost_count or ""))
    emit_table(header, lines)
    if not rows:
        talk(f"no runs in {home.root}")


def find_rows(reader: HomeReader, home: Home, project: str | None) -> list[RunRow]:
    """Return the runs of `entity/project` or `project`, or all, oldest first.

    Raises:
        NotFoundError: There is no such project.
    """
    if project is None:
        return reading(reader.runs)
    project = project.strip().strip("/")
    entity, slash, rest = project.partition("/")
    candidates = [(entity, rest)] if slash else []
    for candidate in (*candidates, (Api(home=home.root).default_entity, project)):
        rows = reading(partial(reader.runs, *candidate))
        if rows:
            return rows
    raise NotFoundError(f"there is no project {project} in {home.root}")


def _values(reader: HomeReader, row: RunRow, keys: Sequence[str]) -> dict[str, Any]:
    """Return these keys of a run's summary."""
    if not keys:
        return {}
    state = reading(lambda: reader.state((row.entity, row.project, row.id)))
    summary = {} if state is None else flat(state.summary)
    return {key: summary[key] for key in keys if key in summary}


def _line(row: RunRow, now: float) -> list[str]:
    updated = age(row.updated_at, now) if is_terminal() else iso(row.updated_at)
    return [
        str(row.state),
        row.name or default_name(row.id),
        f"{row.entity}/{row.project}/{row.id}",
        str(row.last_step + 1),
        str(row.row_count),
        updated,
    ]


def _data(row: RunRow, summary: dict[str, Any]) -> dict[str, Any]:
    data = asdict(row)
    del data["number"]
    data["state"] = str(row.state)
    data["path"] = f"{row.entity}/{row.project}/{row.id}"
    data["name"] = row.name or default_name(row.id)
    data["created_at"] = iso(row.created_at)
    data["updated_at"] = iso(row.updated_at)
    return data | ({"summary": summary} if summary else {})
