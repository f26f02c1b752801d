"""Which fetches share a request.

Theory: a caller holds a *ticket*, a request is a *flight*, and a ticket boards as many flights as its keys need. A
flight first *gathers*: everybody who asks in the same context (the same person, the same in-session attributes) in the
same turn of the loop boards it, until it is full. Then it *flies*, and whoever asks for a key that it carries may still
join, if it is young. It *ends* when it lands or when nobody wants it any more; where answers are kept, a flight that
everybody has left may fly on *late*, for its answer's sake. All of this is planned here, without I/O: a method says
what to start and what to stop, and the fetcher does it.

Invariants: no flight carries two contexts. A ticket that leaves takes nobody along, and the first ticket of a flight is
nobody special. Nobody joins a flight that is older than half of the time that the joiner has. At most `max_in_flight`
flights gather or fly at a time, and at most `max_late` others fly late. Nothing here holds a flight that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

Key = str | None
"""An experience key; None is "everything", which travels alone."""

T = TypeVar("T")


class Phase(Enum):
    """Where a flight is in its life."""

    GATHERING = "gathering"
    FLYING = "flying"
    LATE = "late"
    ENDED = "ended"


class Flight:
    """One request.

    Attributes:
        context: Whom and what situation it asks for, hashed.
        phase: Where it is in its life. `LATE` stays, even if somebody joins.
        began: When it departed, in seconds.
        tickets: Who wants it, and which of its keys; gone when they leave.
        passenger: What the fetcher knows of it.
    """

    __slots__ = ("began", "context", "keys", "passenger", "phase", "tickets")

    def __init__(self, context: bytes) -> None:
        self.context = context
        self.phase = Phase.GATHERING
        self.began = 0.0
        self.keys: dict[Key, None] = {}
        self.tickets: dict[Ticket, list[Key]] = {}
        self.passenger: Any = None

    @property
    def wanted_until(self) -> float:
        """The longest of the deadlines of those who wait; 0.0 if nobody does."""
        return max((ticket.deadline for ticket in self.tickets), default=0.0)

    @property
    def is_shared(self) -> bool:
        """Whether there is a key that more than one ticket wants."""
        if len(self.tickets) < 2:
            return False
        wanted = [key for keys in self.tickets.values() for key in keys]
        return len(set(wanted)) < len(wanted)

    def __repr__(self) -> str:
        return f"<Flight {self.phase.value}, {len(self.keys)} keys, {len(self.tickets)} tickets>"


class Ticket:
    """One caller.

    Attributes:
        deadline: When it leaves, in seconds.
        missing: How many of its flights have not ended.
        flights: What it boarded, and for which keys, landed ones included.
        merged: Whether it boarded a flight of somebody else's while that gathered.
        joined: Whether it boarded one in the air.
        waiter: Whatever the fetcher wakes it by when `missing` becomes 0.
    """

    __slots__ = ("deadline", "flights", "joined", "merged", "missing", "waiter")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.missing = 0
        self.flights: dict[Flight, list[Key]] = {}
        self.merged = self.joined = False
        self.waiter: Any = None


class Boarding(Generic[T]):
    """What became of a ticket's keys: flights to be started, and keys for which none could be opened, and why."""

    __slots__ = ("opened", "refused")

    def __init__(self) -> None:
        self.opened: list[Flight] = []
        self.refused: dict[Key, T] = {}


