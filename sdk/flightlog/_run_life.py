"""The life of a run in this process: opened, gone on with in a fork, ended, left."""

import mmap
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flightlog._disk import make_home, refuses
from flightlog._recording import Recording, encoded
from flightlog._refused import NoSpool, Refused
from flightlog._rows import RowLog
from flightlog._say import say
from flightlog._spec import RunSpec, describe
from flightlog.errors import UsageError
from flightlog_storage.codec import RunKey
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import (
    AlertRaised,
    AssetLogged,
    ConfigUpdated,
    Event,
    MetricDefined,
    RunDescribed,
    RunFinished,
    RunStarted,
    SummaryUpdated,
    TagsChanged,
)
from flightlog_storage.spool_writer import SpoolWriter

if TYPE_CHECKING:
    from flightlog._assets import Assets
    from flightlog._inbox import Inbox
    from flightlog._media_log import MediaLog
    from flightlog._outputs import Outputs

__all__ = ("FINISH_TIMEOUT_S", "RunLife")

FINISH_TIMEOUT_S = 2.0
_LEFT = "the process is ending, and its run has ended"
# What is said of a run, and can be said later: it names no file.
_CAN_WAIT = (
    *(AlertRaised, ConfigUpdated, MetricDefined, RunDescribed, SummaryUpdated),
    TagsChanged,
)


