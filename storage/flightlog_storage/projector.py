"""The projections kept up to date: log → state.db and Parquet parts, exactly once.

When a part is cut is a function of the log alone, never of the clock, so that a replay
cuts the same parts. A part's file is whole and durable before the transaction that
names it; that transaction also moves the checkpoint.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pyarrow as pa

from flightlog_storage.checkpoint import Checkpoint
from flightlog_storage.compaction import merge_parts
from flightlog_storage.database import (
    Database,
    SavedPart,
    Tail,
)
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import Rows
from flightlog_storage.files import RealFiles
from flightlog_storage.folding import Folded, Folding
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.parts import PartInfo, write_part
from flightlog_storage.points import Points
from flightlog_storage.rows import decode
from flightlog_storage.segment import Damage

__all__ = (
    "Projector",
    "part_folder",
    "reset_projections",
    "set_aside_projections",
)

logger = logging.getLogger(__name__)

# A run's points go into a part when any of these is reached, or the run ends. Points
# are weighed: texts count as several.
TAIL_FRAMES_MAX = 4096  # Of this run.
TAIL_POINTS_MAX = 1 << 18  # Of this run.
TAIL_EVENTS_MAX = 1 << 18  # Of all runs, since the tail's first event.
ALL_POINTS_MAX = 4 << 20  # Of all runs: bounds the memory.

MERGE_PARTS = 8  # So many parts of one level become one of the next.
WHOLE_POINTS_MAX = 64 << 20  # An ended run up to this size becomes one part.
BATCH_SIZE = 8 << 20  # Bytes of frames folded between two commits.
STATES_KEPT_MAX = 1024


@dataclass(slots=True)
class _Tail:
    """A run's points that no part holds yet, and where they begin in the log."""

    first: int
    place: LogPosition
    is_saved: bool = False
    frames: int = 0
    end: int = 0
    points: Points = field(default_factory=Points)

    def add(self, rows: list[Rows], rank: int, end: int) -> None:
        for each in rows:
            self.points.add(each, rank)
        self.frames += 1
        self.end = end


