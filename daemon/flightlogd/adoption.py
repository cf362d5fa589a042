"""Spools whose writers are dead: bring what they hold to the recorder."""

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from flightlog_storage.codec import (
    EDITOR_RANK,
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
)
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable, StorageError
from flightlog_storage.event import Event, Gap, WriterId, WriterLost
from flightlog_storage.frame import FLAG_GAP, pack_frame
from flightlog_storage.home import Home
from flightlog_storage.process import Ending, ProcessWatch, is_gone, this_process
from flightlog_storage.protocol import (
    Delivery,
    Hello,
    Rewind,
    Welcome,
    decode_reply,
    encode,
)
from flightlog_storage.reserve import adopt_reserve
from flightlog_storage.spool import is_owner_gone, read_owner, remove_spool
from flightlog_storage.spool_reader import SpoolReader
from flightlogd.connection import connect, is_answered

__all__ = ("Adopter",)

logger = logging.getLogger(__name__)

# A process whose spool is free lives on only if it became another program by exec.
# The end of a process frees its spool a moment before it can be seen to be dead.
EXEC_AFTER_S = 2.0
RETRY_S = 30.0  # A spool that could not be adopted is left alone for so long.
PARTING_S = 5.0  # A writer that ended in order may outlive its spool; then it is over.
WRITER_NAME_LENGTH = 32
SWEEP_AFTER_S = 60.0  # A spool being made is nobody's until its writer locks it.


@dataclass
class _LastWord:
    """What is said in a writer's name when it cannot."""

    writer: WriterId
    run: RunKey
    sequence: int = 0  # The writer's last, once it is known.
    damage: str | None = None


@dataclass
class _Parting:
    """A process whose writer has ended in order, until it ends itself."""

    watch: ProcessWatch
    word: _LastWord
    since: float


