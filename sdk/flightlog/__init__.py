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
    log_artifact,
    mark_preempting,
    save,
    use_artifact,
)
from flightlog.errors import (
    ArtifactFinalizedError,
    ArtifactNotLoggedError,
    BadArgumentError,
    CommError,
    ConfigError,
    CorruptError,
    Error,
    NotFoundError,
    UsageError,
)

if TYPE_CHECKING:
    from flightlog._artifact import Artifact
    from flightlog._config import Config
    from flightlog._snapshot import snapshot_workspace
    from flightlog._summary import Summary
    from flightlog.apis.public import Api
    from flightlog.data_types import Audio, Histogram, Html, Image, Table, Video

    config: Config
    run: Run | None
    summary: Summary

__all__ = (
    "AlertLevel",
    "Api",
    "Artifact",
    "ArtifactFinalizedError",
    "ArtifactNotLoggedError",
    "Audio",
    "BadArgumentError",
    "CommError",
    "ConfigError",
    "CorruptError",
    "Error",
    "Histogram",
    "Html",
    "Image",
    "NotFoundError",
    "Run",
    "Table",
    "UsageError",
    "Video",
    "alert",
    "config",
    "define_metric",
    "finish",
    "init",
    "log",
    "log_artifact",
    "mark_preempting",
    "run",
    "save",
    "snapshot_workspace",
    "summary",
    "use_artifact",
)

__version__ = "0.1.0"

_MEDIA = ("Audio", "Histogram", "Html", "Image", "Table", "Video")
_LOADED_ON_USE = {
    "Api": "flightlog.apis.public",
    "Artifact": "flightlog._artifact",
    "data_types": "flightlog.data_types",
    "snapshot_workspace": "flightlog._snapshot",
    **dict.fromkeys(_MEDIA, "flightlog.data_types"),
}


def __getattr__(name: str) -> Any:
    """Give what the active run has, and what is loaded on first use."""
    if name in _LOADED_ON_USE:
        import importlib  # Late, as what it loads: `import flightlog` is to be light.

        module = importlib.import_module(_LOADED_ON_USE[name])
        return module if name == "data_types" else getattr(module, name)
    if name == "run":
        return active_run()
    if name in ("config", "summary"):
        run = active_run()
        if run is None:
            raise UsageError(f"call flightlog.init() before using flightlog.{name}")
        return getattr(run, name)
    raise AttributeError(f"module 'flightlog' has no attribute {name!r}")