class Projector:
    """Folds the log from the checkpoint on. The only writer of the projections."""

    def __init__(self, home: Home) -> None:
        """Open the projections, and start over where they do not fit the log.

        Raises:
            HomeUnusable: The database cannot be opened.
        """
        self._home = home
        self._log = LogReader(home.log)
        self._database = Database.open_writer(home.state)
        checkpoint = self._database.checkpoint()
        if not self._fits(checkpoint):
            # The log has lost what it had: these may be the last copy of it.
            self._database.close()
            logger.error("the projections do not fit the log: set aside, replaying")
            set_aside_projections(home)
            self._database = Database.open_writer(home.state)
            checkpoint = self._database.checkpoint()
        self._folding = Folding(self._database)
        self._tails: dict[int, _Tail] = {}  # In the order of their first events.
        self._weight = 0
        self._new_parts: list[SavedPart] = []
        self._gone_tails: set[int] = set()
        self._deleted: set[int] = set()  # Runs whose parts are to go.
        self._unmergeable: set[int] = set()
        self._folded: list[Folded] = []
        self._place: LogPosition | None = None
        if checkpoint.log_id:
            self._place = _place_of(checkpoint)
        self._offset = checkpoint.offset
        self._restore_tails()
        # Whoever was here before may have died before these were merged.
        self._untidied = self._remove_orphans()

    def close(self) -> None:
        self._database.close()

    @property
    def offset(self) -> int:
        """The offset of the next event to be folded."""
        return self._offset

    def project(self, end: LogPosition) -> bool:
        """Fold a batch of what lies before `end`; return whether more may be there."""
        size = 0
        for item in self._log.read(self._place, end):
            size += self._take(item)
            if size >= BATCH_SIZE:
                break
        else:
            self._commit()
            return False
        self._commit()
        return True

    def mend(self, part: SavedPart) -> bool:
        """Make a part anew from the log; return whether it has all that it had.

        A large one is left to a replay, which needs no such memory.
        """
        if part.points > ALL_POINTS_MAX or part not in self._database.parts(part.run):
            return False
        begin = self._log.place_before(part.first_offset)
        tail = _Tail(part.first_offset, begin)
        self._read_again({part.run: tail}, begin, part.end_offset)
        folder = part_folder(self._home, part.run)
        info = write_part(folder, f".mended-{part.name}", tail.points)
        if info.points != part.points:  # The log has lost some of it.
            (folder / info.name).unlink()
            return False
        (folder / info.name).rename(folder / part.name)
        RealFiles().fsync_dir(folder)
        info = replace(info, name=part.name)
        with self._database.transaction():
            self._database.remove_part(part.run, part.name)
            self._database.add_part(
                _saved(part.run, info, part.first_offset, part.end_offset, part.level)
            )
        return True

    def _take(self, item: StoredFrame | Damage) -> int:
        if isinstance(item, Damage):
            self._folded.append(self._folding.fold_damage(item))
            return 0  # A batch ends behind a frame: only there is a place to go on.
        try:
            folded = self._folding.fold(item.frame, item.payload())
        except CorruptData:
            folded = self._folding.fold_damage(item.damage())
        self._folded.append(replace(folded, rows=[]))
        self._place = item.end
        self._offset = item.frame.offset_end
        if folded.state is not None:
            if folded.is_reset:
                self._drop(folded.state.number)
            self._add(folded, item)
            self._flush_due(folded.state.number, is_over=not folded.state.active)
        return item.frame.payload_size

    def _add(self, folded: Folded, item: StoredFrame) -> None:
        assert folded.state is not None
        if folded.rows:
            number = folded.state.number
            tail = self._tails.get(number)
            if tail is None:
                tail = _Tail(item.frame.offset, item.position)
                self._tails[number] = tail
            before = tail.points.weight
            tail.add(folded.rows, folded.rank, item.frame.offset_end)
            self._weight += tail.points.weight - before

    def _flush_due(self, number: int, *, is_over: bool) -> None:
        tail = self._tails.get(number)
        if tail is not None and (
            is_over
            or tail.frames >= TAIL_FRAMES_MAX
            or tail.points.weight >= TAIL_POINTS_MAX
        ):
            self._flush(number)
        while self._tails:
            oldest = next(iter(self._tails))
            if (
                self._offset - self._tails[oldest].first < TAIL_EVENTS_MAX
                and self._weight < ALL_POINTS_MAX
            ):
                return
            self._flush(oldest)

    def _flush(self, number: int) -> None:
        """Write a run's tail as a part; the next commit names it."""
        tail = self._tails.pop(number)
        self._weight -= tail.points.weight
        folder = part_folder(self._home, number)
        if not folder.exists():
            folder.mkdir(mode=0o700)
            RealFiles().fsync_dir(self._home.histories)
        name = f"part-{tail.first:016d}-{tail.end:016d}.parquet"
        info = write_part(folder, name, tail.points)
        self._new_parts.append(_saved(number, info, tail.first, tail.end, 0))
        self._gone_tails.add(number)

    def _drop(self, number: int) -> None:
        """Forget the points of a run that was deleted; the next commit tells."""
        tail = self._tails.pop(number, None)
        if tail is not None:
            self._weight -= tail.points.weight
        self._gone_tails.add(number)
        self._deleted.add(number)
        void = [part for part in self._new_parts if part.run == number]
        for part in void:  # No commit has named them yet.
            self._new_parts.remove(part)
            (part_folder(self._home, number) / part.name).unlink(missing_ok=True)

    def _commit(self) -> None:
        touched = {each.state.number for each in self._folded if each.state is not None}
        if not self._folded and self._place is None:
            return
        with self._database.transaction():
            for number in sorted(touched):
                self._database.save_run(self._folding.states[number])
            for folded in self._folded:
                self._save_remarks(folded)
            for letter in self._folding.dead_letters:
                self._database.add_dead_letter(letter)
            self._folding.artifacts.save()
            gone = {n: self._database.remove_parts(n) for n in self._deleted}
            self._save_tails()
            if self._place is not None:
                self._database.set_checkpoint(
                    Checkpoint(self._log.log_id.hex(), self._offset, *self._place)
                )
        self._folding.artifacts.settle()
        self._folding.dead_letters.clear()
        self._delete_parts(gone)
        grown = {part.run for part in self._new_parts}
        ended = {n for n in touched if not self._folding.states[n].active}
        self._new_parts.clear()
        self._folded.clear()
        self._tidy(grown | ended | self._untidied)
        self._untidied.clear()

    def _save_remarks(self, folded: Folded) -> None:
        if folded.editor is not None:
            self._database.save_editor(folded.editor)
        for missing in folded.missing:
            self._database.add_gap(missing)

    def _delete_parts(self, gone: dict[int, list[str]]) -> None:
        """Delete the files of deleted runs, but what was written since."""
        self._deleted.clear()
        kept = {(part.run, part.name) for part in self._new_parts}
        for number, names in gone.items():
            for name in names:
                if (number, name) not in kept:
                    path = part_folder(self._home, number) / name
                    path.unlink(missing_ok=True)

    def _save_tails(self) -> None:
        for part in self._new_parts:
            self._database.add_part(part)
        for number in self._gone_tails:
            self._database.remove_tail(number)
        self._gone_tails.clear()
        for number, tail in self._tails.items():
            if not tail.is_saved:
                self._database.set_tail(Tail(number, tail.first, *tail.place))
                tail.is_saved = True

    def _compact(self, number: int) -> None:
        """Merge parts until an ended run has one, and no level more than a few."""
        while chosen := self._to_merge(number):
            folder = part_folder(self._home, number)
            first, end = chosen[0].first_offset, chosen[-1].end_offset
            level = max(part.level for part in chosen) + 1
            name = f"part-{first:016d}-{end:016d}.parquet"
            try:
                info = merge_parts(
                    folder, [folder / part.name for part in chosen], name
                )
            except CorruptData:
                # They stay as they are, for `flightlog verify` to tell of.
                logger.exception("parts of run %d cannot be merged", number)
                self._unmergeable.add(number)
                return
            with self._database.transaction():
                for part in chosen:
                    self._database.remove_part(number, part.name)
                self._database.add_part(_saved(number, info, first, end, level))
            for part in chosen:
                (folder / part.name).unlink(missing_ok=True)

    def _to_merge(self, number: int) -> list[SavedPart]:
        if number in self._unmergeable:
            return []
        parts = self._database.parts(number)
        state = self._folding.state(number)
        if (
            not (state and state.active)
            and len(parts) > 1
            and (sum(part.points for part in parts) <= WHOLE_POINTS_MAX)
        ):
            return parts
        for level in sorted({part.level for part in parts}):
            # Neighbours in the log only: parts of a level are written in its order.
            same = [part for part in parts if part.level == level]
            if len(same) >= MERGE_PARTS:
                return same[:MERGE_PARTS]
        return []

    def _fits(self, checkpoint: Checkpoint) -> bool:
        """Whether the projections were made from this log and not from more of it."""
        if not checkpoint.log_id:
            return True
        end = self._log.end_position()
        is_same = self._log.log_id.hex() == checkpoint.log_id
        return is_same and end is not None and _place_of(checkpoint) <= end

    def _restore_tails(self) -> None:
        """Read the points again that are folded and in no part."""
        if self._place is None:
            return
        for saved in self._database.tails():
            place = LogPosition(saved.segment_first_offset, saved.position)
            self._tails[saved.run] = _Tail(saved.first_offset, place, is_saved=True)
        if not self._tails:
            return
        start = min(tail.place for tail in self._tails.values())
        self._read_again(self._tails, start, self._offset)
        self._weight = sum(tail.points.weight for tail in self._tails.values())

    def _read_again(
        self, tails: dict[int, _Tail], start: LogPosition, end_offset: int
    ) -> None:
        """Read the points of runs, from where each begins, that are folded already."""
        for item in self._log.read(start, self._place):
            if isinstance(item, Damage):
                continue
            if item.frame.offset >= end_offset:
                return
            number = self._folding.run_of(item.frame.writer)
            tail = None if number is None else tails.get(number)
            if self._folding.is_dismissed(item.frame.writer):
                continue
            if tail is not None and item.frame.offset >= tail.first:
                self._restore(tail, item)

    def _restore(self, tail: _Tail, item: StoredFrame) -> None:
        try:
            payload = item.payload()
        except CorruptData:
            return  # Told when it was folded.
        events = decode(payload, item.frame.count)
        rows = [event for _, event in events if isinstance(event, Rows)]
        if rows:
            rank = self._folding.rank_of(item.frame.writer)
            tail.add(rows, rank, item.frame.offset_end)

    def _remove_orphans(self) -> set[int]:
        """Delete files that a crash left without a transaction that names them.

        The folders that it left are made durable: parts may come into them. Returns the
        runs that have several parts.
        """
        RealFiles().fsync_dir(self._home.histories)
        named = {(part.run, part.name) for part in self._database.parts()}
        counts = Counter(run for run, _ in named)
        for path in _part_files(self._home.histories):
            if (int(path.parent.name), path.name) not in named:
                path.unlink()
        return {run for run, count in counts.items() if count > 1}

    def _tidy(self, changed: set[int]) -> None:
        """Merge parts, and let go of memory that is not needed any more."""
        for number in sorted(changed):
            self._compact(number)
        if changed:  # Back to the system with it, or else fragments pile up.
            pa.default_memory_pool().release_unused()
        states = self._folding.states
        if len(states) > STATES_KEPT_MAX:
            for number in [n for n, state in states.items() if not state.active]:
                self._folding.forget(number)


