"""Asks for experiences, within one deadline.

Theory: a caller asks a `Question`; each chunk of its keys is a *flight*, a task of the SDK's own, and the caller only
waits. So a caller that is cancelled or out of time interrupts nobody else's request.

Invariants: a call returns or raises by its deadline. Requests per chunk ≤ `attempts`, and a retry is paid from the
budget. Every key that was asked has an entry, whatever happened.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from ._config import FetchPolicy, RetryPolicy
from ._effects import Effects
from ._errors import (
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    DeadlineExceededError,
    PersonalizeError,
    RateLimitedError,
)
from ._exchange import Call, Exchange
from ._experiences import Experience, Experiences, Reason
from .core.circuit import RetryBudget
from .core.wire import FETCH_PATH, fetch_body, read_experiences


@attrs.frozen(repr=False)
class Question:
    """What is asked, and nothing of it in a repr.

    Attributes:
        keys: The experience keys; None asks for everything.
        fields: The rest of the body: identity, in-session attributes.
    """

    keys: tuple[str, ...] | None
    fields: Mapping[str, Any]

    def chunks(self, size: int) -> Iterable[tuple[str, ...] | None]:
        if self.keys is None:
            return [None]
        return [self.keys[start : start + size] for start in range(0, len(self.keys), size)]


class _Flight:
    """One request for a chunk of keys, with its retries; done when it has entries or an error."""

    def __init__(self, keys: Sequence[str] | None, call: Call, deadline: float) -> None:
        self.keys = keys
        self.call = call
        self.deadline = deadline
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.entries: Mapping[str, Experience] = {}
        self.error: PersonalizeError | None = None
        self.attempts = 0


Spawn = Callable[[Callable[[_Flight], Coroutine[Any, Any, None]], _Flight], None]


class Fetcher:
    """The fetcher. See the module's docstring.

    Args:
        exchange: How requests are made.
        policy: Its policy.
        retrying: The pause before a second attempt.
        budget: What retries are paid from.
        effects: Chance.
        spawn: Starts a task of the SDK's own.
    """

    def __init__(
        self,
        exchange: Exchange,
        policy: FetchPolicy,
        retrying: RetryPolicy,
        *,
        budget: RetryBudget,
        effects: Effects,
        spawn: Spawn,
    ) -> None:
        self._exchange = exchange
        self._policy = policy
        self._retrying = retrying
        self._budget = budget
        self._effects = effects
        self._spawn = spawn
        self.requests = 0
        self.retries = 0

    async def fetch(self, question: Question, seconds: float) -> Experiences:
        """Returns by `seconds` from now, whatever happens; never raises for their trouble."""
        deadline = anyio.current_time() + seconds
        flights = [self._launch(question, keys, deadline) for keys in question.chunks(self._policy.max_keys)]
        try:
            with anyio.CancelScope(deadline=deadline):
                for flight in flights:
                    await flight.done.wait()
        finally:
            for flight in flights:
                flight.scope.cancel()
        entries: dict[str, Experience] = {}
        error: PersonalizeError | None = None
        for flight in flights:
            trouble = flight.error if flight.done.is_set() else _too_late(flight)
            entries.update(unmatched(flight.keys or (), reason_of(trouble)) if trouble else flight.entries)
            error = error or trouble
        return Experiences(entries=entries, error=error)

    def _launch(self, question: Question, keys: tuple[str, ...] | None, deadline: float) -> _Flight:
        call = Call(method="POST", target=FETCH_PATH, body=fetch_body(question.fields, keys))
        flight = _Flight(keys, call, deadline)
        self._spawn(self._fly, flight)
        return flight

    async def _fly(self, flight: _Flight) -> None:
        with flight.scope:
            try:
                while not await self._attempt(flight):
                    pass
            except Exception as error:  # a bug must not become an exception group in the background
                flight.error = PersonalizeError(f"fetching failed with {type(error).__name__}: this is a bug")
            flight.done.set()

    async def _attempt(self, flight: _Flight) -> bool:
        flight.attempts += 1
        self.requests += 1
        self.retries += flight.attempts > 1
        try:
            body = await self._exchange.request(flight.call, deadline=flight.deadline)
            flight.entries = read_experiences(body, flight.keys)
        except PersonalizeError as error:
            error.attempts = flight.attempts
            flight.error = _first_cause(error, flight.error)
            return not await self._may_retry(flight, error)
        flight.error = None
        self._budget.give_back()
        return True

    async def _may_retry(self, flight: _Flight, error: PersonalizeError) -> bool:
        now = anyio.current_time()
        left = flight.deadline - now
        pause = max(error.retry_after or 0.0, self._effects.jitter() * min(self._retrying.initial, left / 4))
        late = isinstance(error, DeadlineExceededError) or pause >= left
        if late or not error.retryable or flight.attempts >= self._policy.attempts or not self._budget.try_spend(now):
            return False
        await anyio.sleep(pause)
        return True


def _first_cause(error: PersonalizeError, before: PersonalizeError | None) -> PersonalizeError:
    if isinstance(error, DeadlineExceededError) and before is not None:
        error.__cause__ = before
    return error


def _too_late(flight: _Flight) -> DeadlineExceededError:
    error = DeadlineExceededError("no answer within the deadline", attempts=flight.attempts)
    error.__cause__ = flight.error
    return error


def reason_of(error: PersonalizeError) -> Reason:
    """Returns what an entry says when this error stood in its way."""
    match error:
        case DeadlineExceededError():
            return Reason.TIMEOUT
        case RateLimitedError():
            return Reason.RATE_LIMITED
        case AuthenticationError():
            return Reason.UNAUTHORIZED
        case BadRequestError():
            return Reason.BAD_REQUEST
        case BadReplyError():
            return Reason.BAD_REPLY
        case _:
            return Reason.UNAVAILABLE


def unmatched(keys: Iterable[str], reason: Reason) -> dict[str, Experience]:
    """Returns an entry for each key that leaves the page to its defaults."""
    return {key: Experience(key=key, reason=reason, source="default") for key in keys}
