"""The events in memory, by customer: who has something to send, and whether it fills a request.

Theory. A customer's events form a lane. A lane is *ready* when it has waiting events and none in flight, so at most one
request per customer is under way and order within a customer holds; customers go in parallel. Ready lanes stand in a
heap by their oldest event; a place in it that has become wrong is put right when it is met.

Invariants: a lane is known while it has events, and has them in order of acceptance. `ready`, `ready_actions` and
`ready_bytes` count the ready lanes and what waits in them; `in_memory` and `pending_bytes` count waiting and in flight.
A waiting event that is withdrawn hands its user attributes to its customer's next one, if there is one.

Events leave and land by whole lanes: for a single one nothing is done but to pass it on. Every call is O(1) amortized,
O(log lanes) where a lane becomes ready, and per event of a lane where only some of its events are given.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from operator import attrgetter

import attrs

from .._config import BatchPolicy
from .batch import Record
from .codec import encode
from .shedding import Impressions
from .wire import REQUEST_SIZE, Attributes, attributes_size, element_size

_SEQ: Callable[[Record], int] = attrgetter("seq")
_SIZE: Callable[[Record], int] = attrgetter("size")
_MARGIN = 80  # bytes; more than a request with one element adds to its customer and its action
_SWEEP = 256  # runs of impressions; some 40 µs in a turn of the loop


@attrs.define(eq=False, repr=False)
class Lane:
    """One customer's events.

    Attributes:
        customer_id: Whose.
        customer: The same, encoded.
        room: Bytes that an event may have beside it, in a request of its own; a few less than would fit.
        waiting: Oldest first.
        waiting_bytes: Sum of their sizes.
        plain: None of them has user attributes or a timezone offset, so that they pack without a look at each.
        flying: Those of the one request that is on its way which are not settled.
        flying_bytes: Sum of their sizes.
        forgotten: Those accepted up to this place in the order are not to be sent again.
    """

    customer_id: str
    customer: bytes
    room: int
    waiting: deque[Record] = attrs.field(factory=deque)
    waiting_bytes: int = 0
    plain: bool = True
    flying: tuple[Record, ...] = ()
    flying_bytes: int = 0
    forgotten: int = 0

    @property
    def in_flight(self) -> int:
        return len(self.flying)


class Lanes:
    """See the module's docstring."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._max_bytes, self._max_actions, self._max_elements = (
            policy.max_bytes, policy.max_actions, policy.max_elements
        )  # fmt: skip
        self.by_customer: dict[str, Lane] = {}
        self._heap: list[tuple[int, Lane]] = []  # an entry is stale unless its lane is ready with that head
        self._impressions = Impressions()
        self.ready = 0
        self.in_memory = self.pending_bytes = self.in_flight = 0
        self._busy_actions = self._busy_bytes = 0  # of lanes with a request under way, what waits behind it included
        self._full_at_actions: float = self._max_actions  # `in_memory`, at which a request is full; `inf`: it is
        self._full_at_bytes: float = self._max_bytes

    @property
    def ready_actions(self) -> int:
        return self.in_memory - self._busy_actions

    @property
    def ready_bytes(self) -> int:
        return self.pending_bytes - self._busy_bytes

    @property
    def waiting(self) -> int:
        return self.in_memory - self.in_flight

    @property
    def is_full(self) -> bool:
        """Whether what is ready fills a request."""
        return (
            self.ready_bytes >= self._max_bytes
            or self.ready >= self._max_elements
            or self.ready_actions >= self._max_actions
        )

    def of(self, customer_id: str) -> Lane:
        """Returns a customer's lane, or a new one, which is known when an event is admitted to it."""
        lane = self.by_customer.get(customer_id)
        if lane is None:
            customer = encode(customer_id, "customer_id")
            lane = Lane(customer_id, customer, self._max_bytes - _MARGIN - len(customer))
        return lane

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, record: Record) -> bool:
        """Has an event wait, behind all others of its lane; returns whether that made something due."""
        lane, size = record.lane, record.size
        waiting = lane.waiting
        if record.impression and lane is not self._impressions.last:
            self._impressions.begin(record.seq, lane)
        first = not waiting
        waiting.append(record)
        lane.waiting_bytes += size
        self.in_memory = actions = self.in_memory + 1
        self.pending_bytes = total = self.pending_bytes + size
        if lane.flying:
            self._busy_actions += 1
            self._busy_bytes += size
            self._full_at_actions += 1
            self._full_at_bytes += size
            return False
        if first:
            self.by_customer[lane.customer_id] = lane
            return self._enter(lane)
        if actions < self._full_at_actions and total < self._full_at_bytes:
            return False
        return self._fills()

    def readmit(self, record: Record) -> bool:
        """`admit`, for an event that comes back: in its place, which may be before others of its lane."""
        waiting = record.lane.waiting
        self._impressions.returned = True
        due = self.admit(record)
        if len(waiting) > 1 and record.seq < waiting[-2].seq:
            waiting.pop()
            insort(waiting, record, key=_SEQ)
            if waiting[0] is record and not record.lane.flying:
                heapq.heappush(self._heap, (record.seq, record.lane))
        return due

    def _enter(self, lane: Lane) -> bool:
        """A lane is ready; its events are counted already, and its bytes."""
        heapq.heappush(self._heap, (lane.waiting[0].seq, lane))
        self.ready = ready = self.ready + 1
        if len(self._heap) > 2 * ready + 64:
            self._heap = [
                (each.waiting[0].seq, each) for each in self.by_customer.values() if each.waiting and not each.flying
            ]
            heapq.heapify(self._heap)
        return self._fills() or ready == 1

    def _fills(self) -> bool:
        """Takes note of whether what is ready fills a request; returns whether that is news."""
        was_full = self._full_at_bytes == inf
        if full := self.is_full:
            self._full_at_actions = self._full_at_bytes = inf
        else:
            self._full_at_actions = self._busy_actions + self._max_actions
            self._full_at_bytes = self._busy_bytes + self._max_bytes
        return full and not was_full

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def oldest(self) -> Lane | None:
        """Returns the ready lane whose first event is the oldest."""
        heap = self._heap
        while heap:
            seq, lane = heap[0]
            if not lane.waiting or lane.flying:
                heapq.heappop(heap)
            elif lane.waiting[0].seq != seq:  # its head was shed
                heapq.heapreplace(heap, (lane.waiting[0].seq, lane))
            else:
                return lane
        return None

    def oldest_impression(self) -> Record | None:
        """Returns the waiting impression that was accepted first."""
        return self._impressions.oldest()

    def depart(self, lane: Lane, taken: tuple[Record, ...]) -> None:
        """The `oldest` lane's first events, taken off its waiting ones just now, are in flight."""
        heapq.heappop(self._heap)
        waiting, left = lane.waiting_bytes, lane.waiting
        self.ready -= 1
        self._busy_actions += len(taken) + len(left)
        self._busy_bytes += waiting
        self.in_flight += len(taken)
        lane.flying = taken
        if left:
            lane.flying_bytes = gone = sum(map(_SIZE, taken))
            lane.waiting_bytes = waiting - gone
        else:
            lane.flying_bytes, lane.waiting_bytes, lane.plain = waiting, 0, True

    def land(self, records: tuple[Record, ...]) -> bool:
        """Lets go of events that were in flight; returns whether that made something due."""
        due, place = False, 0
        while place < len(records):
            lane = records[place].lane
            flying = lane.flying
            beyond = place + len(flying)
            if flying and records[place:beyond] == flying:
                size, lane.flying = lane.flying_bytes, ()
            else:
                beyond = place + 1
                while beyond < len(records) and records[beyond].lane is lane:
                    beyond += 1
                gone = set(records[place:beyond])
                size, lane.flying = sum(map(_SIZE, gone)), tuple(each for each in flying if each not in gone)
            self._let_go(lane, beyond - place, size)
            place = beyond
            if not lane.flying:
                due |= self._free(lane)
        self._fills()
        return due

    def _let_go(self, lane: Lane, count: int, size: int) -> None:
        self.in_memory -= count
        self.in_flight -= count
        self._busy_actions -= count
        self.pending_bytes -= size
        self._busy_bytes -= size
        lane.flying_bytes -= size

    def _free(self, lane: Lane) -> bool:
        """Nothing of this lane is in flight any more; returns whether that made something due."""
        if not lane.waiting:
            del self.by_customer[lane.customer_id]
            return False
        self._busy_actions -= len(lane.waiting)
        self._busy_bytes -= lane.waiting_bytes
        return self._enter(lane)

    def withdraw(self, record: Record) -> None:
        """Takes a waiting event out of its lane, as if it had never come."""
        lane, waiting = record.lane, record.lane.waiting
        if waiting[0] is record:
            waiting.popleft()
            successor = waiting[0] if waiting else None
        else:
            place = waiting.index(record)
            del waiting[place]
            successor = waiting[place] if place < len(waiting) else None
        self.in_memory -= 1
        self._resize(lane, -record.size)
        if lane.flying:
            self._busy_actions -= 1
        else:
            self.ready -= not waiting
        if record.attributes and successor is not None:
            self.inherit(successor, record.attributes)
        if not waiting and not lane.flying:
            del self.by_customer[lane.customer_id]
        self._fills()

    def inherit(self, heir: Record, attributes: Attributes) -> None:
        """Gives a waiting event another's user attributes, where its own do not win, if a request can still hold it."""
        merged = attributes | (heir.attributes or {})
        growth = attributes_size(merged) - attributes_size(heir.attributes)
        size = REQUEST_SIZE + element_size(heir.lane.customer, heir.offset) + heir.size + growth
        if size <= self._max_bytes:
            heir.attributes = merged
            heir.lane.plain = False
            heir.size += growth
            self._resize(heir.lane, growth)

    def _resize(self, lane: Lane, growth: int) -> None:
        lane.waiting_bytes += growth
        self.pending_bytes += growth
        if lane.flying:
            self._busy_bytes += growth

    def sweep(self, gone: int) -> None:
        """After events have departed: passes over runs of impressions that are over, more the more are `gone`."""
        self._fills()
        self._impressions.sweep(self.waiting, at_most=_SWEEP + 2 * gone)

    # ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def flying(self) -> list[Record]:
        """What is in flight, in order of acceptance; a scan."""
        return sorted(chain.from_iterable(lane.flying for lane in self.by_customer.values()), key=_SEQ)

    def exposed(self) -> Iterator[Record]:
        """What is in memory only; a scan."""
        waiting = chain.from_iterable(lane.waiting for lane in self.by_customer.values())
        return (record for record in chain(self.flying, waiting) if record.ticket is None)

    def oldest_age(self, now: float) -> float:
        """Seconds that the oldest waiting event has waited; a scan."""
        heads = (lane.waiting[0] for lane in self.by_customer.values() if lane.waiting)
        return max((now - head.accepted_at for head in heads), default=0.0)
