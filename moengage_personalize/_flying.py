"""One flight: a request for some keys, with its retries, and what MoEngage's protection makes of it.

Theory: a flight does not know how long it may take. It goes on until it lands or is cancelled, which the fetcher does
when nobody wants it any more; so a caller who comes later and has more time needs no other request.

Invariants: `Pilot.fly` ends with entries or with a `Trouble`, and raises nothing but cancellation. Requests ≤
`attempts`; a retry is paid from the budget, and made only while the circuit is closed, the quota allows it, and the
longest-waiting caller has time for it. Every departure is reported to the breaker exactly once per attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

import attrs

from ._config import FetchPolicy, RetryPolicy
from ._drift import Drifts
from ._effects import Effects
from ._errors import (
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    DeadlineExceededError,
    NoAnswerError,
    NotAskedError,
    PayloadTooLargeError,
    PersonalizeError,
    RateLimitedError,
    duplicate,
)
from ._exchange import Call, Exchange
from ._experiences import Reason
from ._questions import Entries, Trouble
from .core.breaker import Breaker, Passage, Quota, RateWindow
from .core.circuit import RetryBudget
from .core.flights import Flight
from .core.wire import FETCH_PATH, fetch_body
from .core.wire.answers import read_experiences

if TYPE_CHECKING:
    from .http2 import Sending

log = logging.getLogger("moengage_personalize")
REFUSALS = 3  # before the first accepted question, from which on they are taken for a wrong configuration
REFUSING = "MoEngage has refused every fetch so far (400): check workspace_id and data_center, and what you ask"
Answer = bytes | PersonalizeError | None
"""A body, or why there is none; None: the question was not asked."""


@attrs.define(eq=False, repr=False)
class Passenger:
    """What a flight carries besides keys. Shows nothing of it.

    Attributes:
        fields: The body without its keys.
        person: The customer id, hashed.
        passage: What the breaker said.
        kept: Whether its answer may be kept; not, once the person is to be forgotten.
        attempts: Requests so far.
        known: Which credentials the first of them used.
        asking: Whether one is out.
        sending: How to call off the first, as long as it is no task's.
        task: The flight, once it needs one.
        timer: The end of its being late.
        setback: The last attempt's error.
        outcome: How it ended.
        shared: Whether more than one caller sees its entries.
    """

    fields: bytes
    person: bytes | None
    passage: Passage
    kept: bool = True
    attempts: int = 0
    known: int = 0
    asking: bool = False
    sending: Sending | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    setback: PersonalizeError | None = None
    outcome: Entries | Trouble | None = None
    shared: bool = False


class Pilot:
    """Makes flights. See the module's docstring.

    Args:
        exchange: How requests are made.
        policy: How often, and under which protection.
        retrying: The pause before a second attempt.
        budget: What retries are paid from.
        effects: Chance.
    """

    def __init__(
        self, exchange: Exchange, policy: FetchPolicy, retrying: RetryPolicy, *, budget: RetryBudget, effects: Effects
    ) -> None:
        self._exchange = exchange
        self._policy = policy
        self._retrying = retrying
        self._budget = budget
        self._effects = effects
        self._window = RateWindow(policy.quota_share)
        self.breaker = Breaker(policy)
        self.drifts = Drifts()
        self._credentials_seen = 0  # those that were refused last
        self.refusing = False  # whether not one question has been accepted yet, and several were refused
        self._refusals: float = 0
        self.requests = 0
        self.retries = 0

    # ── may it leave? ────────────────────────────────────────────────────────────────────────────────────────────────

    def clear(self, now: float) -> Passage | Trouble:
        """Returns whether a request may leave, which it then does, or why not."""
        if wait := self._window.wait(now):
            text = "not asked: the quota, or this process's share of it, is used up"
            return Trouble(Reason.RATE_LIMITED, RateLimitedError(text, retry_after=wait))
        self.look_at_credentials()
        passage = self.breaker.ask(now)
        if passage is Passage.NO:
            return Trouble(Reason.OPEN_CIRCUIT, self._open_circuit(now))
        self._window.leaving()
        return passage

    def look_at_credentials(self) -> None:
        """If they were renewed (by the senders of events, say), what they were refused is forgiven."""
        denied = isinstance(self.breaker.cause, AuthenticationError)
        if denied and self._credentials_seen != self._exchange.credentials_changed:
            self.breaker.new_credentials()

    def _open_circuit(self, now: float) -> PersonalizeError:
        cause = self.breaker.cause
        if isinstance(cause, AuthenticationError):
            error = duplicate(cause)
            error.attempts, error.retry_after = 0, self.breaker.seconds_left(now)
            return error
        error = NotAskedError("not asked: the circuit is open", retry_after=self.breaker.seconds_left(now))
        error.__cause__ = None if cause is None else duplicate(cause)
        return error

    def stopped(self, flight: Flight, now: float, *, expired: bool) -> None:
        """The flight is called off: out of time, or by callers who went away."""
        passenger: Passenger = flight.passenger
        if passenger.asking and expired:
            late = DeadlineExceededError("no answer within the deadline", attempts=passenger.attempts)
            was_open = self.breaker.is_open
            self.breaker.failed(now, passenger.passage, late)
            self._tell(was_open)
        elif passenger.asking or not passenger.attempts:
            self.breaker.unknown(passenger.passage)
        passenger.asking = False

    # ── flying ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, flight: Flight, keys: Sequence[str] | None, answered: Callable[[Answer], None]) -> Sending | None:
        """Asks for the first time, without a task, where the transport can; it leaves with `push`.

        Args:
            flight: The flight.
            keys: What it asks for.
            answered: Told what came, for `read`.

        Returns:
            How to call it off. None: nothing has begun, and `fly` does all of it.
        """
        passenger: Passenger = flight.passenger
        passenger.known = max(1, self._exchange.credentials_changed)
        sending = self._exchange.begin(self._call(passenger, keys), answered)
        if sending is not None:
            self._asked(passenger)
        return sending

    def push(self) -> None:
        """Sends what has begun."""
        self._exchange.push()

    def read(self, flight: Flight, keys: Sequence[str] | None, answer: Answer) -> Entries | PersonalizeError | None:
        """Returns the entries of an answer, or an error that `fly` goes on from; None if it was not asked after all."""
        passenger: Passenger = flight.passenger
        if answer is None:
            self.requests -= 1
            passenger.attempts -= 1
            passenger.asking = False
            return None
        if isinstance(answer, bytes):
            try:
                return self._answered(passenger, read_experiences(answer, keys, self.drifts))
            except PersonalizeError as error:
                answer = error
        return self._setback(passenger, answer)

    async def fly(
        self, flight: Flight, keys: Sequence[str] | None, setback: PersonalizeError | None = None
    ) -> Entries | Trouble:
        """Returns how it ended; with a `setback`, goes on from there."""
        passenger: Passenger = flight.passenger
        outcome: Entries | PersonalizeError | None = setback
        began, known = flight.began, passenger.known
        while True:
            if outcome is None:
                began, known = _now(), max(1, self._exchange.credentials_changed)
                outcome = await self._attempt(passenger, keys)
            if not isinstance(outcome, PersonalizeError):
                return outcome
            renewed = isinstance(outcome, AuthenticationError) and await self._renewed(passenger, known)
            if not renewed:
                self._report(passenger, outcome)
                if not await self._may_retry(flight, outcome, _now() - began):
                    return Trouble(reason_of(outcome), outcome)
                passenger.passage = Passage.GO  # a probe is not retried, unless its answer closed the circuit
            passenger.setback, outcome = outcome, None
            self.retries += 1

    async def _attempt(self, passenger: Passenger, keys: Sequence[str] | None) -> Entries | PersonalizeError:
        self._asked(passenger)
        try:
            body = await self._exchange.request(self._call(passenger, keys), deadline=inf)
            return self._answered(passenger, read_experiences(body, keys, self.drifts))
        except PersonalizeError as error:
            return self._setback(passenger, error)

    def _call(self, passenger: Passenger, keys: Sequence[str] | None) -> Call:
        return Call(method="POST", target=FETCH_PATH, body=fetch_body(passenger.fields, keys), on_quota=self._quota_is)

    def _asked(self, passenger: Passenger) -> None:
        self.requests += 1
        passenger.attempts += 1
        passenger.asking = True

    def _answered(self, passenger: Passenger, entries: Entries) -> Entries:
        passenger.asking = False
        self._budget.give_back()
        was_open = self.breaker.is_open
        self.breaker.answered(_now(), passenger.passage)
        if was_open:
            self._tell(was_open)
        if self.refusing:
            log.info("fetching is refused no longer")
        self.refusing, self._refusals = False, -inf
        return entries

    def _setback(self, passenger: Passenger, error: PersonalizeError) -> PersonalizeError:
        error.attempts = passenger.attempts
        if isinstance(error, DeadlineExceededError) and passenger.setback is not None:
            error.__cause__ = passenger.setback
        error.__traceback__ = None
        return error

    def _report(self, passenger: Passenger, error: PersonalizeError) -> None:
        now = _now()
        passenger.asking = False
        was_open = self.breaker.is_open
        match error:
            case AuthenticationError():
                self._credentials_seen = self._exchange.credentials_changed
                self.breaker.denied(now, passenger.passage, error)
            case RateLimitedError():
                # Without a word of how long, others wait at least as long as a retry would.
                self._window.throttled(error.retry_after or self._retrying.initial, now)
                self.breaker.answered(now, passenger.passage)
            case BadRequestError() | PayloadTooLargeError():
                self.breaker.answered(now, passenger.passage)
                self._refused()
            case _:
                self.breaker.failed(now, passenger.passage, error)
        self._tell(was_open)

    def _refused(self) -> None:
        """One question may be wrong. If all are, it is rather the configuration."""
        self._refusals += 1
        if self._refusals == REFUSALS:
            self.refusing = True
            log.warning(REFUSING)

    def _tell(self, was_open: bool) -> None:  # noqa: FBT001
        if self.breaker.is_open and not was_open:
            log.warning("fetching is suspended, but for probes: %s", _in_words(self.breaker.cause))
        elif was_open and not self.breaker.is_open:
            log.info("fetching is resumed")

    async def _renewed(self, passenger: Passenger, known: int) -> bool:
        """Whether the key that was refused has been exchanged for another, which deserves one attempt at once."""
        if passenger.attempts >= self._policy.attempts:
            return False
        try:
            await self._exchange.renew()
        except PersonalizeError:
            return False
        return self._exchange.credentials_changed != known

    async def _may_retry(self, flight: Flight, error: PersonalizeError, took: float) -> bool:
        now = _now()
        left = flight.wanted_until - now
        jitter = self._effects.jitter() * min(self._retrying.initial, left / 4)
        pause = max(error.retry_after or 0.0, self._window.wait(now), jitter)
        hopeless = isinstance(error, DeadlineExceededError) or not error.retryable or left - pause <= took / 2
        if hopeless or flight.passenger.attempts >= self._policy.attempts or self.breaker.is_open:
            return False
        if not self._budget.try_spend(now):
            return False
        await asyncio.sleep(pause)
        if self.breaker.is_open or self._window.wait(_now()) or not flight.tickets:
            return False
        self._window.leaving()
        return True

    def _quota_is(self, quota: Quota) -> None:
        self._window.observe(quota, _now())


def _now() -> float:
    return asyncio.get_running_loop().time()


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


def _in_words(error: PersonalizeError | None) -> str:
    """What opened the circuit, for the log: words of our own, and none of MoEngage's."""
    match error:
        case AuthenticationError():
            return "MoEngage refuses the workspace id or the key (`moengage-personalize doctor` says which)"
        case NoAnswerError():
            return f"{type(error).__name__}: {error}"
        case _:
            return type(error).__name__
