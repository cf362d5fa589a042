"""Events: the typed, versioned facts of which the event log is made.

On the wire and on disk an event is one msgpack object. A *row* (what one `log()`
call recorded) is an array, `[shape, step, time, value, …]`; every other event is a
map whose `event` entry names its kind. docs/events.md describes each kind.
"""

from array import array
from enum import IntEnum
from typing import Any, NewType

import msgspec

__all__ = (
    "EVENT_KINDS",
    "AlertRaised",
    "ConfigUpdated",
    "Event",
    "Gap",
    "Kind",
    "Malformed",
    "MetricDefined",
    "PreemptionAnnounced",
    "Rows",
    "RunDescribed",
    "RunFinished",
    "RunStarted",
    "Series",
    "SummaryUpdated",
    "TagsChanged",
    "Unknown",
    "WriterId",
    "WriterLost",
)

# 16 random bytes: one incarnation of a process that logs into one run.
WriterId = NewType("WriterId", bytes)


class _Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"
):
    """What all events have: `time`, in seconds since 1970 on the writer's clock."""

    time: float
    version: int = 1


class RunStarted(_Event, frozen=True, tag=True):
    """A writer began to log into a run; the first one creates the run."""

    entity: str
    project: str
    run: str
    name: str | None = None
    notes: str | None = None
    tags: list[str] | None = None
    group: str | None = None
    job_type: str | None = None
    rank: int = 0
    resumed: bool = False
    forked: bool = False
    host: str = ""
    pid: int = 0
    metadata: dict[str, Any] = {}


class RunFinished(_Event, frozen=True, tag=True):
    """A writer ended in order; the run ends with its last writer.

    `implied`: its process ended without saying how, and the daemon may know better.
    """

    exit_code: int
    implied: bool = False


class WriterLost(_Event, frozen=True, tag=True):
    """A writer ended without saying so; told by the daemon in the writer's name."""

    reason: str
    exit_code: int | None = None
    signal: int | None = None


class PreemptionAnnounced(_Event, frozen=True, tag=True):
    """The run expects to be preempted."""


class ConfigUpdated(_Event, frozen=True, tag=True):
    """Config keys were set (`changes`) or removed (`removed`)."""

    changes: dict[str, Any] = {}
    removed: list[str] = []


class SummaryUpdated(_Event, frozen=True, tag=True):
    """Summary values were set or removed by hand; a path leads into nested values."""

    changes: list[tuple[list[str], Any]] = []
    removed: list[list[str]] = []


class MetricDefined(_Event, frozen=True, tag=True):
    """How a metric is summarised and what its x axis is.

    `name` is exact, or a prefix when it ends in `*`. `summary` holds any of min, max,
    mean, first, last, best, copy, none; `goal` is minimize or maximize.
    """

    name: str
    step_metric: str | None = None
    step_sync: bool = False
    hidden: bool = False
    summary: list[str] = []
    goal: str | None = None
    overwrite: bool = False


class TagsChanged(_Event, frozen=True, tag=True):
    """The run's tags are now these."""

    tags: list[str]


class RunDescribed(_Event, frozen=True, tag=True):
    """Descriptive fields were set: name, notes, group or job_type."""

    changes: dict[str, str | None]


class AlertRaised(_Event, frozen=True, tag=True):
    """The training code wants a person to look."""

    title: str
    text: str = ""
    level: str = "INFO"


class Gap(_Event, frozen=True, tag=True):
    """`count` rows or events of this writer were lost, and why."""

    count: int
    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """An event of a kind this version does not know: kept in the log, not folded."""

    event: str
    fields: dict[str, Any]


class Malformed(msgspec.Struct, frozen=True):
    """An event that was refused, kept as a dead letter."""

    reason: str
    raw: bytes


class Kind(IntEnum):
    """What a logged value was; one byte a point."""

    FLOAT = 0
    INT = 1
    BOOL = 2
    STR = 3
    JSON = 4
    NULL = 5


class Series(msgspec.Struct, frozen=True):
    """Points of one metric, in the order they were logged.

    `path` has one element, or more for a value inside nested dicts; joined with dots
    it is the metric's name. `values` holds numbers (ints beyond 2**53 and all other
    kinds have their exact form in `texts`, by index; then the value is the nearest
    float or NaN). An empty `kinds` says that all are floats.
    """

    path: tuple[str, ...]
    steps: "array[int]"  # typecode q
    times: "array[int]"  # typecode q, microseconds since 1970, UTC
    values: "array[float]"  # typecode d
    kinds: bytes = b""
    texts: dict[int, str] = {}


class Rows(msgspec.Struct, frozen=True):
    """Consecutive rows of one writer, by column."""

    steps: "array[int]"  # One a row, typecode q.
    time: float  # The latest row's.
    series: tuple[Series, ...]


Event = (
    RunStarted
    | RunFinished
    | WriterLost
    | PreemptionAnnounced
    | ConfigUpdated
    | SummaryUpdated
    | MetricDefined
    | TagsChanged
    | RunDescribed
    | AlertRaised
    | Gap
)
EVENT_KINDS: tuple[type[_Event], ...] = (
    RunStarted,
    RunFinished,
    WriterLost,
    PreemptionAnnounced,
    ConfigUpdated,
    SummaryUpdated,
    MetricDefined,
    TagsChanged,
    RunDescribed,
    AlertRaised,
    Gap,
)
