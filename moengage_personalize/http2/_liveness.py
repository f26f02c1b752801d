"""Whether the peer is still there: what to ask, and what to make of silence.

The rule, with p = max(250 ms, 4 x the smoothed round trip): silence for p after a request → a PING; nothing
heard for p after that → SUSPECT, and the next caller gets another connection; nothing for p again → LOST,
and those in flight fail. Any byte from the peer is a sign of life and ends the doubt. The question outlives
whoever asked it: callers that give up after 30 ms must not keep a dead connection from being noticed. After
an idle second the PING travels ahead of the first request, and is not waited for.

An answered PING while a stream stays silent (a slow answer) doubles the pause to the next one, up to 16 p,
so that patience is no flood; a new request brings the pause back to p.

Silence is the peer's only if we listened. Time during which our own event loop stood still is not counted.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import Final

from attrs import define

FLOOR: Final = 0.25
"""Seconds of silence before a PING, at least: beyond the usual first retransmission of a lost packet."""

IDLE: Final = 1.0
REST: Final = 0.025
"""Seconds without a request after which the connection counts as idle."""

_STALL: Final = 0.05
_LONGEST: Final = 16


class Advice(Enum):
    """What to do now."""

    WAIT = auto()
    PING = auto()
    SUSPECT = auto()
    LOST = auto()


@define(eq=False)
class Liveness:
    """All times in seconds, on the caller's clock; `inf` is "never"."""

    round_trip: float = 0.0  # smoothed; 0: not measured yet
    heard_at: float = 0.0
    asked_at: float = 0.0  # when the latest request left
    idle_since: float = inf  # inf: something is in flight, or nothing ever was
    busy: bool = False
    ping_at: float = inf
    pinged_at: float = inf  # when the latest PING left, until its answer
    silent_since: float = inf  # when the first PING left after which nothing at all was heard
    suspect: bool = False
    stretch: int = 1

    @property
    def patience(self) -> float:
        """p, in seconds."""
        return max(FLOOR, 4 * self.round_trip)

    def is_idle(self, now: float) -> bool:
        """Whether nothing has been in flight for so long that the server may have gone meanwhile."""
        return now - self.idle_since >= IDLE

    def has_rested(self, now: float) -> bool:
        """Whether nothing has been in flight for so long that an end may be under way."""
        return now - self.idle_since >= REST

    def asked(self, now: float) -> bool:
        """A request leaves. Returns whether a PING should travel ahead of it."""
        idle = self.is_idle(now)
        self.busy, self.idle_since, self.asked_at, self.stretch = True, inf, now, 1
        self.ping_at = min(self.ping_at, now + self.patience)
        return idle

    def rested(self, now: float) -> None:
        """Nothing is in flight any more, be it answered or given up."""
        self.busy, self.idle_since = False, now
        if self.heard_at >= self.asked_at:
            self.ping_at = inf

    def heard(self, now: float) -> None:
        """Bytes came."""
        self.heard_at = now
        self.silent_since = inf
        self.ping_at = now + self.patience * self.stretch if self.busy else inf

    def pinged(self, now: float) -> None:
        """A PING leaves."""
        self.pinged_at, self.ping_at = now, inf
        self.silent_since = min(self.silent_since, now)

    def answered(self, now: float) -> None:
        """The latest PING's answer came."""
        self.measured(now - self.pinged_at)
        self.pinged_at = inf
        self.stretch = min(self.stretch * 2, _LONGEST)
        self.heard(now)

    def measured(self, sample: float) -> None:
        """A round trip took `sample` seconds (smoothed as TCP does, RFC 6298)."""
        self.round_trip = self.round_trip * 0.875 + sample * 0.125 if self.round_trip else sample

    def advise(self, now: float) -> Advice:
        """What the time that has passed says. The caller carries it out, and asks again at `wake_at`."""
        late = now - self.wake_at
        if late > _STALL and self.silent_since != inf:
            self.silent_since += late
        silence = now - self.silent_since
        if silence >= 2 * self.patience:
            return Advice.LOST
        if silence >= self.patience and not self.suspect:
            self.suspect = True
            return Advice.SUSPECT
        return Advice.PING if now >= self.ping_at else Advice.WAIT

    @property
    def wake_at(self) -> float:
        """When the advice may change by itself."""
        return min(self.ping_at, self.silent_since + self.patience * (2 if self.suspect else 1))
