"""The shell around one machine: it connects, moves bytes, and wakes who waits. It decides nothing.

Everything but `_connect` is synchronous, and runs to its end before anything else of this loop: requests
reach the machine by a plain call, the socket's bytes by another, and one flush a turn of the loop sends
what they all had to say. Callers wait on one future each; nothing of theirs, cancellation included, ever
touches the socket.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import anyio
from attrs import frozen

from . import _fork
from ._dial import dial
from ._machine import Machine
from ._resolver import Resolver
from ._runtime import Handle, Link, Runtime, Waiter
from ._stream import Exchange, Failure, Why
from ._terms import Counters, Limits, State
from ._tls import TlsPipe

CONNECT_LIMIT: Final = 5.0
"""Seconds an attempt to connect may take, handshake included; the next one may do better."""

CLOSE_LIMIT: Final = 1.0
"""Seconds that a polite close may take before the socket is closed anyway."""


@frozen
class Origin:
    """Where a transport connects to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Connection:
    """One connection, from the wish for one to its end.

    Args:
        origin: Where to.
        runtime: The loop it lives in.
        resolver: Who knows the addresses.
        context: Makes TLS's; None for cleartext.
        limits: What the machine puts up with.
        counters: Where the machine counts.
        ended: Called once, when the socket is closed or there will be none.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        runtime: Runtime,
        resolver: Resolver,
        context: Callable[[], Awaitable[ssl.SSLContext]] | None,
        limits: Limits,
        counters: Counters,
        ended: Callable[[Connection], None],
    ) -> None:
        self.opened_at = inf  # when HTTP/2 was ready
        self._origin = origin
        self._runtime = runtime
        self._resolver = resolver
        self._context = context
        self._tls: TlsPipe | None = None
        self._counters = counters
        self._machine = Machine(runtime.now(), limits, counters)
        self._on_end: Callable[[Connection], None] | None = ended
        self._socket: socket.socket | None = None
        self._link: Link | None = None
        self._shut = False  # the link is told to close
        self._writable = True
        self._flush_due = False
        self._timer: Handle | None = None
        self._timer_at = inf
        self._waiters: list[Waiter] = []  # for a change of `state`
        self._attempt: Handle | None = runtime.spawn(self._connect)

    # ── for the transport ─────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> State:
        """How far it is in its life."""
        return self._machine.state

    @property
    def failure(self) -> Failure | None:
        """What ended it."""
        return self._machine.ending

    @property
    def accepting(self) -> bool:
        """Whether a new exchange is better off here than on a new connection."""
        return self._machine.is_accepting(self._runtime.now())

    @property
    def load(self) -> int:
        """Exchanges that are here."""
        return self._machine.in_flight + self._machine.queued

    @property
    def is_full(self) -> bool:
        """Whether a new exchange would have to wait for a stream."""
        return self._machine.queued > 0

    def submit(self, exchange: Exchange, *, at_once: bool = True) -> None:
        """Take an exchange on, which is told its outcome when it has one.

        Args:
            exchange: What is to be sent.
            at_once: False: it leaves with the next output, or with `push`.
        """
        self._machine.submit(exchange, self._runtime.now())
        self._after(at_once=at_once)

    def push(self) -> None:
        """Send now what was submitted."""
        if self._machine.has_output:
            self._flush()

    def abandon(self, exchange: Exchange) -> None:
        """Its caller has gone."""
        self._machine.abandon(exchange, self._runtime.now())
        self._after()

    def drain(self) -> None:
        """Take nothing new, and close when the last one has finished."""
        self._machine.drain(self._runtime.now())
        self._after()

    def close(self) -> None:
        """End it now, politely."""
        self._machine.close()
        self._after()

    def abort(self) -> None:
        """End it now, whatever the peer has not read."""
        self.close()
        if self._link is not None:
            self._link.abort()

    def forsake(self, *, forked: bool) -> None:
        """Its loop is gone: wake nobody, write nothing. In a forked child the socket is left alone."""
        if self._socket is not None and not forked:
            self._socket.close()

    async def changed(self, seen: State) -> None:
        """Wait until `state` is another than `seen`."""
        while self.state is seen:
            waiter = self._runtime.waiter()
            self._waiters.append(waiter)
            await waiter

    def __repr__(self) -> str:
        return repr(self._machine)

    # ── connecting, in a task of its own ──────────────────────────────────────────────────────────────────

    async def _connect(self) -> None:
        failure = Failure(Why.CONNECT_TIMEOUT, "connecting took too long")
        try:
            with anyio.move_on_after(CONNECT_LIMIT):
                await self._reach()
                return
        except OSError as error:
            failure = Failure(Why.NOT_CONNECTED, f"cannot connect: {_text(error)}", error)
        except BaseException:
            failure = Failure(Why.CLOSED, "the transport was closed")
            raise
        finally:
            self._attempt = None
            if self.state is State.CONNECTING:
                self._end(failure)
            if self._link is None:
                self._gone()

    async def _reach(self) -> None:
        origin, runtime = self._origin, self._runtime
        if self._context is not None:
            self._tls = TlsPipe(await self._context(), origin.host)
        addresses = await self._resolver.resolve(origin.host, origin.port, runtime)
        self._socket = sock = await dial(addresses, runtime)
        _fork.guard(sock)
        try:
            await runtime.link(sock, self)
        except BaseException:
            sock.close()
            raise
        await self.changed(State.CONNECTING)

    def connected(self, link: Link) -> None:
        """The socket is there."""
        self._link = link
        if self._tls is None:
            self._serve()
        self.received(b"")

    def _serve(self) -> None:
        if self._tls is not None:
            self._counters.handshakes += 1
            if self._tls.protocol != "h2":
                self._end(Failure(Why.NOT_HTTP2, "the server does not speak HTTP/2"))
                return
        self.opened_at = self._runtime.now()
        self._machine.start(self.opened_at)

    # ── what the socket says ──────────────────────────────────────────────────────────────────────────────

    def received(self, data: bytes) -> None:
        """Bytes came."""
        if self.state is State.CLOSED:
            return
        tls = self._tls
        if tls is not None:
            try:
                plain = tls.open(data)
            except ssl.SSLError as error:
                self._lost(error)
                return
            if plain is None:
                self._lost(None)
                return
            if self._machine.state is State.CONNECTING:
                if tls.established:
                    self._serve()
                else:
                    self._write(b"")
            data = plain
        if data:
            self._machine.receive(data, self._runtime.now())
        self._after()

    def _lost(self, error: Exception | None) -> None:
        self._write(b"")  # an alert, perhaps
        why = Why.NOT_CONNECTED if self.state is State.CONNECTING else Why.LOST
        self._end(Failure(why, _text(error) if error else "the server closed the connection", error))

    def ended(self, error: Exception | None) -> None:
        """The socket is closed."""
        self._link = None
        self._lost(error)
        self._gone()

    def _gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._on_end is not None:
            self._on_end(self)
            self._on_end = None

    def writable(self, *, ready: bool) -> None:
        """The socket's buffer is full, or has room again."""
        self._writable = ready
        if ready:
            self._after()

    # ── afterwards ────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, failure: Failure) -> None:
        self._machine.lose(failure, self._runtime.now())
        self._after()

    def _after(self, *, at_once: bool = True) -> None:
        """Whatever happened: tell who has an outcome, see to the output, the timer, and the end."""
        machine = self._machine
        for exchange in machine.settled():
            if exchange.ended is not None and exchange.outcome is not None:
                exchange.ended(exchange.outcome)
        if at_once and not self._flush_due:
            if machine.has_output:
                self._flush_due = True
                self._runtime.soon(self._flush)
            else:
                self._rearm()
        if self._waiters and machine.state is not State.CONNECTING:
            self._announce()
        if machine.state is State.CLOSED and not self._shut:
            self._shut_down()

    def _announce(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._runtime.wake(waiter)

    def _flush(self) -> None:
        self._flush_due = False
        if self._writable and self.state is not State.CONNECTING:
            data = self._machine.outgoing(self._runtime.now())
            if data:
                self._write(data)
        self._rearm()

    def _write(self, data: bytes) -> None:
        if self._link is None:
            return
        if self._tls is not None:
            try:
                data = self._tls.seal(data)
            except ssl.SSLError:
                self._link.abort()  # `ended` follows
                return
        if data:
            self._link.write(data)

    def _shut_down(self) -> None:
        """Say goodbye, if there is anybody to say it to, and close the socket."""
        self._shut = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is None:
            if self._attempt is not None:
                self._attempt.cancel()
            return
        self._write(self._machine.outgoing(self._runtime.now()))
        if self._tls is not None:
            self._link.write(self._tls.end())
        self._link.close()
        self._timer = self._runtime.at(self._runtime.now() + CLOSE_LIMIT, self._link.abort)

    def _rearm(self) -> None:
        """See to it that the machine is asked in time. A timer that rings early does no harm."""
        when = self._machine.wake_at
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._runtime.at(when, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, inf
        self._machine.tick(self._runtime.now())
        self._after()


def _text(error: BaseException) -> str:
    """What an error says, or at least its name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
