"""Where flights depart, land and are called off.

Theory: flights belong to nobody. All that are boarded in one turn of the loop depart together at its end, in one write.
One that lands tells its callers' tickets; the last caller who leaves calls it off, unless its answer is worth waiting
for. While all goes well a flight is two plain calls, its departure and its landing; only trouble (a retry, a key to be
asked for again) and transports that are not our own cost it a task.

Invariants: each flight that was opened ends once, landed or called off, whatever happens, bugs included. Nothing of a
caller's context is seen by a flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

import attrs

from ._config import CachePolicy, FetchPolicy
from ._errors import NotAskedError, PersonalizeError
from ._experiences import Reason
from ._flying import Answer, Passenger, Pilot
from ._questions import Counts, Entries, Question, Trouble
from .core.breaker import Passage
from .core.flights import Boarding, Flight, Flights, Key, Phase, Ticket

if TYPE_CHECKING:
    from ._kept import Kept


class Tower:
    """See the module's docstring.

    Args:
        pilot: Who makes flights.
        policy: How many, how large, and how long they gather.
        caching: How long they may be late.
        kept: Takes in answers, if they are kept.
        counts: Where late answers are counted.
    """

    def __init__(
        self, pilot: Pilot, policy: FetchPolicy, caching: CachePolicy, *, kept: Kept | None, counts: Counts
    ) -> None:
        self._pilot = pilot
        self._policy = policy
        self._late = caching.late
        self._kept = kept
        self._counts = counts
        self._gathered: list[Flight] = []
        self._closed = False
        self.aloft: set[Flight] = set()
        self.flights = Flights(
            max_keys=policy.max_keys,
            max_in_flight=policy.max_in_flight,
            max_late=caching.max_late if kept is not None and caching.late else 0,
            merge=policy.merge,
        )

    # ── boarding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def board(
        self,
        ticket: Ticket,
        context: bytes,
        keys: Sequence[Key],
        question: Question,
        loop: asyncio.AbstractEventLoop,
        now: float,
    ) -> Boarding[Trouble]:
        """Finds seats, and sees to the departure of what had to be opened."""
        passages: list[Passage] = []
        boarding = self.flights.board(ticket, context, keys, now, partial(self._may_open, passages, now))
        if not boarding.opened:
            return boarding
        person = None if self._kept is None else self._kept.person(question.customer_id)
        for flight, passage in zip(boarding.opened, passages, strict=True):
            flight.passenger = Passenger(question.fields, person, passage)
        if self._policy.merge_window:
            loop.call_later(self._policy.merge_window, self._depart_all, boarding.opened)
            return boarding
        if not self._gathered:
            loop.call_soon(self._depart_gathered)
        self._gathered += boarding.opened
        return boarding

    def _may_open(self, passages: list[Passage], now: float) -> Trouble | None:
        if self._closed:
            return Trouble(Reason.CLOSED, NotAskedError("not asked: the client is closing"))
        if self.flights.full:
            return Trouble(Reason.OVERLOADED, NotAskedError("not asked: max_in_flight requests are under way"))
        clearance = self._pilot.clear(now)
        if isinstance(clearance, Trouble):
            return clearance
        passages.append(clearance)
        return None

    # ── flying ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _depart_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._depart_all(gathered)

    def _depart_all(self, flights: Sequence[Flight]) -> None:
        now = asyncio.get_running_loop().time()
        for flight in flights:
            if flight.phase is Phase.GATHERING:
                self._depart(flight, now)
        self._pilot.push()

    def _depart(self, flight: Flight, now: float) -> None:
        keys = self.flights.depart(flight, now)
        self.aloft.add(flight)
        if self._closed:
            self._landed(flight, _closed_meanwhile())
            return
        try:
            sending = self._pilot.begin(flight, keys, partial(self._answered, flight, keys))
        except Exception as error:
            self._landed(flight, _bug(error))
            return
        flight.passenger.sending = sending
        if sending is None:
            self._go_on(flight, keys, None)

    def _answered(self, flight: Flight, keys: Sequence[str] | None, answer: Answer) -> None:
        """The first answer, by a call of the transport's."""
        try:
            outcome = self._pilot.read(flight, keys, answer)
        except Exception as error:
            self._landed(flight, _bug(error))
            return
        if isinstance(outcome, PersonalizeError | None):
            self._go_on(flight, keys, outcome)
        else:
            self._landed(flight, outcome)

    def _go_on(self, flight: Flight, keys: Sequence[str] | None, setback: PersonalizeError | None) -> None:
        """The rest, or all of it, takes a task."""
        loop = asyncio.get_running_loop()
        flight.passenger.sending = None
        flight.passenger.task = loop.create_task(self._fly(flight, keys, setback), context=Context())

    async def _fly(self, flight: Flight, keys: Sequence[str] | None, setback: PersonalizeError | None) -> None:
        outcome: Entries | Trouble = _closed_meanwhile()
        try:
            outcome = await self._pilot.fly(flight, keys, setback)
        except Exception as error:  # a bug must not leave callers waiting
            outcome = _bug(error)
        finally:
            self._landed(flight, outcome)

    def _landed(self, flight: Flight, outcome: Entries | Trouble) -> None:
        self.aloft.discard(flight)
        if flight.phase is Phase.ENDED:  # called off
            return
        passenger: Passenger = flight.passenger
        passenger.sending = None
        if passenger.timer is not None:
            passenger.timer.cancel()
        if isinstance(outcome, Trouble) and outcome.reason is Reason.BAD_REQUEST:
            self._divide(flight)
        passenger.outcome = outcome
        if self._kept is not None and passenger.kept:
            self._kept.keep(flight, outcome, asyncio.get_running_loop().time())
            self._counts.late += not flight.tickets and not isinstance(outcome, Trouble)
        passenger.shared = self._kept is not None or flight.is_shared
        for ticket in self.flights.end(flight):
            waiter: asyncio.Future[None] | None = ticket.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _divide(self, flight: Flight) -> None:
        """A refused flight that was shared flies once more for each of its questions: the refusal concerns only one."""
        now = asyncio.get_running_loop().time()
        passages: list[Passage] = []
        opened = self.flights.divide(flight, partial(self._may_open, passages, now))
        for each, passage in zip(opened, passages, strict=True):
            each.passenger = attrs.evolve(flight.passenger, passage=passage, attempts=0, task=None, timer=None)
        if opened:
            asyncio.get_running_loop().call_soon(self._depart_all, opened)

    # ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        """The caller waits no more."""
        now = loop.time()
        for flight in self.flights.leave(ticket):
            if flight.phase is Phase.LATE:
                passenger: Passenger = flight.passenger
                if passenger.timer is not None:
                    passenger.timer.cancel()
                passenger.timer = loop.call_at(now + self._late, self._late_is_over, flight, loop)
            else:
                self._stop(flight, now, expired=now >= ticket.deadline)

    def _late_is_over(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        if not flight.tickets and flight.phase is Phase.LATE:
            self.flights.end(flight)
            self._stop(flight, loop.time(), expired=True)

    def _stop(self, flight: Flight, now: float, *, expired: bool) -> None:
        self._pilot.stopped(flight, now, expired=expired)
        self._call_off(flight)

    def _call_off(self, flight: Flight) -> None:
        passenger: Passenger = flight.passenger
        if passenger.task is not None:
            passenger.task.cancel()
        elif passenger.sending is not None:
            passenger.sending.abandon()
            self._landed(flight, _closed_meanwhile())

    def forget(self, person: bytes) -> int:
        """Sees to it that a person's answers that are under way are not kept; returns how many flights these are."""
        flights = [flight for flight in self.aloft if flight.passenger.person == person]
        for flight in flights:
            flight.passenger.kept = False
        return len(flights)

    def close(self) -> None:
        """Calls everything off; those who wait get their defaults at once. May be repeated."""
        self._closed = True
        for flight in list(self.aloft):
            self._call_off(flight)

    async def ended(self, seconds: float) -> None:
        """Waits until what was called off has ended, for so many seconds at the most."""
        if tasks := [flight.passenger.task for flight in self.aloft if flight.passenger.task is not None]:
            await asyncio.wait(tasks, timeout=seconds)


def _closed_meanwhile() -> Trouble:
    return Trouble(Reason.CLOSED, NotAskedError("the client was closed meanwhile"))


def _bug(error: Exception) -> Trouble:
    text = f"fetching failed with {type(error).__name__}: this is a bug of moengage_personalize"
    return Trouble(Reason.UNAVAILABLE, PersonalizeError(text))
