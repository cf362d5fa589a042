"""A run that records nothing: `mode="disabled"`."""

from types import TracebackType
from typing import Any

from flightlog._config import Config
from flightlog._summary import Summary, put_value
from flightlog_storage.names import default_name

__all__ = ("DisabledRun",)


class DisabledRun:
    """Has every method of `Run`; none does anything, so that no line need be removed.

    Config and summary keep what is set, for code that reads it back.
    """

    disabled = True
    offline = False
    resumed = False
    id = "disabled"
    entity = "local"
    project = "disabled"
    path = "local/disabled/disabled"
    url = ""
    rank = 0
    starting_step = 0
    start_time = 0.0

    def __init__(self) -> None:
        self.name = default_name(self.id)
        self.notes: str | None = None
        self.group: str | None = None
        self.job_type: str | None = None
        self.tags: tuple[str, ...] = ()
        self.step = 0
        self.config = Config(lambda changes, removed: None, allow_val_change=True)
        self._values: dict[str, Any] = {}
        self.summary = Summary(lambda: self._values, self._keep)

    @property
    def dir(self) -> str:
        import tempfile  # Late: `import flightlog` has to be light.

        return tempfile.gettempdir()

    def log(
        self, data: object, step: int | None = None, commit: bool | None = None
    ) -> None:
        pass

    def define_metric(self, name: str, *args: object, **rest: object) -> None:
        pass

    def alert(self, title: str, *args: object, **rest: object) -> None:
        pass

    def mark_preempting(self) -> None:
        pass

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        pass

    def _keep(
        self, changes: list[tuple[list[str], Any]], removed: list[list[str]]
    ) -> None:
        for path, value in changes:
            put_value(self._values, tuple(path), value)

    def __enter__(self) -> "DisabledRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __reduce__(self) -> tuple[type["DisabledRun"], tuple[()]]:
        return DisabledRun, ()
