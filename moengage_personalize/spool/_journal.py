"""What the event loop's thread does with the spool: nothing that can wait.

The journal appends to one active segment and stores marks in any. It never syncs, opens, reads or removes a
file; it leaves segments in queues for the keeper (`_keeper`, on the spool's own thread) and gets spares and
chores from it. The queues are deques, whose ends are atomic, so there is no lock to wait for.

Invariants:

- Counters, marks, tickets and `active` are changed on the event loop's thread only. (One exception: the
  keeper sets `active` to `None` when the directory is lost.)
- A record is marked only when it need not be sent, or never in order to move it: stragglers are copied first,
  and the file they came from leaves only after the copies are durable. A cut in between sends twice, not
  never.
- `append` makes no system call, unless a segment is full; then it wakes the keeper, and only if no spare is
  ready, it creates a file.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import assert_never

from attrs import Factory, define, frozen

from ._format import FRAME_SIZE, RECORDS_AT, Frame, Header, Kind, encode_fields, padded
from ._nouns import Entry, Ticket
from ._segment import ENCODING_ERRORS, OFFSET_BITS, OFFSETS, Segment, offset_in, segment_number


@frozen
class Carry:
    """Copy these stragglers forward."""

    segment: Segment
    frames: list[Frame]


@frozen
class Scrub:
    """Overwrite these records (offset, length) of a forgotten person."""

    segment: Segment
    records: list[tuple[int, int]]


@frozen
class Leave:
    """Nothing needs this segment any more: its copies are durable."""

    segment: Segment


Chore = Carry | Scrub | Leave


@frozen
class Found:
    """One page of an adopted segment, for the event loop's thread to take over."""

    segment: Segment
    next: int
    tail: int
    seen: int
    entries: list[tuple[int, Entry]]


