"""What all senders of events have learned together about the way to MoEngage.

Theory: a refused key or a used-up quota concerns every sender, so it is remembered once. The circuit is *closed* as
long as requests are answered. Refused credentials (or a refused single event before these credentials ever had a
success) *open* it: one probe at a time goes out, after pauses that grow to `RetryPolicy.maximum`; any success closes
it. 429 and `Retry-After` make everybody pause for as long as the server asks.

Invariants: while open, at most one request is out, and at most one per pause; the remembered ceiling stays within
4 KiB and the policy's `max_bytes`; a retry is paid from one budget, which never starves.
"""

from __future__ import annotations

from math import inf
from typing import Final

from .._config import RetryPolicy

MAX_SERVER_PAUSE: Final = 300.0  # seconds; a server's word is obeyed, a typing error in it is not
LOWEST_CEILING: Final = 4_096


class RetryBudget:
    """A token bucket for retries: one costs 1, a success gives back 0.1, and so does every tenth of a second.

    It may be overdrawn; the debt is then the seconds to wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = float(capacity)
        self._tokens = float(capacity)
        self._at = -inf

    def spend(self, now: float) -> float:
        """Takes a token; returns the seconds to wait for it, 0.0 if it was there."""
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens)

    def try_spend(self, now: float) -> bool:
        """Takes a token if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        self._tokens = min(self._capacity, self._tokens + 0.1)

    def _refill(self, now: float) -> None:
        if now > self._at:
            gained = 0.0 if self._at == -inf else now - self._at
            self._tokens = min(self._capacity, self._tokens + gained)
            self._at = now


class Circuit:
    """The circuit. See the module's docstring."""

    def __init__(self, retrying: RetryPolicy, *, max_bytes: int) -> None:
        self._retrying = retrying
        self._max_bytes = max_bytes
        self._pause_until = -inf
        self._open_until = -inf
        self._refusals = 0
        self._probing = False
        self.budget = RetryBudget(retrying.budget)
        self.ceiling = max_bytes
        self.proven = False
        self.successes = 0
        self.failing = False
        self.denied_with: int | None = None
        self.paused = False

    @property
    def is_open(self) -> bool:
        return self._refusals > 0

    def ready_at(self, now: float) -> float:
        """Returns when a request may leave; a time in the past: now; `inf`: not before something changes."""
        if self.paused or (self.is_open and self._probing):
            return inf
        return max(self._pause_until, self._open_until if self.is_open else now)

    def leaving(self) -> bool:
        """A request leaves; returns whether it is the probe, which it is while open."""
        self._probing = self._probing or self.is_open  # an earlier probe may still be out
        return self.is_open

    def probed(self) -> None:
        """The probe came back, or never will."""
        self._probing = False

    def succeeded(self) -> None:
        """A 2xx."""
        self.proven = True
        self.failing = False
        self.successes += 1
        self._refusals = 0
        self.denied_with = None
        self.budget.give_back()
        self.ceiling = min(self._max_bytes, self.ceiling + self._max_bytes // 256)

    def refused(self, status: int, now: float, jitter: float) -> None:
        """Credentials, or the configuration behind them, were refused."""
        pause = min(self._retrying.maximum, self._retrying.initial * 2**self._refusals)
        self._refusals = min(self._refusals + 1, 60)
        self._open_until = now + pause * (0.5 + jitter / 2)
        self.denied_with = status

    def undecided(self, now: float, jitter: float) -> None:
        """The probe was answered, and told nothing of the credentials: the last pause again."""
        pause = min(self._retrying.maximum, self._retrying.initial * 2 ** max(0, self._refusals - 1))
        self._open_until = max(self._open_until, now + pause * (0.5 + jitter / 2))

    def throttled(self, until: float) -> None:
        """Everybody waits."""
        self._pause_until = max(self._pause_until, until)

    def too_large(self, size: int) -> None:
        """A request of this size was answered 413."""
        self.ceiling = max(LOWEST_CEILING, min(self.ceiling, size // 2))

    def new_credentials(self) -> None:
        """What these had proven, or been refused, says nothing of others."""
        self.proven = False
        self._open_until = -inf

    def __repr__(self) -> str:
        state = f"open after {self._refusals} refusals" if self.is_open else "closed"
        return f"<Circuit {state}, {'proven' if self.proven else 'unproven'}, ceiling {self.ceiling} bytes>"
