"""What the spool's own thread does: everything that waits for the disk.

The keeper prepares spares, syncs, removes segments that are settled, adopts what dead processes left, looks for
stragglers and for forgotten people, and notices when the directory is gone. It never appends and never marks:
it answers with chores for the event loop's thread (`_journal`), which owns all counters.

Invariants:

- A copy is durable, name included, before the segment that it came from leaves.
- After a failed sync the kernel may call its pages clean, so a later success proves nothing. Such a segment is
  doomed: `sync` keeps failing until everything pending in it has been copied elsewhere and synced there.
- A segment is never removed while recovery has not read it to its end.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice

from attrs import Factory, define, field

from ._dead_letters import DeadLetters, chosen
from ._directory import Directory, Lock
from ._errors import SpoolError, SpoolFullError, SpoolSyncError, explain, speaking_of
from ._format import RECORDS_AT, Frame, HeaderFault, decode_entry, read_header
from ._journal import Carry, Chore, Found, Journal, Leave, Scrub
from ._nouns import DeadLetter, Entry, Ticket
from ._segment import Segment, UnreadableSegmentError, adopt_segment, create_segment
from ._tombstones import Tombstones

STRAGGLING_AFTER = 60.0  # seconds; delivery usually empties a segment long before, for free
_CHORES = 20  # per cycle, which bounds what they hold
_CHORE = 200  # records: well under a millisecond of the event loop's time
_BREATH = 0.0005  # seconds; long scans let go of the GIL between pages, or the loop would wait 5 ms for it


@define(eq=False)
class Keeper:
    """The blocking half of one open spool. All methods are for the spool's thread, except `make_inline`."""

    directory: Directory
    segment_bytes: int
    max_bytes: int
    tombstones: Tombstones
    letters: DeadLetters
    journal: Journal = field(init=False)
    lock: Lock | None = None
    unread: deque[Segment] = Factory(deque)
    held: dict[str, Lock] = Factory(dict)
    numbers: Iterator[int] = Factory(lambda: count(1))
    left_alone: set[str] = Factory(set)
    living: int = 0
    adopted: int = 0
    skipped: int = 0
    buried: int = 0
    evicted: int = 0
    syncs: int = 0
    last_error: str | None = None
    _trouble: str | None = None
    _names_changed: bool = False
    _full: bool = False

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
        for lock in (*self.held.values(), *([self.lock] if self.lock else [])):
            self._attempt("remove a lock", self._release, lock)
        self.held.clear()
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
        self._sync_all()
        if any(segment.doomed and segment.pending for segment in list(self.journal.segments.values())):
            raise SpoolSyncError("spool: what a failed sync left in doubt has not been rewritten yet")
        for _ in evacuated:
            self.journal.evacuated.popleft()
        return [Leave(segment) for segment in evacuated]

    def adopt(self) -> None:
        """Take over what dead processes left. Raises `SpoolError` if the directory cannot be read."""
        self.living, self.left_alone = 0, set()
        with speaking_of("look for files to adopt"):
            for owner in self.directory.owners():
                if self.lock is None or owner != self.lock.owner:
                    self._adopt_from(owner)

    def read_page(self, limit: int) -> Found | None:
        """The next page of what was adopted; `None` at the end. Raises `SpoolError`."""
        while self.unread:
            segment = self.unread[0]
            if segment.is_read:
                self.unread.popleft()
                continue
            try:
                page = segment.page(segment.cursor, limit=limit)
            except OSError as error:
                self.unread.popleft()  # it stays on the disk, for a process that has better luck
                self.left_alone.add(segment.name)
                self._trouble = f"read a segment: {explain(error)}"
                continue
            self.skipped += page.skipped
            entries = [(frame.offset, entry) for frame in page.frames if (entry := _pending_entry(frame))]
            return Found(segment, segment.cursor, page.next, page.tail, len(page.frames), entries)
        return None

    def read(self, tickets: Sequence[Ticket]) -> list[Entry | None]:
        """Entries by ticket. Raises `SpoolError`."""
        with speaking_of("read a segment"):
            return [self._read(ticket) for ticket in tickets]

    def forget(self, customer: bytes, now: float) -> tuple[list[Chore], int]:
        """Write a tombstone; answers what to scrub, and how many dead letters were removed."""
        self.adopt()
        with speaking_of("write a tombstone"):
            self.tombstones.add(customer, now, self._oldest)
            self.tombstones.refresh()
        with speaking_of("remove dead letters"):
            letters = self.letters.remove(lambda letter: letter.entry.customer == customer, erase=True)
        with speaking_of("read a segment"):
            return list(self._scrubs()), letters

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

    def state(self) -> str:
        """In one word: open, full, or failing."""
        if self.last_error is None and self.journal.accepting:
            return "open"
        return "full" if self._full else "failing"

    def _attempt(self, task: str, act: Callable[..., object], *args: Lock) -> None:
        try:
            act(*args)
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
        while journal.spares:
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
        unnamed, failed = [], None
        for segment in list(self.journal.segments.values()):
            if not segment.named:
                unnamed.append(segment)
            if segment.is_dirty:
                try:
                    segment.sync()
                except OSError as error:
                    segment.doom()
                    failed = error
        if unnamed or self._names_changed:
            self._names_changed = False
            try:
                self.directory.sync()
            except OSError as error:
                self._names_changed, failed = True, error
            else:
                for segment in unnamed:
                    segment.named = True
        self.syncs += 1
        if failed is not None:
            raise SpoolSyncError(f"spool: cannot sync: {explain(failed)}") from failed

    def _sweep(self) -> None:
        while self.journal.retired:
            segment = self.journal.retired[0]
            self.directory.remove(segment.name)
            self._names_changed = True
            self.journal.retired.popleft().close()
        in_use = {segment.lock.owner for segment in list(self.journal.segments.values())}
        for owner in [owner for owner in self.held if owner not in in_use]:
            self._release(self.held.pop(owner))

    def _release(self, lock: Lock) -> None:
        """Let go of an owner; its lock file leaves with its last segment."""
        try:
            if not self.directory.segments_of(lock.owner):
                self.directory.remove(lock.name)
        finally:
            os.close(lock.fd)

    def _adopt_from(self, owner: str) -> None:
        try:
            lock = self.held.get(owner) or self.directory.lock(owner)
        except OSError:
            self.left_alone.add(owner)
            return
        if lock is None:
            self.living += 1
            return
        found = [segment for name in self._strange(lock) if (segment := self._adopted(lock, name))]
        if owner not in self.held:
            if not found:
                self._release(lock)
                return
            self.held[owner] = lock
            self.adopted += 1
        for segment in sorted(found, key=lambda segment: segment.header.sequence):
            self.journal.segments[segment.number] = segment
            self.unread.append(segment)

    def _strange(self, lock: Lock) -> list[str]:
        """An owner's segments that we do not have yet: some may have failed to open the last time."""
        names = self.directory.segments_of(lock.owner)
        # In this order: the journal adds a segment to `retired` before it leaves `segments`.
        known = {segment.name for segment in list(self.journal.segments.values())}
        known |= {segment.name for segment in list(self.journal.retired)}
        return [name for name in names if name not in known]

    def _adopted(self, lock: Lock, name: str) -> Segment | None:
        try:
            return adopt_segment(self.directory, lock, name, number=next(self.numbers))
        except UnreadableSegmentError as error:
            if error.fault is HeaderFault.BLANK:
                self.directory.remove(name)  # a spare that never came to use
                return None
        except OSError:
            pass
        self.left_alone.add(name)
        return None

    def _read(self, ticket: Ticket) -> Entry | None:
        place = self.journal.located(ticket)
        if place is None:
            return None
        segment, offset = place
        frame = segment.record(offset)
        return None if frame is None else _pending_entry(frame)

    def _honour(self) -> Iterator[Chore]:
        if self.tombstones.refresh():
            yield from self._scrubs()

    def _scrubs(self) -> Iterator[Chore]:
        """Everything on our disk of people who have been forgotten, settled records too."""
        for segment in list(self.journal.segments.values()):
            for frames in self._pages(segment):
                records = [(frame.offset, len(frame.body)) for frame in frames if self._is_forgotten(frame)]
                if records:
                    yield Scrub(segment, records)

    def _is_forgotten(self, frame: Frame) -> bool:
        entry = decode_entry(frame.body)
        return entry is not None and self.tombstones.covers(entry.customer, entry.accepted_at)

    def _stragglers(self, now: float) -> Iterator[Chore]:
        """Chores that empty old segments: the doomed ones, and those which a few events keep on the disk."""
        active = self.journal.active
        pressed = not self.journal.accepting or self.directory.bytes_of_segments() > self.max_bytes // 2
        for segment in list(self.journal.segments.values()):
            if not segment.is_read or (segment is active and not segment.doomed):
                continue
            if segment.sealed_at is None:
                segment.sealed_at = now
            waited = pressed or now - segment.sealed_at >= STRAGGLING_AFTER
            if segment.doomed or (waited and _is_mostly_settled(segment)):
                yield from self._carries(segment)

    def _carries(self, segment: Segment) -> Iterator[Chore]:
        if segment.pending == 0:
            yield Carry(segment, [])
        for frames in self._pages(segment):
            stragglers = [
                frame
                for frame in frames
                if not frame.settled and Ticket(segment.base | frame.offset) not in self.journal.moved
            ]
            if stragglers:
                yield Carry(segment, stragglers)

    def _pages(self, segment: Segment) -> Iterator[list[Frame]]:
        at, until = RECORDS_AT, segment.end
        while at < until:
            page = segment.page(at, limit=_CHORE, until=until)
            yield page.frames
            at = page.next
            time.sleep(_BREATH)

    def _oldest(self) -> float | None:
        """When the oldest segment of any process was begun; `None` if that cannot be told."""
        oldest = float("inf")
        for owner in self.directory.owners():
            for name in self.directory.segments_of(owner):
                fd = self.directory.open_file(name)
                try:
                    header = read_header(os.pread(fd, RECORDS_AT, 0))
                finally:
                    os.close(fd)
                if header is HeaderFault.BLANK:
                    continue
                if isinstance(header, HeaderFault):
                    return None
                oldest = min(oldest, header.created)
        return oldest


def _pending_entry(frame: Frame) -> Entry | None:
    return None if frame.settled else decode_entry(frame.body)


def _is_mostly_settled(segment: Segment) -> bool:
    """Whether what is pending takes less than a quarter of the file."""
    if segment.pending == 0 or segment.total == 0:
        return False
    average = (segment.tail - RECORDS_AT) / segment.total
    return segment.pending * average * 4 < segment.size
