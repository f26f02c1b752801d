"""Accepted events, and the requests they travel in.

Theory: an event is a `Record`: its action is bytes from the moment it was accepted, and every request that it ever
travels in joins those same bytes. A `Batch` is one request: at most one element per customer, its records in order.
Splitting a batch regroups records, never bytes.

Invariant: `Batch.size` is `len(Batch.encode())`. A packed batch keeps within its bounds, save that an empty request
takes one record however large. Halves contain every record of the whole, once, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from .wire import REQUEST_SIZE, Attributes, attributes_size, element_size, encode_element, encode_events, uuid_in

if TYPE_CHECKING:
    from .lanes import Lane


_RECORDS: Callable[[Element], tuple[Record, ...]] = attrgetter("records")
_ACCEPTED_WALL: Callable[[Record], float] = attrgetter("accepted_wall")


class State(Enum):
    """Where an accepted event is. It only ever moves forward."""

    WAITING = "waiting"
    IN_FLIGHT = "in flight"
    SETTLED = "settled"


@attrs.define(eq=False, repr=False)
class Record:
    """One accepted event.

    Attributes:
        seq: Its place in the order of acceptance.
        lane: Its customer's.
        action: The encoded action.
        impression: Whether it may be shed before a click.
        attributes: The user attributes that belong to it, and those of shed predecessors.
        offset: The user's timezone offset in seconds.
        accepted_at: Monotonic seconds.
        accepted_wall: Epoch seconds, for the time to live.
        size: Bytes of action and attributes.
        named: Whether its UUID is the caller's, and may come again.
        ticket: Where the spool keeps it, if it does.
    """

    seq: int
    lane: Lane
    action: bytes
    impression: bool
    attributes: Attributes | None
    offset: int | None
    accepted_at: float
    accepted_wall: float
    size: int
    named: bool = True
    ticket: int | None = None

    @property
    def event_uuid(self) -> str:
        """Born once; the same wherever the event goes. It is in the action: kept twice, it would be a tenth of all."""
        return uuid_in(self.action)

    @property
    def state(self) -> State:
        """Where it is, which its lane knows; a scan."""
        if self in self.lane.flying:
            return State.IN_FLIGHT
        return State.WAITING if self in self.lane.waiting else State.SETTLED


@attrs.frozen(eq=False, repr=False)
class Element:
    """One customer's share of a request.

    Attributes:
        customer: The encoded customer id.
        offset: The timezone offset that all its records share.
        records: In order of acceptance.
        attributes: Of all records, later over earlier.
        size: Bytes of all that, encoded.
    """

    customer: bytes
    offset: int | None
    records: tuple[Record, ...]
    attributes: Attributes | None
    size: int

    @classmethod
    def of(
        cls, customer: bytes, offset: int | None, records: tuple[Record, ...], attributes: Attributes | None
    ) -> Element:
        actions = sum(len(record.action) for record in records) + len(records) - 1
        size = element_size(customer, offset) + attributes_size(attributes) + actions
        return cls(customer, offset, records, attributes, size)

    def encode(self) -> bytes:
        return encode_element(self.customer, self.attributes, self.offset, [record.action for record in self.records])

    def part(self, records: tuple[Record, ...]) -> Element:
        """The same element with some of its records; without attributes if it has none itself."""
        return Element.of(self.customer, self.offset, records, self.attributes and _merged(records))


@attrs.frozen(eq=False, repr=False)
class Batch:
    """One request's worth of events."""

    elements: tuple[Element, ...]

    @property
    def records(self) -> Iterator[Record]:
        return chain.from_iterable(map(_RECORDS, self.elements))

    @property
    def oldest(self) -> float:
        """When its oldest record was accepted, in epoch seconds."""
        return min(map(_ACCEPTED_WALL, self.records))

    @property
    def count(self) -> int:
        return sum(len(element.records) for element in self.elements)

    @property
    def size(self) -> int:
        return REQUEST_SIZE + sum(element.size for element in self.elements) + len(self.elements) - 1

    @property
    def has_attributes(self) -> bool:
        return any(element.attributes for element in self.elements)

    def encode(self) -> bytes:
        return encode_events(element.encode() for element in self.elements)

    def halves(self) -> tuple[Batch, Batch]:
        """Splits the actions in two, the larger half first; a batch of one cannot be split."""
        middle = (self.count + 1) // 2
        first: list[Element] = []
        second: list[Element] = []
        for element in self.elements:
            if middle > 0:
                first.append(element.part(element.records[:middle]))
            if middle < len(element.records):
                second.append(element.part(element.records[max(middle, 0) :]))
            middle -= len(element.records)
        return Batch(tuple(first)), Batch(tuple(second))

    def only(self, kept: set[Record]) -> Batch:
        """The same batch with some of its records."""
        parts = (element.part(tuple(r for r in element.records if r in kept)) for element in self.elements)
        return Batch(tuple(part for part in parts if part.records))

    def afresh(self) -> Batch:
        """The same records, whose attributes have changed."""
        return Batch(tuple(Element.of(e.customer, e.offset, e.records, _merged(e.records)) for e in self.elements))

    def without_attributes(self) -> Batch:
        return Batch(tuple(Element.of(each.customer, each.offset, each.records, None) for each in self.elements))

    def __repr__(self) -> str:
        return f"<Batch of {self.count} actions for {len(self.elements)} customers, {self.size} bytes>"


