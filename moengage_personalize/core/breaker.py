"""When fetches are not sent, to spare MoEngage, the quota and the visitor's time.

Theory: the *breaker* is closed while requests are answered. It looks at the newest hundred outcomes of the last
`breaker_window` seconds; when at least `breaker_failures` of them, and at least half, are failures, it opens for
`open_for` seconds; refused credentials open it at once, for `denied_for`. After that one request, the *probe*, goes
out: an answer closes the breaker, anything else opens it for another interval. An *answer* is whatever shows that
MoEngage works, a refused question included; a failure is a deadline that passed, a broken connection, a 5xx.

The *rate window* is what MoEngage tells of the workspace's quota (`x-ratelimit-*`), of which this process uses no more
than its share.

Invariants: while the breaker is open, at most one probe is out, and two probes are at least one interval apart. In one
window of the quota at most `share` of it is used, and nothing leaves once nothing remains.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf
from typing import Final

import attrs

from .._config import FetchPolicy
from .._errors import PersonalizeError

OUTCOMES: Final = 100  # remembered; a longer memory of good days would delay the opening
DOCUMENTED_QUOTA: Final = 10_000  # fetches a minute per workspace (api-facts.md, section 1.6)
WINDOW: Final = 60.0
MAX_SERVER_PAUSE: Final = 300.0  # seconds; a server's word is obeyed, a typing error in it is not


class Passage(Enum):
    """Whether a request may leave."""

    GO = "go"
    PROBE = "probe"
    NO = "no"


class Breaker:
    """The breaker. See the module's docstring."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._open_until = -inf
        self._interval = 0.0
        self._probing = False
        self.cause: PersonalizeError | None = None
        self.opened = 0  # how often

    @property
    def is_open(self) -> bool:
        """Whether the last word was a failure."""
        return self._interval > 0

    def seconds_left(self, now: float) -> float:
        """Returns how long nothing leaves, at least."""
        return max(0.0, self._open_until - now) if self.is_open else 0.0

    def ask(self, now: float) -> Passage:
        """A request wants to leave; after `PROBE` exactly one of the four outcomes below is reported for it."""
        if not self.is_open:
            return Passage.GO
        if self._probing or now < self._open_until:
            return Passage.NO
        self._probing = True
        self._open_until = now + self._interval
        return Passage.PROBE

    def answered(self, now: float, passage: Passage) -> None:
        """MoEngage answered, whatever it said."""
        if passage is Passage.PROBE:
            self._probing = False
            self._interval = 0.0
            self.cause = None
        if not self.is_open:
            self._note(now, ok=True)

    def failed(self, now: float, passage: Passage, error: PersonalizeError) -> None:
        """No answer came, or one that shows that MoEngage does not work."""
        if passage is Passage.PROBE:
            self._open(now, self._policy.open_for, error)
        elif not self.is_open:
            self._note(now, ok=False)
            if self._failures >= max(self._policy.breaker_failures, len(self._outcomes) / 2):
                self._open(now, self._policy.open_for, error)

    def denied(self, now: float, passage: Passage, error: PersonalizeError) -> None:
        """The credentials were refused: a matter of minutes, not of seconds."""
        if passage is Passage.PROBE or self._interval != self._policy.denied_for:
            self._open(now, self._policy.denied_for, error, probing=self._probing and passage is not Passage.PROBE)

    def new_credentials(self) -> None:
        """What the former ones were refused says nothing of these."""
        self._interval, self._probing, self.cause = 0.0, False, None

    def unknown(self, passage: Passage) -> None:
        """The request was called off before anything was known; a probe's interval has begun all the same."""
        if passage is Passage.PROBE:
            self._probing = False

    def _open(self, now: float, interval: float, error: PersonalizeError, *, probing: bool = False) -> None:
        self.opened += not self.is_open
        self.cause = error
        self._probing = probing
        self._interval = interval
        self._open_until = now + interval
        self._outcomes.clear()
        self._failures = 0

    def _note(self, now: float, *, ok: bool) -> None:
        outcomes = self._outcomes
        outcomes.append((now, ok))
        self._failures += not ok
        oldest = now - self._policy.breaker_window
        while len(outcomes) > OUTCOMES or outcomes[0][0] < oldest:
            self._failures -= not outcomes.popleft()[1]

    def __repr__(self) -> str:
        state = "closed" if not self.is_open else "half-open" if self._probing else "open"
        return f"<Breaker {state}, {self._failures} of {len(self._outcomes)} failed>"


@attrs.frozen
class Quota:
    """What a reply tells of the workspace's quota.

    Attributes:
        limit: Requests per window.
        remaining: How many are left, for all processes together.
        resets_in: Seconds until the next window.
    """

    limit: int | None = None
    remaining: int | None = None
    resets_in: float | None = None


class RateWindow:
    """This process's view of the quota. See the module's docstring.

    Args:
        share: The part of the workspace's quota that this process may use, above 0, at most 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        # A workspace's limit may have been raised; only a process that was given a share believes the document.
        self._allowed = inf if share == 1 else max(1, int(DOCUMENTED_QUOTA * share))
        self._used = 0
        self._remaining = inf
        self._resets_at = -inf
        self._told = False  # whether `_resets_at` is MoEngage's word, or a guess
        self._paused_until = -inf

    def wait(self, now: float) -> float:
        """Returns the seconds until a request may leave; 0.0: now."""
        if now >= self._resets_at:
            self._roll(now + WINDOW)
        spent = self._used >= self._allowed or self._remaining < 1
        return max(0.0, self._paused_until - now, self._resets_at - now if spent else 0.0)

    def leaving(self) -> None:
        """A request leaves."""
        self._used += 1
        self._remaining -= 1

    def observe(self, quota: Quota, now: float) -> None:
        """A reply told this."""
        if quota.limit is not None:
            self._allowed = max(1, int(quota.limit * self._share))
        if quota.resets_in is not None:
            resets_at = now + min(quota.resets_in, MAX_SERVER_PAUSE)
            if now >= self._resets_at or (self._told and resets_at > self._resets_at + 1):
                self._roll(resets_at)
            self._resets_at, self._told = resets_at, True
        if quota.remaining is not None:
            self._remaining = min(self._remaining, quota.remaining)

    def throttled(self, seconds: float, now: float) -> None:
        """MoEngage answered 429, and asks for so many seconds."""
        self._paused_until = max(self._paused_until, now + min(seconds, MAX_SERVER_PAUSE))

    def _roll(self, resets_at: float) -> None:
        self._used = 0
        self._remaining = inf
        self._resets_at, self._told = resets_at, False

    def __repr__(self) -> str:
        return f"<RateWindow {self._used} of {self._allowed} used, {self._remaining} remain>"
