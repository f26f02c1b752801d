"""Asks for experiences, within one deadline, as seldom as possible.

Theory: a call is planned at once, without waiting: each key is answered from the cache, boards a flight
(`core.flights`) or is refused by the protection (`_flying`). Then the caller waits for its flights, or for its
deadline, whichever comes first, and collects. The flights are tasks of their own that nobody owns: the last caller who
leaves calls one off, unless its answer is worth waiting for.

Invariants: a call returns or raises by its deadline. Every key that was asked has an entry, whatever happened. What one
caller gets, no other can change: entries that several see are copied, errors always. Customer ids are held as long as
a request is in flight; everything that stays longer holds keyed hashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context
from functools import partial
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, cast

import attrs

from ._config import CachePolicy, FetchPolicy, RetryPolicy
from ._effects import Effects
from ._errors import DeadlineExceededError, NotAskedError, PersonalizeError, duplicate
from ._exchange import Exchange
from ._experiences import Experience, Experiences, Reason
from ._flying import Entries, Passenger, Pilot, Trouble
from .core.breaker import Passage
from .core.cache import Cache, Hit
from .core.circuit import RetryBudget
from .core.flights import Flight, Flights, Key, Phase, Ticket
from .core.wire import encode_context_of_fetch

EVERYTHING: tuple[Key, ...] = (None,)


@attrs.frozen(repr=False)
class Question:
    """What is asked, and nothing of it in a repr.

    Attributes:
        keys: The experience keys; None asks for everything.
        fields: The rest of the body: identity, in-session attributes.
        customer_id: Whose.
    """

    keys: tuple[str, ...] | None
    fields: Mapping[str, Any]
    customer_id: str | None = None


@attrs.define(eq=False)
class Counts:
    """How calls were answered. Each is counted once: `fetches == sent + merged + joined + cached + refused`."""

    sent: int = 0
    merged: int = 0
    joined: int = 0
    cached: int = 0
    refused: int = 0
    stale: int = 0
    late: int = 0


@attrs.define(eq=False, repr=False)
class _Asking:
    """One call on its way: what was answered at once, and the ticket for the rest."""

    keys: Sequence[Key]
    context: bytes
    ticket: Ticket
    found: dict[str, Experience] = attrs.field(factory=dict)
    refused: dict[Key, Trouble] = attrs.field(factory=dict)


class Fetcher:
    """The fetcher. See the module's docstring.

    Args:
        exchange: How requests are made.
        policy: Its policy.
        retrying: The pause before a second attempt.
        caching: What is kept.
        budget: What retries are paid from.
        effects: Chance.
    """

    def __init__(
        self,
        exchange: Exchange,
        policy: FetchPolicy,
        retrying: RetryPolicy,
        caching: CachePolicy,
        *,
        budget: RetryBudget,
        effects: Effects,
    ) -> None:
        keeps = caching.enabled
        self._policy = policy
        self._caching = caching
        self._cache: Cache[Experience | Entries, Trouble] | None = Cache(caching) if keeps else None
        self._salt = token_bytes(32)
        self._aloft: set[Flight] = set()
        self._closed = False
        self.pilot = Pilot(exchange, policy, retrying, budget=budget, effects=effects)
        self.flights = Flights(
            max_keys=policy.max_keys,
            max_in_flight=policy.max_in_flight,
            max_late=caching.max_late if keeps and caching.late else 0,
            merge=policy.merge,
        )
        self.counts = Counts()

    async def fetch(self, question: Question, seconds: float) -> Experiences:
        """Returns by `seconds` from now, whatever happens; never raises for their trouble."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        asking = self._plan(question, loop, now, now + seconds)
        del question
        ticket = asking.ticket
        if ticket.missing:
            await self._wait(ticket, loop)
            now = loop.time()
        return self._collect(asking, now)

    # ── planning ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, question: Question, loop: asyncio.AbstractEventLoop, now: float, deadline: float) -> _Asking:
        fields = encode_context_of_fetch(question.fields)
        keys: Sequence[Key] = question.keys or EVERYTHING
        asking = _Asking(keys, self._hash(fields), Ticket(deadline))
        person = self._person(question.customer_id)
        renewing: list[Key] = []
        if self._cache is not None:
            keys, renewing = self._from_the_cache(asking, now)
        opened = bool(keys) and self._board(asking, keys, fields, person, loop, now)
        if renewing:
            behind = _Asking(renewing, asking.context, Ticket(now + self._policy.deadline))
            self._board(behind, renewing, fields, person, loop, now)
            loop.call_at(behind.ticket.deadline, self._leave, behind.ticket, loop)
        counts, ticket = self.counts, asking.ticket
        counts.sent += opened
        if not opened:
            counts.joined += ticket.joined
            counts.merged += ticket.merged and not ticket.joined
            counts.refused += not ticket.flights and bool(asking.refused)
            counts.cached += not ticket.flights and not asking.refused
        return asking

    def _from_the_cache(self, asking: _Asking, now: float) -> tuple[list[Key], list[Key]]:
        """Answers what it can; returns the keys to be asked, and those to be asked behind the caller's back."""
        cache = cast("Cache[Experience | Entries, Trouble]", self._cache)
        if trouble := cache.refusal(asking.context, _as_one(asking.keys), now):
            asking.refused = dict.fromkeys(asking.keys, trouble)
            return [], []
        missing, renewing = [], []
        for key in asking.keys:
            hit = cache.get(asking.context, key, now)
            if hit is None:
                missing.append(key)
            else:
                self._hand(asking, hit, None)
                if not hit.fresh:
                    renewing.append(key)
        return missing, renewing

    def _board(
        self,
        asking: _Asking,
        keys: Sequence[Key],
        fields: bytes,
        person: bytes | None,
        loop: asyncio.AbstractEventLoop,
        now: float,
    ) -> bool:
        """Finds seats, and starts what has to be started; returns whether anything had."""
        passages: list[Passage] = []
        boarding = self.flights.board(asking.ticket, asking.context, keys, now, partial(self._may_open, passages, now))
        for flight, passage in zip(boarding.opened, passages, strict=True):
            flight.passenger = Passenger(fields=fields, person=person, passage=passage)
            if self._policy.merge_window:
                loop.call_later(self._policy.merge_window, self._depart, flight, loop)
            else:
                loop.call_soon(self._depart, flight, loop)
        if boarding.refused:
            asking.refused = boarding.refused
        return bool(boarding.opened)

    def _may_open(self, passages: list[Passage], now: float) -> Trouble | None:
        if self._closed:
            return Trouble(Reason.CLOSED, NotAskedError("not asked: the client is closing"))
        if self.flights.full:
            return Trouble(Reason.OVERLOADED, NotAskedError("not asked: max_in_flight requests are under way"))
        clearance = self.pilot.clear(now)
        if isinstance(clearance, Trouble):
            return clearance
        passages.append(clearance)
        return None

    def _hash(self, text: bytes) -> bytes:
        return blake2b(text, digest_size=16, key=self._salt).digest()

    def _person(self, customer_id: str | None) -> bytes | None:
        return None if customer_id is None or self._cache is None else self._hash(customer_id.encode())

    # ── flying ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _depart(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        if flight.phase is Phase.GATHERING:
            keys = self.flights.depart(flight, loop.time())
            self._aloft.add(flight)
            if self._closed:
                self._landed(flight, Trouble(Reason.CLOSED, NotAskedError("the client was closed meanwhile")))
                return
            flight.passenger.task = loop.create_task(self._fly(flight, keys), context=Context())

    async def _fly(self, flight: Flight, keys: Sequence[str] | None) -> None:
        outcome: Entries | Trouble = Trouble(Reason.CLOSED, NotAskedError("the client was closed meanwhile"))
        try:
            outcome = await self.pilot.fly(flight, keys)
        except Exception as error:  # a bug must not leave callers waiting
            text = f"fetching failed with {type(error).__name__}: this is a bug of moengage_personalize"
            outcome = Trouble(Reason.UNAVAILABLE, PersonalizeError(text))
        finally:
            self._landed(flight, outcome)

    def _landed(self, flight: Flight, outcome: Entries | Trouble) -> None:
        self._aloft.discard(flight)
        if flight.phase is Phase.ENDED:  # called off
            return
        loop = asyncio.get_running_loop()
        passenger: Passenger = flight.passenger
        if passenger.timer is not None:
            passenger.timer.cancel()
        if isinstance(outcome, Trouble) and outcome.reason is Reason.BAD_REQUEST:
            self._divide(flight, loop)
        passenger.outcome = outcome
        passenger.shared = self._cache is not None or len(flight.tickets) > 1
        if self._cache is not None and passenger.kept:
            self._keep(flight, outcome, loop.time())
            self.counts.late += not flight.tickets and not isinstance(outcome, Trouble)
        for ticket in self.flights.end(flight):
            if ticket.wake is not None:
                ticket.wake()

    def _divide(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        """A refused flight that was shared flies once more for each of its questions: the refusal concerns only one."""
        passenger: Passenger = flight.passenger
        passages: list[Passage] = []
        opened = self.flights.divide(flight, partial(self._may_open, passages, loop.time()))
        for each, passage in zip(opened, passages, strict=True):
            each.passenger = attrs.evolve(passenger, passage=passage, attempts=0, task=None, timer=None)
            self._depart(each, loop)

    def _keep(self, flight: Flight, outcome: Entries | Trouble, now: float) -> None:
        cache = cast("Cache[Experience | Entries, Trouble]", self._cache)
        person = flight.passenger.person
        if isinstance(outcome, Trouble):
            if outcome.reason is Reason.BAD_REQUEST:
                cache.refuse(flight.context, _as_one(flight.keys), outcome, now, person=person)
        elif None in flight.keys:
            cache.put(flight.context, None, outcome, now, person=person, matched=bool(outcome))
        else:
            for key, experience in outcome.items():
                cache.put(flight.context, key, experience, now, person=person, matched=experience.matched)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        done: asyncio.Future[None] = loop.create_future()
        ticket.wake = partial(_settle, done)
        timer = loop.call_at(ticket.deadline, _settle, done)
        try:
            await done
        finally:
            timer.cancel()
            ticket.wake = None
            if ticket.missing:
                self._leave(ticket, loop)

    def _leave(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for flight in self.flights.leave(ticket):
            if flight.phase is Phase.LATE:
                passenger: Passenger = flight.passenger
                if passenger.timer is not None:
                    passenger.timer.cancel()
                passenger.timer = loop.call_at(now + self._caching.late, self._late_is_over, flight, loop)
            else:
                self._stop(flight, now, expired=now >= ticket.deadline)

    def _late_is_over(self, flight: Flight, loop: asyncio.AbstractEventLoop) -> None:
        if not flight.tickets and flight.phase is Phase.LATE:
            self.flights.end(flight)
            self._stop(flight, loop.time(), expired=True)

    def _stop(self, flight: Flight, now: float, *, expired: bool) -> None:
        self.pilot.stopped(flight, now, expired=expired)
        if flight.passenger.task is not None:
            flight.passenger.task.cancel()

    # ── collecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _collect(self, asking: _Asking, now: float) -> Experiences:
        found, error = asking.found, None
        troubles = asking.refused
        for flight, keys in asking.ticket.flights.items():
            outcome = flight.passenger.outcome
            if outcome is None:
                outcome = _too_late(flight)
            if isinstance(outcome, Trouble):
                troubles.update(dict.fromkeys(keys, outcome))
            else:
                for key in outcome if None in flight.keys else keys:
                    entry = outcome[cast("str", key)]
                    found[entry.key] = entry.handed(drifts=self.pilot.drifts) if flight.passenger.shared else entry
        for key, trouble in troubles.items():
            if not self._saved(asking, key, trouble.reason, now):
                found.update(unmatched(() if key is None else (key,), trouble.reason))
                error = error or duplicate(trouble.error)
        if len(found) > 1 and asking.keys is not EVERYTHING:
            found = {key: found[key] for key in cast("Sequence[str]", asking.keys)}
        return Experiences(entries=found, error=error)

    def _saved(self, asking: _Asking, key: Key, trouble: Reason, now: float) -> bool:
        hit = None if self._cache is None else self._cache.saved(asking.context, key, now)
        if hit is not None:
            self._hand(asking, hit, trouble)
            self.counts.stale += 1
        return hit is not None

    def _hand(self, asking: _Asking, hit: Hit[Experience | Entries], trouble: Reason | None) -> None:
        fresh = hit.fresh and trouble is None
        entries = [hit.value] if isinstance(hit.value, Experience) else hit.value.values()
        for entry in entries:
            asking.found[entry.key] = entry.handed(
                reason=(Reason.CACHED if fresh else Reason.STALE) if entry.matched else None,
                source="cache" if fresh else "stale",
                age=hit.age,
                trouble=trouble,
                drifts=self.pilot.drifts,
            )

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def trouble(self) -> PersonalizeError | None:
        """Returns what opened the circuit, while it is open."""
        self.pilot.look_at_credentials()
        return self.pilot.breaker.cause

    def stats(self) -> dict[str, Any]:
        """Returns what `Stats` says of fetches."""
        pilot, counts = self.pilot, self.counts
        return {
            "fetch_requests": pilot.requests,
            "fetches_merged": counts.merged,
            "fetches_joined": counts.joined,
            "fetches_cached": counts.cached,
            "fetches_refused": counts.refused,
            "stale_answers": counts.stale,
            "late_answers": counts.late,
            "circuit_openings": pilot.breaker.opened,
            "drifts": pilot.drifts.total,
            "drifts_by_path": dict(pilot.drifts.paths),
        }

    @property
    def retries(self) -> int:
        return self.pilot.retries

    def forget(self, customer_id: str) -> tuple[int, int]:
        """Drops a person's answers; returns how many, and how many flights there are, whose answers are not kept."""
        if self._cache is None:
            return 0, 0
        person = self._hash(customer_id.encode())
        flights = [flight for flight in self._aloft if flight.passenger.person == person]
        for flight in flights:
            flight.passenger.kept = False
        return self._cache.forget(person), len(flights)

    def close(self) -> None:
        """Calls everything off; those who wait get their defaults at once. May be repeated."""
        self._closed = True
        for flight in self._aloft:
            if flight.passenger.task is not None:
                flight.passenger.task.cancel()

    async def ended(self, seconds: float) -> None:
        """Waits until what was called off has ended, for so many seconds at the most."""
        if tasks := [flight.passenger.task for flight in self._aloft if flight.passenger.task is not None]:
            await asyncio.wait(tasks, timeout=seconds)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _as_one(keys: Iterable[Key]) -> str:
    """A question's keys as one cache key, which no experience can have."""
    return "\0".join(sorted(key or "" for key in keys)) + "\0"


def _too_late(flight: Flight) -> Trouble:
    passenger: Passenger = flight.passenger
    error = DeadlineExceededError("no answer within the deadline", attempts=passenger.attempts)
    error.__cause__ = passenger.setback
    return Trouble(Reason.TIMEOUT, error)


def unmatched(keys: Iterable[str], reason: Reason) -> dict[str, Experience]:
    """Returns an entry for each key that leaves the page to its defaults."""
    return {key: Experience(key=key, reason=reason, source="default") for key in keys}
