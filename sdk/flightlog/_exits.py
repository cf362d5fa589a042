"""How this process ends: the exit code that a run is told when nobody calls finish."""

import builtins
import sys
import threading
from collections.abc import Callable

__all__ = ("ExitCode", "exit_code_of")


class ExitCode:
    """Learns the exit code of the process before it is there to be asked for.

    `sys.exit` is wrapped to see its argument, as W&B does, and the `exit` and `quit`
    of the builtins; an uncaught exception is found where the interpreter leaves it.
    """

    def __init__(self) -> None:
        self._code = 0
        self._exit: Callable[..., object] | None = None

    def watch(self) -> None:
        if self._exit is None:
            self._exit = sys.exit
            sys.exit = self._sys_exit  # type: ignore[assignment]
            for name in ("exit", "quit"):
                if hasattr(builtins, name):  # Not with python -S.
                    setattr(builtins, name, self._sys_exit)

    def now(self) -> tuple[int, bool]:
        """Return the exit code as far as it can be known at exit, and if it is sure.

        After `raise SystemExit(3)` nothing is left of the 3 by then, and that
        `sys.exit(3)` was called does not say that nobody caught it.
        """
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is None or hasattr(sys, "ps1"):  # A prompt's last error is no end.
            error = _error_of_worker()
        return (self._code, False) if error is None else (exit_code_of(error), True)

    def _sys_exit(self, status: object = None, /) -> None:
        if threading.current_thread() is threading.main_thread():
            self._code = exit_code_of(SystemExit(status))
        assert self._exit is not None
        self._exit(status)


def _error_of_worker() -> BaseException | None:
    """Return what is on its way out of a worker of multiprocessing.

    A forked worker may have inherited an exception that its parent is handling.
    """
    error = sys.exc_info()[1]
    trace = None if error is None else error.__traceback__
    is_own = trace is not None and trace.tb_frame.f_code.co_name == "_bootstrap"
    return error if is_own else None


def exit_code_of(error: BaseException | None) -> int:
    """Return the exit code that an exception means, as W&B counts."""
    match error:
        case None:
            return 0
        case KeyboardInterrupt():
            return 255
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code
        case _:
            return 1
