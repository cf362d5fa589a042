"""A live run: what a training process logs into."""

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal

import msgspec

from flightlog._alerts import REPEATS_AFTER_S, Alerts
from flightlog._checks import check_tags
from flightlog._config import Config
from flightlog._exits import exit_code_of
from flightlog._metric import check_definition
from flightlog._recording import Recording
from flightlog._rows import RowLog
from flightlog._say import say
from flightlog._spec import RunSpec, describe
from flightlog._summary import Overlay, Summary
from flightlog._values import plain_text
from flightlog.errors import UsageError
from flightlog_storage.codec import RunKey
from flightlog_storage.event import (
    ConfigUpdated,
    Event,
    MetricDefined,
    PreemptionAnnounced,
    RunDescribed,
    RunFinished,
    RunStarted,
    SummaryUpdated,
    TagsChanged,
)
from flightlog_storage.names import default_name
from flightlog_storage.spool_writer import SpoolWriter

__all__ = ("FINISH_TIMEOUT_S", "Run", "RunHooks")

FINISH_TIMEOUT_S = 2.0


class RunHooks(msgspec.Struct, frozen=True):
    """What a run tells the session it belongs to."""

    ended: Callable[["Run"], None]
    forked: Callable[["Run"], None]  # In a child, when it begins to log.
    join: Callable[[RunSpec], "Run"]


