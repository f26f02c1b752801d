"""When a replay gives up.

Theory: an outage is waited for, however long it takes, as long as now and then something is acknowledged. Credentials
that are wrong are nothing to wait for; but a key that was just changed takes a while to be known, so they get a few
tries. Time is an argument.
"""

from __future__ import annotations

from typing import Final

from moengage_personalize import Condition, Health, Stats

from ._ending import TROUBLE, USAGE

MISCONFIGURED_FOR: Final = 15.0  # seconds: longer than the client's longest pause, so that it has asked again


class GiveUp(Exception):  # noqa: N818 - no error: a decision
    """Stop here.

    Args:
        status: The exit status.
        reason: For the operator.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Patience:
    """How long there was no progress.

    Args:
        seconds: Without any, after which to give up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._settled, self._since = -1, 0.0  # events, and since when there are no more of them
        self._misconfigured: float | None = None

    def renew(self, now: float) -> None:
        """Begins again, since there is something new to wait for."""
        self._since = now

    def spend(self, now: float, stats: Stats, health: Health) -> None:
        """Looks how it goes.

        Raises:
            GiveUp: For too long, it has not.
        """
        settled = stats.delivered + stats.rejected
        if settled > self._settled:
            self._settled, self._since = settled, now
        misconfigured = health.condition is Condition.MISCONFIGURED
        self._misconfigured = (self._misconfigured or now) if misconfigured else None
        if self._misconfigured is not None and now - self._misconfigured > MISCONFIGURED_FOR:
            raise GiveUp(USAGE, health.detail)
        if now - self._since > self._seconds:
            raise GiveUp(TROUBLE, health.detail or "nothing is acknowledged")
