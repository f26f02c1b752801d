"""One connection's place: who sits there, who comes after, and when they change.

The invariants: there is one attempt to connect at a time; a connection that has aged keeps its place until
its successor is ready; one that no longer accepts requests loses it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ._connection import Connection
from ._terms import State

_AGAIN: Final = 10.0
"""Seconds until a successor that failed is tried again."""


class Seat:
    """See the module. Time is an argument, in seconds.

    Args:
        connect: Makes a new connection, which is connecting.
        lifetime: Seconds that a connection may be in use; asked for each.
    """

    def __init__(self, connect: Callable[[], Connection], lifetime: Callable[[], float]) -> None:
        self._connect = connect
        self._lifetime = lifetime
        self._current: Connection | None = None
        self._successor: Connection | None = None
        self._age = lifetime()

    @property
    def load(self) -> float:
        """How much waits here; -1 if nobody sits here."""
        current = self._current
        return current.load if current is not None and current.accepting else -1

    @property
    def is_full(self) -> bool:
        """Whether a new request would have to wait for a stream."""
        return self._current is not None and self._current.is_full

    def take(self, now: float) -> Connection:
        """The connection for a new request: the one that serves, or one that is on its way."""
        current = self._current
        if current is None or not current.accepting:
            if current is not None:
                current.drain()
            self._current, self._successor = self._successor, None
            if self._current is None or not self._current.accepting:
                self._current = self._connect()
            self._age = self._lifetime()
            return self._current
        if now - current.opened_at < self._age:
            return current
        return self._relieve(current, now)

    def _relieve(self, current: Connection, now: float) -> Connection:
        """See to the successor of a connection that has aged."""
        successor = self._successor
        if successor is None:
            self._successor = self._connect()
            return current
        if successor.state > State.SERVING:
            self._successor = None  # it failed: again a little later
            self._age = now - current.opened_at + min(self._lifetime(), _AGAIN)
            return current
        if successor.state is State.CONNECTING:
            return current
        self._current, self._successor = successor, None
        self._age = self._lifetime()
        current.drain()
        return successor

    def forget(self) -> None:
        """Begin again with nobody."""
        self._current = self._successor = None
