"""Who has been forgotten, and when.

A tombstone says: no event of this person that was accepted until then may be sent, by any process that shares
the directory, living or yet to come. It holds a keyed hash and not the person's id. Every process keeps
them all in memory, and looks once per cycle whether the file has changed.

Invariant: a tombstone is durable before `add` returns, and is dropped only when it is a day old and every
file in the directory is younger than it.
"""

import hashlib
from collections.abc import Callable

from attrs import define, field

from ._format import decode_tombstone, encode_tombstone
from ._shared_log import SharedLog

_MANY = 100
_A_DAY = 86_400.0


@define(eq=False)
class Tombstones:
    """The shared file of tombstones, and what this process knows of it."""

    log: SharedLog
    _version: tuple[int, int, int] | None = field(default=None, init=False)
    _known: tuple[bytes, dict[bytes, float]] = field(default=(b"", {}), init=False, repr=False)

    def covers(self, customer: bytes, accepted_at: float) -> bool:
        """Whether an event may not be sent. Cheap, and callable from any thread."""
        key, known = self._known
        return bool(known) and accepted_at <= known.get(_digest(customer, key), -1.0)

    def refresh(self) -> bool:
        """Read the file if it has changed; answers whether it had. Raises like `SharedLog.read`."""
        version = self.log.version()
        if version == self._version:
            return False
        found = self.log.read()
        known: dict[bytes, float] = {}
        for frame in found[1] if found else ():
            stone = decode_tombstone(frame.body)
            if stone is not None:
                known[stone[0]] = max(stone[1], known.get(stone[0], 0.0))
        self._known = (found[0].marker if found else b"", known)
        self._version = version
        return True

    def add(self, customer: bytes, until: float, now: float, oldest: Callable[[], float | None]) -> None:
        """Forget a person, durably: what was accepted until then.

        Args:
            customer: Who.
            until: When the newest event was accepted that may not be sent, or now.
            now: Wall clock, epoch seconds.
            oldest: Answers when the oldest entries may have been accepted.
        """
        with self.log.locked() as log:
            stone = encode_tombstone(_digest(customer, log.header.marker), until)
            frames = log.frames()
            horizon = oldest() if len(frames) >= _MANY else None
            if horizon is None:
                log.append([stone])
                return
            horizon = min(horizon, now - _A_DAY)
            kept = [frame.body for frame in frames if not _is_older(frame.body, horizon)]
            log.rewrite([*kept, stone])


def _is_older(body: bytes, horizon: float) -> bool:
    stone = decode_tombstone(body)
    return stone is None or stone[1] < horizon


def _digest(customer: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(customer, digest_size=16, key=key).digest()
