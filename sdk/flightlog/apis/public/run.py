"""A run read back: its state and its histories."""

import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn
from zlib import crc32

from flightlog._artifact import Artifact
from flightlog._checks import check_tags
from flightlog._config import as_config
from flightlog._places import make_run_folder, run_url
from flightlog._say import say
from flightlog.apis.public.artifacts import (
    RunArtifacts,
    log_artifact,
    run_artifacts,
    use_artifact,
)
from flightlog.apis.public.client import Client
from flightlog.apis.public.files import (
    File,
    FileOrigin,
    Files,
    find_files,
    only_file,
    run_files,
    save_file,
    stored_name,
)
from flightlog.apis.public.frames import dicts, frame_or_dicts
from flightlog.apis.public.histories import (
    Join,
    Method,
    RunHistory,
    Sample,
    check_count,
    check_keys,
)
from flightlog.apis.public.images import Image, find_images
from flightlog.apis.public.pages import display_html, frame_html, table_html
from flightlog.apis.public.reading import checked, iso, reading
from flightlog.apis.public.run_assets import RunAssets
from flightlog.apis.public.run_edits import RunEdits
from flightlog.apis.public.scan import HistoryScan, check_scan
from flightlog.apis.public.summary import Summary
from flightlog.apis.public.user import User
from flightlog.apis.public.waiting import wait_for_end
from flightlog.errors import BadArgumentError, Error, NotFoundError
from flightlog_storage.artifact_state import Role
from flightlog_storage.event import (
    ArtifactDeleted,
    Event,
    RunDeleted,
    RunStateChanged,
)
from flightlog_storage.names import default_name
from flightlog_storage.runstate import RunState, State

if TYPE_CHECKING:
    import pyarrow as pa

    from flightlog.apis.public.api import Api

__all__ = ("Run", "User")

_GIVEN_STATES = (
    State.FINISHED,
    State.FAILED,
    State.CRASHED,
    State.KILLED,
    State.PREEMPTED,
    State.PENDING,
)


