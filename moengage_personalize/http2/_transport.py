"""The transport: which connection takes a request, and what is sent again.

It serves one origin, the first that it is asked for. Its `Seat`s (one, unless more were asked for) each
have at most one connection that takes requests; older ones drain beside it. The invariant: a request is
sent again only if the server provably did not process it (never sent, above a GOAWAY's last id,
REFUSED_STREAM; at most three times), or once if it left on an idle connection that turned out to be closed.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Callable, Iterable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Final, Literal, Self

import anyio
import httpx
from attrs import frozen

from . import _fork, _runtime
from ._connection import Connection, Origin
from ._content import decoded
from ._errors import exception
from ._fallback import Fallback
from ._headers import VARYING, HeaderError, Route, checked, literals, route
from ._machine import Counters, Limits, State
from ._resolver import Resolver
from ._runtime import Runtime, Waiter
from ._seat import Seat
from ._stream import PATIENT, Exchange, Failure, Lane, Patience, Response, Why
from ._worker import Worker

RESENDS: Final = 3
"""How often a request that was not processed is sent again."""

_log = logging.getLogger("moengage_personalize")
_MOVES: Final = 20
_CLOSING: Final = 1.0  # seconds that a polite close may take
_ROUTES: Final = 64


@frozen(kw_only=True)
class TransportStats:
    """What happened so far. All but `protocol` are counts since the transport was made."""

    protocol: Literal["h2", "http/1.1"]
    connections_opened: int
    handshakes: int
    streams_opened: int
    resets_sent: int
    retransmitted: int
    goaways: int
    pings: int


class Http2Transport(httpx.AsyncBaseTransport):
    """Every exchange over one HTTP/2 connection, which survives deadlines and cancellations.

    Responses are read whole, within `max_response_bytes`, before they are handed out, and their content
    coding is undone (at most one, gzip or deflate; its headers are removed). Of httpx's request extensions
    `timeout` is honoured; beside it `deadline`, one total deadline on the event loop's clock
    (`anyio.current_time()`), and `lane`, `"interactive"` or `"bulk"`.

    Construction does no I/O, needs no event loop and builds no `SSLContext` (that is done, off the loop,
    before the first connection). Where ALPN does not offer h2, or with a `proxy`, or without TLS, httpx's
    HTTP/1.1 transport takes over; `repr` and `stats()` say so.

    A transport belongs to the event loop that uses it. In another loop, or in a forked child, it starts
    afresh with connections of its own and leaves the old ones alone; while the first loop still runs,
    another loop is an error.

    Args:
        ssl_context: Becomes this transport's own: ALPN is set on it. Default: certifi's authorities.
        max_age: Seconds after which a connection is replaced, less up to a fifth by jitter.
        proxy: An HTTP proxy for everything.
        max_response_bytes: The most bytes of a response's body, on the wire and decoded.
        connections: How many connections may share the load; a second one is opened only when the first is
        full. cleartext_http2: Speak HTTP/2 with prior knowledge to `http://` origins, instead of HTTP/1.1.
        jitter: A number in [0, 1).

    Raises:
        httpx.TransportError: of all methods, its subclasses and `httpx.DecodingError` only.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_age: float = 300.0,
        proxy: httpx.Proxy | str | None = None,
        max_response_bytes: int = 1_048_576,
        connections: int = 1,
        cleartext_http2: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._context = ssl_context
        self._max_age = max_age
        self._proxy = proxy
        self._limits = Limits(response_bytes=max_response_bytes)
        self._cleartext_http2 = cleartext_http2
        self._jitter = jitter
        self._counters = Counters()
        self._connections_opened = self._handshakes = self._retransmitted = 0
        self._origin: Origin | None = None
        self._routes: dict[Any, Route] = {}
        self._seats = [Seat(self._connect, self._lifetime) for _ in range(connections)]
        self._open: set[Connection] = set()
        self._fallback: Fallback | None = None
        self._runtime: Runtime | None = None
        self._generation = _fork.generation()
        self._worker = Worker()
        self._resolver = Resolver(self._worker)
        self._all_ended: Waiter | None = None  # woken when no connection is open any more
        self._closed = False

    # ── the public face ───────────────────────────────────────────────────────────────────────────────────

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """httpx's interface: see the class."""
        extensions = request.extensions
        body = request.content if hasattr(request, "_content") else await request.aread()
        varying, to = self._route_of(request)
        timeout = extensions.get("timeout")
        response = await self.exchange(
            to,
            body,
            varying=varying,
            lane=Lane.BULK if extensions.get("lane") == "bulk" else Lane.INTERACTIVE,
            deadline=extensions.get("deadline") or inf,
            patience=_patience(timeout) if timeout else PATIENT,
        )
        return httpx.Response(
            response.status,
            headers=list(response.headers),
            stream=httpx.ByteStream(response.body),
            extensions={"http_version": b"HTTP/1.1" if self._fallback else b"HTTP/2"},
        )

    def route(self, method: str, url: httpx.URL | str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Route:
        """Prepare requests of one kind: their headers are checked now, and encoded once.

        Raises:
            httpx.LocalProtocolError: a header that HTTP/2 forbids, or another origin than before.
            httpx.UnsupportedProtocol: neither `https` nor `http`.
        """
        url = httpx.URL(url)
        self._bind(url)
        try:
            return route(method.encode("ascii"), url.raw_scheme, url.netloc, url.raw_path, headers)
        except (HeaderError, UnicodeError) as error:
            raise httpx.LocalProtocolError(str(error)) from None

    async def exchange(
        self,
        to: Route,
        body: bytes = b"",
        *,
        varying: Iterable[tuple[bytes, bytes]] = (),
        lane: Lane = Lane.INTERACTIVE,
        deadline: float = inf,
        patience: Patience = PATIENT,
    ) -> Response:
        """One request and its response, without httpx's objects, which cost as much again.

        Args:
            to: From `route`.
            body: The request's body; its length is sent as `content-length`.
            varying: Headers of this request alone, such as `traceparent`; they are checked, and never
            indexed. lane: Whose DATA goes first. deadline: For everything, name resolution included; on the
            event loop's clock, in seconds. patience: httpx's timeouts.

        Raises:
            httpx.TransportError: see the class; httpx.DecodingError: the content coding.
        """
        runtime = self._enter()
        if runtime.now() >= deadline:
            raise httpx.PoolTimeout("the deadline had passed before the request was sent")
        response = None
        if self._fallback is None:
            response = await self._multiplexed(
                runtime, to, body, _block(varying, body), lane, deadline, patience
            )
        if response is None:
            response = await self._over_http1(to, body, varying, deadline, patience)
        return decoded(response, self._limits.response_bytes)

    async def warm_up(self, url: httpx.URL | str) -> None:
        """Open the connection ahead of the first request.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it cannot be opened.
        """
        self._bind(httpx.URL(url))
        runtime = self._enter()
        if self._fallback is not None:
            return
        connection = self._seats[0].take(runtime.now())
        await connection.changed(State.CONNECTING)
        failure = connection.failure
        if failure is not None and failure.why is Why.NOT_HTTP2:
            self._fall_back()
        elif failure is not None and connection.state is State.CLOSED:
            raise exception(failure)

    def stats(self) -> TransportStats:
        """Counts since the transport was made."""
        counters = self._counters
        return TransportStats(
            protocol="http/1.1" if self._fallback else "h2",
            connections_opened=self._connections_opened,
            handshakes=self._handshakes + sum(each.handshaken for each in self._open),
            streams_opened=counters.streams_opened,
            resets_sent=counters.resets_sent,
            retransmitted=self._retransmitted,
            goaways=counters.goaways,
            pings=counters.pings,
        )

    async def aclose(self) -> None:
        """End everything: requests in flight fail, connections say GOAWAY, sockets are closed. At most a second."""
        self._closed = True
        self._worker.stop()
        fallback, self._fallback = self._fallback, None
        if fallback is not None:
            await fallback.aclose()
        runtime = self._runtime
        if runtime is None or not runtime.is_current() or self._generation != _fork.generation():
            self._forsake()
            return
        self._all_ended = runtime.waiter()
        for connection in list(self._open):
            connection.close()
        if self._open:
            with anyio.move_on_after(_CLOSING, shield=True):
                await self._all_ended
        for connection in list(self._open):
            connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        where = str(self._origin) if self._origin else "unused"
        if self._closed:
            what = "closed"
        elif self._fallback is not None:
            what = "http/1.1"
        else:
            what = " ".join(
                ["h2", *(repr(each) for each in sorted(self._open, key=lambda each: each.opened_at))]
            )
        return f"<Http2Transport {where} {what}>"

    # ── one exchange ──────────────────────────────────────────────────────────────────────────────────────

    async def _multiplexed(
        self,
        runtime: Runtime,
        to: Route,
        body: bytes,
        varying: bytes,
        lane: Lane,
        deadline: float,
        patience: Patience,
    ) -> Response | None:
        """Send, and send again what was not processed. None: the server does not speak HTTP/2."""
        resent, stale = 0, False
        for _ in range(_MOVES):
            exchange = Exchange(
                route=to,
                varying=varying,
                body=body,
                lane=lane,
                deadline=deadline,
                patience=patience,
                waiter=runtime.waiter(),
            )
            connection = self._connection(runtime.now())
            connection.submit(exchange)
            try:
                await exchange.waiter
            except BaseException:
                connection.abandon(exchange)
                raise
            outcome = exchange.outcome
            if isinstance(outcome, Response):
                return outcome
            assert outcome is not None
            match outcome.why:
                case Why.MOVED:
                    pass
                case Why.UNPROCESSED if resent < RESENDS:
                    resent += 1
                    self._retransmitted += 1
                case Why.STALE if not stale:
                    stale = True
                    self._retransmitted += 1
                case Why.NOT_HTTP2:
                    self._fall_back()
                    return None
                case _:
                    raise exception(outcome)
        raise exception(Failure(Why.MOVED, "no connection took the request"))

    async def _over_http1(
        self,
        to: Route,
        body: bytes,
        varying: Iterable[tuple[bytes, bytes]],
        deadline: float,
        patience: Patience,
    ) -> Response:
        assert self._fallback is not None
        headers = (*to.headers, *varying)
        return await self._fallback.exchange(
            to.method, httpx.URL(to.url), headers, body, deadline=deadline, patience=patience
        )

    def _route_of(self, request: httpx.Request) -> tuple[list[tuple[bytes, bytes]], Route]:
        """The request's headers, divided into those that vary and a route, which is remembered."""
        constant: list[tuple[bytes, bytes]] = []
        varying: list[tuple[bytes, bytes]] = []
        for name, value in request.headers.raw:
            name = name.lower()  # noqa: PLW2901
            if name != b"content-length":
                (varying if name in VARYING else constant).append((name, value))
        key = (
            request.method,
            request.url.raw_scheme,
            request.url.netloc,
            request.url.raw_path,
            tuple(constant),
        )
        to = self._routes.get(key)
        if to is None:
            to = self.route(request.method, request.url, constant)
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[key] = to
        return varying, to

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────

    def _connection(self, now: float) -> Connection:
        """The least loaded seat's; one that is still empty only when the others are full."""
        if len(self._seats) == 1:
            return self._seats[0].take(now)
        seated = [seat for seat in self._seats if seat.load >= 0]
        if not seated or (len(seated) < len(self._seats) and all(seat.is_full for seat in seated)):
            return next(seat for seat in self._seats if seat.load < 0).take(now)
        return min(seated, key=lambda seat: seat.load).take(now)

    def _connect(self) -> Connection:
        assert self._origin is not None
        assert self._runtime is not None
        self._connections_opened += 1
        connection = Connection(
            self._origin,
            runtime=self._runtime,
            resolver=self._resolver,
            context=self._tls_context if self._origin.scheme == "https" else None,
            limits=self._limits,
            counters=self._counters,
            ended=self._ended,
        )
        self._open.add(connection)
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            assert self._runtime is not None
            self._context = await self._worker.run(httpx.create_ssl_context, self._runtime)
        return self._context

    def _lifetime(self) -> float:
        return self._max_age * (1 - 0.2 * self._jitter())

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._handshakes += connection.handshaken
        if self._all_ended is not None and not self._open:
            assert self._runtime is not None
            self._runtime.wake(self._all_ended)

    def _fall_back(self) -> None:
        if self._fallback is None:
            _log.info("the server does not offer HTTP/2: HTTP/1.1 it is")
            self._fallback = Fallback(self._context, self._proxy, self._limits.response_bytes)

    # ── where and when we are ─────────────────────────────────────────────────────────────────────────────

    def _bind(self, url: httpx.URL) -> None:
        """One origin a transport, so that credentials cannot go astray."""
        if url.scheme not in {"https", "http"}:
            raise httpx.UnsupportedProtocol("only https:// and http:// are supported")
        origin = Origin(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        if self._origin is None:
            self._origin = origin
        elif self._origin != origin:
            raise httpx.LocalProtocolError("this transport serves another origin")

    def _enter(self) -> Runtime:
        """The running loop, after starting afresh if it is another one, or this a forked child."""
        if self._closed:
            raise httpx.LocalProtocolError("the transport is closed")
        runtime, forked = self._runtime, self._generation != _fork.generation()
        if runtime is not None and not forked and runtime.is_current():
            return runtime
        if runtime is not None and not forked and runtime.is_alive():
            raise httpx.LocalProtocolError("the transport is in use in another event loop: make one for each")
        self._forsake()
        self._generation = _fork.generation()
        self._worker = Worker()
        self._resolver = Resolver(self._worker)
        self._runtime = _runtime.current()
        assert self._origin is not None
        if self._proxy is not None or (self._origin.scheme == "http" and not self._cleartext_http2):
            self._fallback = Fallback(self._context, self._proxy, self._limits.response_bytes)
        return self._runtime

    def _forsake(self) -> None:
        """Forget connections whose loop is gone, without touching it."""
        for seat in self._seats:
            seat.forget()
        for connection in self._open:
            connection.forsake()
        self._open.clear()
        self._fallback = None


def _patience(timeout: Mapping[str, float | None]) -> Patience:
    """httpx's `timeout` extension."""
    seconds = {name: timeout.get(name) for name in ("connect", "pool", "write", "read")}
    return Patience(**{name: inf if value is None else value for name, value in seconds.items()})


def _block(varying: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The headers of one request alone, encoded."""
    try:
        extra = literals(checked(varying)) if varying else b""
    except HeaderError as error:
        raise httpx.LocalProtocolError(str(error)) from None
    return literals(((b"content-length", b"%d" % len(body)),)) + extra if body else extra
