"""Events: the typed, versioned facts of which the event log is made.

On the wire and on disk an event is one msgpack object. A *row* (what one `log()`
call recorded) is an array, `[shape, step, time, value, …]`; every other event is a
map whose `event` entry names its kind. docs/events.md describes each kind.
"""

from array import array
from enum import IntEnum
from typing import Annotated, Any, NewType

import msgspec

__all__ = (
    "EVENT_KINDS",
    "ROLLING",
    "VERSIONS",
    "AlertRaised",
    "ArtifactChanged",
    "ArtifactDeleted",
    "ArtifactEvent",
    "ArtifactLogged",
    "ArtifactUsed",
    "AssetCompleted",
    "AssetEvent",
    "AssetFailed",
    "AssetLogged",
    "ConfigLogged",
    "ConfigUpdated",
    "Event",
    "FileDeleted",
    "FileEvent",
    "FileFailed",
    "FileRequested",
    "FileSaved",
    "Gap",
    "Kind",
    "Looking",
    "Malformed",
    "ManifestEntry",
    "MetricDefined",
    "OutputArchived",
    "OutputEvent",
    "OutputsWatchStarted",
    "OutputsWatchStopped",
    "Pixels",
    "PreemptionAnnounced",
    "Rows",
    "RunCreated",
    "RunDeleted",
    "RunDescribed",
    "RunFinished",
    "RunStarted",
    "RunStateChanged",
    "Series",
    "StoringBegun",
    "StoringEnded",
    "SummaryUpdated",
    "TagsChanged",
    "Unknown",
    "WriterId",
    "WriterLost",
)

# What state.db can hold.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

# How revisions of an output are kept: the last one alone, or all.
ROLLING = "rolling"
VERSIONS = "overwrite_versions"

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
    """Descriptive fields were set: name, notes, description, group or job_type."""

    changes: dict[str, str | None]


class RunCreated(_Event, frozen=True, tag=True):
    """An editor made a run into which nobody logs yet; `state`: running or pending."""

    state: str = "running"


class RunStateChanged(_Event, frozen=True, tag=True):
    """An editor corrected how a run stands that nobody logs into."""

    state: str


class RunDeleted(_Event, frozen=True, tag=True):
    """An editor deleted the run: what was said of it so far counts no more.

    With `if_quiet_since` only if nobody logs into it, nothing was said of it after that
    time, and it is not tagged to be kept.
    """

    if_quiet_since: float | None = None


class FileSaved(_Event, frozen=True, tag=True):
    """A file of the run was stored; one of the same name is replaced.

    `blob` names its bytes (sha256), `digest` is their MD5 in base64; `token` is that
    of the request which this fulfils.
    """

    name: str
    blob: str
    digest: str
    size: _Count
    token: str | None = None


class Pixels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An array that is to become an image: its bytes are row by row, as in C.

    With `fps` it is to become a video, of so many frames a second.
    """

    dtype: str
    shape: list[_Count]
    format: str
    quality: int
    fps: float | None = None


class StoringBegun(_Event, frozen=True, tag=True):
    """The writer began to store something in the background: it owes an outcome.

    That is its next `FileSaved`, `ArtifactLogged`, `ArtifactUsed` or `StoringEnded`.
    """

    what: str


class StoringEnded(_Event, frozen=True, tag=True):
    """What the writer began to store has no other outcome.

    With a reason it is lost; without, there was nothing to store.
    """

    reason: str | None = None


class FileRequested(_Event, frozen=True, tag=True):
    """A file of the run is owed: the daemon makes it of what lies in the inbox.

    `token` names the request and the file in the inbox; `size` is that of the latter.
    """

    name: str
    token: str
    size: _Count
    pixels: Pixels | None = None


class FileFailed(_Event, frozen=True, tag=True):
    """A file that was owed cannot be made: it is lost."""

    token: str
    reason: str


class FileDeleted(_Event, frozen=True, tag=True):
    """A file of the run is gone."""

    name: str


class ManifestEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of an artifact: its bytes are a blob, or lie where `reference` leads."""

    path: str
    digest: str
    size: _Count = 0
    blob: str | None = None
    reference: str | None = None


class ArtifactLogged(_Event, frozen=True, tag=True):
    """The run put out a version of an artifact of its project.

    A new one, unless `existing` is given or `digest` is that of the newest version. A
    manifest too large for an event is a blob, which `manifest` names; `token` is for
    whoever logged it to find out the number that it got.
    """

    name: str
    token: str
    type: str = ""
    digest: str = ""
    size: _Count = 0
    file_count: _Count = 0
    entries: list[ManifestEntry] = []
    manifest: str | None = None
    manifest_size: _Count = 0
    description: str | None = None
    metadata: dict[str, Any] = {}
    aliases: list[str] = []
    tags: list[str] = []
    existing: _Count | None = None


class ArtifactUsed(_Event, frozen=True, tag=True):
    """The run took in version `number` of an artifact, of any project."""

    entity: str
    project: str
    name: str
    number: _Count
    use_as: str | None = None


