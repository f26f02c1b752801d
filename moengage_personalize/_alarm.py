"""When callers leave: one timer of the loop for all of them, so that a call costs no timer of its own.

Invariant: an entry is a time and a number, never a caller: one who left early is not kept alive by a deadline that is
still ahead, and its entry goes with the next half of the heap, at the latest.
"""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from math import inf


class Alarm:
    """Wakes who waits, at the deadline or before."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def set(self, deadline: float, waiter: asyncio.Future[None]) -> int:
        """Wakes `waiter` at `deadline`, in seconds on its loop's clock; returns what takes that back."""
        self._last = number = self._last + 1
        self._waiting[number] = waiter
        heappush(self._heap, (deadline, number))
        if deadline < self._rings_at:
            self._arm(waiter.get_loop(), deadline)
        return number

    def unset(self, number: int) -> None:
        """Wakes nobody. Of a number that has rung: nothing."""
        self._waiting.pop(number, None)
        if len(self._heap) > 64 + 2 * len(self._waiting):
            self._heap = [entry for entry in self._heap if entry[1] in self._waiting]
            heapify(self._heap)

    def _arm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, rung, self._rings_at = None, max(loop.time(), self._rings_at), inf
        heap, waiting = self._heap, self._waiting
        while heap and (heap[0][0] <= rung or heap[0][1] not in waiting):
            waiter = waiting.pop(heappop(heap)[1], None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if heap:
            self._arm(loop, heap[0][0])
