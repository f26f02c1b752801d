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

_generator = random.Random()  # seeded by the system
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_TAILS = [f"{number:02x}" for number in range(256)]


def _run() -> Callable[[], str]:
    """Returns what goes through 256 version 4 UUIDs that differ in their last two digits only, all of it in C."""
    h = f"{_generator.getrandbits(120):030x}"
    return map(f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:]}".__add__, _TAILS).__next__


_next = _run()


def uuid4() -> str:
    """Returns a fresh UUID, shaped as version 4.

    `uuid.uuid4` asks the system for every one, which releases the GIL and costs milliseconds beside a busy thread
    (design.md, section 5). This draws 114 bits for 256 of them, from a generator that the system seeded. Within such a
    run nothing can repeat; two of n runs are the same with a probability below n² / 2¹¹⁵, so that a trillion events
    are in less danger than if each had 122 random bits of its own.
    """
    global _next
    try:
        return _next()
    except StopIteration:
        _next = _run()
        return _next()


def _after_fork_in_child() -> None:
    global _next  # else parent and child would go on alike
    _generator.seed()
    _next = _run()


if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX
    os.register_at_fork(after_in_child=_after_fork_in_child)


@attrs.frozen(kw_only=True)
class Effects:
    """The outside world, as far as the SDK's decisions depend on it.

    Attributes:
        wall: Seconds since the epoch.
        uuid4: A fresh UUID shaped as version 4, canonical lower case.
        jitter: A number in [0, 1), evenly distributed.
    """

    wall: Callable[[], float] = time.time
    uuid4: Callable[[], str] = uuid4
    jitter: Callable[[], float] = _generator.random