class Run:
    """A run read back. While it is active, each access reads what is there by then.

    Assignments to `name`, `display_name`, `tags`, `notes`, `description`, `group`,
    `job_type`, and changes of `config`, `tags` and `summary` in place, are gathered;
    `update()` records them.
    """

    # The signature is W&B's, which users know.
    def __init__(
        self,
        client: Client,
        entity: str,
        project: str,
        run_id: str,
        attrs: RunState | Mapping[str, Any] | None = None,
        include_sweeps: bool = True,
    ) -> None:
        """Read the run.

        Args:
            client: `Api.client`.
            entity: Whose run it is.
            project: Its project.
            run_id: Its id.
            attrs: Its state, if that was read already; or any mapping, to read nothing
                before something of it is asked for.
            include_sweeps: Accepted; there are no sweeps.

        Raises:
            BadArgumentError: A name is no str, or empty.
            NotFoundError: There is no such run.
        """
        for what, name in (("entity", entity), ("project", project), ("id", run_id)):
            if not isinstance(name, str) or not name:
                raise BadArgumentError(f"{what} must be a str, not {name!r}")
        self.client = client
        self._key = (entity, project, run_id)
        if not isinstance(attrs, RunState | Mapping | None):
            raise BadArgumentError(f"attrs must be a mapping, not {attrs!r}")
        self._state = attrs if isinstance(attrs, RunState) else None
        if attrs is None:
            self._read()

    @classmethod
    def create(
        cls,
        api: "Api",
        run_id: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        state: Literal["running", "pending"] = "running",
    ) -> "Run":
        """Make a run into which nobody logs yet; see `Api.create_run`."""
        return api.create_run(
            run_id=run_id, project=project, entity=entity, state=state
        )

    # What only those runs of a long list need that somebody looks into: made for them.

    @cached_property
    def _edits(self) -> RunEdits:
        return RunEdits()

    @cached_property
    def _history(self) -> RunHistory:
        return RunHistory(self.client, self._key, lambda: self._read().created_at)

    # Names

    @property
    def entity(self) -> str:
        return self._key[0]

    @property
    def project(self) -> str:
        return self._key[1]

    @property
    def id(self) -> str:
        return self._key[2]

    @property
    def storage_id(self) -> str:
        """An opaque name of the run, unique in all homes' names of it."""
        entity, project, run = self._key
        return b64encode(f"Run:v1:{run}:{project}:{entity}".encode()).decode()

    @property
    def project_internal_id(self) -> int:
        """A number for the project: the same for equal entity and project."""
        return crc32("/".join(self._key[:2]).encode())

    _project_internal_id = project_internal_id

    @property
    def path(self) -> list[str]:
        """`[entity, project, id]`, not quoted: `Api.run` takes them with slashes."""
        return list(self._key)

    @property
    def url(self) -> str:
        return run_url(*self._key)

    @property
    def username(self) -> str:
        """Deprecated by W&B: the entity."""
        warn("Run.username is deprecated: use entity", DeprecationWarning, 2)
        return self.entity

    @property
    def user(self) -> User:
        return User(self.entity)

    @property
    def dir(self) -> str:
        """A folder for files of this run, in the home; made when asked for."""
        return str(make_run_folder(self.client.home, *self._key))

    # What may be assigned

    @property
    def name(self) -> str:
        """What people call it; by default made from the id."""
        return self._edits.text("name", self._fresh) or default_name(self.id)

    @name.setter
    def name(self, name: str) -> None:
        self._edits.set_text("name", name)

    display_name = name

    @property
    def notes(self) -> str | None:
        return self._edits.text("notes", self._fresh)

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._edits.set_text("notes", notes)

    @property
    def description(self) -> str | None:
        return self._edits.text("description", self._fresh)

    @description.setter
    def description(self, description: str | None) -> None:
        self._edits.set_text("description", description)

    @property
    def group(self) -> str | None:
        return self._edits.text("group", self._fresh)

    @group.setter
    def group(self, group: str | None) -> None:
        self._edits.set_text("group", group)

    @property
    def job_type(self) -> str | None:
        return self._edits.text("job_type", self._fresh)

    @job_type.setter
    def job_type(self, job_type: str | None) -> None:
        self._edits.set_text("job_type", job_type)

    @property
    def tags(self) -> list[str]:
        """Its tags; the list may be changed in place."""
        return self._edits.tags(self._fresh())

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self.tags[:] = checked(lambda: check_tags(tags))

    @property
    def config(self) -> dict[str, Any]:
        """What it was configured with; may be changed in place."""
        return self._edits.config(self._fresh())

    @config.setter
    def config(self, config: Mapping[str, Any]) -> None:
        given = checked(lambda: as_config(config))
        self._edits.replace_config(given, self._fresh())

    @property
    def summary(self) -> Summary:
        """The last value of each key; changes are gathered until `update()`."""
        return Summary(lambda: self._fresh().summary, self._edits.summary, self.update)

    # What it is

    @property
    def state(self) -> str:
        """pending, running, finished, failed, crashed, killed or preempt(ed|ing)."""
        return str(self._fresh().state)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the writer that ended worst, if it is known."""
        return self._fresh().exit_code

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended that writer, if one did."""
        return self._fresh().signal

    @property
    def rawconfig(self) -> dict[str, Any]:
        """The config as it is stored; we add no keys of our own."""
        return dict(self._fresh().config)

    @property
    def json_config(self) -> str:
        """The config as JSON text: each key with `{"value": …, "desc": null}`."""
        config = self._fresh().config
        return json.dumps(
            {key: {"value": value, "desc": None} for key, value in config.items()}
        )

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The summary as a plain dict."""
        return self.summary.as_dict()

    @property
    def system_metrics(self) -> dict[str, Any]:
        """The latest value of each system metric; all begin with `system.`."""
        return dict(self._fresh().system)

    @property
    def metadata(self) -> dict[str, Any]:
        """What ran where: os, python, program, host, cwd …"""
        return self._fresh().metadata

    @property
    def commit(self) -> str | None:
        """The git commit, where the metadata has one."""
        return self.metadata.get("commit")

    @property
    def created_at(self) -> str:
        """When it started, ISO 8601, UTC."""
        return iso(self._read().created_at)

    @property
    def heartbeat_at(self) -> str:
        """When it was last heard of, ISO 8601, UTC."""
        return iso(self._fresh().updated_at)

    @property
    def read_only(self) -> bool:
        """Whether the home cannot be written, so that nothing can be changed."""
        return not self.client.home.is_writable

    @property
    def sweep(self) -> None:
        """None: there are no sweeps."""

    sweep_name = sweep

    @property
    def lastHistoryStep(self) -> int:  # W&B's name.
        """The highest step logged, read at each access; -1 without history."""
        return self._read(force=True).last_step

    @property
    def history_line_count(self) -> int:
        """How many rows were logged, those of equal step counted each."""
        return self._fresh().row_count

    @property
    def lost_count(self) -> int:
        """How many events are known to be lost: dropped, damaged or refused."""
        return self._fresh().lost_count

    def load(self, force: bool = False) -> dict[str, Any]:
        """Return what is known of the run, read anew if forced, under W&B's names.

        Raises:
            NotFoundError: It does not exist any more.
        """
        state = self._read(force)
        return {
            "name": self.id,
            "displayName": self.name,
            "state": str(state.state),
            "tags": list(state.tags),
            "config": self.json_config,
            "summaryMetrics": json.dumps(state.summary),
            "systemMetrics": json.dumps(state.system),
            "createdAt": iso(state.created_at),
            "heartbeatAt": iso(state.updated_at),
            "historyLineCount": state.row_count,
            "jobType": state.job_type,
            **{
                name: getattr(state, name) for name in ("group", "notes", "description")
            },
        }

    # Changing it

    def update(self) -> None:
        """Record what was changed here; durable and seen by every reader on return.

        Only what was changed is sent, so nothing that others changed is reverted.

        Raises:
            BadArgumentError: A value cannot be stored; nothing is recorded.
            CommError: The change could not be recorded.
            NotFoundError: The run does not exist any more.
        """
        state = self._read(force=True)
        self._record(self._edits.events(time.time(), state))
        self._edits.clear()
        self._edits.settle(self._read(force=True))

    save = update

    def update_state(self, state: str) -> bool:
        """Correct how a run ended that nobody logs into; return whether it changed.

        Raises:
            BadArgumentError: `state` is no state that a run can be given.
        """
        if state not in _GIVEN_STATES:
            known = ", ".join(_GIVEN_STATES)
            raise BadArgumentError(f"state {state!r} is none of {known}")
        if self._read(force=True).active:
            return False
        self._record([RunStateChanged(time=time.time(), state=state)])
        return self._read(force=True).state == state

    def delete(self, delete_artifacts: bool = False) -> None:
        """Delete the run: its state and its history; once more does nothing.

        A process that still logs into it is not heard any more. The events stay in
        the log, where no reader finds them.

        Args:
            delete_artifacts: Whether the versions of artifacts that it logged are
                deleted, too, with their aliases; by default they stay.

        Raises:
            BadArgumentError: `delete_artifacts` is no bool.
            CommError: It could not be recorded.
        """
        if not isinstance(delete_artifacts, bool):
            raise BadArgumentError(
                f"delete_artifacts must be a bool, not {delete_artifacts!r}"
            )
        if reading(lambda: self.client.reader.state(self._key)) is not None:
            now = time.time()
            events: list[Event] = []
            for artifact in self.logged_artifacts() if delete_artifacts else ():
                key = artifact.logged.key
                name = key.artifact.name
                events.append(ArtifactDeleted(time=now, name=name, number=key.number))
            self._record([*events, RunDeleted(time=now)])

    def wait_until_finished(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, however it did; woken by what is recorded.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            BadArgumentError: `timeout` is no number.
            CommError: It has not ended by then; `exc` is a TimeoutError.
        """
        wait_for_end(self.client.home, lambda: self._read(force=True), timeout)

    # Files and artifacts

    def file(self, name: str) -> File:
        """Return the file of that name.

        Raises:
            NotFoundError: There is none.
        """
        return only_file(self.files([name]), name, "/".join(self._key))

    def files(
        self,
        names: list[str] | None = None,
        per_page: int = 50,
        *,
        pattern: str | None = None,
    ) -> Files:
        """Return the run's files by name: all, or those of `names` that it has.

        Args:
            names: Which ones; None or none of them for all.
            per_page: How many `objects` grows by.
            pattern: Those whose name is like this: `%` is any text, `_` any character.

        Raises:
            BadArgumentError: An argument cannot be, or both names and a pattern are
                given.
        """
        find = partial(run_files, self.client, self._key, lambda: self._read(True))
        origin = FileOrigin("/".join(self._key), self._key)
        return find_files(origin, find, names, per_page, pattern)

    def upload_file(self, path: str, root: str = ".") -> File:
        """Keep a file of this machine with the run; one of the same name is replaced.

        Args:
            path: The file.
            root: It is called by its path below this folder.

        Raises:
            CommError: There is no such file, or it could not be kept.
        """
        self._read(True)
        save_file(self.client, self._key, path, root)
        return self.file(stored_name(path, root))

    def logged_artifacts(self, per_page: int = 100) -> RunArtifacts:
        """Return the artifacts that the run put out, in that order.

        Raises:
            BadArgumentError: `per_page` is no positive int.
        """
        return run_artifacts(self.client, self._key, Role.LOGGED, per_page)

    def used_artifacts(self, per_page: int = 100) -> RunArtifacts:
        """Return the artifacts that the run took in, in that order.

        Raises:
            BadArgumentError: `per_page` is no positive int.
        """
        return run_artifacts(self.client, self._key, Role.USED, per_page)

    def log_artifact(
        self,
        artifact: Artifact,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Artifact:
        """Declare a logged artifact of the project an output of the run; return it.

        Raises:
            BadArgumentError: It is none, a draft, of another project, or an alias or a
                tag cannot be.
            CommError: It could not be recorded.
        """
        return log_artifact(self.client, self._key, artifact, aliases, tags)

    def use_artifact(self, artifact: Artifact, use_as: str | None = None) -> Artifact:
        """Declare a logged artifact an input of the run; return it.

        Raises:
            BadArgumentError: It is none, or a draft.
            CommError: It could not be recorded.
        """
        return use_artifact(self.client, self._key, artifact, use_as)

    def images(self, key: str | None = None) -> list[Image]:
        """Return the images that were logged, or those of a key, by step.

        Raises:
            BadArgumentError: `key` is no str and not None.
            NotFoundError: The run does not exist any more.
        """
        return find_images(self.client, self._key, self._read, key)

    @property
    def assets(self) -> RunAssets:
        """What it was told of: `config`, `datasets`, `pretrained`, and its `code`."""
        return RunAssets(self.client, lambda: self._read(force=True))

    # Shown in a notebook

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """Return an iframe of the run's `url`, or with `hidden` a button for it."""
        return frame_html(self.url, height, hidden, f"run {self.name}")

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the run in a notebook; return False where there is none."""
        return display_html(self._repr_html_())

    def _repr_html_(self) -> str:
        state = self._fresh()
        title = f"{'/'.join(self._key)}: {self.name}, {state.state}"
        sections = {"config": state.config, "summary": state.summary}
        return table_html(title, sections)

    def _record(self, events: Sequence[Event]) -> None:
        self.client.record(self._key, events)

    def _read(self, force: bool = False) -> RunState:
        """Return the run's state, read anew if forced.

        Raises:
            NotFoundError: It does not exist any more.
        """
        if self._state is None or force:
            state = reading(lambda: self.client.reader.state(self._key))
            if state is None:
                name = "/".join(self._key)
                raise NotFoundError(f"Could not find run <Run {name} (not found)>")
            self._state = state
        return self._state

    def _fresh(self) -> RunState:
        return self._read(force=self._read().active)

    # Histories

    # The signature is W&B's, which users know.
    def history(  # noqa: PLR0913
        self,
        samples: int = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: str = "default",
        *,
        method: Method = "even",
        join: Join = "inner",
    ) -> Any:
        """Return at most `samples` rows, the first and the last among them.

        Args:
            samples: How many rows at most; 1 gives the last.
            keys: Only rows that have all of these, and only these columns.
            x_axis: One more key that a row must have; its first column.
            pandas: Whether to return a data frame, else a list of dicts. Without
                pandas installed: a warning and the list.
            stream: "default", or "system" (also "events") for the system metrics:
                rows with `_timestamp`, `_runtime` and `_wandb`, and without `_step`.
            method: "even" picks rows evenly spaced; "minmax" picks, of each bucket of
                steps, those with the lowest and the highest value of each key.
            join: "inner", or "outer" for the rows that have any of the keys.

        Raises:
            BadArgumentError: An argument but `keys` has a wrong type or value, or
                there are fewer samples than "minmax" needs for these keys.
            NotFoundError: The run does not exist any more.
        """
        wanted = Sample(
            samples=samples,
            keys=keys,
            x_axis=x_axis,
            stream=stream,
            method=method,
            join=join,
        )
        wanted.check()
        if problem := wanted.problem():
            say(f"error: {problem}")
            return []
        rows, names = self._history.sample(wanted), wanted.names()
        return frame_or_dicts(rows, names) if pandas else dicts(rows, names)

    @property
    def history_keys(self) -> dict[str, Any]:
        """Which keys were logged, of what types, how often, and which together."""
        return self._history.keys()

    def history_arrow(self, keys: list[str] | None = None) -> "pa.Table":
        """Return every row as an Arrow table: `_step`, then one column a key.

        With keys, only the rows that have all of them. Types follow all values of a
        key, see docs/read_api.md.

        Raises:
            BadArgumentError: `keys` is no list of str.
            NotFoundError: The run does not exist any more.
        """
        return self._history.table(check_keys(keys))

    def scan_history(
        self,
        keys: list[str] | None = None,
        page_size: int = 1000,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> HistoryScan:
        """Iterate over all rows in order of step, as dicts.

        Args:
            keys: Only rows that have all of these; the dicts hold them and `_step`.
            page_size: How many rows to make at a time.
            min_step: The first step; None is 0.
            max_step: The step before which to stop; None is after the last.

        Raises:
            BadArgumentError: An argument has a wrong type or value.
            NotFoundError: The run does not exist any more.
        """
        return HistoryScan(
            self, check_scan(keys, page_size, min_step, max_step), self._history
        )

    def scan_history_arrow(
        self, keys: list[str] | None = None, page_size: int = 65_536
    ) -> "Iterator[pa.RecordBatch]":
        """Iterate over what `history_arrow` returns, `page_size` rows at a time.

        All batches have the same types, those of the whole.

        Raises:
            BadArgumentError: `keys` is no list of str or `page_size` no positive int.
            NotFoundError: The run does not exist any more.
        """
        check_count("page_size", page_size)
        return iter(self.history_arrow(keys).to_batches(max_chunksize=page_size))

    def __getattr__(self, name: str) -> Any:
        """Return what `load()` has under W&B's names, also in snake case."""
        if not name.startswith("_"):
            attributes = self.load()
            head, *rest = name.split("_")
            for known in (name, head + "".join(map(str.capitalize, rest))):
                if known in attributes:
                    return attributes[known]
        raise AttributeError(f"a run has no attribute {name!r}")

    def __repr__(self) -> str:
        try:
            state = self.state
        except Error:
            state = "not found"
        return f"<Run {'/'.join(self._key)} ({state})>"
