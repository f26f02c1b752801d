"""What the world supplies: the wall clock, fresh UUIDs and chance, as one frozen value.

Invariant: nothing else in this package reads the wall clock or makes randomness, so a test that passes its own
`Effects` decides both. (Monotonic time is the event loop's, which a test replaces by its own loop.)
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import attrs

_generator = random.Random()  # seeded by the system; seeded anew in a forked child, or both would draw the same
if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX
    os.register_at_fork(after_in_child=_generator.seed)


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid4() -> str:
    """Returns a fresh version 4 UUID.

    `uuid.uuid4` asks the system for every one, which releases the GIL and costs milliseconds beside a busy thread
    (design.md, section 5). This draws 122 bits from a generator that the system seeded.
    """
    h = _generator.getrandbits(128).to_bytes(16).hex("-", 6)  # two of the four dashes come for nothing
    return f"{h[:13]}-4{h[14:17]}-{_VARIANT[h[17]]}{h[18:]}"


@attrs.frozen(kw_only=True)
class Effects:
    """The outside world, as far as the SDK's decisions depend on it.

    Attributes:
        wall: Seconds since the epoch.
        uuid4: A fresh version 4 UUID, canonical lower case.
        jitter: A number in [0, 1), evenly distributed.
    """

    wall: Callable[[], float] = time.time
    uuid4: Callable[[], str] = uuid4
    jitter: Callable[[], float] = _generator.random