class Run:
    """A run that is being recorded; made by `flightlog.init()`.

    `log()` never waits for a disk sync, the daemon or a network. A wrong argument
    raises at the call; a failing disk or daemon never does.
    """

    disabled = False

    def __init__(self, spec: RunSpec, hooks: "RunHooks") -> None:
        self._spec = spec
        self._hooks = hooks
        self._started_at = time.time()
        self._name = spec.name
        self._tags = spec.tags or ()
        self._notes = spec.notes
        self._group = spec.group
        self._job_type = spec.job_type
        self._config = Config(self._record_config, spec.allow_val_change)
        self._overlay = Overlay()
        self._alerts = Alerts()
        self._is_finished = False
        self._is_left = False  # By the process, which ends.
        self._has_warned = False
        self._recording: Recording | None = self._open(forked=spec.forked)
        self._rows = RowLog(
            self._recording.spool, spec.first_step, self._reopen, self._drop
        )
        # Spares the loop a call; the method of the class is what help() shows.
        self.log = self._rows.log  # type: ignore[method-assign]

    # Logging

    def log(
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        commit: bool | None = None,
    ) -> None:
        """Record one row; when this returns, no kill of any process can lose it.

        Args:
            data: Metric names and values: numbers, str, bool, None, nested dicts,
                lists, small arrays, datetimes, enums; NaN and infinities as they are.
            step: The row's step, by default the current one. Steps may come in any
                order; rows of equal step are merged key by key, the later one wins.
            commit: Whether the current step ends with this row. By default it does
                when `step` is not given. As in W&B.

        Raises:
            TypeError: `data` is no mapping, a key no str, or a value cannot be stored.
            ValueError: A step is negative, a key or the row is too large.
            UsageError: The run is finished.
        """
        self._rows.log(data, step, commit)

    def define_metric(  # noqa: PLR0913  # As in W&B.
        self,
        name: str,
        step_metric: str | MetricDefined | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: Literal["minimize", "maximize"] | None = None,
        overwrite: bool | None = None,
    ) -> MetricDefined:
        """Say how a metric is summarised and what its x axis is. As in W&B.

        Args:
            name: A metric's name, or a prefix with `*` at its end.
            step_metric: The metric that is its x axis.
            step_sync: Whether rows without the step metric get its last value;
                by default they do when `step_metric` is given.
            hidden: Kept for those who draw charts.
            summary: A comma list of min, max, mean, first, last, best, copy, none.
            goal: What `best` means.
            overwrite: Whether an earlier definition is replaced, not added to.

        Raises:
            Error: A word that is none of these, or a `*` elsewhere than at the end.
            UsageError: The run is finished.
        """
        self._check_open("define_metric")
        definition = check_definition(
            name,
            step_metric,
            summary,
            goal,
            step_sync=bool(step_metric) if step_sync is None else bool(step_sync),
            hidden=bool(hidden),
            overwrite=bool(overwrite),
            time=time.time(),
        )
        self._rows.sync_steps(definition)
        self._record(definition)
        return definition

    def alert(
        self,
        title: str,
        text: str = "",
        level: str = "INFO",
        wait_duration: float = REPEATS_AFTER_S,
    ) -> None:
        """Ask a person to look; repeats of a title within `wait_duration` s are one.

        Raises:
            TypeError: `title` or `text` is no str.
            ValueError: `level` is no AlertLevel, in any case, or the title is too long.
            UsageError: The run is finished.
        """
        self._check_open("alert")
        alert = self._alerts.make(title, text, level, wait_duration)
        if alert is not None:
            self._record(alert)

    def mark_preempting(self) -> None:
        """Say that this run expects to be preempted: an end other than by exit code 0
        then makes it `preempted`.

        Raises:
            UsageError: The run is finished.
        """
        self._check_open("mark_preempting")
        self._record(PreemptionAnnounced(time=time.time()))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was logged so far is durable in the daemon's log.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Returns:
            Whether it is; False after `timeout` seconds.
        """
        if timeout is not None and not isinstance(timeout, int | float):
            raise TypeError("flush: timeout must be a number of seconds or None")
        if self._recording is None:
            return True  # A forked child that has logged nothing.
        return self._recording.flush(timeout)

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run, within two seconds whatever the daemon does. Idempotent.

        Args:
            exit_code: 0 or None makes the run `finished`, anything else `failed`.
            quiet: Whether to leave out the closing line.

        Raises:
            TypeError: `exit_code` is no int.
        """
        if exit_code is not None and not isinstance(exit_code, int):
            raise TypeError("finish: exit_code must be an int or None")
        self.end(exit_code or 0, FINISH_TIMEOUT_S, quiet)

    # What the run is

    @property
    def id(self) -> str:
        return self._spec.id

    @property
    def entity(self) -> str:
        return self._spec.entity

    @property
    def project(self) -> str:
        return self._spec.project

    @property
    def path(self) -> str:
        """`entity/project/id`; a str here, as in W&B, and a list in the read API."""
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def url(self) -> str:
        from urllib.parse import quote  # Late: `import flightlog` has to be light.

        path = f"{quote(self.entity)}/{quote(self.project)}/runs/{quote(self.id)}"
        return f"flightlog://local/{path}"

    @property
    def dir(self) -> str:
        """A folder for files of this run; made when asked for."""
        folder = self._spec.home.root / "files" / self.entity / self.project / self.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(folder)

    @property
    def step(self) -> int:
        """The step that the next `log()` without a step will use."""
        return self._rows.step

    @property
    def starting_step(self) -> int:
        return self._spec.first_step

    @property
    def resumed(self) -> bool:
        return self._spec.resumed

    @property
    def offline(self) -> bool:
        return False

    @property
    def rank(self) -> int:
        return self._spec.rank

    @property
    def start_time(self) -> float:
        return self._started_at

    @property
    def config(self) -> Config:
        return self._config

    @property
    def summary(self) -> Summary:
        return Summary(
            lambda: self._overlay.over(self._rows.latest()), self._record_summary
        )

    @property
    def name(self) -> str:
        return self._name or default_name(self.id)

    @name.setter
    def name(self, name: str) -> None:
        self._describe("name", name)

    @property
    def notes(self) -> str | None:
        return self._notes

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._describe("notes", notes)

    @property
    def group(self) -> str | None:
        return self._group

    @group.setter
    def group(self, group: str | None) -> None:
        self._describe("group", group)

    @property
    def job_type(self) -> str | None:
        return self._job_type

    @job_type.setter
    def job_type(self, job_type: str | None) -> None:
        self._describe("job_type", job_type)

    @property
    def tags(self) -> tuple[str, ...]:
        return self._tags

    @tags.setter
    def tags(self, tags: tuple[str, ...] | list[str]) -> None:
        self._check_open("tags")
        self._tags = check_tags(tags)
        self._record(TagsChanged(time=time.time(), tags=list(self._tags)))

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(exit_code=exit_code_of(error))

    def __repr__(self) -> str:
        return f"<Run {self.path} ({'finished' if self._is_finished else 'running'})>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled to another process, a run is joined there by a writer of its own."""
        return self._hooks.join, (self._spec,)

    # Inside

    def restore(self, found: Any) -> None:
        """Take over what a resumed run, a RunState, has recorded already."""
        self._config.restore(found.config)
        self._overlay.restore(found.summary)
        self._tags = self._tags or tuple(found.tags)
        for field in ("name", "notes", "group", "job_type"):
            if getattr(self._spec, field) is None:
                setattr(self, f"_{field}", getattr(found, field))

    @property
    def is_inherited(self) -> bool:
        """Whether this is the parent's run, in a child that has logged nothing."""
        return self._recording is None

    def end(
        self,
        exit_code: int,
        timeout_s: float,
        quiet: bool | None = None,
        *,
        implied: bool = False,
    ) -> None:
        """End this process's part of the run, waiting at most `timeout_s`."""
        if self._is_finished:
            return
        self._is_finished = True
        recording = self._recording
        if recording is None:
            self._hooks.ended(self)
            return
        exit_code = max(-(2**31), min(exit_code, 2**31 - 1))  # sys.exit takes any.
        event = RunFinished(time=time.time(), exit_code=exit_code, implied=implied)
        is_durable = recording.finish(event, timeout_s)
        self._hooks.ended(self)
        if recording.dropped_count:
            say(
                f"run {self.path}: the disk refused {recording.dropped_count:,} rows, "
                "which are lost; the run counts them"
            )
        if is_durable:
            return
        if not recording.folder.exists():
            say(
                f"run {self.path}: its spool {recording.folder} was deleted: what the "
                "daemon had not taken is lost"
            )
        elif not (self._spec.quiet if quiet is None else quiet):
            say(
                f"run {self.path}: the daemon has not taken everything yet; the rest "
                f"is safe in {recording.folder} and will follow"
            )

    def leave(self, exit_code: int | None, timeout_s: float) -> None:
        """End it with the process; what exit hooks log after this is dropped."""
        self._is_left = not self._is_finished
        self.end(exit_code or 0, timeout_s, implied=exit_code is None)

    def before_fork(self) -> None:
        self._rows.writer.acquire()

    def after_fork_in_parent(self) -> None:
        self._rows.writer.release()

    def after_fork_in_child(self) -> "Recording | None":
        """Let go of what is the parent's; return it, never to be collected here."""
        inherited, self._recording = self._recording, None
        self._rows.writer.orphan()
        return inherited

    def _open(self, forked: bool) -> Recording:
        spec = self._spec
        key = RunKey(spec.entity, spec.project, spec.id, spec.rank)
        recording = Recording(spec.home, key, forked)
        recording.record(
            RunStarted(
                time=time.time(),
                entity=spec.entity,
                project=spec.project,
                run=spec.id,
                rank=spec.rank,
                forked=forked,
                host=os.uname().nodename,
                pid=os.getpid(),
                **({} if forked else describe(spec)),
            )
        )
        recording.start()
        return recording

    def _reopen(self) -> SpoolWriter:
        """Return a writer for a forked child that logs."""
        if self._is_left:
            raise OSError("the process is ending, and its run has ended")
        self._check_open("log")
        self._recording = self._open(forked=True)
        self._hooks.forked(self)
        if not self._spec.quiet:
            say(
                f"run {self.path}: the forked process {os.getpid()} logs into it, too; "
                "rows of equal step and key replace one another"
            )
        return self._recording.spool

    def _check_open(self, what: str) -> None:
        if self._is_finished:
            raise UsageError(
                f"Run ({self.id}) is finished: {what} is not possible any more"
            )

    def _record(self, event: Event) -> None:
        if self._recording is None:
            with self._rows.writer.lock:  # Two threads of a child may come at once.
                if self._recording is None:
                    try:
                        self._rows.writer = self._reopen()
                    except OSError as error:
                        self._drop(error)
        if self._recording is not None:
            self._recording.record(event)

    def _drop(self, error: OSError) -> None:
        if self._recording is not None and not self._is_left:
            self._recording.drop(error)
        elif not self._has_warned:  # A forked child without a spool, or an exit hook.
            self._has_warned = True
            say(f"nothing can be recorded ({error}): what is logged now is lost")

    def _record_config(self, changes: dict[str, Any], removed: list[str]) -> None:
        self._check_open("changing config")
        self._record(ConfigUpdated(time=time.time(), changes=changes, removed=removed))

    def _record_summary(
        self, changes: list[tuple[list[str], Any]], removed: list[list[str]]
    ) -> None:
        self._check_open("changing summary")
        now = time.time()
        self._record(SummaryUpdated(time=now, changes=changes, removed=removed))
        self._overlay.set(now, changes, removed)

    def _describe(self, field: str, value: str | None) -> None:
        self._check_open(f"changing {field}")
        if not isinstance(value, str) and (value is not None or field == "name"):
            raise TypeError(f"{field} must be a str, not {type(value).__qualname__}")
        value = None if value is None else plain_text(value)
        setattr(self, f"_{field}", value)
        self._record(RunDescribed(time=time.time(), changes={field: value}))