@define(eq=False)
class Journal:
    """The segments of one open spool.

    Attributes:
        segment_bytes: Size of each file.
        create: Makes a segment now, on this thread, or answers `None`.
        wake: Tells the keeper that there is something to do; must not release the GIL.
        accepting: Whether a new segment may be begun.
        closed: The keeper is letting go of the files, on its own thread: they are not to be touched any more.
    """

    segment_bytes: int
    create: Callable[[], Segment | None]
    wake: Callable[[], None]
    covers: Callable[[bytes, float], bool]
    accepting: bool = False
    closed: bool = False
    active: Segment | None = None
    segments: dict[int, Segment] = Factory(dict)
    spares: deque[Segment] = Factory(deque)
    retired: deque[Segment] = Factory(deque)
    evacuated: deque[Segment] = Factory(deque)
    moved: dict[Ticket, Ticket] = Factory(dict)
    sequence: int = 0
    appended: int = 0
    recovered: int = 0
    settled: int = 0
    forgotten: int = 0
    refused: int = 0
    carried: int = 0
    inline: int = 0

    def append(
        self,
        customer: bytes,
        event_uuid: str,
        impression: bool,  # noqa: FBT001 - by position, as all of the hot path
        payload: bytes,
        attributes: bytes,
        timezone_offset: int | None,
        accepted_at: float,
    ) -> Ticket | None:
        """Journal an event; `None` if there is no room, or it cannot be represented."""
        try:
            body = encode_fields(customer, event_uuid, impression, payload, attributes, timezone_offset, accepted_at)
        except ENCODING_ERRORS:
            self.refused += 1
            return None
        segment = self.active
        if segment is None or segment.tail + FRAME_SIZE + len(body) > segment.size:
            segment = self._rotated(len(body), accepted_at)
            if segment is None:
                self.refused += 1
                return None
        self.appended += 1
        return segment.append(body)

    def settle(self, tickets: Iterable[Ticket]) -> None:
        """Mark these; whole segments leave. Once it is closed, nothing is marked: the keeper unmaps the files."""
        if self.closed:
            return
        if self.moved:
            for ticket in tickets:
                self.settled += self._settle(ticket)
            return
        touched: dict[int, Segment] = {}
        for ticket in tickets:
            number, offset = ticket >> OFFSET_BITS, ticket & OFFSETS
            segment = touched.get(number)
            if segment is None:
                segment = self.segments.get(number)
                if segment is None:
                    continue
                touched[number] = segment
            if segment.mark(offset):
                self.settled += 1
                segment.done += offset < segment.cursor
        for segment in touched.values():
            self._retire_if_done(segment)

    def pending(self) -> int:
        """Entries handed out and not settled."""
        return sum(segment.pending for segment in list(self.segments.values()))

    def located(self, ticket: Ticket) -> tuple[Segment, int] | None:
        """Where a ticket's record lies now. For any thread."""
        while (target := self.moved.get(ticket)) is not None:
            ticket = target
        segment = self.segments.get(segment_number(ticket))
        return None if segment is None else (segment, offset_in(ticket))

    def take(self, found: Found) -> list[tuple[Ticket, Entry]]:
        """Take over a page that the keeper has read. Pages are read and taken in turns."""
        segment = found.segment
        taken = []
        for offset, entry in found.entries:
            if self.covers(entry.customer, entry.accepted_at):
                self.forgotten += segment.mark(offset)
            elif segment.is_pending(offset):
                taken.append((Ticket(segment.base | offset), entry))
        segment.cursor, segment.tail = found.next, max(segment.tail, found.tail)
        segment.total += found.seen
        segment.done += found.seen - len(taken)
        self.recovered += len(taken)
        self._retire_if_done(segment)
        return taken

    def do(self, chore: Chore) -> None:
        """A chore that the keeper found."""
        match chore:
            case Carry():
                self._carry(chore)
            case Scrub():
                self._scrub(chore)
            case Leave():
                self._retire(chore.segment)
            case _:
                assert_never(chore)

    def _rotated(self, length: int, now: float) -> Segment | None:
        """A fresh active segment with room for a body of this length."""
        if self.closed or not self.accepting or RECORDS_AT + padded(FRAME_SIZE + length) > self.segment_bytes:
            return None
        try:
            fresh = self.spares.popleft()
        except IndexError:
            created = self.create()
            if created is None:
                return None
            fresh = created
            self.inline += 1
        self.sequence += 1
        fresh.activate(Header(Kind.ENTRY, fresh.marker, self.sequence, now))
        self.segments[fresh.number] = fresh
        full, self.active = self.active, fresh
        if full is not None:
            self._retire_if_done(full)
        self.wake()
        return fresh

    def _settle(self, ticket: Ticket) -> bool:
        """Mark a record, and its copy if it was carried. Answers whether it was pending."""
        target = self.moved.pop(ticket, None) if self.moved else None
        segment = self.segments.get(segment_number(ticket))
        marked = segment is not None and segment.mark(offset_in(ticket))
        if target is not None:
            return self._settle(target)
        if segment is not None and marked:
            if offset_in(ticket) < segment.cursor:
                segment.done += 1
            self._retire_if_done(segment)
        return marked

    def _retire_if_done(self, segment: Segment) -> None:
        if segment.pending or segment is self.active or not segment.is_read:
            return
        if segment.carried:
            self.evacuated.append(segment)
            self.wake()
        else:
            self._retire(segment)

    def _retire(self, segment: Segment) -> None:
        if segment.number in self.segments:
            self.retired.append(segment)
            del self.segments[segment.number]
            self.wake()

    def _carry(self, chore: Carry) -> None:
        source = chore.segment
        if source.number not in self.segments:
            return
        if source is self.active:
            self.active = None
        source.carried = True
        for frame in chore.frames:
            ticket = Ticket(source.base | frame.offset)
            if ticket in self.moved or not source.is_pending(frame.offset):
                continue
            copy = self._append_copy(frame.body, source.header.created)
            if copy is None:
                return
            self.moved[ticket] = copy
            source.done += 1
            self.carried += 1
        self._retire_if_done(source)

    def _append_copy(self, body: bytes, created: float) -> Ticket | None:
        segment = self.active
        if segment is None or segment.tail + FRAME_SIZE + len(body) > segment.size:
            segment = self._rotated(len(body), created)
        return None if segment is None else segment.append(body)

    def _scrub(self, chore: Scrub) -> None:
        segment = chore.segment
        for offset, length in chore.records:
            if segment.number in self.segments:
                self.forgotten += self._settle(Ticket(segment.base | offset))
            if segment.number in self.segments:
                segment.scrub(offset, length)
