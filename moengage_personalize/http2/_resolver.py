"""Names to addresses: asked for once however many wait, in our own thread, and the last good answer is kept.

A kept answer is used when the resolver fails, and when it takes longer than half a second: `getaddrinfo`
cannot be interrupted, and its own patience is many times a caller's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import anyio

from ._runtime import Runtime, Waiter
from ._worker import Worker

Address: TypeAlias = tuple[int, Any]
"""An address family, and what `socket.connect` takes for it."""

PATIENCE: Final = 0.5
"""Seconds after which known addresses are preferred to waiting."""


class Resolver:
    """For one name, asked for again before every connection.

    Args:
        worker: Whose thread blocks.
        lookup: As `socket.getaddrinfo`.
    """

    def __init__(self, worker: Worker, lookup: Callable[..., Any] | None = None) -> None:
        self._worker = worker
        self._lookup = lookup
        self._known: list[Address] = []
        self._error: OSError | None = None
        self._waiting: list[Waiter] = []

    async def resolve(self, host: str, port: int, runtime: Runtime) -> list[Address]:
        """The addresses of `host`, best first.

        Raises:
            OSError: there are none, and never were.
        """
        waiter = runtime.waiter()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._worker.submit(partial(self._ask, host, port, runtime))
        with anyio.move_on_after(PATIENCE if self._known else None):
            await waiter
        if not self._known:
            raise self._error or OSError("no address")
        return self._known

    def _ask(self, host: str, port: int, runtime: Runtime) -> None:
        """In the thread."""
        found: list[Address] = []
        error: OSError | None = None
        try:
            lookup = self._lookup or socket.getaddrinfo
            found = [(family, where) for family, _, _, _, where in lookup(host, port, type=socket.SOCK_STREAM)]
        except OSError as failure:
            error = failure
        except Exception as failure:  # a name that cannot be encoded is a UnicodeError
            error = OSError(f"the name cannot be resolved: {failure}")
        runtime.from_thread(lambda: self._answer(found, error, runtime))

    def _answer(self, found: list[Address], error: OSError | None, runtime: Runtime) -> None:
        self._known = found or self._known
        self._error = error
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            runtime.wake(waiter)