class Adopter:
    """Finds the spools of dead writers and delivers them in their writers' names.

    A second delivery of anything is dropped by the recorder as a duplicate, so this may
    be killed at any point and starts over.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._watches: dict[str, ProcessWatch | None] = {}
        self._runs: dict[str, RunKey] = {}
        self._parting: dict[str, _Parting] = {}
        self._free_since: dict[str, float] = {}
        self._troubled: dict[str, float] = {}
        self._stopping = threading.Event()
        self._here = this_process().pid_namespace
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def scan(self) -> None:
        """Look at all spools once; adopt those whose writers are gone."""
        folders = {path.name: path for path in self._home.spool.iterdir()}
        for name in folders.keys() - self._watches.keys():
            if not name.startswith("."):
                self._meet(name, folders[name])
        for name in self._watches.keys() - folders.keys():
            self._part(name)
        for name in list(self._parting):
            self._look_after(name)
        for name, folder in folders.items():
            if self._stopping.is_set():
                return
            self._try_to_look_at(name, folder)

    def _try_to_look_at(self, name: str, folder: Path) -> None:
        """Look at a spool; a bad one must not keep the others waiting."""
        if time.monotonic() - self._troubled.get(name, -RETRY_S) < RETRY_S:
            return
        try:
            self._look_at(name, folder)
        except (OSError, ValueError, StorageError, zmq.ZMQError):
            if name not in self._troubled:
                logger.exception("spool %s cannot be adopted", name)
            self._troubled[name] = time.monotonic()

    def stop(self) -> None:
        """Have a scan end soon, from another thread: nobody answers any more."""
        self._stopping.set()

    def close(self) -> None:
        for name in list(self._watches):
            self._forget(name)
        for parting in self._parting.values():
            parting.watch.close()
        self._context.destroy(linger=0)

    def _meet(self, name: str, folder: Path) -> None:
        """Hold on to a new writer's process, before anything that may take long."""
        owner = read_owner(folder)
        if owner is not None:
            self._runs[name] = owner.run
        self._watches[name] = None if owner is None else ProcessWatch(owner.process)

    def _look_at(self, name: str, folder: Path) -> None:
        if name.startswith("."):
            _sweep(folder)
            return
        ending = self._ending(name, folder)
        if ending is not None and self._adopt(folder, ending):
            self._forget(name)

    def _ending(self, name: str, folder: Path) -> Ending | None:
        """Return how the spool's writer ended, or None while it may write."""
        watch = self._watches[name]
        if not _is_free(folder, watch):
            self._free_since.pop(name, None)
            return None
        ending = Ending() if watch is None else watch.ending()
        since = self._free_since.setdefault(name, time.monotonic())
        if time.monotonic() - since < EXEC_AFTER_S:
            # Without `owner` and `lock` it may be just about to be deleted.
            return None if watch is None else ending
        if ending is None:
            assert watch is not None
            if watch.holds(folder / "lock"):
                # It lives and writes: a close of the file elsewhere in that process
                # took the lock away. Its death is seen by the process alone.
                return None
            is_seen = watch.identity.pid_namespace == self._here
            return Ending(exit_code=0) if is_seen else Ending()
        return ending

    def _adopt(self, folder: Path, ending: Ending) -> bool:
        """Deliver a spool and say how its writer ended; True when that is done."""
        try:
            writer = WriterId(bytes.fromhex(folder.name))
        except ValueError:
            return False  # Not a spool.
        adopt_reserve(folder)
        reader = SpoolReader(folder)
        try:
            with connect(self._context, self._home) as socket:
                delivery = Delivery(writer, reader, self._home.key)
                done = self._deliver(socket, delivery, folder, ending)
        except zmq.Again:
            done = False
        finally:
            reader.close()
        if done:
            if reader.damage:
                logger.error("the spool of writer %s: %s", folder.name, reader.damage)
                folder.rename(self._home.quarantine / f"spool-{folder.name}")
            else:
                remove_spool(folder)
        return done

    def _deliver(
        self,
        socket: "zmq.Socket[bytes]",
        delivery: Delivery,
        folder: Path,
        ending: Ending,
    ) -> bool:
        socket.send_multipart(delivery.hello(time.monotonic()))
        last = 0  # The sequence of the last word, once it was said.
        while True:
            while frames := delivery.next(time.monotonic()):
                socket.send_multipart(frames)
            if not delivery.is_waiting:
                # Told again until it is acknowledged: it, too, may have been lost.
                is_told = bool(last)
                last = last or _last_sequence(folder, delivery)
                if delivery.acked >= last:
                    return True
                frame = _last_word(folder, delivery, ending, last, is_told=is_told)
                socket.send_multipart(frame)
            if not is_answered(socket, self._stopping):
                return False
            delivery.receive(decode_reply(socket.recv()), time.monotonic())
            if delivery.refused:
                raise ValueError(f"the recorder refused it: {delivery.refused}")

    def _part(self, name: str) -> None:
        """Its sender brought all and removed the spool: see how its process ends."""
        watch, run = self._watches[name], self._runs.get(name)
        if (
            watch is not None
            and run is not None
            and run.rank != EDITOR_RANK  # However an editor ends, no run ends by it.
            and len(name) == WRITER_NAME_LENGTH
        ):
            self._watches[name] = None  # Handed over, not to be closed.
            word = _LastWord(WriterId(bytes.fromhex(name)), run)
            self._parting[name] = _Parting(watch, word, time.monotonic())
        self._forget(name)

    def _look_after(self, name: str) -> None:
        """Tell of an exit status that a writer's own last word may not have known."""
        parting = self._parting[name]
        ending = parting.watch.ending()
        if ending is None and time.monotonic() - parting.since < PARTING_S:
            return
        if ending is None or not (ending.exit_code or ending.signal):
            done = True
        else:
            done = self._tell(parting.word, ending)
        if done:
            parting.watch.close()
            del self._parting[name]

    def end_vanished(self) -> None:
        """Tell the end of writers that are gone, and whose spools are.

        A loss of power may take all of a spool: not even its name was synced. Where the
        log has more of a writer than is folded, that may be its end: it is left.
        """
        try:
            with Database.open_reader(self._home.state) as database:
                active = database.active_writers(os.uname().nodename)
        except HomeUnusable:
            return  # Nothing is folded yet.
        for each in active:
            name = each.writer.hex()
            if (
                name not in self._parting
                and is_gone(each.pid, each.started_at)
                and not (self._home.spool / name).exists()
            ):
                folded = each.next_sequence - 1
                word = _LastWord(each.writer, each.run, folded, "it is gone")
                self._tell(word, Ending())

    def _tell(self, word: _LastWord, ending: Ending) -> bool:
        with connect(self._context, self._home) as socket:
            socket.send(encode(Hello(word.writer, self._home.key)))
            while is_answered(socket, self._stopping):
                match decode_reply(socket.recv()):
                    case Welcome(last=last) if word.sequence in (0, last):
                        # Again until it is acknowledged: the same, at the same place.
                        word.sequence = last
                        if word.damage is not None:
                            logger.error(
                                "the spool of %s: %s", word.writer.hex(), word.damage
                            )
                        frame = _lost(
                            *(word.writer, word.run, last + 1, ending, 0, word.damage)
                        )
                        socket.send_multipart(frame)
                    case Rewind():
                        return False
                    case _:
                        return True
        return False

    def _forget(self, name: str) -> None:
        self._runs.pop(name, None)
        watch = self._watches.pop(name, None)
        self._free_since.pop(name, None)
        self._troubled.pop(name, None)
        if watch is not None:
            watch.close()


