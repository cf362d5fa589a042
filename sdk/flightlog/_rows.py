"""From `log()` to the spool: steps, shapes, and the way of a row."""

import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from flightlog._metric import StepSync, leaves
from flightlog._stand_ins import has_media
from flightlog._values import plain, plain_text
from flightlog_storage.budget import ROW_POINTS_MAX, refusal
from flightlog_storage.codec import KEY_SIZE_MAX
from flightlog_storage.frame import EVENT_SIZE_MAX
from flightlog_storage.spool_writer import Shape, SpoolWriter

__all__ = ("RowLog",)

_MADE = frozenset(("_step", "_timestamp", "_runtime", "_rank"))
STEP_MAX = 2**62 - 1  # So that the step counter never leaves 64 bits.
# What msgpack says of values that are not plain: they are converted and tried again.
_NOT_PLAIN = (TypeError, ValueError, OverflowError, RecursionError)


class RowLog:
    """Appends rows to a spool. `log` is what a training loop pays for."""

    __slots__ = (
        "_drop",
        "_known_keys",
        "_log_media",
        "_reopen",
        "_shapes",
        "_step_sync",
        "step",
        "writer",
    )

    def __init__(
        self,
        writer: SpoolWriter,
        first_step: int,
        reopen: Callable[[], SpoolWriter],
        drop: Callable[[OSError], None],
        log_media: Callable[[Mapping[str, Any], int | None, bool | None], None],
    ) -> None:
        """Log into `writer`.

        `reopen` gives a writer when this one is not ours any more, or raises; `drop`
        is told of a row that the disk refused; `log_media` logs one that has media.
        """
        self.writer = writer
        self.step = first_step
        self._reopen = reopen
        self._drop = drop
        self._log_media = log_media
        self._step_sync = StepSync()
        self._shapes: dict[tuple[str, ...], Shape] = {}  # For the last rows in them.
        self._known_keys: set[str] = set()

    # One function of its own for each of these steps would double what a call costs.
    def log(  # noqa: C901, PLR0915
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        commit: bool | None = None,
        *,
        _now: Callable[[], float] = time.time,
    ) -> None:
        """Record one row; see `Run.log`."""
        writer = self.writer
        while True:  # Left for the slow way, which begins without the lock.
            try:
                writer.acquire()
                try:
                    shape = writer.shapes[tuple(data)]
                    values = data.values()
                except (KeyError, TypeError, AttributeError):
                    break
                last_step = self.step
                if step is None:
                    at = last_step
                    if commit is None or commit:
                        self.step = at + 1
                else:
                    at = self._take_step(step, commit)
                try:
                    row = writer.pack((shape.number, at, _now(), *values))
                except _NOT_PLAIN:
                    self.step = last_step
                    break
                # From here on a signal handler may log in between: see SpoolWriter.
                if writer.pending is not None and not self._help(writer):
                    step, commit = at, False
                    break
                target = writer.data
                size = len(row)
                position = writer.position  # From here to `pending` no handler can run.
                end = position + size
                writer.pending = row
                try:
                    target[position:end] = row
                except (IndexError, ValueError, OSError):
                    if writer.pending is row:  # Else the handler has appended it.
                        writer.pending = None
                        step, commit = at, False
                        break
                    return
                if writer.pending is row:
                    writer.committed[0] = end
                    writer.position = end
                    writer.pending = None
                shape.last = row
            finally:
                # In these words, for `with` costs more. A handler that raises, as
                # Ctrl-C does, may keep `acquire` from acquiring.
                try:  # noqa: SIM105
                    writer.release()
                except RuntimeError:
                    pass
            if writer.idle:
                writer.wake()
            return
        self._log_slowly(data, step, commit)

    log.__qualname__ = "Run.log"  # What a TypeError for a wrong argument names.

    def sync_steps(self, definition: Any) -> None:
        """Take a metric's definition into account from the next row on."""
        with self.writer.lock:
            self._step_sync.define(definition)
            self.writer.shapes.clear()

    def latest(self) -> list[tuple[float, dict[str, Any]]]:
        """Return (time, values) of the last row of each shape, in order of time."""
        rows = []
        for keys, shape in list(self._shapes.items()):
            if shape.last:
                _, _, at, *values = msgpack.unpackb(shape.last, strict_map_key=False)
                rows.append((at, dict(zip(keys, values, strict=True))))
        return sorted(rows, key=operator.itemgetter(0))

    def _help(self, writer: SpoolWriter) -> bool:
        try:
            return writer.help()
        except OSError:
            return False  # The slow way will meet it again, and count.

    def _log_slowly(
        self, data: Mapping[str, Any], step: int | None, commit: bool | None
    ) -> None:
        """Record a row of a new shape, of values to convert, or refuse it."""
        if isinstance(data, Mapping) and any(map(has_media, data.values())):
            self._log_media(data, step, commit)
            return
        refusal = self._reopen_closed()
        with self.writer.lock:  # It may be another one.
            row = self._checked(data)
            values = [plain(key, value) for key, value in row.items()]
            self._check_size(row, values)
            at = self.step if step is None else self._take_step(step, commit)
            if step is None and (commit is None or commit):
                self.step = at + 1
            if not row:
                return
            names = leaves(row)
            if self._step_sync.is_new_step_metric(names, self._known_keys):
                self.writer.shapes.clear()  # From now on other rows get its value.
            self._known_keys.update(names)
            try:
                if refusal is not None:
                    raise refusal
                self._append(tuple(row), at, values)
            except OSError as error:
                self._drop(error)

    def _reopen_closed(self) -> OSError | None:
        """Have a writer that is open; return why there is none."""
        with self.writer.lock:  # Two threads of a forked child may come at once.
            if not self.writer.shapes and not self.writer.is_open:
                try:
                    self.writer = self._reopen()
                except OSError as error:
                    return error
        return None

    def _append(self, keys: tuple[str, ...], at: int, values: list[Any]) -> None:
        pack = self.writer.pack
        now = time.time()
        self._shapes[keys] = self.writer.put_row(
            keys, lambda number: pack((number, at, now, *values))
        )

    def _check_size(self, row: dict[str, Any], values: list[Any]) -> None:
        pack = self.writer.pack
        size = len(pack(values)) + 32
        if size > EVENT_SIZE_MAX:
            sizes = {key: len(pack(v)) for key, v in zip(row, values, strict=True)}
            largest = max(sizes, key=sizes.__getitem__)
            raise ValueError(
                f"the row has {size:,} bytes, {sizes[largest]:,} of them in "
                f"{largest!r}; at most {EVENT_SIZE_MAX:,} can be stored: write it to a "
                "file and log its name"
            )
        if why := refusal(pack(values)):
            raise ValueError(f"the row: {why}: write them to a file and log its name")
        if (count := len(leaves(row))) > ROW_POINTS_MAX:
            raise ValueError(
                f"the row has {count:,} values; at most {ROW_POINTS_MAX:,} can be "
                "stored: log them as several rows"
            )

    def _checked(self, data: object) -> dict[str, Any]:
        """Return the row with keys that can be stored and its step metrics."""
        if not isinstance(data, Mapping):
            raise TypeError(
                f"log() must be passed a dictionary, not {type(data).__qualname__}"
            )
        row = {}
        for key, value in data.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"key values passed to log() must be str; {key!r} is not"
                )
            name = plain_text(key)
            if name in _MADE:
                raise ValueError(
                    f"key {name!r} is made by flightlog for each row: "
                    + ("give step=…" if name == "_step" else "log it by another name")
                )
            if len(name.encode()) > KEY_SIZE_MAX:
                raise ValueError(
                    f"key {name[:40]!r}… is longer than {KEY_SIZE_MAX} bytes of UTF-8"
                )
            row[name] = value
        if self._step_sync:
            self._add_step_metrics(row)
        return row

    def _add_step_metrics(self, row: dict[str, Any]) -> None:
        missing = self._step_sync.missing(leaves(row))
        if missing:
            latest: dict[str, Any] = {}
            for _, last in self.latest():
                latest |= leaves(last)
            row.update({key: latest[key] for key in missing if key in latest})

    def _take_step(self, step: object, commit: bool | None) -> int:
        """Return the row's step and let the current one follow."""
        if isinstance(step, bool):
            raise TypeError(f"step must be an int, not {step!r}")
        try:
            at = operator.index(step)  # type: ignore[arg-type]  # Said in the except.
        except TypeError:
            if not getattr(step, "is_integer", bool)():
                raise TypeError(f"step must be an int, not {step!r}") from None
            at = int(step)  # type: ignore[call-overload]  # A float of any library.
        if not 0 <= at <= STEP_MAX:
            raise ValueError(f"step must be from 0 to 2**62 - 1, not {at}")
        if at >= self.step:
            self.step = at + 1 if commit else at
        return at
