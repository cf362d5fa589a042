"""The flight recorder for training runs.

import flightlog

run = flightlog.init(project="demo", config={"lr": 1e-3})
run.log({"loss": 0.4})
run.finish()

flightlog.Api().run(run.path).history()
"""

from typing import TYPE_CHECKING, Any

from flightlog._alerts import AlertLevel
from flightlog._run import Run
from flightlog._top import (
    active_run,
    alert,
    define_metric,
    finish,
    init,
    log,
    mark_preempting,
)
from flightlog.errors import (
    BadArgumentError,
    CommError,
    ConfigError,
    Error,
    NotFoundError,
    UsageError,
)

if TYPE_CHECKING:
    from flightlog._config import Config
    from flightlog._summary import Summary
    from flightlog.api import Api

    config: Config
    run: Run | None
    summary: Summary

__all__ = (
    "AlertLevel",
    "Api",
    "BadArgumentError",
    "CommError",
    "ConfigError",
    "Error",
    "NotFoundError",
    "Run",
    "UsageError",
    "alert",
    "config",
    "define_metric",
    "finish",
    "init",
    "log",
    "mark_preempting",
    "run",
    "summary",
)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Give `run`, `config` and `summary` of the active run, and `Api` on first use."""
    if name == "Api":
        from flightlog.api import Api  # The reading side is loaded when it is wanted.

        return Api
    if name == "run":
        return active_run()
    if name in ("config", "summary"):
        run = active_run()
        if run is None:
            raise UsageError(f"call flightlog.init() before using flightlog.{name}")
        return getattr(run, name)
    raise AttributeError(f"module 'flightlog' has no attribute {name!r}")
