"""Asks for experiences, within one deadline, as seldom as possible.

Theory: a call is planned at once, without waiting: each key is answered from what is kept (`_kept`), boards a flight
(`_tower`, by the rules of `core.flights`) or is refused by the protection (`_flying`). Then the caller waits for its
flights, or for its deadline, whichever comes first, and collects.

Invariants: a call returns or raises by its deadline. Every key that was asked has an entry, whatever happened. What one
caller gets, no other can change: entries that several see are copied, errors always. Customer ids are held as long as
a request is in flight; everything that stays longer holds keyed hashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ._alarm import Alarm
from ._config import CachePolicy, FetchPolicy, RetryPolicy
from ._effects import Effects
from ._errors import PersonalizeError, duplicate
from ._exchange import Exchange
from ._experiences import Experiences
from ._flying import Pilot
from ._questions import EVERYTHING, Asking, Counts, Question, Trouble, too_late, unmatched
from ._tower import Tower
from .core.circuit import RetryBudget
from .core.flights import Flights, Key, Ticket

if TYPE_CHECKING:
    from ._kept import Kept


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
        self._policy = policy
        self._alarm = Alarm()
        self.counts = Counts()
        self.pilot = Pilot(exchange, policy, retrying, budget=budget, effects=effects)
        self.kept = _kept(caching, self) if caching.enabled else None
        self.tower = Tower(self.pilot, policy, caching, kept=self.kept, counts=self.counts)

    async def fetch(self, question: Question, seconds: float) -> Experiences:
        """Returns by `seconds` from now, whatever happens; never raises for their trouble."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        asking = self._plan(question, loop, now, now + seconds)
        del question
        ticket = asking.ticket
        if ticket.missing:
            await self._wait(ticket, loop)
        return self._collect(asking, loop)

    # ── planning ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, question: Question, loop: asyncio.AbstractEventLoop, now: float, deadline: float) -> Asking:
        keys: Sequence[Key] = question.keys or EVERYTHING
        ticket = Ticket(deadline)
        if self.kept is None:
            asking = Asking(keys, question.fields, ticket)
        else:
            asking = Asking(keys, self.kept.hash(question.fields), ticket)
            keys, renewing = self.kept.answer(asking, now)
            if renewing:
                self._renew(asking.context, renewing, question, loop, now)
        opened = False
        if keys:
            boarding = self.tower.board(ticket, asking.context, keys, question, loop, now)
            opened = bool(boarding.opened)
            if boarding.refused:
                asking.refused = boarding.refused
        self._count(asking, opened=opened)
        return asking

    def _renew(
        self, context: bytes, keys: Sequence[Key], question: Question, loop: asyncio.AbstractEventLoop, now: float
    ) -> None:
        """Asks behind the caller's back for what was answered, but is about to be out of date."""
        ticket = Ticket(now + self._policy.deadline)
        self.tower.board(ticket, context, keys, question, loop, now)
        loop.call_at(ticket.deadline, self.tower.leave, ticket, loop)

    def _count(self, asking: Asking, *, opened: bool) -> None:
        counts, ticket = self.counts, asking.ticket
        if opened:
            counts.sent += 1
        elif ticket.joined:
            counts.joined += 1
        else:
            counts.merged += ticket.merged
            if not ticket.flights:
                counts.refused += bool(asking.refused)
                counts.cached += not asking.refused

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        waiter = ticket.waiter = loop.create_future()
        number = self._alarm.set(ticket.deadline, waiter)
        try:
            await waiter
        finally:
            self._alarm.unset(number)
            ticket.waiter = None
            if ticket.missing:
                self.tower.leave(ticket, loop)

    # ── collecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _collect(self, asking: Asking, loop: asyncio.AbstractEventLoop) -> Experiences:
        found, troubles = asking.found, asking.refused
        for flight, keys in asking.ticket.flights.items():
            outcome = flight.passenger.outcome
            if outcome is None:
                outcome = too_late(flight)
            if isinstance(outcome, Trouble):
                troubles.update(dict.fromkeys(keys, outcome))
            else:
                shared = flight.passenger.shared
                for key in outcome if None in flight.keys else keys:
                    entry = outcome[cast("str", key)]
                    found[entry.key] = entry.handed(drifts=self.pilot.drifts) if shared else entry
        error = self._make_do(asking, loop.time()) if troubles else None
        if len(found) > 1 and asking.keys is not EVERYTHING:
            found = {key: found[key] for key in cast("Sequence[str]", asking.keys)}
        return Experiences(entries=found, error=error)

    def _make_do(self, asking: Asking, now: float) -> PersonalizeError | None:
        """Answers what has no answer, with stale ones or defaults; returns the trouble, if it comes to defaults."""
        error = None
        for key, trouble in asking.refused.items():
            if self.kept is None or not self.kept.save(asking, key, trouble.reason, now):
                asking.found.update(unmatched(() if key is None else (key,), trouble.reason))
                error = error or duplicate(trouble.error)
        return error

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def flights(self) -> Flights:
        return self.tower.flights

    @property
    def retries(self) -> int:
        return self.pilot.retries

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

    def forget(self, customer_id: str) -> tuple[int, int]:
        """Drops a person's answers; returns how many, and how many flights there are, whose answers are not kept."""
        if self.kept is None:
            return 0, 0
        person = self.kept.hash(customer_id.encode())
        return self.kept.forget(person), self.tower.forget(person)

    def close(self) -> None:
        """Calls everything off; those who wait get their defaults at once. May be repeated."""
        self.tower.close()

    async def ended(self, seconds: float) -> None:
        """Waits until what was called off has ended, for so many seconds at the most."""
        await self.tower.ended(seconds)


def _kept(caching: CachePolicy, fetcher: Fetcher) -> Kept:
    from ._kept import Kept  # and the cache: only for those who switched it on

    return Kept(caching, fetcher.pilot.drifts, fetcher.counts)