class RunLife:
    """This process's part of a run, with all that has to end with it."""

    def __init__(
        self,
        spec: RunSpec,
        ended: Callable[[], None],
        forked: Callable[[], None],
    ) -> None:
        """Open the run, as far as a full disk lets it.

        `ended` is told of the end; `forked`, in a child, when it begins to log.

        Raises:
            OSError: The spool cannot be opened, and not for want of room.
        """
        self.spec = spec
        self.is_finished = False
        self.is_left = False  # By the process, which ends.
        self._ended = ended
        self._forked = forked
        self._has_warned = self._is_child = False
        self._refused = Refused()
        self._told_forked: mmap.mmap | None = None  # One byte, shared with all forks.
        self._archives: dict[str, str] = {}  # Names by token.
        self._assets: Assets | None = None
        self._media: MediaLog | None = None
        self._inbox: Inbox | None = None
        self._outputs: Outputs | None = None
        self._recording: Recording | None = None
        self.rows = RowLog(
            self._first_writer(),
            spec.first_step,
            self._reopen,
            self._drop,
            self._log_media,
        )

    # Recording

    def check_open(self, what: str) -> None:
        """Raise UsageError when the run is finished."""
        if self.is_finished and not self.is_left:
            raise UsageError(
                f"Run ({self.spec.id}) is finished: {what} is not possible any more"
            )

    def record(self, event: Event) -> None:
        """Append an event; what cannot be recorded any more is told of once."""
        self._open_late()
        if self.is_left:
            self._drop(OSError(_LEFT))
        elif self._recording is not None:
            self._recording.record(event)
        elif isinstance(event, _CAN_WAIT):
            self._refused.keep(encoded(event))
        else:
            self._refused.drop()

    def record_asset(self, event: AssetLogged) -> None:
        """Append what tells of an asset; how its archive went is told at the end."""
        self.record(event)
        if event.job == "archive":
            self._archives[event.token] = event.name

    def writing(self, what: str) -> Recording | None:
        """Return what writes, or None, told, when the run has ended."""
        if self.is_finished:
            if not self._has_warned:
                self._has_warned = True
                path = self.spec.path
                say(f"run {path} is finished: {what}() comes too late, and is lost")
            return None
        self._open_late()
        if self._recording is None:
            self._refused.drop()
        return self._recording

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until all that was logged so far is durable; see `Run.flush`."""
        if self._refused.since:
            self._refused.ask_again()
            self._open_late()
        if self._recording is None:  # Or a forked child that has logged nothing.
            return not self._refused.since
        return self._recording.flush(timeout_s)

    def assets(self, what: str) -> "Assets":
        """Return the run's files and artifacts, for `what` of them.

        Raises:
            UsageError: The run is finished.
        """
        self.check_open(what)
        # Loaded only here: `import flightlog` has to be light. Not under the lock, for
        # which `log()` waits.
        from flightlog._assets import Assets

        with self.rows.writer.lock:  # Two threads may come at once.
            if self._assets is None:
                self._assets = Assets(self.spec, self.record, self.flush)
        return self._assets

    @property
    def media(self) -> "MediaLog":
        """What logs rows with media."""
        if self._media is None:
            # Loaded only here: `import flightlog` has to be light.
            from flightlog._media_log import MediaLog

            self._media = MediaLog(self.inbox, self.rows.log, self.record)
        return self._media

    @property
    def inbox(self) -> "Inbox":
        """What leaves files for the daemon."""
        # As `assets`.
        from flightlog._inbox import Inbox

        # Two that count anew would take each other's names.
        with self.rows.writer.lock:
            if self._inbox is None:
                self._inbox = Inbox(self.spec.home, self.record)
        return self._inbox

    @property
    def outputs(self) -> "Outputs":
        """What looks for outputs."""
        # As `assets`.
        from flightlog._outputs import Outputs

        with self.rows.writer.lock:  # Two threads may come at once.
            if self._outputs is None:
                self._outputs = Outputs(self.spec, self.record)
        return self._outputs

    def _first_writer(self) -> SpoolWriter:
        try:
            return self._open(self.spec.forked).spool
        except OSError as error:
            if not refuses(error):
                raise
            return NoSpool()

    def _open(self, forked: bool) -> Recording:
        try:
            recording = self._new_recording(forked)
        except OSError as error:
            self._refused.note(error, self.spec.path)
            raise
        self._recording = recording
        refused, self._refused = self._refused, Refused()
        refused.tell(recording)
        recording.start()
        return recording

    def _new_recording(self, forked: bool) -> Recording:
        spec = self.spec
        if not spec.home.spool.is_dir():  # There was no room for it at first.
            try:
                make_home(spec.home)
            except HomeUnusable as error:
                raise OSError(str(error)) from error
        key = RunKey(spec.entity, spec.project, spec.id, spec.rank)
        recording = Recording(spec.home, key, forked, spec.caps)
        recording.record(
            RunStarted(
                time=self._refused.since or time.time(),
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
        return recording

    def _open_late(self) -> None:
        """Open what is not open yet: in a forked child, or for want of room."""
        if self._recording is None and not self.is_left:
            with self.rows.writer.lock:  # Two threads may come at once.
                if self._recording is None:
                    with suppress(OSError):  # Which was told.
                        self.rows.writer = self._reopen()

    def _log_media(
        self, data: Mapping[str, Any], step: int | None, commit: bool | None
    ) -> None:
        self.check_open("log")
        recording = self.writing("log")
        if recording is None:
            self.rows.log({}, step, commit)  # Steps go on.
        else:
            self.media.log(recording, data, step, commit)

    def _reopen(self) -> SpoolWriter:
        """Return a writer for a forked child that logs, or a disk that has room.

        Raises:
            OSError: There is none.
        """
        if self.is_left:
            raise OSError(_LEFT)
        self.check_open("log")
        self._refused.check()
        recording = self._open(self._is_child or self.spec.forked)
        if not self._is_child:
            say(f"run {self.spec.path}: there is room again, and it is recorded")
            return recording.spool
        self._forked()
        if not self.spec.quiet and self._is_first_to_tell():
            say(
                f"run {self.spec.path}: the forked process {os.getpid()} logs into it, "
                "too; rows of equal step and key replace one another"
            )
        return recording.spool

    def _is_first_to_tell(self) -> bool:
        """Whether no other fork of this process has told that it logs."""
        is_told = self._told_forked
        if is_told is None:
            return True
        is_first = is_told[0] == 0
        is_told[0] = 1
        return is_first

    def _drop(self, error: OSError) -> None:
        if not self.is_left:
            if self._recording is not None:
                self._recording.drop(error)
            else:
                self._refused.drop()
        elif not self._has_warned:  # An exit hook.
            self._has_warned = True
            say(f"nothing can be recorded ({error}): what is logged now is lost")

    # Forks

    @property
    def is_inherited(self) -> bool:
        """Whether this is the parent's run, in a child that has logged nothing."""
        return self._is_child and self._recording is None

    @property
    def is_refused(self) -> bool:
        """Whether the disk has no room for anything of it."""
        return self._refused.since > 0

    def before_fork(self) -> None:
        if self._told_forked is None:
            with suppress(OSError):  # Without, each child tells.
                self._told_forked = mmap.mmap(-1, 1)
        self.rows.writer.acquire()

    def after_fork_in_parent(self) -> None:
        self.rows.writer.release()

    def after_fork_in_child(self) -> Recording | None:
        """Let go of what is the parent's; return it, never to be collected here."""
        inherited, self._recording = self._recording, None
        self._is_child = True
        self._refused = Refused()
        self._archives = {}
        self._assets = None  # Its thread is the parent's.
        self._outputs = None  # So are its watches.
        self.rows.writer.orphan()
        return inherited

    # The end

    def end(
        self,
        exit_code: int,
        timeout_s: float,
        quiet: bool | None = None,
        *,
        implied: bool = False,
    ) -> None:
        """End this process's part of the run, waiting at most `timeout_s`."""
        if self.is_finished:
            return
        try:
            self._finish_assets()
        finally:
            if not self.is_finished:  # By a signal handler, or another thread.
                self.is_finished = True
                self._end(exit_code, timeout_s, quiet, implied)

    def leave(self, exit_code: int, is_sure: bool, timeout_s: float) -> None:
        """End it with the process; what exit hooks log after this is dropped."""
        self._finish_assets()
        self.is_left = not self.is_finished
        self.end(exit_code, timeout_s, implied=not is_sure)

    def _finish_assets(self) -> None:
        if self.is_finished:
            return
        if self._outputs is not None and self._outputs.is_watched:
            self.assets("finish").finish(self._outputs)
        elif self._assets is not None:
            self._assets.finish()

    def _end(
        self, exit_code: int, timeout_s: float, quiet: bool | None, implied: bool
    ) -> None:
        recording = self._recording or self._open_at_last()
        if recording is None:
            self._ended()
            self._refused.tell_end(self.spec.path)
            return
        exit_code = max(-(2**31), min(exit_code, 2**31 - 1))  # sys.exit takes any.
        event = RunFinished(time=time.time(), exit_code=exit_code, implied=implied)
        # The daemon reads the exit status of who leaves a spool behind, also a 0.
        is_durable = recording.finish(
            event, timeout_s, is_left=implied and exit_code != 0
        )
        self._ended()
        is_quiet = self.spec.quiet if quiet is None else quiet
        self._tell_what_is_left(recording, is_durable, is_quiet)
        if self._archives:
            # Loaded only here: `import flightlog` has to be light.
            from flightlog._archives import tell_of_archives

            tell_of_archives(self.spec, self._archives, is_quiet=is_quiet)

    def _open_at_last(self) -> Recording | None:
        """Ask the disk once more, unless the process ends: no thread starts then."""
        if self.is_refused and not self.is_left:
            with suppress(OSError):
                return self._open(self._is_child or self.spec.forked)
        return None

    def _tell_what_is_left(
        self, recording: Recording, is_durable: bool, is_quiet: bool
    ) -> None:
        path, folder = self.spec.path, recording.folder
        if recording.dropped_count:
            say(
                f"run {path}: the disk refused {recording.dropped_count:,} rows, "
                "which are lost; the run counts them"
            )
        if is_durable:
            return
        if not folder.exists():
            say(
                f"run {path}: its spool {folder} was deleted: what the daemon had not "
                "taken is lost"
            )
        elif not is_quiet:
            say(
                f"run {path}: the daemon has not taken everything yet; the rest is "
                f"safe in {folder} and will follow"
            )
