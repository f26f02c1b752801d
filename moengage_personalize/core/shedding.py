"""Who goes first under pressure: the waiting impressions, in order of acceptance.

Theory: customers take turns, so events leave from the middle. One that is not waiting any more is passed over when it
is met, and swept out before such ones are the majority. Sweeping moves what still waits from one queue to the end of
another, so many at a time: rebuilding the whole at once would stop the loop for milliseconds.

Invariant: every waiting impression is in here once, and everything swept is older than the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .batch import Record


class Impressions:
    """See the module's docstring. `append` takes the next one on."""

    def __init__(self) -> None:
        self._swept: deque[Record] = deque()
        self._rest: deque[Record] = deque()
        self.append: Callable[[Record], None] = self._rest.append

    def pop(self) -> Record | None:
        """Returns the oldest that is waiting, and is rid of it."""
        for part in (self._swept, self._rest):
            while part:
                record = part.popleft()
                if _may_wait(record) and record in record.lane.waiting:
                    return record
        return None

    def sweep(self, waiting: int, *, at_most: int) -> None:
        """Passes over those at the front that are gone; if gone ones are the majority, goes on with the others.

        Args:
            waiting: How many events are waiting.
            at_most: How many records to look at.
        """
        at_most -= _pass_over(self._swept or self._rest, at_most)
        while at_most > 0 and len(self) > 2 * waiting + 64:
            if not self._rest:
                self._rest, self._swept = self._swept, self._rest
                self.append = self._rest.append
            count = min(at_most, len(self._rest))
            at_most -= count
            for _ in range(count):
                if _may_wait(record := self._rest.popleft()):
                    self._swept.append(record)

    def __len__(self) -> int:
        return len(self._swept) + len(self._rest)


def _pass_over(records: deque[Record], at_most: int) -> int:
    """Removes from the left those that are not in their lanes any more; returns how many."""
    before = len(records)
    for _ in range(min(at_most, before)):
        if _may_wait(records[0]):
            break
        records.popleft()
    return before - len(records)


def _may_wait(record: Record) -> bool:
    """Events leave a lane from the left, so those before its first are gone, and most of the others are there.

    (One that is not: it left, and then an older one came back from the spool.)
    """
    waiting = record.lane.waiting
    return bool(waiting) and waiting[0].seq <= record.seq