class Flights:
    """All flights of a client. See the module's docstring.

    Args:
        max_keys: Keys per flight.
        max_in_flight: Flights that gather or fly at a time.
        max_late: Flights that fly late at a time.
        merge: Whether flights are shared at all.
    """

    def __init__(self, *, max_keys: int, max_in_flight: int, max_late: int, merge: bool) -> None:
        self._max_keys = max_keys
        self._max_in_flight = max_in_flight
        self._max_late = max_late
        self._merge = merge
        self._gathering: dict[tuple[bytes, bool], Flight] = {}
        self._carrying: dict[tuple[bytes, Key], Flight] = {}
        self.in_flight = 0
        self.late = 0

    @property
    def full(self) -> bool:
        return self.in_flight >= self._max_in_flight

    def board(
        self, ticket: Ticket, context: bytes, keys: Sequence[Key], now: float, may_open: Callable[[], T | None]
    ) -> Boarding[T]:
        """Finds a seat for every key.

        Args:
            ticket: Who asks.
            context: For whom, hashed.
            keys: For what; no repetitions.
            now: Seconds.
            may_open: Asked once per flight that would have to be opened; whatever it returns but None is why not.
        """
        boarding: Boarding[T] = Boarding()
        own: Flight | None = None
        for key in keys:
            flight = self._carrying.get((context, key)) if self._merge else None
            if flight is not None and flight.phase is not Phase.GATHERING:
                if now - flight.began <= (ticket.deadline - now) / 2:
                    ticket.joined = True
                    self._seat(ticket, flight, key)
                    continue
                flight = None
            if flight is None:
                flight = self._open_seat(context, key, own)
            if flight is None:
                refusal = may_open()
                if refusal is not None:
                    boarding.refused[key] = refusal
                    continue
                flight = self._open(context, key)
                boarding.opened.append(flight)
            elif flight not in boarding.opened:
                ticket.merged = True
            own = flight
            self._seat(ticket, flight, key)
        return boarding

    def _open_seat(self, context: bytes, key: Key, own: Flight | None) -> Flight | None:
        flight = self._gathering.get((context, key is None)) if self._merge else own
        return None if flight is None or len(flight.keys) >= self._max_keys else flight

    def _open(self, context: bytes, key: Key) -> Flight:
        flight = Flight(context)
        self.in_flight += 1
        if self._merge:
            self._gathering[context, key is None] = flight
        return flight

    def _seat(self, ticket: Ticket, flight: Flight, key: Key) -> None:
        wanted = ticket.flights.get(flight)
        if wanted is None:
            wanted = ticket.flights[flight] = flight.tickets[ticket] = []
            ticket.missing += 1
        wanted.append(key)
        if flight.phase is Phase.GATHERING and key not in flight.keys:
            flight.keys[key] = None
            if self._merge:
                self._carrying[flight.context, key] = flight

    def depart(self, flight: Flight, now: float) -> Sequence[str] | None:
        """The flight stops gathering; returns the keys to ask for, None for everything. It has tickets."""
        whole = None in flight.keys
        if self._gathering.get((flight.context, whole)) is flight:
            del self._gathering[flight.context, whole]
        flight.phase = Phase.FLYING
        flight.began = now
        return None if whole else [key for key in flight.keys if key is not None]

    def leave(self, ticket: Ticket) -> list[Flight]:
        """The ticket waits no more; returns the flights that nobody wants now.

        Each has its new phase: `LATE` if it may fly on for its answer's sake, `ENDED` if it is to be stopped.
        """
        abandoned = []
        for flight in ticket.flights:
            if flight.tickets.pop(ticket, None) is None:
                continue
            ticket.missing -= 1
            if flight.tickets:
                self._forget_keys_that_nobody_wants(flight)
                continue
            abandoned.append(flight)
            if flight.phase is Phase.FLYING and self.late < self._max_late:
                flight.phase = Phase.LATE
                self.in_flight -= 1
                self.late += 1
            elif flight.phase is not Phase.LATE:
                self._remove(flight)
        return abandoned

    def _forget_keys_that_nobody_wants(self, flight: Flight) -> None:
        if flight.phase is not Phase.GATHERING:
            return
        wanted = {key for keys in flight.tickets.values() for key in keys}
        for key in [key for key in flight.keys if key not in wanted]:
            del flight.keys[key]
            self._carrying.pop((flight.context, key), None)

    def end(self, flight: Flight) -> list[Ticket]:
        """The flight landed, or is stopped; returns the tickets that wait for nothing more."""
        complete = []
        if flight.phase is not Phase.ENDED:
            self._remove(flight)
            for ticket in flight.tickets:
                ticket.missing -= 1
                if not ticket.missing:
                    complete.append(ticket)
            flight.tickets.clear()
        return complete

    def divide(self, flight: Flight, may_open: Callable[[], object | None]) -> list[Flight]:
        """Moves the tickets of a flight that ask different questions to flights of their own, which nobody can board.

        Returns them, ready to depart; none, if there is only one question. Tickets for which none could be opened stay.
        """
        questions: dict[frozenset[Key], list[Ticket]] = {}
        for ticket, keys in flight.tickets.items():
            questions.setdefault(frozenset(keys), []).append(ticket)
        opened: list[Flight] = []
        for tickets in questions.values() if len(questions) > 1 else ():
            if may_open() is not None:
                continue
            own = Flight(flight.context)
            self.in_flight += 1
            opened.append(own)
            for ticket in tickets:
                keys = flight.tickets.pop(ticket)
                del ticket.flights[flight]
                ticket.flights[own] = own.tickets[ticket] = keys
                own.keys.update(dict.fromkeys(keys))
        return opened

    def _remove(self, flight: Flight) -> None:
        if flight.phase is Phase.LATE:
            self.late -= 1
        else:
            self.in_flight -= 1
        flight.phase = Phase.ENDED
        whole = None in flight.keys
        if self._gathering.get((flight.context, whole)) is flight:
            del self._gathering[flight.context, whole]
        for key in flight.keys:
            if self._carrying.get((flight.context, key)) is flight:
                del self._carrying[flight.context, key]

    def __repr__(self) -> str:
        return f"<Flights: {self.in_flight} in flight, {self.late} late, {len(self._carrying)} keys in the air>"
