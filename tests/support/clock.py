"""An event loop whose clock jumps when it is idle, so that "linger 60 s" takes no time.

For tests without sockets and threads: there, idle means that only the clock can bring the next event.
"""

import asyncio
import selectors


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout=None):
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.jumped += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time is the real one plus every wait that it skipped."""

    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self):
        # Frozen but for the jumps: a slow machine does not age anything.
        return 1_000.0 + self._jumping.jumped
