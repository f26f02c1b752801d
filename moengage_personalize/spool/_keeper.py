"""What the spool's own thread does: everything that waits for the disk.

The keeper prepares spares, syncs, removes segments that are settled, looks for stragglers and for forgotten
people (`_chores`), adopts what dead processes left (`_inheritance`), and notices when the directory is
gone. It never appends and never marks: it answers with chores for the event loop's thread (`_journal`),
which owns all counters.

Invariants:

- A copy is durable, name included, before the segment that it came from leaves.
- After a failed sync the kernel may call its pages clean, so a later success proves nothing. Such a segment
  is doomed: `sync` keeps failing until everything pending in it has been copied elsewhere and synced there.
- A segment is never removed while recovery has not read it to its end.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import ParamSpec

from attrs import define, field

from ._chores import carries, is_straggling, scrubs
from ._dead_letters import DeadLetters, chosen
from ._directory import Directory, Lock
from ._errors import SpoolError, SpoolFullError, SpoolSyncError, explain, speaking_of
from ._format import HeaderFault
from ._inheritance import Inheritance, pending_entry
from ._journal import Chore, Journal, Leave
from ._nouns import DeadLetter, Entry, Ticket
from ._records import header_of, newest_of
from ._segment import Segment, create_segment
from ._tombstones import Tombstones

P = ParamSpec("P")

_CHORES = 20  # per cycle, which bounds what they hold


@define(eq=False)
class Keeper:
    """The blocking half of one open spool. All methods are for the spool's thread, except `make_inline`."""

    directory: Directory
    segment_bytes: int
    max_bytes: int
    tombstones: Tombstones
    letters: DeadLetters
    numbers: Iterator[int]
    journal: Journal = field(init=False)
    inheritance: Inheritance = field(init=False)
    lock: Lock | None = None
    buried: int = 0
    evicted: int = 0
    syncs: int = 0
    last_error: str | None = None
    _trouble: str | None = None
    _names_changed: bool = False
    _full: bool = False
    _forgetting: bool = False  # tombstones have come for which our segments were not looked through to the end

    def open(self) -> None:
        """Become an owner and prepare the first spare. Raises `SpoolError`; a full disk is no error."""
        self.directory.open()
        try:
            self.lock = self.directory.claim()
            with speaking_of("read its tombstones"):
                self.tombstones.refresh()
            with suppress(SpoolFullError), speaking_of("create a segment"):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Sync, remove what is settled, let go of the rest. Never raises."""
        journal = self.journal
        self._attempt("sync", self.sync)  # its chores are what follows
        for segment in list(journal.segments.values()):
            if segment.pending == 0 and segment.is_read and segment not in journal.evacuated:
                del journal.segments[segment.number]
                journal.retired.append(segment)
        journal.retired.extend(journal.spares)
        journal.spares.clear()
        self._attempt("remove a segment", self._sweep)
        for segment in journal.segments.values():
            segment.close()
        journal.segments.clear()
        journal.retired.clear()
        for lock in self.locks():
            self._attempt("remove a lock", self.directory.release, lock)
        self.inheritance.held.clear()
        self.lock = None
        self.directory.close()

    def cycle(self, now: float) -> list[Chore]:
        """One round of housekeeping; `now` is monotonic seconds. Never raises: trouble is in `last_error`."""
        self._trouble = None
        chores: list[Chore] = []
        if self._at_home():
            self._attempt("remove a segment", self._sweep)
            self._attempt("create a segment", self._prepare)
            self._attempt("sync", lambda: chores.extend(self.sync()))
            self._attempt("read its tombstones", lambda: chores.extend(self._honour()))
            self._attempt("read a segment", lambda: chores.extend(islice(self._stragglers(now), _CHORES)))
        self.last_error = self._trouble
        return chores

    def sync(self) -> list[Chore]:
        """Make everything stored so far durable. Raises `SpoolSyncError`."""
        if self.lock is None or not self.directory.is_intact(self.lock):
            raise SpoolSyncError("spool: its directory is gone")
        evacuated = list(self.journal.evacuated)
        try:
            self._sync_all()
        except OSError as error:
            raise SpoolSyncError(f"spool: cannot sync: {explain(error)}") from error
        if any(segment.doomed and segment.pending for segment in list(self.journal.segments.values())):
            raise SpoolSyncError("spool: what could not be synced has not been written anew yet")
        for _ in evacuated:
            self.journal.evacuated.popleft()
        return [Leave(segment) for segment in evacuated]

    def adopt(self) -> None:
        """Take over what dead processes left. Raises `SpoolError` if the directory cannot be read.

        A process that died while it carried stragglers left two copies of them, and whoever recovers them
        settles one. So both must be durable before either is handed out.
        """
        self.inheritance.adopt(self.lock)
        self._attempt("sync", self._sync_all)

    def read(self, tickets: Sequence[Ticket]) -> list[Entry | None]:
        """Entries by ticket. Raises `SpoolError`."""
        with speaking_of("read a segment"):
            return [self._read(ticket) for ticket in tickets]

    def forget(self, customer: bytes, now: float) -> tuple[list[Chore], int]:
        """Write a tombstone; answers what to scrub, and how many dead letters were removed."""
        self.adopt()
        with speaking_of("write a tombstone"):
            until = max(now, newest_of(self.directory, customer))  # the clock may have been set back
            self._forgetting = True  # whoever asked may have gone when this returns, with what there is to scrub
            self.tombstones.add(customer, until, now, self._oldest)
            self.tombstones.refresh()
        with speaking_of("remove dead letters"):
            letters = self.letters.remove(lambda letter: letter.entry.customer == customer, erase=True)
        with speaking_of("read a segment"):
            segments = list(self.journal.segments.values())
            return list(scrubs(segments, self.tombstones.covers)), letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters, durably. Raises `SpoolError`."""
        covers = self.tombstones.covers
        fresh = [letter for letter in letters if not covers(letter.entry.customer, letter.entry.accepted_at)]
        with speaking_of("write dead letters"):
            self.evicted += self.letters.add(fresh)
        self.buried += len(fresh)

    def dead_letters(self) -> list[DeadLetter]:
        """What is kept. Raises `SpoolError`."""
        with speaking_of("read dead letters"):
            return self.letters.read()

    def discard(self, event_uuids: Collection[str] | None) -> int:
        """Remove dead letters. Raises `SpoolError`."""
        with speaking_of("remove dead letters"):
            return self.letters.remove(chosen(event_uuids))

    def make_inline(self) -> Segment | None:
        """On the event loop's thread, when no spare is ready: make one now, or stop accepting."""
        try:
            if self._has_room():
                return self._create()
        except OSError as error:
            self.last_error = f"create a segment: {explain(error)}"
        self.journal.accepting = False
        return None

    def locks(self) -> list[Lock]:
        """Every lock that we hold."""
        return [*self.inheritance.held.values(), *([self.lock] if self.lock else [])]

    def state(self) -> str:
        """In one word: open, full, or failing."""
        if self.last_error is None and self.journal.accepting:
            return "open"
        return "full" if self._full else "failing"

    def _attempt(self, task: str, act: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            act(*args, **kwargs)
        except OSError as error:
            self._trouble = f"{task}: {explain(error)}"
        except SpoolError as error:
            self._trouble = str(error)

    def _at_home(self) -> bool:
        """Whether what we write can be found; if not, move to a new directory under the old path."""
        if self.lock and self.directory.is_intact(self.lock):
            return True
        journal = self.journal
        for segment in list(journal.segments.values()):
            segment.doom()
        journal.active, journal.accepting = None, False
        with suppress(IndexError):  # the event loop's thread may take the last one
            while True:
                journal.spares.pop().close()
        self.directory.close()
        lost, self.lock = self.lock, None
        if lost:
            os.close(lost.fd)
        self._attempt("find its directory", self.directory.open)
        if self.directory.fd >= 0:
            self._attempt("lock a file", self._claim)
        return self.lock is not None

    def _claim(self) -> None:
        self.lock = self.directory.claim()

    def _prepare(self) -> None:
        """See to it that a spare is ready, if there is room."""
        journal = self.journal
        try:
            self._full = not journal.spares and not self._has_room()
            if not journal.spares and not self._full:
                journal.spares.append(self._create())
        except OSError:
            journal.accepting = False
            raise
        journal.accepting = not self._full

    def _has_room(self) -> bool:
        return self.directory.bytes_of_segments() + self.segment_bytes <= self.max_bytes

    def _create(self) -> Segment:
        if self.lock is None:
            raise FileNotFoundError(2, "its directory is gone")
        return create_segment(self.directory, self.lock, number=next(self.numbers), size=self.segment_bytes)

    def _sync_all(self) -> None:
        self.syncs += 1
        unnamed = []
        for segment in list(self.journal.segments.values()):
            if not segment.named:
                unnamed.append(segment)
            if segment.is_dirty and not segment.doomed:
                self._attempt("sync", self._sync_or_doom, segment)
        if unnamed or self._names_changed:
            self.directory.sync()
            self._names_changed = False
            for segment in unnamed:
                segment.named = True

    def _sync_or_doom(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError:
            segment.doom()
            raise

    def _sweep(self) -> None:
        while self.journal.retired:
            segment = self.journal.retired[0]
            self.directory.remove(segment.name)
            self._names_changed = True
            self.journal.retired.popleft().close()
        self.inheritance.let_go()

    def _read(self, ticket: Ticket) -> Entry | None:
        place = self.journal.located(ticket)
        if place is None:
            return None
        segment, offset = place
        frame = segment.record(offset)
        return None if frame is None else pending_entry(frame)

    def _honour(self) -> Iterator[Chore]:
        self._forgetting |= self.tombstones.refresh()
        if self._forgetting:
            yield from scrubs(list(self.journal.segments.values()), self.tombstones.covers)
            self._forgetting = False

    def _stragglers(self, now: float) -> Iterator[Chore]:
        """Chores that empty old segments: the doomed ones, and those which a few events keep on the disk."""
        active = self.journal.active
        pressed = not self.journal.accepting or self.directory.bytes_of_segments() > self.max_bytes // 2
        for segment in list(self.journal.segments.values()):
            if not segment.is_read or (segment is active and not segment.doomed):
                continue
            if is_straggling(segment, now, pressed=pressed):
                yield from carries(segment, self.journal.moved)

    def _oldest(self) -> float | None:
        """When the oldest segment of any process was begun; `None` if that cannot be told."""
        oldest = float("inf")
        for owner in self.directory.owners():
            for name in self.directory.segments_of(owner):
                try:
                    header = header_of(self.directory, name)
                except OSError:
                    return None
                if header is HeaderFault.BLANK:  # or gone
                    continue
                if isinstance(header, HeaderFault):
                    return None
                oldest = min(oldest, header.created)
        return oldest
