"""A run that records nothing: `mode="disabled"`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flightlog._config import Config
from flightlog._settings import find_workspace
from flightlog._summary import Summary, put_value
from flightlog_storage.event import MetricDefined
from flightlog_storage.names import default_name

if TYPE_CHECKING:
    from flightlog._artifact import Artifact

__all__ = ("DisabledRun",)


class DisabledRun:
    """Has every method of `Run`; none does anything, so that no line need be removed.

    Config and summary keep what is set, for code that reads it back.
    """

    disabled = True
    offline = False
    resumed = False
    entity = "local"
    url = ""
    rank = 0
    starting_step = 0
    start_time = 0.0

    def __init__(self, arguments: Mapping[str, Any] | None = None) -> None:
        """Make one that answers what `init()` was given."""
        given = arguments or {}
        self.id: str = given.get("id") or "disabled"
        self.project: str = given.get("project") or given.get("path") or "disabled"
        self.path = f"{self.entity}/{self.project}/{self.id}"
        self.name: str = given.get("name") or default_name(self.id)
        self.notes: str | None = given.get("notes")
        self.group: str | None = given.get("group")
        self.job_type: str | None = given.get("job_type")
        self.tags = tuple(given.get("tags") or ())
        self.workspace_root = find_workspace(given.get("workspace_root"))
        self.step = 0
        self.config = Config(lambda changes, removed: None, allow_val_change=True)
        self.config.update(given.get("config"))
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

    def define_metric(self, name: str, *args: object, **rest: object) -> MetricDefined:
        return MetricDefined(time=0.0, name=name)

    def alert(self, title: str, *args: object, **rest: object) -> None:
        pass

    def mark_preempting(self) -> None:
        pass

    def log_artifact(
        self,
        artifact_or_path: object,
        name: str | None = None,
        type: str | None = None,
        *args: object,
        **rest: object,
    ) -> "Artifact":
        """Return the artifact, or an empty one for a path: nothing is read."""
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._artifact import Artifact

        if isinstance(artifact_or_path, Artifact):
            artifact = artifact_or_path
        else:
            artifact = Artifact(name or "disabled", type or "unspecified")
        if artifact.is_draft():
            artifact.life.discard()
        return artifact

    def use_artifact(
        self,
        artifact_or_name: object,
        type: str | None = None,
        *args: object,
        **rest: object,
    ) -> "Artifact":
        """Return the artifact, or an empty one for a name: nothing is looked up."""
        return self.log_artifact(artifact_or_name, None, type)

    def log_image(self, key: object, *args: object, **rest: object) -> str:
        return ""

    def log_config(self, **rest: object) -> None:
        pass

    def log_dataset(self, name: object, root_or_uri: object, **rest: object) -> None:
        pass

    def log_pretrained(self, name: object, **rest: object) -> None:
        pass

    def scan_outputs_once(self, **rest: object) -> dict[str, Any]:
        return {"scanned": 0, "archived": 0, "changed": 0}

    def watch_outputs(self, **rest: object) -> None:
        pass

    def stop_outputs_watch(self) -> None:
        pass

    def save(self, glob_str: object, *args: object, **rest: object) -> list[str]:
        return []

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

    def __exit__(self, *_: object) -> None:
        pass

    def __reduce__(self) -> tuple[type["DisabledRun"], tuple[dict[str, Any]]]:
        names = ("id", "project", "name", "notes", "group", "job_type", "tags")
        given = {name: getattr(self, name) for name in names}
        return DisabledRun, (given | {"config": self.config.as_dict()},)