def part_folder(home: Home, number: int) -> Path:
    """Return where the parts of the run with this number lie."""
    return home.histories / str(number)


def reset_projections(home: Home) -> None:
    """Delete all that is derived from the log; the next projector replays it."""
    for suffix in ("-wal", "-shm", ""):
        home.state.with_name(home.state.name + suffix).unlink(missing_ok=True)
    for folder in home.histories.glob("*/"):
        shutil.rmtree(folder)


def _place_of(checkpoint: Checkpoint) -> LogPosition:
    return LogPosition(checkpoint.segment_first_offset, checkpoint.position)


def set_aside_projections(home: Home) -> Path:
    """Move all that is derived from the log into quarantine; return that folder."""
    aside = next(
        folder
        for n in count(1)
        if not (folder := home.quarantine / f"projections-{n}").exists()
    )
    aside.mkdir(mode=0o700)
    # Histories first: a crash here must not leave them beside a new database, which
    # names none of them.
    if home.histories.exists():
        home.histories.rename(aside / home.histories.name)
    home.histories.mkdir(mode=0o700)
    for suffix in ("-wal", "-shm", ""):
        file = home.state.with_name(home.state.name + suffix)
        if file.exists():
            file.rename(aside / file.name)
    return aside


def _saved(number: int, info: PartInfo, first: int, end: int, level: int) -> SavedPart:
    return SavedPart(
        run=number,
        name=info.name,
        first_offset=first,
        end_offset=end,
        level=level,
        points=info.points,
        size=info.size,
        sha256=info.sha256,
        min_step=info.min_step,
        max_step=info.max_step,
    )


def _part_files(histories: Path) -> Iterator[Path]:
    return (path for path in histories.glob("*/*") if path.parent.name.isdecimal())
