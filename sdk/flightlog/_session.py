"""The runs of this process: starting them, forks, and the end of the process."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import structs

from flightlog._disabled import DisabledRun
from flightlog._exits import ExitCode
from flightlog._recording import Recording
from flightlog._run import Run, RunHooks
from flightlog._run_life import FINISH_TIMEOUT_S
from flightlog._say import say
from flightlog._settings import MODES, Settings, read_settings
from flightlog._spec import RESUME, RunSpec, check_snapshot, make_spec
from flightlog.errors import UsageError

if TYPE_CHECKING:
    from flightlog._assets import Assets

__all__ = ("Session", "join", "session")

REINIT = (None, "default", "return_previous", "finish_previous", "create_new")
_OF_A_RUN = (
    *("project", "path", "name", "id", "entity"),
    *("config", "tags", "notes", "group", "job_type"),
)


class Session:
    """What this process records. There is one, made at import."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: list[Run] = []
        self._inherited: list[Recording] = []
        self._exit_code = ExitCode()
        self._is_watching = False
        self._worker_pid = 0
        self.run: Run | DisabledRun | None = None

    def init(self, arguments: dict[str, Any]) -> Run | DisabledRun:
        """Start a run; see `flightlog.init`."""
        settings = read_settings()
        mode = arguments["mode"] or settings.mode
        if mode not in MODES:
            raise UsageError(f"mode {mode!r} is none of {MODES}")
        # Looked for without the lock: others may call meanwhile.
        store_code = None if mode == "disabled" else _find_code(arguments, settings)
        with self._lock:
            previous = self._previous(arguments["reinit"])
            if previous is not None:
                if not settings.quiet:
                    _tell_what_is_unused(previous, arguments)
                return previous
            run: Run | DisabledRun
            if mode == "disabled":
                run = DisabledRun(arguments)
            else:
                shared = arguments["shared"] or mode == "shared"
                run = self._start(arguments, settings, shared)
                if store_code is not None:
                    store_code(run.life.assets("init"))
            if arguments["reinit"] != "create_new" or self.run is None:
                self.run = run
        return run

    def join(self, spec: RunSpec) -> Run:
        """Return a run of this process that joins the one described."""
        with self._lock:
            for run in self._runs:
                if run.path == spec.path:
                    return run
            # A helper of the run: it begins nothing and repeats nothing.
            run = self._open(structs.replace(spec, forked=True))
            util = sys.modules.get("multiprocessing.util")
            if util is not None:  # It forgets what is registered while it unpickles.
                util.register_after_fork(self, lambda self: self._forked(run))
            return run

    def _previous(self, reinit: object) -> Run | DisabledRun | None:
        if reinit is True:
            reinit = "finish_previous"
        elif reinit is False:
            reinit = "return_previous"
        if reinit not in REINIT:
            raise UsageError(f"reinit {reinit!r} is none of {REINIT}")
        if self.run is None or reinit == "create_new":
            return None
        if isinstance(self.run, Run) and self.run.life.is_inherited:
            return None  # The parent's, in a forked child that has not logged into it.
        notebook = hasattr(sys, "ps1")
        if reinit == "finish_previous" or (notebook and reinit in (None, "default")):
            self.run.finish()
            return None
        return self.run

    def _start(
        self, arguments: dict[str, Any], settings: Settings, shared: bool
    ) -> Run:
        spec, config = make_spec(arguments, settings, shared)
        found = None
        how = settings.resume if arguments["resume"] is None else arguments["resume"]
        if how not in RESUME:
            raise UsageError(f"resume {how!r} is none of {RESUME}")
        if how:
            # Loaded only here: it brings the reading side with it.
            from flightlog._resume import resume

            spec, found = resume(spec, how)
        elif (arguments["id"] is not None or shared) and not spec.rank:
            # Loaded only here: it brings SQLite, though not numpy.
            from flightlog._reuse import warn_of_reuse

            warn_of_reuse(spec)
        run = self._open(spec)
        if found is not None:
            run.about.restore(found)
            run.config.setdefaults(config)
        else:
            run.config.update(config)
        if not spec.quiet and not run.life.is_refused:
            what = f"resumed at step {run.step}" if spec.resumed else "recording"
            say(f"{what}: {run.name} ({run.path})")
        return run

    def _open(self, spec: RunSpec) -> Run:
        self._watch()
        hooks = RunHooks(ended=self._ended, forked=self._forked, join=join)
        try:
            run = Run(spec, hooks)
        except OSError as error:
            raise UsageError(
                f"home {spec.home.root} cannot be written: {error}; choose another "
                "with home=… or FLIGHTLOG_HOME"
            ) from error
        self._runs.append(run)
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            self._end_with_worker()
        return run

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._exit_code.watch()
            atexit.register(self._at_exit)
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def _ended(self, run: Run) -> None:
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)
            if self.run is run:
                self.run = None

    def _forked(self, run: Run) -> None:
        """Take note of a child that logs into its parent's run."""
        self._end_with_worker()

    def _end_with_worker(self) -> None:
        """Have a child of multiprocessing, which skips atexit, say goodbye."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and self._worker_pid != os.getpid():
            self._worker_pid = os.getpid()
            util.Finalize(None, self._at_exit, exitpriority=100)

    def _at_exit(self) -> None:
        deadline = time.monotonic() + FINISH_TIMEOUT_S
        active = self.run  # Stays that, for exit hooks that log late.
        for run in list(self._runs):
            left = max(0.0, deadline - time.monotonic())
            run.life.leave(*self._exit_code.now(), left)
        self.run = active

    def _before_fork(self) -> None:
        self._lock.acquire()
        for run in self._runs:
            run.life.before_fork()

    def _after_fork_in_parent(self) -> None:
        for run in self._runs:
            run.life.after_fork_in_parent()
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        for run in self._runs:
            inherited = run.life.after_fork_in_child()
            if inherited is not None:
                self._inherited.append(inherited)


def _tell_what_is_unused(run: Run | DisabledRun, arguments: dict[str, Any]) -> None:
    """Tell somebody who wanted another run that this one is still active."""
    given = [name for name in _OF_A_RUN if arguments[name] is not None]
    if given and arguments["reinit"] in (None, "default"):
        say(
            f"run {run.path} is active, and init() returns it as it is, without "
            f"{', '.join(given)}: finish() it first, or give reinit='finish_previous' "
            "or 'create_new'"
        )


def _find_code(
    arguments: dict[str, Any], settings: Settings
) -> Callable[["Assets"], None] | None:
    """Return what stores the code, if that was asked for; rank 0 does it for all."""
    check_snapshot(arguments)
    rank = settings.rank if arguments["rank"] is None else arguments["rank"]
    if not arguments["snapshot_code"] or rank:
        return None
    # Loaded only here: `import flightlog` has to be light.
    from flightlog._code import find_code, store_code

    return partial(store_code, find_code(arguments))


def join(spec: RunSpec) -> Run:
    """Return the run of a pickle, joined by this process."""
    return session.join(spec)


session = Session()