class ArtifactChanged(_Event, frozen=True, tag=True):
    """What is said of version `number` of an artifact of the project was changed.

    `changes` may hold `description` and `metadata`.
    """

    name: str
    number: _Count
    changes: dict[str, Any] = {}
    aliases_added: list[str] = []
    aliases_removed: list[str] = []
    tags_added: list[str] = []
    tags_removed: list[str] = []


class ArtifactDeleted(_Event, frozen=True, tag=True):
    """Version `number` of an artifact of the project is gone, with its aliases."""

    name: str
    number: _Count


class ConfigLogged(_Event, frozen=True, tag=True):
    """What the run was started with was told: each of `changes` replaces its like.

    `changes` may hold `args`, `extra` and `config_files`.
    """

    changes: dict[str, Any]


class AssetLogged(_Event, frozen=True, tag=True):
    """The run took in a dataset or a pretrained model (`kind`).

    `uri` is what its user said that it is; `path` where it lies on this machine, if it
    does. `job` is what the daemon owes: "survey", its fingerprint, or "archive", that
    and its bytes, if they are not more than `size_max` and `file_count_max`.
    """

    kind: str
    name: str
    token: str
    uri: Any = None
    path: str | None = None
    context: str | None = None
    source_type: str | None = None
    description: str | None = None
    fingerprint: Any = None
    job: str | None = None
    size_max: _Count | None = None
    file_count_max: _Count | None = None


class AssetCompleted(_Event, frozen=True, tag=True):
    """What was owed of an asset was done.

    Its bytes, if they were archived, are `blob`, with their MD5 in base64 (`digest`);
    those of a folder are named by a blob, `manifest`. `skipped` has the first of what
    is no part of it, and why.
    """

    token: str
    fingerprint: Any
    size: _Count
    file_count: _Count | None = None
    blob: str | None = None
    digest: str | None = None
    manifest: str | None = None
    manifest_size: _Count = 0
    skipped: list[tuple[str, str]] = []
    skipped_count: _Count = 0


class AssetFailed(_Event, frozen=True, tag=True):
    """What was owed of an asset cannot be done."""

    token: str
    reason: str


class Looking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where to look for outputs, and what to keep: see docs/assets.md.

    `dirs` are absolute paths, `root` the folder whose files have relative keys.
    """

    dirs: list[str]
    root: str
    patterns: list[str] = []
    stable_required: _Count = 2
    min_age_s: float = 1.0
    mode: str = ROLLING
    log_interval_s: float = 60.0
    forget_after_s: float = 604800.0


class OutputsWatchStarted(_Event, frozen=True, tag=True):
    """The writer has its outputs watched, every `interval_s`, until it ends."""

    token: str
    interval_s: float
    looking: Looking


class OutputsWatchStopped(_Event, frozen=True, tag=True):
    """A watch has ended; `failed` outputs could not be archived by then, and are lost.

    Told by the writer, or by the daemon once the writer has ended.
    """

    token: str
    failed: _Count = 0


class OutputArchived(_Event, frozen=True, tag=True):
    """An output was archived: a file (`blob`) or a folder (`manifest`).

    `key` is its path, relative to the run's workspace if it lies there. `seen` is what
    the file system said of it, equal as long as nothing changes. `looked_ns` is when,
    since the start `boot` of the machine: of two looks the later one counts.
    """

    key: str
    mode: str
    fingerprint: str
    size: _Count
    seen: str
    boot: str
    looked_ns: _Count
    file_count: _Count | None = None
    blob: str | None = None
    digest: str | None = None
    manifest: str | None = None
    manifest_size: _Count = 0
    skipped: list[tuple[str, str]] = []
    skipped_count: _Count = 0


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
    """`count` events that were refused, kept as one dead letter."""

    reason: str
    raw: bytes
    count: int = 1


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


FileEvent = FileSaved | FileRequested | FileFailed | FileDeleted
AssetEvent = ConfigLogged | AssetLogged | AssetCompleted | AssetFailed
OutputEvent = OutputsWatchStarted | OutputsWatchStopped | OutputArchived
ArtifactEvent = ArtifactLogged | ArtifactUsed | ArtifactChanged | ArtifactDeleted
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
    | RunCreated
    | RunStateChanged
    | RunDeleted
    | StoringBegun
    | StoringEnded
    | FileEvent
    | ArtifactEvent
    | AssetEvent
    | OutputEvent
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
    RunCreated,
    RunStateChanged,
    RunDeleted,
    StoringBegun,
    StoringEnded,
    FileSaved,
    FileRequested,
    FileFailed,
    FileDeleted,
    ArtifactLogged,
    ArtifactUsed,
    ArtifactChanged,
    ArtifactDeleted,
    ConfigLogged,
    AssetLogged,
    AssetCompleted,
    AssetFailed,
    OutputsWatchStarted,
    OutputsWatchStopped,
    OutputArchived,
    AlertRaised,
    Gap,
)
