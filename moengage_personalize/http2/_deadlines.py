"""When exchanges run out of time: one heap for all of them, so that a request costs no timer of its own.

An entry is a time and a key, and never an exchange: what ended long ago is not kept alive by a deadline
that is still ahead. Moving a deadline later is an assignment; the entry is corrected when it surfaces.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from ._stream import Exchange


class Deadlines:
    """Exchanges by when they expire, in seconds on the caller's clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._by_key: dict[int, Exchange] = {}
        self._last_key = 0

    def set(self, exchange: Exchange, at: float) -> None:
        """Expire `exchange` at `at`, and no longer at any other time."""
        earlier = at < exchange.expires
        exchange.expires = at
        if not exchange.timer:
            if at == inf:
                return
            self._last_key += 1
            exchange.timer = self._last_key
            self._by_key[exchange.timer] = exchange
        elif not earlier:
            return
        heappush(self._heap, (at, exchange.timer))

    def discard(self, exchange: Exchange) -> None:
        """Never expire it."""
        if exchange.timer:
            del self._by_key[exchange.timer]
            exchange.timer = 0
            if len(self._heap) > 64 + 2 * len(self._by_key):
                self._heap = [entry for entry in self._heap if entry[1] in self._by_key]
                heapify(self._heap)

    def due(self, now: float) -> list[Exchange]:
        """Those whose time has come, forgotten here and now."""
        result = []
        while self._heap and self._heap[0][0] <= now:
            exchange = self._by_key.get(heappop(self._heap)[1])
            if exchange is None:
                continue
            if exchange.expires > now:
                if exchange.expires != inf:
                    heappush(self._heap, (exchange.expires, exchange.timer))
                continue
            self.discard(exchange)
            result.append(exchange)
        return result

    @property
    def next_at(self) -> float:
        """When to look again, at the latest."""
        return self._heap[0][0] if self._heap else inf
