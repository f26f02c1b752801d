"""What the emulator takes from the world outside: a clock, dice, request ids and sleep, in one frozen value.

Invariant: nothing else in this package reads a clock, rolls dice or sleeps, so that a test which passes
its own `Effects` decides when the rate window turns, who meets trouble and how long a "ten-second" answer
takes.
"""

import random
import time
import uuid
from collections.abc import Awaitable, Callable

import attrs


async def _sleep(seconds: float) -> None:
    import anyio  # late: an emulator that is never slow needs no event-loop library

    await anyio.sleep(seconds)


@attrs.frozen(kw_only=True)
class Effects:
    """The world as the emulator sees it.

    Attributes:
        now: Seconds since the epoch.
        random: A number in [0, 1).
        req_id: A fresh id for one accepted request.
        sleep: Waits for a number of seconds.
    """

    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    req_id: Callable[[], str] = lambda: uuid.uuid4().hex
    sleep: Callable[[float], Awaitable[None]] = _sleep
