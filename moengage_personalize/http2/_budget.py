"""What may be spent at once, and how fast it comes back: a token bucket. Time is an argument, in seconds."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Budget:
    """`burst` tokens at first and at most, `rate` more a second."""

    burst: float
    rate: float
    updated: float
    tokens: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        """Spend one token if there is one."""
        self._refill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def is_half_full(self, now: float) -> bool:
        """Whether there is plenty."""
        self._refill(now)
        return self.tokens * 2 >= self.burst

    def _refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
        self.updated = now

    def give(self, tokens: float) -> None:
        """Add what was earned otherwise."""
        self.tokens = min(self.burst, self.tokens + tokens)
