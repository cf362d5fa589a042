"""What is said of imported runs, when all that was exported of them is recorded.

Who still logged into them when they were exported is lost to this home, and what was
owed then will not be done here.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping

from flightlog.apis.public.reading import reading
from flightlog_storage.artifact_state import RunName
from flightlog_storage.asset_fold import given_up
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.codec import (
    EDITOR_RANK,
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
)
from flightlog_storage.event import Event, WriterId, WriterLost
from flightlog_storage.export_reader import ExportReader
from flightlog_storage.frame import Frame
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState, WriterStatus

__all__ = ("closing_frames", "state_of")

_REASON = "the run was exported before that was done"
_WRITER_REASON = "the run was exported while it was running"


def state_of(home: Home, run: RunName) -> RunState | None:
    """Return the state of a run, if it is there."""
    return reading(lambda: HomeReader(home).state(run))


def closing_frames(
    home: Home, export: ExportReader, writers: Mapping[WriterId, RunName]
) -> Iterator[CarriedFrame]:
    """Yield the frames that close the imported runs; none where nothing is open.

    They are the same however often they are made, so they are recorded once.
    """
    for run in export.manifest.runs:
        state = state_of(home, run.name)
        # Where it was logged, or is logged into again, nothing of it is closed.
        if state is None or not state.carried:
            continue
        for writer, known in state.writers.items():
            if known.status is WriterStatus.ACTIVE and writer in writers:
                lost = WriterLost(time=state.updated_at, reason=_WRITER_REASON)
                key = RunKey(*run.name, known.rank)
                yield _frame(writer, key, known.next_sequence or 1, [lost])
        owed: list[Event] = [*given_up(state, _REASON)]
        if owed:
            editor = _editor(export, state)
            yield _frame(editor, RunKey(*run.name, EDITOR_RANK), 1, owed)


def _editor(export: ExportReader, state: RunState) -> WriterId:
    """Return the writer that speaks of a run for this export, and for no other."""
    of = f"{export.manifest.frames.sha256} {'/'.join(state.key)}"
    return WriterId(hashlib.sha256(of.encode()).digest()[:16])


def _frame(
    writer: WriterId, run: RunKey, sequence: int, events: list[Event]
) -> CarriedFrame:
    definitions = encode_definitions({RUN_SHAPE: encode_run(run)})
    payload = definitions + b"".join(map(encode_event, events))
    frame = Frame(len(payload), zlib.crc32(payload), len(events), writer, sequence)
    return CarriedFrame(frame, payload)
