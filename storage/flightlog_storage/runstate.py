"""The state of a run: what its events add up to. The fold is in fold.py."""

import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flightlog_storage.artifact_state import RunName
from flightlog_storage.assets import Asset, Output
from flightlog_storage.event import WriterId
from flightlog_storage.runfiles import OwedFile, SavedFile
from flightlog_storage.summary import Aggregate, Definition, Definitions
from flightlog_storage.watches import Watch

__all__ = (
    "Alert",
    "Changes",
    "RunState",
    "State",
    "WriterState",
    "WriterStatus",
)

_ASKED_TO_END = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class State(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    PREEMPTING = "preempting"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
    CRASHED = "crashed"
    PREEMPTED = "preempted"


class WriterStatus(StrEnum):
    """Whether a writer may be expected to say more."""

    ACTIVE = "active"
    FINISHED = "finished"
    EXITED = "exited"  # Without saying how: the daemon may know better.
    LOST = "lost"
    DISMISSED = "dismissed"  # Its run was deleted: nothing that it says counts.


@dataclass(slots=True)
class WriterState:
    """What is known of one writer; `next_sequence` is None until `receive` is told."""

    rank: int = 0
    status: WriterStatus = WriterStatus.ACTIVE
    forked: bool = False
    resumed: bool = False
    host: str = ""
    pid: int = 0
    exit_code: int | None = None
    signal: int | None = None
    next_sequence: int | None = None
    started_at: float = 0.0
    session: int = 0
    storing: int = 0  # Things that it began to store, and that have no outcome yet.

    @property
    def is_dismissed(self) -> bool:
        """Whether its run was deleted, so that nothing that it says counts."""
        return self.status is WriterStatus.DISMISSED

    @property
    def outcome(self) -> State:
        """How this writer, which has ended, did."""
        if self.forked and self.signal == signal.SIGTERM:
            return State.FINISHED  # So multiprocessing ends its workers.
        if self.signal is not None:
            return State.KILLED if self.signal in _ASKED_TO_END else State.CRASHED
        if self.exit_code is None:
            # A DataLoader's worker ends by os._exit and nobody hears of it.
            return State.FINISHED if self.forked else State.CRASHED
        return State.FAILED if self.exit_code else State.FINISHED


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at."""

    time: float
    title: str
    text: str
    level: str


@dataclass(slots=True)
class Changes:
    """What of a state is not saved yet. Dicts, for they keep order.

    `removed_…` has the keys that were removed, and perhaps set again behind others.
    """

    config: dict[str, None] = field(default_factory=dict)
    summary: dict[str, None] = field(default_factory=dict)
    writers: dict[WriterId, None] = field(default_factory=dict)
    definitions: dict[str, None] = field(default_factory=dict)
    aggregates: dict[tuple[str, ...], None] = field(default_factory=dict)
    logged: dict[str, None] = field(default_factory=dict)  # Names of histories.
    files: dict[str, None] = field(default_factory=dict)
    owed: dict[str, None] = field(default_factory=dict)
    assets: dict[str, None] = field(default_factory=dict)
    watches: dict[str, None] = field(default_factory=dict)
    removed_config: set[str] = field(default_factory=set)
    removed_summary: set[str] = field(default_factory=set)
    tags: bool = False
    alerts: bool = False
    system: bool = False
    logged_config: bool = False
    reset: bool = False  # All that is saved, but for writers, is to go.


@dataclass(slots=True)
class RunState:
    """All that is known of a run but its history.

    `number` is the offset of the event that created it. `last_step` is the highest
    step, -1 when there is none; `last_time` the latest row's time; `row_count` counts
    log() calls. `system` has the latest value of each system metric.
    """

    entity: str
    project: str
    id: str
    number: int
    name: str | None = None
    notes: str | None = None
    description: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    definitions: Definitions = field(default_factory=Definitions)
    aggregates: dict[tuple[str, ...], Aggregate] = field(default_factory=dict)
    writers: dict[WriterId, WriterState] = field(default_factory=dict)
    logged_config: dict[str, Any] = field(default_factory=dict)  # By `log_config()`.
    alerts: list[Alert] = field(default_factory=list)
    files: dict[str, SavedFile] = field(default_factory=dict)
    owed: dict[str, OwedFile] = field(default_factory=dict)  # By token.
    assets: dict[str, Asset] = field(default_factory=dict)  # By token.
    watches: dict[str, Watch] = field(default_factory=dict)  # By token.
    state: State = State.PENDING
    exit_code: int | None = None
    signal: int | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    last_step: int = -1
    last_time: float = 0.0
    row_count: int = 0
    lost_count: int = 0
    session: int = 0
    preemption_announced: bool = False
    deleted: bool = False
    carried: bool = False  # From another home, and nobody has logged into it here.
    changes: Changes = field(default_factory=Changes, compare=False, repr=False)
    # Derived, and the fold's: how many writers are active; what governs a metric; the
    # keys logged since the state was loaded, which are saved or in `changes`; the last
    # output of each key, and the highest serial of one.
    active_count: int = field(init=False, compare=False, repr=False)
    governing: dict[tuple[str, ...], Definition | None] = field(
        init=False, compare=False, repr=False, default_factory=dict
    )
    logged: set[tuple[str, ...]] = field(
        init=False, compare=False, repr=False, default_factory=set
    )

    last_outputs: dict[str, Asset] = field(
        init=False, compare=False, repr=False, default_factory=dict
    )
    output_serial: int = field(init=False, compare=False, repr=False, default=0)

    def __post_init__(self) -> None:
        for asset in self.assets.values():
            if asset.output is not None:
                self._note_output(asset, asset.output)
        self.active_count = sum(
            writer.status is WriterStatus.ACTIVE for writer in self.writers.values()
        )

    def _note_output(self, asset: Asset, output: Output) -> None:
        last = self.last_outputs.get(output.key)
        if last is None or last.output is None or last.output.serial < output.serial:
            self.last_outputs[output.key] = asset
        self.output_serial = max(self.output_serial, output.serial)

    @property
    def key(self) -> RunName:
        """What tells it from others."""
        return self.entity, self.project, self.id

    @property
    def host(self) -> str | None:
        """Where the writer of the lowest rank that says so runs."""
        known = [writer for writer in self.writers.values() if writer.host]
        first = min(known, key=lambda w: (w.rank, w.started_at), default=None)
        return None if first is None else first.host

    @property
    def active(self) -> bool:
        """Whether any writer may be expected to say more."""
        return self.active_count > 0
