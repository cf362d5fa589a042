"""`flightlog gc`: what nothing needs any more, deleted or only told."""

import time
from collections.abc import Sequence
from typing import Any

from flightlog.apis.public.editing import record
from flightlog.cli.output import (
    age,
    emit_json,
    emit_table,
    is_terminal,
    iso,
    sized,
    talk,
)
from flightlog.errors import BadArgumentError
from flightlog_storage.durations import RETAIN_MIN_S, parse_time
from flightlog_storage.emptying import Emptied, empty, holding_deleted
from flightlog_storage.event import RunDeleted
from flightlog_storage.garbage import Collected, Garbage, Item, collect, find_garbage
from flightlog_storage.home import Home
from flightlog_storage.retention import KEEP_TAG, OldRun, old_runs
from flightlog_storage.terminal import plain

__all__ = ("collect_garbage", "seconds_of")

SHOWN_MAX = 20  # On a terminal; in a pipe and in JSON are all.


def seconds_of(text: str) -> float:
    """Return a time in seconds that is given with its unit.

    Raises:
        BadArgumentError: It is none.
    """
    seconds = parse_time(text)
    if seconds is None:
        raise BadArgumentError(f"{text!r} is no time such as 24h, 30min, 0s or 7d")
    return seconds


def collect_garbage(
    home: Home, grace_s: float, retain_s: float | None, *, is_dry: bool, as_json: bool
) -> bool:
    """Delete old runs and garbage, or with `is_dry` only list it; say if none stays.

    Raises:
        StorageError, OSError: What is needed cannot be told; nothing is deleted.
        BadArgumentError: `retain_s` is less than RETAIN_MIN_S.
        CommError: An old run cannot be deleted.
    """
    old = _delete_old_runs(home, retain_s, is_dry=is_dry)
    garbage = find_garbage(home, grace_s)
    deleted: list[Item] = []
    collected = Collected() if is_dry else collect(garbage, done=deleted.append)
    items = garbage.items if is_dry else deleted
    holding = len(holding_deleted(home))
    emptied = Emptied() if is_dry else _empty(home, collected)
    if as_json:
        data = _data(garbage, collected, items)
        data["runs"] = [
            {"run": "/".join(run), "heard_at": iso(heard_at)} for run, heard_at in old
        ]
        data["log"] = {
            "segments": holding if is_dry else emptied.segments,
            "frames": emptied.frames,
            "bytes": emptied.freed,
        }
        emit_json("flightlog.gc/1", {"dry_run": is_dry, "grace_s": grace_s} | data)
    else:
        _print_runs(old, is_dry=is_dry)
        _print(garbage, collected, items, is_dry=is_dry)
        if is_dry and holding:
            talk(f"{holding:,} segments of the log may have rows of deleted runs")
        elif emptied.frames:
            size = sized(emptied.freed)
            talk(
                f"{emptied.frames:,} frames of deleted runs emptied in the log: {size}"
            )
    return not collected.failed


def _delete_old_runs(
    home: Home, retain_s: float | None, *, is_dry: bool
) -> list[OldRun]:
    """Delete the runs that ended so long ago, or only return them."""
    if retain_s is None:
        return []
    if retain_s < RETAIN_MIN_S:
        raise BadArgumentError("--retain must be a day or more, such as 90d")
    old = old_runs(home, retain_s, time.time())
    for run, heard_at in () if is_dry else old:
        record(home, run, [RunDeleted(time=time.time(), if_quiet_since=heard_at)])
    return old


def _print_runs(old: Sequence[OldRun], *, is_dry: bool) -> None:
    if not old:
        return
    emit_table(
        ["RUN", "LAST HEARD OF"],
        [[plain("/".join(run)), iso(heard_at)] for run, heard_at in old],
    )
    verb = "would be deleted" if is_dry else "deleted"
    talk(
        f"{len(old):,} runs that ended too long ago {verb}; the tag {KEEP_TAG!r} keeps"
    )


def _empty(home: Home, collected: Collected) -> Emptied:
    """Take the rows of deleted runs out of the log, if nobody else is at it."""
    try:
        done = empty(home)
    except BlockingIOError:
        return Emptied()  # The daemon does it.
    except OSError as error:
        collected.failed.append((str(home.log), error.strerror or str(error)))
        return Emptied()
    if done.is_partial:
        collected.failed.append((str(home.log), "no room to rewrite segments"))
    return done


def _print(
    garbage: Garbage, collected: Collected, items: Sequence[Item], *, is_dry: bool
) -> None:
    root, now = garbage.home.root, time.time()
    shown = items[:SHOWN_MAX] if is_terminal() else items
    if items:
        rows = [
            [
                str(item.path.relative_to(root)),
                str(item.size),
                age(item.changed_at, now) if is_terminal() else iso(item.changed_at),
            ]
            for item in shown
        ]
        emit_table(["PATH", "BYTES", "CHANGED"], rows)
    if len(shown) < len(items):
        talk(f"… and {len(items) - len(shown):,} more: --json or a pipe")
    verb = "would be deleted" if is_dry else "deleted"
    total = sized(sum(item.size for item in items))
    talk(f"{len(items):,} files with {total} that nothing needs {verb} in {root}")
    if garbage.young_count:
        young = sized(garbage.young_size)
        talk(f"{garbage.young_count:,} more, with {young}, are too young: --grace")
    for item in garbage.quarantine:
        talk(f"left alone: quarantine/{plain(item.path.name)}, {sized(item.size)}")
    for path in garbage.strangers:
        talk(f"left alone, for it is no blob: {plain(path)}")
    for path, why in collected.failed:
        talk(f"cannot be deleted: {plain(path)}: {plain(why)}")


def _data(
    garbage: Garbage, collected: Collected, items: Sequence[Item]
) -> dict[str, Any]:
    return {
        "count": len(items),
        "bytes": sum(item.size for item in items),
        "items": [_item_data(garbage, item) for item in items],
        "needed_blobs": garbage.named_count,
        "young": {"count": garbage.young_count, "bytes": garbage.young_size},
        "quarantine": [_item_data(garbage, item) for item in garbage.quarantine],
        "not_ours": garbage.strangers,
        "failed": [{"path": path, "why": why} for path, why in collected.failed],
    }


def _item_data(garbage: Garbage, item: Item) -> dict[str, Any]:
    return {
        "path": str(item.path.relative_to(garbage.home.root)),
        "bytes": item.size,
        "changed_at": iso(item.changed_at),
    }
