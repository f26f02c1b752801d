"""An event loop whose clock jumps when it is idle, so that "linger 60 s" takes no time.

For tests without sockets and threads: there, idle means that only the clock can bring the next event.
"""

import asyncio
import selectors


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, *, alone):
        super().__init__()
        self._alone = alone
        self.jumped = 0.0

    def select(self, timeout=None):
        if timeout is None and self._alone:
            raise AssertionError("nobody is left who could wake anybody")
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.jumped += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time stands still but for every wait that it skipped.

    Args:
        alone: No thread or socket can wake it: to wait for ever is an error.
    """

    def __init__(self, *, alone=False):
        self._jumping = _JumpingSelector(alone=alone)
        super().__init__(self._jumping)

    def time(self):
        # Frozen but for the jumps: a slow machine does not age anything.
        return 1_000.0 + self._jumping.jumped

    async def shutdown_default_executor(self, timeout=None):
        # Without the time limit that Python has given this since 3.12: to wait for a thread is to be
        # idle, so the clock would jump over it before the thread can end.
        del timeout
        await super().shutdown_default_executor()
