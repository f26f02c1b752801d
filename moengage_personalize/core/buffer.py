"""Where accepted events wait, one lane per customer.

Theory. An accepted event is in exactly one of three states, and only moves forward::

    offer ──▶ WAITING ──take──▶ IN FLIGHT ──settle──▶ SETTLED (delivered, rejected, dropped, forgotten)
                 └────────────── shed, expired, forgotten ──────▲

What is in memory stands in its customers' lanes (`core.lanes`), at most one request per customer under way. A batch is
due when the ready lanes fill a request, or when the oldest ready event has lingered, or when a flush is waiting for it.

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
from .batch import Batch, Packing, Record
from .lanes import Lane, Lanes
from .wire import REQUEST_SIZE, Attributes, attributes_size, element_size, pack_attributes

_ACCEPTED, _DUPLICATE, _DROPPED, _REFUSED = (
    Admission.ACCEPTED, Admission.DUPLICATE, Admission.DROPPED, Admission.REFUSED
)  # fmt: skip
_SEQ = attrgetter("seq")


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
        self._lifetime, self._spooled_lifetime = policy.lifetime(spooled=False), policy.lifetime(spooled=True)
        self.journal: Journal | None = None
        self.released: list[int] = []  # tickets of settled events; whoever owns the journal takes them away
        self.losses: dict[str, list[str]] | None = None  # reason → UUIDs, if somebody listens, who takes them away
        self._spilled: deque[tuple[int, int]] = deque()  # (seq, ticket), oldest first
        self._journaled = 0  # events in memory with a ticket
        self._seq = 0
        self._known: dict[str, Record | None] = {}  # of named events; None: settled or spilled, and in the dedup window
        self._settled: deque[str] = deque()
        self._lanes = Lanes(policy)
        self._barriers: list[Barrier] = []
        self._draining = False
        self.stirred = False  # something became due earlier than whoever sleeps on `due` can know; the reader clears it
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
        lanes = self._lanes
        lane = lanes.by_customer.get(customer_id) or lanes.of(customer_id)
        if size > lane.room and self._is_too_large(lane, offset, size):
            self.refused += 1
            return _REFUSED
        self._seq = seq = self._seq + 1
        ticket = None
        if self.journal is not None:
            packed = pack_attributes(attributes) if attributes else b""
            ticket = self.journal(lane.customer, event_uuid, impression, action, packed, offset, wall)
            if ticket is not None and self._spills(seq, ticket, size, (event_uuid,) if named else ()):
                return _ACCEPTED
        record = Record(seq, lane, action, impression, attributes, offset, now, wall, size, named, ticket)
        if named:
            self._known[event_uuid] = record
        if attributes or offset is not None:
            lane.plain = False
        if lanes.admit(record):
            self.stirred = True
        if ticket is None and (lanes.in_memory > self._max_pending or lanes.pending_bytes > self._max_pending_bytes):
            return self._make_room(record)
        return _ACCEPTED

    def report(self, customer_id: str, event_uuid: str, action: bytes, now: float, wall: float) -> Admission:
        """`offer`, for what most events are: an impression under a fresh UUID, and nothing beside it."""
        lanes = self._lanes
        lane = lanes.by_customer.get(customer_id) or lanes.of(customer_id)
        size = len(action)
        if size > lane.room:
            return self.offer(customer_id, event_uuid, action, True, None, None, now, wall, False)
        self._seq = seq = self._seq + 1
        ticket = None
        if self.journal is not None:
            ticket = self.journal(lane.customer, event_uuid, True, action, b"", None, wall)
            if ticket is not None and self._spills(seq, ticket, size):
                return _ACCEPTED
        record = Record(seq, lane, action, True, None, None, now, wall, size, False, ticket)
        if lanes.admit(record):
            self.stirred = True
        if ticket is None and (lanes.in_memory > self._max_pending or lanes.pending_bytes > self._max_pending_bytes):
            return self._make_room(record)
        return _ACCEPTED

    def _is_too_large(self, lane: Lane, offset: int | None, size: int) -> bool:
        return REQUEST_SIZE + element_size(lane.customer, offset) + size > self._max_bytes

    def _admit(self, record: Record) -> None:
        if record.named:
            self._known[record.event_uuid] = record
        if record.attributes or record.offset is not None:
            record.lane.plain = False
        if self._lanes.readmit(record):
            self.stirred = True

    def _make_room(self, newcomer: Record) -> Admission:
        lanes = self._lanes
        while lanes.in_memory > self._max_pending or lanes.pending_bytes > self._max_pending_bytes:
            victim = lanes.oldest_impression()
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
        lane = self._lanes.oldest()
        if lane is None:
            return inf
        oldest = lane.waiting[0]
        if self._draining or self._lanes.is_full or any(oldest.seq <= barrier.mark for barrier in self._barriers):
            return -inf
        return oldest.accepted_at + self._policy.linger

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
        lanes = self._lanes
        before = lanes.in_flight
        while (lane := lanes.oldest()) is not None:
            if self._expire(lane.waiting[0], wall):
                continue
            taken = packing.add(lane)
            if not taken:
                break
            lanes.depart(lane, taken)
        lanes.sweep(lanes.in_flight - before)
        return packing.finish()

    def _expire(self, oldest: Record, wall: float) -> bool:
        if wall - oldest.accepted_wall <= (self._lifetime if oldest.ticket is None else self._spooled_lifetime):
            return False
        self._withdraw(oldest)
        self._drop(oldest, DropReason.EXPIRED)
        return True

    def settle(self, records: Iterable[Record], fate: Fate, reason: DropReason | None = None) -> None:
        """Ends events that are in flight. The tickets of rejected ones are the caller's to bury."""
        if not isinstance(records, tuple):
            records = tuple(records)
        self._count_settled(records, released=fate is not Fate.REJECTED)
        if self._lanes.land(records):
            self.stirred = True
        if reason is DropReason.EXPIRED and fate is Fate.DROPPED:
            for record in reversed(records):  # what an heir has wins, so the newest comes first
                self._bequeath(record)
        named = [record for record in records if record.named] if self._known else []
        for record in named:
            self._unname(record)
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
        for lane in [lane for lane in self.lanes() if lane.flying]:
            self.settle([record for record in lane.flying if record.ticket is None], Fate.DROPPED, reason)
        for record in [record for lane in self.lanes() for record in lane.waiting if record.ticket is None]:
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
        lane = self._lanes.by_customer.get(customer_id)
        if lane is None:
            return 0, 0
        lane.forgotten = self._seq
        waiting, in_flight = len(lane.waiting), lane.in_flight
        for record in list(lane.waiting):
            record.attributes = None
            self._withdraw(record)
        self.forgotten += waiting
        self._lanes.sweep(waiting)
        return waiting, in_flight

    # ── with a journal ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> int:
        return self.in_memory + len(self._spilled)

    @property
    def accepted(self) -> int:
        """Derived, since the sequence counts whatever was ever taken on, or turned away at the last moment."""
        return self._seq - self._turned_away - self.recovered - self.replayed

    @property
    def exposed(self) -> bool:
        """Whether there is a journal, and events that are in memory only."""
        return self.journal is not None and self._lanes.in_memory > self._journaled

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

    def _spills(self, seq: int, ticket: int, size: int, names: Sequence[str] = ()) -> bool:
        """Whether a journaled event finds no room in memory, and is kept by its ticket alone."""
        lanes = self._lanes
        if (
            self._spilled
            or lanes.in_memory >= self._max_pending
            or lanes.pending_bytes + size > self._max_pending_bytes
        ):
            self._spilled.append((seq, ticket))
            self._remember(names)
            return True
        self._journaled += 1
        return False

    def shelter(self, at_most: int) -> bool:
        """Offers the journal what it could not take before; returns whether it took so many, and there is more."""
        if self.journal is None or not self.exposed:
            return False
        for record in list(islice(self._lanes.exposed(), at_most)):
            packed = pack_attributes(record.attributes) if record.attributes else b""
            record.ticket = self.journal(
                record.lane.customer,
                record.event_uuid,
                record.impression,
                record.action,
                packed,
                record.offset,
                record.accepted_wall,
            )
            if record.ticket is None:
                return False
            self._journaled += 1
        return self.exposed

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
                self._journaled += 1
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
        if not self._spills(self._seq, event.ticket, _size_of(event), (event.event_uuid,)):
            self._admit(self._record(self._seq, event))
        return True

    def _record(self, seq: int, event: Journaled) -> Record:
        return Record(
            seq,
            self._lanes.of(event.customer_id),
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

    @property
    def in_memory(self) -> int:
        return self._lanes.in_memory

    @property
    def pending_bytes(self) -> int:
        return self._lanes.pending_bytes

    @property
    def in_flight(self) -> int:
        return self._lanes.in_flight

    @property
    def waiting(self) -> int:
        return self._lanes.waiting

    def oldest_age(self, now: float) -> float:
        """Seconds that the oldest waiting event has waited; a scan, for people and dashboards."""
        return self._lanes.oldest_age(now)

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
        return iter(self._lanes.by_customer.values())

    def __repr__(self) -> str:
        return (
            f"<Buffer {self.waiting} waiting, {self.in_flight} in flight, {self.pending_bytes} bytes,"
            f"{f' {len(self._spilled)} spilled,' if self._spilled else ''}"
            f" {len(self._lanes.by_customer)} customers, {self._lanes.ready} ready>"
        )

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _withdraw(self, record: Record) -> None:
        """Takes a waiting record out, as if it had never come; its attributes go to its successor."""
        self._lanes.withdraw(record)
        self._count_settled((record,))
        if record.named:
            self._unname(record)

    def _unname(self, record: Record) -> None:
        if self._known.get(record.event_uuid) is record:  # a twin may have been there before: see `unspill`
            del self._known[record.event_uuid]

    def _bequeath(self, record: Record) -> None:
        """Hands the attributes of an event that expired on its way to its customer's next waiting event."""
        if record.attributes and record.lane.waiting and self._has_room(attributes_size(record.attributes)):
            self._lanes.inherit(record.lane.waiting[0], record.attributes)

    def _count_settled(self, records: Collection[Record], *, released: bool = True) -> None:
        if self._journaled:
            tickets = [record.ticket for record in records if record.ticket is not None]
            self._journaled -= len(tickets)
            if released:
                self.released += tickets
        if self._barriers:
            self._pass_barriers(tuple(map(_SEQ, records)))

    def _pass_barriers(self, seqs: tuple[int, ...]) -> None:
        for barrier in self._barriers:
            if self._seq <= barrier.mark:  # nothing came since
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
