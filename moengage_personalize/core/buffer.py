"""Where accepted events wait, one lane per customer.

Theory. An accepted event is in exactly one of three states, and only moves forward::

    offer ──▶ WAITING ──take──▶ IN FLIGHT ──settle──▶ SETTLED (delivered, rejected, dropped, forgotten)
                 └────────────── shed, expired, forgotten ──────▲

A customer's events form a lane. A lane is *ready* when it has waiting events and none in flight, so at most one
request per customer is under way and order within a customer holds; customers go in parallel. Ready lanes stand in a
heap by their oldest event. A batch is due when the ready lanes fill a request, or when the oldest ready event has
lingered, or when a flush is waiting for it.

Invariants:

* A UUID that a caller named is known while it is in memory, or among the last `dedup_window` that were delivered or
  spilled, and any rejected one likewise. A dropped one may come again. (One that was made here nobody can offer again:
  it need not be looked up, nor remembered.)
* `in_memory` and `pending_bytes` count waiting and in flight, and keep within their bounds after every call.
* Under pressure the oldest waiting impression goes first. A click is never shed; if there is nothing to shed, the
  newcomer is turned away at the door.
* An event that is shed, or expires, hands its user attributes to its customer's next waiting event, if there is one.
* With a journal (a spool), an accepted event has a ticket. Then nothing is shed: what finds no room in memory is
  *spilled*, kept by its ticket alone, and comes back in order; and what is left at the end stays pending, for the next
  process. Every ticket of a settled event is released, once.
* The balance of `_report` holds after every call.

`pending` includes what is spilled, the bounds do not. Every call is synchronous, O(1) amortized (take and settle: per
event; a new lane: O(log lanes)).
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Any, assert_never

import attrs

from .._config import BatchPolicy
from .._events import Admission
from .._report import DropReason
from .batch import IN_FLIGHT, SETTLED, WAITING, Batch, Packing, Record
from .codec import encode
from .shedding import Impressions
from .wire import REQUEST_SIZE, Attributes, attributes_size, element_size, pack_attributes

_ACCEPTED, _DUPLICATE, _DROPPED, _REFUSED = (
    Admission.ACCEPTED, Admission.DUPLICATE, Admission.DROPPED, Admission.REFUSED
)  # fmt: skip
_SEQ, _SIZE = attrgetter("seq"), attrgetter("size")
_SWEEP = 256  # records; some 20 µs in a turn of the loop
_MARGIN = 80  # bytes; more than a request with one element adds to its customer and its action


@attrs.define(eq=False, repr=False)
class Lane:
    """One customer's events.

    Attributes:
        customer_id: Whose.
        customer: The same, encoded.
        waiting: Oldest first.
        waiting_bytes: Sum of their sizes.
        plain: None of them has user attributes or a timezone offset, so that they pack without a look at each.
        flying: Those of the one request that is on its way, settled ones included.
        in_flight: How many of them are not settled.
    """

    customer_id: str
    customer: bytes
    waiting: deque[Record] = attrs.field(factory=deque)
    waiting_bytes: int = 0
    plain: bool = True
    flying: tuple[Record, ...] = ()
    in_flight: int = 0


class Fate(Enum):
    """How an accepted event ended."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    DROPPED = "dropped"
    FORGOTTEN = "forgotten"


Journal = Callable[[bytes, str, bool, bytes, bytes, int | None, float], int | None]
"""Makes an event outlive the process: customer, UUID, impression, action, packed attributes, offset, epoch seconds of
its acceptance; returns a ticket, or None if that is not possible now."""


@attrs.frozen(kw_only=True, repr=False)
class Journaled:
    """An accepted event, as a journal gives it back."""

    ticket: int
    customer_id: str
    event_uuid: str
    action: bytes
    impression: bool
    attributes: Attributes | None
    offset: int | None
    accepted_wall: float


@attrs.define(eq=False)
class Barrier:
    """What a flush waits for: every event accepted up to `mark`.

    Attributes:
        mark: The last event's place in the order of acceptance.
        remaining: How many of them are not settled.
    """

    mark: int
    remaining: int


