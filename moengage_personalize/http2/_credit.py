"""What the peer may still send on the connection: used by every byte of DATA, given back by the half window.

The invariant: `room + used == window`. Whatever became of a stream, its bytes come back; nothing can leak.
"""

from __future__ import annotations

from attrs import define


@define
class Credit:
    """One connection's receive window, in bytes."""

    window: int
    used: int = 0

    @property
    def room(self) -> int:
        """What the peer may still send; negative: it sent more than it might."""
        return self.window - self.used

    def use(self, size: int) -> int:
        """DATA came. Returns how much credit to give back now, in one WINDOW_UPDATE; mostly none."""
        self.used += size
        if self.used * 2 < self.window or self.room < 0:
            return 0
        back, self.used = self.used, 0
        return back