def _sweep(folder: Path) -> None:
    """Delete a spool whose writer died before it began."""
    try:
        age_s = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return  # It has begun, and has its own name now.
    if age_s >= SWEEP_AFTER_S and (
        is_owner_gone(folder) or not (folder / "lock").exists()
    ):
        remove_spool(folder)


def _is_free(folder: Path, watch: ProcessWatch | None) -> bool:
    """Whether no process holds a spool; who it is may have gone with the power."""
    is_bare = watch is None and not (folder / "lock").exists()
    return is_bare or is_owner_gone(folder)


def _last_sequence(folder: Path, delivery: Delivery) -> int:
    """Return at which sequence the writer's end is to be told."""
    owner = read_owner(folder)
    if owner is not None and owner.process.is_of_this_boot():
        return delivery.sequence
    # The spool may have lost its end with the power, and the log have more of it.
    return max(delivery.sequence, delivery.acked + 1)


def _last_word(
    folder: Path, delivery: Delivery, ending: Ending, sequence: int, *, is_told: bool
) -> list[bytes]:
    """Return the frame that says how the writer ended."""
    owner = read_owner(folder)
    run = None if owner is None else owner.run
    writer = WriterId(bytes.fromhex(folder.name))
    # Where the log lost events that the spool has no more, this must not wait for them.
    is_gap = is_told or delivery.acked < sequence - 1
    flags = FLAG_GAP if is_gap else 0
    return _lost(writer, run, sequence, ending, flags, delivery.damage)


def _lost(
    writer: WriterId,
    run: RunKey | None,
    sequence: int,
    ending: Ending,
    flags: int,
    damage: str | None = None,
) -> list[bytes]:
    """Return the frame that tells of a writer's end, and of a damage of its spool."""
    reason = "its process ended without finish()"
    if ending.signal is not None:
        reason = f"its process was ended by signal {ending.signal}"
    elif ending.exit_code is not None:
        reason = f"its process ended with exit code {ending.exit_code}"
    now = time.time()
    events: list[Event] = [
        WriterLost(
            time=now, reason=reason, exit_code=ending.exit_code, signal=ending.signal
        )
    ]
    if damage is not None:  # How many are lost nobody can tell: at least one is.
        events.append(Gap(time=now, count=1, reason=f"its spool is damaged: {damage}"))
    definitions = {} if run is None else {RUN_SHAPE: encode_run(run)}
    payload = encode_definitions(definitions) + b"".join(map(encode_event, events))
    return list(pack_frame(writer, sequence, len(events), payload, flags))
