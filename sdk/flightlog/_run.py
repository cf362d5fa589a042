"""A live run: what a training process logs into."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flightlog._about import About
from flightlog._alerts import REPEATS_AFTER_S, Alerts
from flightlog._checks import check_path
from flightlog._config import Config
from flightlog._exits import exit_code_of
from flightlog._metric import check_definition
from flightlog._places import make_run_folder, run_url
from flightlog._run_life import FINISH_TIMEOUT_S, RunLife
from flightlog._spec import RunSpec
from flightlog._summary import Summary
from flightlog_storage.event import MetricDefined, PreemptionAnnounced
from flightlog_storage.home import Home
from flightlog_storage.names import default_name

if TYPE_CHECKING:
    from flightlog._artifact import Artifact

__all__ = ("Run", "RunHooks")


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
        self._join = hooks.join
        self._started_at = time.time()
        self._alerts = Alerts()
        self.life = RunLife(spec, lambda: hooks.ended(self), lambda: hooks.forked(self))
        self.about = About(self.life)
        # Spares the loop a call; the method of the class is what help() shows.
        self.log = self.life.rows.log  # type: ignore[method-assign]

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
                lists, small arrays, datetimes, enums; NaN and infinities as they are;
                Image, Table, Histogram, Html, Audio, Video and lists of them.
            step: The row's step, by default the current one. Steps may come in any
                order; rows of equal step are merged key by key, the later one wins.
            commit: Whether the current step ends with this row. By default it does
                when `step` is not given. As in W&B.

        Raises:
            TypeError: `data` is no mapping, a key no str, or a value cannot be stored.
            ValueError: A step is negative, a key or the row is too large.
            UsageError: The run is finished.
            OSError: A file that an Image or the like was made of is gone.
        """
        self.life.rows.log(data, step, commit)

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
        self.life.check_open("define_metric")
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
        self.life.rows.sync_steps(definition)
        self.life.record(definition)
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
        self.life.check_open("alert")
        alert = self._alerts.make(title, text, level, wait_duration)
        if alert is not None:
            self.life.record(alert)

    def mark_preempting(self) -> None:
        """Say that this run expects to be preempted: an end other than by exit code 0
        then makes it `preempted`.

        Raises:
            UsageError: The run is finished.
        """
        self.life.check_open("mark_preempting")
        self.life.record(PreemptionAnnounced(time=time.time()))

    # Files and artifacts

    def log_artifact(
        self,
        artifact_or_path: "Artifact | str | os.PathLike[str]",
        name: str | None = None,
        type: str | None = None,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> "Artifact":
        """Log an artifact as an output of the run; a background thread stores it.

        It is kept when the returned artifact's `wait()` has returned, or `finish()`.
        What cannot be stored by then becomes one warning and a counted event.

        Args:
            artifact_or_path: A draft; a logged artifact of this project, which is
                declared an output; or a file, a folder or a URI to make a draft of,
                which is read now.
            name: Of an artifact made of a path; by default `run-<id>-<basename>`.
            type: Of an artifact made of a path; by default "unspecified".
            aliases: Names that move to this version; `latest` always does.
            tags: Words to find it by.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: There is no such path; the artifact is of another type, or a
                logged one of another project; an argument has a value that cannot be.
            UsageError: The run is finished, or a tag cannot be.
        """
        assets = self.life.assets("log_artifact")
        artifact = assets.as_artifact(artifact_or_path, name, type)
        if self.life.is_left:
            artifact.life.discard()
        else:
            assets.log_artifact(artifact, aliases, tags)
        return artifact

    def use_artifact(
        self,
        artifact_or_name: "Artifact | str",
        type: str | None = None,
        aliases: Sequence[str] | None = None,
        use_as: str | None = None,
    ) -> "Artifact":
        """Declare a logged artifact an input of the run, and return it.

        Args:
            artifact_or_name: An artifact; or `name:alias`, `project/name:alias` or
                `entity/project/name:alias`, which is looked up now. Without an alias
                the latest.
            type: What type it must be of.
            aliases: Accepted, as W&B has it for drafts.
            use_as: What for.

        Raises:
            TypeError: It is neither an artifact nor a name.
            ValueError: It is a draft, of another type, or there is none of that name.
            UsageError: The run is finished.
        """
        assets = self.life.assets("use_artifact")
        artifact = assets.find(artifact_or_name, type)
        if not self.life.is_left:
            assets.use_artifact(artifact, use_as)
        return artifact

    def save(
        self,
        glob_str: str | os.PathLike[str],
        base_path: str | os.PathLike[str] | None = None,
        policy: Literal["live", "now", "end"] = "live",
    ) -> list[str]:
        """Keep files with the run; a background thread stores them.

        Args:
            glob_str: Which files; `*` and `**` as in the shell. A folder stands for
                the files below it.
            base_path: The files are called by their paths below it. By default that is
                the working folder; of an absolute path the last folder is kept.
            policy: "now" stores them as they are now; "end" when the run ends; "live"
                now, and again when it ends, if they changed.

        Returns:
            The paths of the files.

        Raises:
            TypeError: `glob_str` or `base_path` is no path.
            ValueError: Another policy, an empty path, or a file not below the base.
            UsageError: The run is finished.
        """
        assets = self.life.assets("save")
        pattern = check_path("save: glob_str", glob_str)
        base = None if base_path is None else check_path("save: base_path", base_path)
        return [] if self.life.is_left else assets.save(pattern, base, policy)

    def log_image(
        self,
        key: str,
        image: Any,
        step: int | None = None,
        caption: str | None = None,
        format: str = "png",
        quality: int = 90,
    ) -> str:
        """Record an image; the daemon encodes it. The caller pays for one copy.

        Args:
            key: What it is called, as a metric is; may hold slashes.
            image: A PIL image; an array or tensor of shape HxW, HxWxC, CxHxW with 1 to
                4 channels, or a batch of these, which becomes a grid; a matplotlib
                figure, drawn now; the bytes of an image file or a path to one, which
                are kept as they are. Floats from 0 to 1, or -1 to 1, and numbers up to
                255 are what they look like; what goes beyond is scaled to its range.
            step: The row's step, by default the current one, which does not end here.
            caption: A text to show with it.
            format: png, jpeg, jpg, webp, gif, bmp or tiff; for what is encoded.
            quality: 1 to 100, for formats that lose some.

        Returns:
            Its path among the run's files; "" when the run is finished or the disk
            refuses, which is told once and counted. As in Runicorn.

        Raises:
            TypeError: An argument has a wrong type, or `image` can be no image.
            ValueError: A format, quality or step that cannot be; an array of a shape
                that cannot be an image, or one that is too large.
            FileNotFoundError: There is no file at the path.
            OSError: The file cannot be read.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._images import LoggedPicture, checked_options
        from flightlog._pictures import read_picture

        options = checked_options(key, caption, format, quality)
        with read_picture(image, options.format, options.quality) as picture:
            recording = self.life.writing("log_image")
            if recording is None:
                return ""
            value = LoggedPicture(picture, options.caption)
            row = self.life.media.log(recording, {options.key: value}, step, False)
            return str(row[options.key]["path"]) if row else ""

    def log_config(
        self, *, args: Any = None, extra: Any = None, config_files: Any = None
    ) -> None:
        """Keep what the script was started with, beside `config`. As in Runicorn.

        Each of the three that is given replaces what was given before.

        Args:
            args: A dict, an argparse namespace, a list such as sys.argv, or any object
                with fields, such as a dataclass.
            extra: Anything else; nested dataclasses, dicts, paths, enums, arrays …
            config_files: A path, or a list of them. The files are kept as files of the
                run, `config/NAME`: the caller pays for a copy.

        Raises:
            TypeError: `args` has no fields, or `config_files` are no paths.
            ValueError: A path leads to no regular file; or all is too large.
            FileNotFoundError: There is no such file.
            OSError: A file cannot be read.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._config_assets import read_config

        with read_config(args, extra, config_files) as given:
            recording = self.life.writing("log_config")
            if recording is not None:
                for event in given.events(recording, self.life.inbox):
                    self.life.record(event)

    def log_dataset(  # noqa: PLR0913  # As in Runicorn.
        self,
        name: str,
        root_or_uri: Any,
        *,
        context: str = "train",
        save: bool = False,
        description: str | None = None,
        force_save: bool = False,
        max_archive_bytes: int = 5 * 1024**3,
        max_archive_files: int = 2_000_000,
    ) -> None:
        """Tell of a dataset that the run uses; the daemon archives it if asked to.

        The caller pays for a look at names and sizes, at most a quarter of a second.

        Args:
            name: What it is called.
            root_or_uri: A file or folder; a URI, or a dict that says where it is.
            context: What it is for.
            save: Whether its bytes are kept, as they are when the daemon reads them.
            description: A text about it.
            force_save: Whether there are no limits.
            max_archive_bytes: The most that is kept.
            max_archive_files: The most files that are kept.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: A value that cannot be; with `save`, more than the limits allow,
                if that is found by the look, or no path on this machine.
            FileNotFoundError: With `save`, there is nothing at the path.
            OSError: With `save`, it cannot be looked at.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._inputs import Given, Saving, make_input

        given = Given("dataset", name, root_or_uri, description, context=context)
        saving = Saving(save, force_save, max_archive_bytes, max_archive_files)
        event = make_input(given, saving, self.home)
        if self.life.writing("log_dataset") is not None:
            self.life.record_asset(event)

    def log_pretrained(  # noqa: PLR0913  # As in Runicorn.
        self,
        name: str,
        *,
        path_or_uri: Any = None,
        save: bool = False,
        source_type: str = "unknown",
        description: str | None = None,
        force_save: bool = False,
        max_archive_bytes: int = 5 * 1024**3,
        max_archive_files: int = 2_000_000,
    ) -> None:
        """Tell of a pretrained model that the run starts from; as `log_dataset`.

        Args:
            name: What it is called.
            path_or_uri: A file or folder; a URI, a name, or a dict; None if that is not
                known.
            save: Whether its bytes are kept, as they are when the daemon reads them.
            source_type: Where it is from, such as "huggingface".
            description: A text about it.
            force_save: Whether there are no limits.
            max_archive_bytes: The most that is kept.
            max_archive_files: The most files that are kept.

        Raises:
            TypeError: As `log_dataset`.
            ValueError: As `log_dataset`.
            FileNotFoundError: As `log_dataset`.
            OSError: As `log_dataset`.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._inputs import Given, Saving, make_input

        given = Given(
            "pretrained", name, path_or_uri, description, source_type=source_type
        )
        saving = Saving(save, force_save, max_archive_bytes, max_archive_files)
        event = make_input(given, saving, self.home)
        if self.life.writing("log_pretrained") is not None:
            self.life.record_asset(event)

    def scan_outputs_once(  # noqa: PLR0913  # As in Runicorn.
        self,
        *,
        output_dirs: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
        patterns: Sequence[str] | None = None,
        stable_required: int = 2,
        min_age_sec: float = 1.0,
        mode: str = "rolling",
        log_snapshot_interval_sec: float = 60.0,
        state_gc_after_sec: float | None = 7 * 24 * 3600,
    ) -> dict[str, Any]:
        """Look for outputs, such as checkpoints, and archive those that are new.

        This happens here and now, without the daemon.

        Args:
            output_dirs: Where to look: a folder, or a list of them. Those that are not
                there are left out.
            patterns: Which, by their paths below these folders: "*.pt" at any depth,
                "ckpt-*/" for folders, which are kept whole. By default what is
                usually one.
            stable_required: How many looks must have seen a file unchanged.
            min_age_sec: For how long it must not have been written to.
            mode: "rolling" keeps the last revision of each output,
                "overwrite_versions" all.
            log_snapshot_interval_sec: How often to keep a file that is written bit by
                bit (.log, .txt, .jsonl, .csv, tfevents), which is never at rest.
            state_gc_after_sec: When to forget what is not there any more; None never.

        Returns:
            `run_id`; `scanned`, how many outputs there are; `archived` and `changed`,
            how many of them were; `archived_entries`, what these are. {} when the run
            is finished, which is told once.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a value that cannot be.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._output_arguments import GivenOutputs, make_looking

        given = GivenOutputs(
            output_dirs,
            patterns,
            stable_required,
            min_age_sec,
            mode,
            log_snapshot_interval_sec,
            state_gc_after_sec,
        )
        looking = make_looking("scan_outputs_once", given, str(self.workspace_root))
        if self.life.writing("scan_outputs_once") is None or self.life.is_left:
            return {}
        return self.life.outputs.scan(looking)

    def watch_outputs(  # noqa: PLR0913  # As in Runicorn.
        self,
        *,
        output_dirs: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
        interval_sec: float = 10.0,
        patterns: Sequence[str] | None = None,
        stable_required: int = 2,
        min_age_sec: float = 1.0,
        mode: str = "rolling",
        log_snapshot_interval_sec: float = 60.0,
        state_gc_after_sec: float | None = 7 * 24 * 3600,
    ) -> None:
        """Have the daemon look for outputs, and archive those that are new.

        It does so until the run ends, in whatever way, and a last time then, with all
        at rest. `finish()` waits for that, 60 s at most. Several watches may be open.

        Args:
            output_dirs: As in `scan_outputs_once`.
            interval_sec: How often to look.
            patterns: As there; and so all that follow.
            stable_required: See `patterns`.
            min_age_sec: See `patterns`.
            mode: See `patterns`.
            log_snapshot_interval_sec: See `patterns`.
            state_gc_after_sec: See `patterns`.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a value that cannot be.
        """
        # Loaded only here: `import flightlog` has to be light.
        from flightlog._output_arguments import (
            GivenOutputs,
            check_interval,
            make_looking,
        )

        given = GivenOutputs(
            output_dirs,
            patterns,
            stable_required,
            min_age_sec,
            mode,
            log_snapshot_interval_sec,
            state_gc_after_sec,
        )
        looking = make_looking("watch_outputs", given, str(self.workspace_root))
        interval_s = check_interval("watch_outputs", interval_sec)
        if self.life.writing("watch_outputs") is not None and not self.life.is_left:
            self.life.assets("watch_outputs").prepare()
            self.life.outputs.watch(looking, interval_s)

    def stop_outputs_watch(self) -> None:
        """Stop what `watch_outputs` began in this process, without a last look."""
        if not self.life.is_finished and not self.life.is_left:
            self.life.outputs.stop()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was logged so far is durable in the daemon's log.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Returns:
            Whether it is; False after `timeout` seconds.
        """
        if timeout is not None and not isinstance(timeout, int | float):
            raise TypeError("flush: timeout must be a number of seconds or None")
        return self.life.flush(timeout)

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run, within two seconds whatever the daemon does. Idempotent.

        If files or artifacts are on their way it waits for them first, at most 60 s.

        Args:
            exit_code: 0 or None makes the run `finished`, anything else `failed`.
            quiet: Whether to leave out the closing line.

        Raises:
            TypeError: `exit_code` is no int.
        """
        if exit_code is not None and not isinstance(exit_code, int):
            raise TypeError("finish: exit_code must be an int or None")
        self.life.end(exit_code or 0, FINISH_TIMEOUT_S, quiet)

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
        return self._spec.path

    @property
    def url(self) -> str:
        return run_url(self.entity, self.project, self.id)

    @property
    def dir(self) -> str:
        """A folder for files of this run; made when asked for."""
        home = self._spec.home
        return str(make_run_folder(home, self.entity, self.project, self.id))

    @property
    def step(self) -> int:
        """The step that the next `log()` without a step will use."""
        return self.life.rows.step

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
    def workspace_root(self) -> Path:
        """The folder of its code, whether or not a snapshot was asked for."""
        return self.life.spec.workspace

    @property
    def rank(self) -> int:
        return self._spec.rank

    @property
    def start_time(self) -> float:
        return self._started_at

    @property
    def config(self) -> Config:
        return self.about.config

    @property
    def summary(self) -> Summary:
        return self.about.summary

    @property
    def name(self) -> str:
        return self.about.text("name") or default_name(self.id)

    @name.setter
    def name(self, name: str) -> None:
        self.about.set_text("name", name)

    @property
    def notes(self) -> str | None:
        return self.about.text("notes")

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self.about.set_text("notes", notes)

    @property
    def group(self) -> str | None:
        return self.about.text("group")

    @group.setter
    def group(self, group: str | None) -> None:
        self.about.set_text("group", group)

    @property
    def job_type(self) -> str | None:
        return self.about.text("job_type")

    @job_type.setter
    def job_type(self, job_type: str | None) -> None:
        self.about.set_text("job_type", job_type)

    @property
    def tags(self) -> tuple[str, ...]:
        return self.about.tags

    @tags.setter
    def tags(self, tags: tuple[str, ...] | list[str]) -> None:
        self.about.set_tags(tags)

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
        state = "finished" if self.life.is_finished else "running"
        return f"<Run {self.path} ({state})>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled to another process, a run is joined there by a writer of its own."""
        return self._join, (self._spec,)

    @property
    def home(self) -> Home:
        """Where it is recorded."""
        return self._spec.home