class Buffer:
    """The buffer. See the module's docstring."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._max_pending, self._max_pending_bytes = policy.max_pending, policy.max_pending_bytes
        self._max_bytes, self._max_actions = policy.max_bytes, policy.max_actions
        self._surely_fits = policy.max_bytes - _MARGIN  # beyond it the exact size is worth its price
        self.journal: Journal | None = None
        self.released: list[int] = []  # tickets of settled events; whoever owns the journal takes them away
        self.losses: dict[str, list[str]] | None = None  # reason → UUIDs, if somebody listens, who takes them away
        self._spilled: deque[tuple[int, int]] = deque()  # (seq, ticket), oldest first
        self._journaled = 0  # events in memory with a ticket
        self._seq = 0
        self._known: dict[str, Record | None] = {}  # of named events; None: settled or spilled, and in the dedup window
        self._settled: deque[str] = deque()
        self._lanes: dict[str, Lane] = {}
        self._ready: list[tuple[int, Lane]] = []  # a heap; an entry is stale unless its lane is ready with that head
        self._ready_lanes = 0
        self._ready_actions = 0
        self._ready_bytes = 0
        self._impressions = Impressions()
        self._barriers: list[Barrier] = []
        self._draining = False
        self.stirred = False  # something became due earlier than whoever sleeps on `due` can know; the reader clears it
        self.in_memory = 0
        self.pending_bytes = 0
        self.in_flight = 0
        self._turned_away = 0
        self.duplicate = self.unmatched = self.refused = self.dropped_at_the_door = 0
        self.recovered = self.replayed = 0
        self.delivered = self.rejected = self.forgotten = 0
        self.dropped: Counter[DropReason] = Counter()

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def offer(
        self,
        customer_id: str,
        event_uuid: str,
        action: bytes,
        impression: bool,  # noqa: FBT001 - the hot path passes by position
        attributes: Attributes | None,
        offset: int | None,
        now: float,
        wall: float,
        named: bool = True,  # noqa: FBT001, FBT002
    ) -> Admission:
        """Takes an event on, unless it is known, too large, or finds no room.

        Args:
            customer_id: Whose it is.
            event_uuid: Its identity.
            action: The encoded action.
            impression: Or a click.
            attributes: User attributes, encoded.
            offset: The user's timezone offset in seconds.
            now: Monotonic seconds.
            wall: Epoch seconds.
            named: Whether the caller chose the UUID, and may thus offer it again.
        """
        if named and event_uuid in self._known:
            self.duplicate += 1
            return _DUPLICATE
        size = len(action)
        if attributes:
            size += attributes_size(attributes)
        lane = self._lanes.get(customer_id)
        if lane is None:
            lane = Lane(customer_id, encode(customer_id, "customer_id"))
        if size + len(lane.customer) > self._surely_fits and self._is_too_large(lane, offset, size):
            self.refused += 1
            return _REFUSED
        self._seq = seq = self._seq + 1
        ticket = None
        if self.journal is not None:
            packed = pack_attributes(attributes) if attributes else b""
            ticket = self.journal(lane.customer, event_uuid, impression, action, packed, offset, wall)
            if ticket is not None:
                if (
                    self._spilled
                    or self.in_memory >= self._max_pending
                    or self.pending_bytes + size > self._max_pending_bytes
                ):
                    self._spill(seq, ticket, (event_uuid,) if named else ())
                    return _ACCEPTED
                self._journaled += 1
        record = Record(
            seq, event_uuid, lane, action, impression, attributes, offset, now, wall, size, named, WAITING, ticket
        )  # fmt: skip
        self._admit(record)
        if ticket is None and (self.in_memory > self._max_pending or self.pending_bytes > self._max_pending_bytes):
            return self._make_room(record)
        return _ACCEPTED

    def _is_too_large(self, lane: Lane, offset: int | None, size: int) -> bool:
        return REQUEST_SIZE + element_size(lane.customer, offset) + size > self._max_bytes

    def _admit(self, record: Record) -> None:
        lane, size = record.lane, record.size
        if record.named:
            self._known[record.event_uuid] = record
        if record.impression:
            self._impressions.append(record)
        lane.waiting.append(record)
        lane.waiting_bytes += size
        if record.attributes or record.offset is not None:
            lane.plain = False
        self.in_memory += 1
        self.pending_bytes += size
        if lane.in_flight:
            return
        if len(lane.waiting) == 1:
            self._lanes[lane.customer_id] = lane
            self._enter_ready(lane)
            return
        self._ready_actions += 1
        self._ready_bytes = ready_bytes = self._ready_bytes + size
        if ready_bytes >= self._max_bytes > ready_bytes - size or self._ready_actions == self._max_actions:
            self.stirred = True

    def _make_room(self, newcomer: Record) -> Admission:
        while self.in_memory > self._max_pending or self.pending_bytes > self._max_pending_bytes:
            victim = self._impressions.oldest()
            if victim is None or victim is newcomer:
                self._withdraw(newcomer)
                self._turned_away += 1
                self.dropped_at_the_door += 1
                self._tell("no room", newcomer)
                return _DROPPED
            self._withdraw(victim)
            self._drop(victim, DropReason.OVERFLOW)
        return _ACCEPTED

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def due(self) -> float:
        """Returns when the next batch should leave, in monotonic seconds; `-inf`: at once; `inf`: there is none."""
        lane = self._oldest_ready()
        if lane is None:
            return inf
        policy = self._policy
        full = (
            self._ready_bytes >= policy.max_bytes
            or self._ready_lanes >= policy.max_elements
            or self._ready_actions >= policy.max_actions
        )
        oldest = lane.waiting[0]
        if full or self._draining or any(oldest.seq <= barrier.mark for barrier in self._barriers):
            return -inf
        return oldest.accepted_at + policy.linger

    def take(self, wall: float, *, max_bytes: int | None = None) -> Batch | None:
        """Packs the oldest ready events into one request and puts them in flight.

        Args:
            wall: Epoch seconds; what has outlived its time to live is dropped instead.
            max_bytes: A lower bound than the policy's, if the server has asked for smaller requests.
        """
        policy = self._policy
        packing = Packing(
            max_bytes=min(max_bytes or policy.max_bytes, policy.max_bytes),
            max_elements=policy.max_elements,
            max_actions=policy.max_actions,
        )
        before = self.in_flight
        while (lane := self._oldest_ready()) is not None:
            if self._expire(lane, wall):
                continue
            taken = packing.add(lane)
            if not taken:
                break
            heapq.heappop(self._ready)
            for record in taken:
                record.state = IN_FLIGHT
            self._leave_ready(lane, taken)
        self._impressions.sweep(self.waiting, at_most=_SWEEP + 2 * (self.in_flight - before))
        return packing.finish()

    def _expire(self, lane: Lane, wall: float) -> bool:
        oldest = lane.waiting[0]
        if wall - oldest.accepted_wall <= self._policy.lifetime(spooled=oldest.ticket is not None):
            return False
        self._withdraw(oldest)
        self._drop(oldest, DropReason.EXPIRED)
        return True

    def settle(self, records: Iterable[Record], fate: Fate, reason: DropReason | None = None) -> None:
        """Ends events that are in flight. The tickets of rejected ones are the caller's to bury."""
        records = tuple(records)
        self._count_settled(records, released=fate is not Fate.REJECTED)
        self.in_flight -= len(records)
        if reason is DropReason.EXPIRED and fate is Fate.DROPPED:
            for record in reversed(records):  # what an heir has wins, so the newest comes first
                self._bequeath(record)
        named = [record for record in records if record.named] if self._known else []
        for record in named:
            self._unname(record)
        for record in records:
            record.state = SETTLED
            lane = record.lane
            lane.in_flight = left = lane.in_flight - 1
            if not left:
                lane.flying = ()
                if lane.waiting:
                    self._enter_ready(lane)
                else:
                    del self._lanes[lane.customer_id]
        match fate:
            case Fate.DELIVERED:
                self.delivered += len(records)
                self._remember([record.event_uuid for record in named])
            case Fate.REJECTED:
                self.rejected += len(records)
                self._remember([record.event_uuid for record in records])
                for record in records:
                    self._tell("rejected", record)
            case Fate.FORGOTTEN:
                self.forgotten += len(records)
            case Fate.DROPPED:
                for record in records:
                    self._drop(record, reason or DropReason.CLOSED)
            case _:
                assert_never(fate)

    def abandon(self, reason: DropReason) -> None:
        """Drops everything that would end with the process; what has a ticket stays pending for the next one."""
        flying = [record for lane in self._lanes.values() for record in lane.flying if record.state is IN_FLIGHT]
        flying.sort(key=_SEQ)
        self.settle([record for record in flying if record.ticket is None], Fate.DROPPED, reason)
        for record in [record for lane in self._lanes.values() for record in lane.waiting if record.ticket is None]:
            self._withdraw(record)
            self._drop(record, reason)

    def _drop(self, record: Record, reason: DropReason) -> None:
        self.dropped[reason] += 1
        self._tell(reason.value, record)

    def _tell(self, reason: str, record: Record) -> None:
        if self.losses is not None:
            self.losses.setdefault(reason, []).append(record.event_uuid)

    def forget(self, customer_id: str) -> tuple[int, int]:
        """Drops a customer's waiting events; returns how many, and how many are in flight and cannot be called back."""
        lane = self._lanes.get(customer_id)
        if lane is None:
            return 0, 0
        waiting, in_flight = len(lane.waiting), lane.in_flight
        for record in list(lane.waiting):
            record.attributes = None
            self._withdraw(record)
        self.forgotten += waiting
        self._impressions.sweep(self.waiting, at_most=_SWEEP + 2 * waiting)
        return waiting, in_flight

    # ── with a journal ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> int:
        return self.in_memory + len(self._spilled)

    @property
    def waiting(self) -> int:
        return self.in_memory - self.in_flight

    @property
    def accepted(self) -> int:
        """Derived, since the sequence counts whatever was ever taken on, or turned away at the last moment."""
        return self._seq - self._turned_away - self.recovered - self.replayed

    @property
    def spooled(self) -> int:
        return self._journaled + len(self._spilled)

    @property
    def wants(self) -> int:
        """How many events there is room for: none until half of the bound is free, then that half."""
        policy = self._policy
        room = policy.max_pending - self.in_memory
        return room if 2 * room >= policy.max_pending and 2 * self.pending_bytes <= policy.max_pending_bytes else 0

    def _has_room(self, size: int) -> bool:
        return self.in_memory < self._max_pending and self.pending_bytes + size <= self._max_pending_bytes

    def _spill(self, seq: int, ticket: int, names: Sequence[str]) -> None:
        self._spilled.append((seq, ticket))
        self._remember(names)

    def spilled(self, count: int) -> list[int]:
        """Returns the oldest tickets that are kept without their events, to be read and given to `unspill`."""
        return [ticket for _, ticket in islice(self._spilled, count)]

    def unspill(self, tickets: Sequence[int], events: Sequence[Journaled | None]) -> None:
        """Takes events back into memory, as many as fit; a None is one that the journal has lost or forgotten.

        Args:
            tickets: What `spilled` returned.
            events: What the journal said of each.
        """
        for ticket, event in zip(tickets, events, strict=True):
            seq, expected = self._spilled[0]
            assert ticket == expected, "spilled tickets come back in order"  # noqa: S101
            if event is not None and self.in_memory and not self._has_room(_size_of(event)):
                return
            self._spilled.popleft()
            if event is None:
                self._pass_barriers((seq,))
                self.forgotten += 1
                self.released.append(ticket)
            else:
                twin = self._known.get(event.event_uuid)
                self._admit(self._record(seq, event))
                if twin is not None:  # it came again after it had left the window: MoEngage will see it twice
                    self._known[event.event_uuid] = twin

    def recover(self, event: Journaled, *, replayed: bool = False) -> bool:
        """Takes on an event of an earlier process, or a dead letter; False if it is known already."""
        known = self._known.get(event.event_uuid, self)
        if isinstance(known, Record) or (known is None and not replayed):  # a rejected one may be tried again
            self.released.append(event.ticket)
            return False
        self.recovered += not replayed
        self.replayed += replayed
        self._seq += 1
        if self._spilled or not self._has_room(_size_of(event)):
            self._spill(self._seq, event.ticket, (event.event_uuid,))
        else:
            self._admit(self._record(self._seq, event))
        return True

    def _record(self, seq: int, event: Journaled) -> Record:
        lane = self._lanes.get(event.customer_id)
        if lane is None:
            lane = Lane(event.customer_id, encode(event.customer_id, "customer_id"))
        self._journaled += 1
        return Record(
            seq,
            event.event_uuid,
            lane,
            event.action,
            event.impression,
            event.attributes,
            event.offset,
            -inf,  # it has lingered long enough
            event.accepted_wall,
            _size_of(event),
            ticket=event.ticket,
        )

    # ── flushing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def barrier(self) -> Barrier:
        """Makes everything accepted so far due at once, and counts it down."""
        barrier = Barrier(self._seq, self.pending)
        if barrier.remaining:
            self._barriers.append(barrier)
        return barrier

    def lift(self, barrier: Barrier) -> None:
        """Nobody waits for the barrier any more."""
        if barrier in self._barriers:
            self._barriers.remove(barrier)

    def drain(self) -> None:
        """Makes everything due at once, from now on."""
        self._draining = True

    # ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def offered(self) -> int:
        return self.accepted + self.duplicate + self.unmatched + self.refused + self.dropped_at_the_door

    def oldest_age(self, now: float) -> float:
        """Seconds that the oldest waiting event has waited; a scan, for people and dashboards."""
        return max((now - lane.waiting[0].accepted_at for lane in self._lanes.values() if lane.waiting), default=0.0)

    def counts(self) -> dict[str, Any]:
        """The counters, under the names of `DeliveryReport`."""
        return {
            "offered": self.offered,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "unmatched": self.unmatched,
            "refused": self.refused,
            "dropped_at_the_door": self.dropped_at_the_door,
            "recovered": self.recovered,
            "replayed": self.replayed,
            "delivered": self.delivered,
            "rejected": self.rejected,
            "dropped": self.dropped.total(),
            "forgotten": self.forgotten,
            "pending": self.pending,
            "spooled": self.spooled,
            "dropped_by_reason": {reason.value: count for reason, count in self.dropped.items()},
        }

    def lanes(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __repr__(self) -> str:
        return (
            f"<Buffer {self.waiting} waiting, {self.in_flight} in flight, {self.pending_bytes} bytes,"
            f"{f' {len(self._spilled)} spilled,' if self._spilled else ''}"
            f" {len(self._lanes)} customers, {self._ready_lanes} ready>"
        )

    # ── lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter_ready(self, lane: Lane) -> None:
        heapq.heappush(self._ready, (lane.waiting[0].seq, lane))
        before = self._ready_bytes
        self._ready_lanes = ready_lanes = self._ready_lanes + 1
        self._ready_actions += len(lane.waiting)
        self._ready_bytes += lane.waiting_bytes
        filled = before < self._max_bytes <= self._ready_bytes or self._ready_actions >= self._max_actions
        if filled or ready_lanes in (1, self._policy.max_elements):
            self.stirred = True
        if len(self._ready) > 2 * ready_lanes + 64:
            self._ready = [
                (each.waiting[0].seq, each) for each in self._lanes.values() if each.waiting and not each.in_flight
            ]
            heapq.heapify(self._ready)

    def _leave_ready(self, lane: Lane, taken: tuple[Record, ...]) -> None:
        self._ready_lanes -= 1
        self._ready_actions -= len(taken) + len(lane.waiting)
        self._ready_bytes -= lane.waiting_bytes
        if lane.waiting:
            lane.waiting_bytes -= sum(map(_SIZE, taken))
        else:
            lane.waiting_bytes, lane.plain = 0, True
        lane.flying = taken
        lane.in_flight = len(taken)
        self.in_flight += len(taken)

    def _oldest_ready(self) -> Lane | None:
        ready = self._ready
        while ready:
            seq, lane = ready[0]
            if not lane.waiting or lane.in_flight:
                heapq.heappop(ready)
            elif lane.waiting[0].seq != seq:  # its head was shed
                heapq.heapreplace(ready, (lane.waiting[0].seq, lane))
            else:
                return lane
        return None

    def _withdraw(self, record: Record) -> None:
        """Takes a waiting record out of its lane, as if it had never come; its attributes go to its successor."""
        lane, waiting = record.lane, record.lane.waiting
        ready = not lane.in_flight
        if waiting[0] is record:
            waiting.popleft()
            successor = waiting[0] if waiting else None
        else:
            place = waiting.index(record)
            del waiting[place]
            successor = waiting[place] if place < len(waiting) else None
        self._resize(lane, -record.size)
        if ready:
            self._ready_actions -= 1
            self._ready_lanes -= not waiting
        if record.attributes and successor is not None:
            self._inherit(successor, record.attributes)
        if not waiting and not lane.in_flight:
            del self._lanes[lane.customer_id]
        record.state = SETTLED
        self._count_settled((record,))
        if record.named:
            self._unname(record)

    def _unname(self, record: Record) -> None:
        if self._known.get(record.event_uuid) is record:  # a twin may have been there before: see `unspill`
            del self._known[record.event_uuid]

    def _bequeath(self, record: Record) -> None:
        """Hands the attributes of an event that expired on its way to its customer's next waiting event."""
        if record.attributes and record.lane.waiting and self._has_room(attributes_size(record.attributes)):
            self._inherit(record.lane.waiting[0], record.attributes)

    def _inherit(self, heir: Record, attributes: Attributes) -> None:
        merged = attributes | (heir.attributes or {})
        growth = attributes_size(merged) - attributes_size(heir.attributes)
        size = REQUEST_SIZE + element_size(heir.lane.customer, heir.offset) + heir.size + growth
        if size <= self._policy.max_bytes:
            heir.attributes = merged
            heir.lane.plain = False
            heir.size += growth
            self.pending_bytes += growth
            self._resize(heir.lane, growth)

    def _resize(self, lane: Lane, growth: int) -> None:
        lane.waiting_bytes += growth
        if not lane.in_flight:
            self._ready_bytes += growth

    def _count_settled(self, records: Collection[Record], *, released: bool = True) -> None:
        self.in_memory -= len(records)
        self.pending_bytes -= sum(map(_SIZE, records))
        if self._journaled:
            tickets = [record.ticket for record in records if record.ticket is not None]
            self._journaled -= len(tickets)
            if released:
                self.released += tickets
        if self._barriers:
            self._pass_barriers(list(map(_SEQ, records)))

    def _pass_barriers(self, seqs: Sequence[int]) -> None:
        newest = max(seqs, default=0)
        for barrier in self._barriers:
            if newest <= barrier.mark:
                barrier.remaining -= len(seqs)
            else:
                barrier.remaining -= sum(seq <= barrier.mark for seq in seqs)

    def _remember(self, names: Sequence[str]) -> None:
        window = self._policy.dedup_window
        if not names or not window:
            return
        settled, known = self._settled, self._known
        known.update(dict.fromkeys(names))
        settled.extend(names)
        for _ in range(len(settled) - window):
            oldest = settled.popleft()
            if known.get(oldest, self) is None:  # and not back in memory
                del known[oldest]


def _size_of(event: Journaled) -> int:
    return len(event.action) + attributes_size(event.attributes)
