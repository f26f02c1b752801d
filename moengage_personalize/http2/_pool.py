"""The connections to one origin, in one event loop of one process.

A pool is made when a transport is first used in a loop, and never used in another: in a second loop, or in
a forked child, the transport makes a new one and forsakes the old. Its `Seat`s (one, unless more were asked
for) each have at most one connection that takes requests; older ones drain beside it. Where HTTP/2 is not
to be had, the pool says so, and holds httpx's HTTP/1.1 instead.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Callable
from math import inf
from typing import Final

import anyio
import httpx
from attrs import field, frozen

from . import _fork, _runtime
from ._connection import CLOSE_LIMIT, Connection, Origin
from ._errors import exception
from ._fallback import Fallback
from ._resolver import Resolver
from ._runtime import Waiter
from ._seat import Seat
from ._stream import Why
from ._terms import Counters, Limits, State
from ._worker import Worker

_log: Final = logging.getLogger("moengage_personalize")


@frozen(kw_only=True)
class Options:
    """What the caller of the transport chose; see there."""

    ssl_context: ssl.SSLContext | None = None
    max_age: float = 300.0
    proxy: httpx.Proxy | str | None = None
    limits: Limits = field(factory=Limits)
    connections: int = 1
    cleartext_http2: bool = False
    jitter: Callable[[], float] = random.random


class Pool:
    """See the module.

    Args:
        origin: Where to.
        options: What the caller chose.
        counters: Where to count; the transport's.
    """

    def __init__(self, origin: Origin, options: Options, counters: Counters) -> None:
        self.runtime = _runtime.current()
        self._generation = _fork.generation()
        self._origin = origin
        self._options = options
        self._counters = counters
        self._context = options.ssl_context
        self._worker = Worker()
        self._resolver = Resolver(self._worker)
        self._seats = [Seat(self._connect, self._lifetime) for _ in range(options.connections)]
        self._open: set[Connection] = set()
        self._all_ended: Waiter | None = None  # woken when no connection is open any more
        is_cleartext = origin.scheme == "http" and not options.cleartext_http2
        self.is_http1 = options.proxy is not None or is_cleartext
        self._http1_until = inf
        self._fallback: Fallback | None = None

    @property
    def is_own(self) -> bool:
        """Whether this process made it."""
        return self._generation == _fork.generation()

    @property
    def is_here(self) -> bool:
        """Whether the running loop is its own."""
        return self.is_own and self.runtime.is_current()

    def speaks_http1(self) -> bool:
        """Whether HTTP/1.1 is to be spoken now."""
        if self.is_http1 and self.runtime.now() >= self._http1_until:
            self.is_http1 = False
        return self.is_http1

    def take(self) -> Connection:
        """For a new request: the least loaded seat's, or an empty one's if the others are full."""
        now = self.runtime.now()
        if len(self._seats) == 1:
            return self._seats[0].take(now)
        taken = [seat for seat in self._seats if seat.load >= 0]
        if not taken or (len(taken) < len(self._seats) and all(seat.is_full for seat in taken)):
            return next(seat for seat in self._seats if seat.load < 0).take(now)
        return min(taken, key=lambda seat: seat.load).take(now)

    def push(self) -> None:
        """Send now what was submitted without haste."""
        for connection in self._open:
            connection.push()

    async def warm_up(self) -> None:
        """Open a connection, if HTTP/2 is to be spoken and there is none.

        Raises:
            httpx.TransportError: it cannot be opened.
        """
        if self.speaks_http1():
            return
        connection = self.take()
        await connection.changed(State.CONNECTING)
        failure = connection.failure
        if failure is not None and failure.why is Why.NOT_HTTP2:
            self.fall_back()
        elif failure is not None and connection.state is State.CLOSED:
            raise exception(failure)

    def fall_back(self) -> None:
        """HTTP/1.1 for as long as a connection may live; then HTTP/2 is asked for again."""
        if not self.is_http1:
            _log.info("the server does not offer HTTP/2: HTTP/1.1 it is")
            self.is_http1 = True
            self._http1_until = self.runtime.now() + self._lifetime()

    async def http1(self) -> Fallback:
        """The transport for HTTP/1.1."""
        context = await self._tls_context() if self._origin.scheme == "https" else None
        if self._fallback is None:
            self._fallback = Fallback(context, self._options.proxy, self._options.limits.response_bytes)
        return self._fallback

    async def close(self) -> None:
        """End everything, politely; but whoever does not read is not waited for beyond a bound or a cancellation."""
        self._worker.stop()
        self._all_ended = self._all_ended or self.runtime.waiter()
        for connection in list(self._open):
            connection.close()
        try:
            with anyio.move_on_after(CLOSE_LIMIT + 0.5):
                if self._fallback is not None:
                    await self._fallback.aclose()
                if self._open:
                    await self._all_ended
        finally:
            for connection in list(self._open):
                connection.abort()

    def forsake(self) -> None:
        """Its loop is gone, or its process is another."""
        self._worker.stop()
        for connection in self._open:
            connection.forsake(forked=not self.is_own)
        self._open.clear()

    def __repr__(self) -> str:
        if self.is_http1:
            return "http/1.1"
        connections = sorted(self._open, key=lambda each: each.opened_at)
        return " ".join(["h2", *map(repr, connections)])

    def _connect(self) -> Connection:
        self._counters.connections_opened += 1
        connection = Connection(
            self._origin,
            runtime=self.runtime,
            resolver=self._resolver,
            context=self._tls_context if self._origin.scheme == "https" else None,
            limits=self._options.limits,
            counters=self._counters,
            ended=self._ended,
        )
        self._open.add(connection)
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        """One for all; reading the authorities takes 15 ms, so the loop does not do it."""
        if self._context is None:
            self._context = await self._worker.run(httpx.create_ssl_context, self.runtime)
        return self._context

    def _lifetime(self) -> float:
        return self._options.max_age * (1 - 0.2 * self._options.jitter())

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._all_ended is not None and not self._open:
            self.runtime.wake(self._all_ended)
