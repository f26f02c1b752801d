"""Who goes first under pressure: the waiting impressions, in order of acceptance.

Theory: a page reports several impressions of one customer in a row, so they are kept as *runs*: where a run begins in
the order of acceptance, and whose lane it is. It reaches to where the next run begins; its events are found in the
lane, and nothing here keeps one alive. Events leave a lane from the left, so a run is over when the lane's first is
beyond it. Runs that are over are passed over where they are met, and swept out before they are the majority. Sweeping
moves those that are not from one queue to the end of another, so many at a time: rebuilding the whole at once would
stop the loop for milliseconds.

Invariant: every waiting impression lies in a run of its lane, or in a later one if it came back from a spool. Runs
begin in order, and everything swept is older than the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .batch import Record
    from .lanes import Lane

_IMPRESSION, _SEQ = attrgetter("impression"), attrgetter("seq")


class Impressions:
    """See the module's docstring.

    Attributes:
        last: The lane of the newest run, which goes on as long as nobody else's impression comes.
        returned: Whether events ever came back from a spool: those may stand before the run that they are in.
    """

    def __init__(self) -> None:
        self.last: Lane | None = None
        self.returned = False
        self._newest = 0
        self._swept: deque[tuple[int, Lane]] = deque()
        self._rest: deque[tuple[int, Lane]] = deque()

    def begin(self, seq: int, lane: Lane) -> None:
        """An impression came that is of another lane than the last one."""
        self._newest = max(self._newest, seq)  # what comes back from a spool is older
        self._rest.append((self._newest, lane))
        self.last = lane

    def oldest(self) -> Record | None:
        """Returns the oldest impression that is waiting."""
        while len(self):
            part = self._swept or self._rest
            begin, lane = part[0]
            # Nothing but clicks waits before it, perhaps thousands of them.
            start = 0 if self.returned else bisect_left(lane.waiting, begin, key=_SEQ)
            found: Record | None = next(filter(_IMPRESSION, islice(lane.waiting, start, None)), None)
            if found is not None and found.seq < self._end(part):
                return found
            self._drop(part)
        return None

    def sweep(self, waiting: int, *, at_most: int) -> None:
        """Passes over runs at the front that are over; if such may be the majority, goes on with the others.

        Args:
            waiting: How many events are waiting.
            at_most: How many runs to look at.
        """
        while at_most and len(self) and self._is_over(self._swept or self._rest):
            self._drop(self._swept or self._rest)
            at_most -= 1
        while at_most > 0 and len(self) > 2 * waiting + 64:
            if not self._rest:
                self._rest, self._swept = self._swept, self._rest
            if self._is_over(self._rest):
                self._drop(self._rest)
            else:
                self._swept.append(self._rest.popleft())
            at_most -= 1

    def _end(self, part: deque[tuple[int, Lane]]) -> float:
        """Where the first run of a part ends."""
        if len(part) > 1:
            return part[1][0]
        return self._rest[0][0] if part is self._swept and self._rest else inf

    def _is_over(self, part: deque[tuple[int, Lane]]) -> bool:
        waiting = part[0][1].waiting
        return not waiting or waiting[0].seq >= self._end(part)

    def _drop(self, part: deque[tuple[int, Lane]]) -> None:
        _, lane = part.popleft()
        if lane is self.last:
            self.last = None

    def __len__(self) -> int:
        return len(self._swept) + len(self._rest)