def _merged(records: tuple[Record, ...]) -> Attributes | None:
    merged: Attributes = {}
    for record in records:
        if record.attributes:
            merged.update(record.attributes)
    return merged or None


class Packing:
    """A request under construction: takes from lanes what still fits, to the byte."""

    def __init__(self, *, max_bytes: int, max_elements: int, max_actions: int) -> None:
        self._room = max_bytes - REQUEST_SIZE
        self._elements_left = max_elements
        self._actions_left = max_actions
        self._elements: list[Element] = []

    def add(self, lane: Lane) -> tuple[Record, ...]:
        """Moves the records that fit from the left of the lane's waiting ones into a new element; returns them."""
        if self._elements_left == 0 or self._actions_left == 0:
            return ()
        waiting = lane.waiting
        offset = waiting[0].offset
        frame = element_size(lane.customer, offset) + bool(self._elements)
        room = self._room - frame
        size = lane.waiting_bytes + len(waiting) - 1
        attributes: Attributes | None = None
        if lane.plain and size <= room and len(waiting) <= self._actions_left:
            records = tuple(waiting)
            waiting.clear()
        else:
            records, attributes, size = self._what_fits(waiting, room)
            if not records:
                return ()
        self._elements.append(Element(lane.customer, offset, records, attributes, frame - bool(self._elements) + size))
        self._room = room - size
        self._elements_left -= 1
        self._actions_left -= len(records)
        return records

    def _what_fits(self, waiting: deque[Record], room: int) -> tuple[tuple[Record, ...], Attributes | None, int]:
        """Takes from the left what shares a timezone offset and fits; returns it, its attributes, and their bytes."""
        offset = waiting[0].offset
        taken = 0
        merged: Attributes = {}
        actions, attributes_bytes = -1, 0  # one comma less than actions
        for record in islice(waiting, self._actions_left):
            grown = actions + len(record.action) + 1
            if record.attributes:
                together = merged | record.attributes
                grown_attributes = attributes_size(together)
            else:
                together, grown_attributes = merged, attributes_bytes
            fits = grown + grown_attributes <= room or not (self._elements or taken)
            if record.offset != offset or not fits:
                break
            taken += 1
            actions, merged, attributes_bytes = grown, together, grown_attributes
        return tuple(waiting.popleft() for _ in range(taken)), merged or None, actions + attributes_bytes

    def finish(self) -> Batch | None:
        return Batch(tuple(self._elements)) if self._elements else None
