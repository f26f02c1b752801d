"""The fetch rate limit: so many requests in each minute of the clock, and the headers that say so.

Source: api-facts, 1.6. `x-ratelimit-reset` is epoch seconds, as the Personalize pages have it; MoEngage's
Data API documents seconds that remain.
"""

from moengage_personalize.emulator._messages import Headers

MINUTE = 60


class RateWindow:
    """Counts requests per minute of the epoch.

    Args:
        limit: Requests a minute; None never refuses, and sends no headers.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._minute = -1
        self._taken = 0

    def take(self, now: float) -> tuple[bool, Headers]:
        """Takes one request; says whether it is allowed, and which headers go out with the answer."""
        if self.limit is None:
            return True, ()
        minute = int(now) // MINUTE
        if minute != self._minute:
            self._minute, self._taken = minute, 0
        self._taken += 1
        return self._taken <= self.limit, (
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, self.limit - self._taken)),
            (b"x-ratelimit-reset", b"%d" % ((minute + 1) * MINUTE)),
        )
