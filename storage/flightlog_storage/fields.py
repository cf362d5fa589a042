"""Fields: what runs are filtered and ordered by, under W&B's names."""

from dataclasses import dataclass
from enum import Enum

from flightlog_storage.facts import Scope

__all__ = ("Column", "ColumnType", "Field", "Logged", "Values", "find_field")


class ColumnType(Enum):
    """What a column of the table `runs` holds."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """What every run has one of; `sql` is an expression over the table `runs`."""

    name: str
    sql: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Values:
    """The values at some paths of a run's config, summary or tags; each of them counts.

    Of several paths the first one that has a value is what runs are ordered by.
    """

    name: str
    scope: Scope
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """Whether the run logged a key; its value cannot be asked for."""

    name: str
    path: str


Field = Column | Values | Logged

_TEXTS = {
    "name": "runs.id",
    "display_name": "runs.shown_name",
    "state": "runs.state",
    "group": "runs.run_group",
    "job_type": "runs.job_type",
    "user": "runs.entity",
    "username": "runs.entity",
    "entity": "runs.entity",
    "project": "runs.project",
    "host": "runs.host",
    "sweep": "NULL",
    "commit": "runs.git_commit",
    "notes": "runs.notes",
    "description": "runs.description",
}
_TIMES = {
    "created_at": "runs.created_at",
    "heartbeat_at": "runs.updated_at",
    "updated_at": "runs.updated_at",
}
_DURATION = "max(0.0, runs.updated_at - runs.created_at)"
_CAMEL = {
    "displayName": "display_name",
    "jobType": "job_type",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "updatedAt": "updated_at",
}
_CONFIG = "config."
_SUMMARY = ("summary_metrics.", "summary.", "summaryMetrics.")
_LOGGED = ("keys_info.keys.", "keysInfo.keys.")
_WRAPPED = "value"  # W&B's name for the value of a config key.
_KNOWN = (
    *_TEXTS,
    *_TIMES,
    "duration",
    "tags",
    "config.KEY",
    "summary_metrics.KEY",
    "keys_info.keys.KEY",
)


def find_field(name: str) -> Field:
    """Return the field of that name.

    Raises:
        ValueError: There is none.
    """
    known = _CAMEL.get(name, name)
    if known in _TEXTS:
        return Column(name, _TEXTS[known], ColumnType.TEXT)
    if known in _TIMES:
        return Column(name, _TIMES[known], ColumnType.TIME)
    if known == "duration":
        return Column(name, _DURATION, ColumnType.NUMBER)
    if known == "tags":
        return Values(name, Scope.TAGS, ("",))
    return _nested_field(name)


def _nested_field(name: str) -> Field:
    if name.startswith(_CONFIG):
        return Values(name, Scope.CONFIG, _config_paths(name[len(_CONFIG) :]))
    for prefix in _SUMMARY:
        if name.startswith(prefix):
            return Values(name, Scope.SUMMARY, (name[len(prefix) :],))
    for prefix in _LOGGED:
        if name.startswith(prefix):
            return Logged(name, name[len(prefix) :])
    raise ValueError(f"unknown field {name!r}; there are {', '.join(_KNOWN)}")


def _config_paths(path: str) -> tuple[str, ...]:
    """Return the path as it is, and without each `value` that W&B would want in it."""
    keys = path.split(".")
    unwrapped = (
        ".".join(keys[:place] + keys[place + 1 :])
        for place in range(1, len(keys))
        if keys[place] == _WRAPPED
    )
    return tuple(dict.fromkeys((path, *unwrapped)))
