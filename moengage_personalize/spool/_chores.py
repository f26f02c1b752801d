"""Looking through segments for work that only the event loop's thread may do.

Long scans would make that thread wait for the GIL, 5 ms at a time; so they stop for a breath after each page.
A chore is at most a page: well under a millisecond.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from ._format import RECORDS_AT, Frame, decode_entry
from ._journal import Carry, Chore, Scrub
from ._nouns import Ticket
from ._segment import Segment

STRAGGLING_AFTER = 60.0  # seconds; delivery usually empties a segment long before, for free
_PAGE = 200  # records
_BREATH = 0.0005  # seconds


def scrubs(segments: Iterable[Segment], covers: Callable[[bytes, float], bool]) -> Iterator[Chore]:
    """Everything on our disk of people who have been forgotten, settled records too. Raises `OSError`."""

    def is_forgotten(frame: Frame) -> bool:
        entry = decode_entry(frame.body)
        return entry is not None and covers(entry.customer, entry.accepted_at)

    for segment in segments:
        for frames in _pages(segment):
            records = [(frame.offset, len(frame.body)) for frame in frames if is_forgotten(frame)]
            if records:
                yield Scrub(segment, records)


def is_straggling(segment: Segment, now: float, *, pressed: bool) -> bool:
    """Whether a segment should be emptied: for long, what is pending has taken less than a quarter of it."""
    if segment.doomed:
        return True
    if segment.sealed_at is None:
        segment.sealed_at = now
    if segment.pending == 0 or not (pressed or now - segment.sealed_at >= STRAGGLING_AFTER):
        return False
    average = (segment.tail - RECORDS_AT) / segment.total
    return segment.pending * average * 4 < segment.size


def carries(segment: Segment, moved: dict[Ticket, Ticket]) -> Iterator[Chore]:
    """Copy what is pending elsewhere. Raises `OSError`."""
    if segment.pending == 0:
        yield Carry(segment, [])
    for frames in _pages(segment):
        pending = [frame for frame in frames if not frame.settled]
        stragglers = [frame for frame in pending if Ticket(segment.base | frame.offset) not in moved]
        if stragglers:
            yield Carry(segment, stragglers)


def _pages(segment: Segment) -> Iterator[list[Frame]]:
    at, end = RECORDS_AT, segment.end
    while at < end:
        page = segment.page(at, limit=_PAGE, until=end)
        yield page.frames
        at = page.next
        time.sleep(_BREATH)
