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
from functools import partial
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
_CLOSING: Final = 1.5  # seconds: a connection's own limit, and some
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
        self._is_http1 = False
        self._http1_until = inf  # when HTTP/2 is tried again
        self._fallback: Fallback | None = None
        self._runtime: Runtime | None = None
        self._generation = _fork.generation()
        self._worker = Worker()
        self._resolver = Resolver(self._worker)
        self._all_ended: Waiter | None = None  # woken when no connection is open any more
        self._closed = False

    # ── the public face ───────────────────────────────────────────────────────────────────────────────────

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See the class. The interface of httpx's transports."""
        extensions = request.extensions
        timeout = extensions.get("timeout")
        varying, to = self._route_of(request)
        response = await self.exchange(
            to,
            await request.aread(),
            varying=varying,
            lane=Lane.BULK if extensions.get("lane") == "bulk" else Lane.INTERACTIVE,
            deadline=extensions.get("deadline", inf),
            patience=_patience(timeout) if timeout else PATIENT,
        )
        return httpx.Response(
            response.status,
            headers=list(response.headers),
            stream=httpx.ByteStream(response.body),
            extensions={"http_version": b"HTTP/1.1" if self._is_http1 else b"HTTP/2"},
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
            varying: Headers of this request alone, such as `traceparent`; never indexed.
            lane: Whose DATA goes first.
            deadline: For everything, name resolution included; on the loop's clock, in seconds.
            patience: The timeouts of httpx.

        Raises:
            httpx.TransportError: see the class; httpx.DecodingError: the content coding.
        """
        runtime = self._enter()
        if runtime.now() >= deadline:
            raise httpx.PoolTimeout("the deadline had passed before the request was sent")
        extra = _encoded(varying)
        if body:
            extra += literals(((b"content-length", b"%d" % len(body)),))
        exchange = Exchange(
            route=to, varying=extra, body=body, lane=lane, deadline=deadline, patience=patience
        )
        del body  # a traceback with its locals shows an exchange's repr, and no content
        response = None if self._is_http1 else await self._multiplexed(exchange, runtime)
        if response is None:
            fallback = await self._http1(runtime)
            response = await fallback.exchange(exchange, varying)
        return decoded(response, self._limits.response_bytes)

    async def warm_up(self, url: httpx.URL | str) -> None:
        """Open the connection ahead of the first request.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it cannot be opened.
        """
        self._bind(httpx.URL(url))
        runtime = self._enter()
        if self._is_http1:
            return
        connection = self._seats[0].take(runtime.now())
        await connection.changed(State.CONNECTING)
        failure = connection.failure
        if failure is not None and failure.why is Why.NOT_HTTP2:
            self._fall_back(runtime.now())
        elif failure is not None and connection.state is State.CLOSED:
            raise exception(failure)

    def stats(self) -> TransportStats:
        """Counts since the transport was made."""
        counters = self._counters
        return TransportStats(
            protocol="http/1.1" if self._is_http1 else "h2",
            connections_opened=self._connections_opened,
            handshakes=self._handshakes + sum(each.handshaken for each in self._open),
            streams_opened=counters.streams_opened,
            resets_sent=counters.resets_sent,
            retransmitted=self._retransmitted,
            goaways=counters.goaways,
            pings=counters.pings,
        )

    async def aclose(self) -> None:
        """End everything: requests in flight fail, connections say GOAWAY, sockets are closed."""
        self._closed = True
        self._worker.stop()
        runtime = self._runtime
        if runtime is None or not runtime.is_current() or self._generation != _fork.generation():
            self._forsake()
            return
        self._all_ended = runtime.waiter()
        for connection in list(self._open):
            connection.close()
        with anyio.move_on_after(_CLOSING, shield=True):
            if self._fallback is not None:
                await self._fallback.aclose()
            if self._open:
                await self._all_ended

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
        elif self._is_http1:
            what = "http/1.1"
        else:
            what = " ".join(
                ["h2", *(repr(each) for each in sorted(self._open, key=lambda each: each.opened_at))]
            )
        return f"<Http2Transport {where} {what}>"

    # ── one exchange ──────────────────────────────────────────────────────────────────────────────────────

    async def _multiplexed(self, exchange: Exchange, runtime: Runtime) -> Response | None:
        """Send, and send again what was not processed. None: the server does not speak HTTP/2."""
        resent, was_stale = 0, False
        for _ in range(_MOVES):
            exchange.waiter = runtime.waiter()
            connection = self._connection(runtime.now())
            connection.submit(exchange)
            try:
                await exchange.waiter
            except BaseException:
                connection.abandon(exchange)
                raise
            outcome = exchange.outcome
            match outcome:
                case Response():
                    return outcome
                case Failure(why=Why.MOVED):
                    pass
                case Failure(why=Why.UNPROCESSED) if resent < RESENDS:
                    resent += 1
                    self._retransmitted += 1
                case Failure(why=Why.STALE) if not was_stale:
                    was_stale = True
                    self._retransmitted += 1
                case Failure(why=Why.NOT_HTTP2):
                    self._fall_back(runtime.now())
                    return None
                case Failure():
                    raise exception(outcome)
            exchange = exchange.again()
        raise exception(Failure(Why.MOVED, "no connection took the request"))

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
        origin, runtime = self._origin, self._runtime
        if origin is None or runtime is None:
            raise httpx.LocalProtocolError("no route was made yet")
        self._connections_opened += 1
        connection = Connection(
            origin,
            runtime=runtime,
            resolver=self._resolver,
            context=partial(self._tls_context, runtime) if origin.scheme == "https" else None,
            limits=self._limits,
            counters=self._counters,
            ended=self._ended,
        )
        self._open.add(connection)
        return connection

    async def _tls_context(self, runtime: Runtime) -> ssl.SSLContext:
        """One for all connections; reading the authorities takes 15 ms, so the loop does not do it."""
        if self._context is None:
            self._context = await self._worker.run(httpx.create_ssl_context, runtime)
        return self._context

    def _lifetime(self) -> float:
        return self._max_age * (1 - 0.2 * self._jitter())

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._handshakes += connection.handshaken
        if self._all_ended is not None and self._runtime is not None and not self._open:
            self._runtime.wake(self._all_ended)

    def _fall_back(self, now: float) -> None:
        """HTTP/1.1 for as long as a connection may live; then HTTP/2 is asked for again."""
        if not self._is_http1:
            _log.info("the server does not offer HTTP/2: HTTP/1.1 it is")
            self._is_http1 = True
            self._http1_until = now + self._lifetime()

    async def _http1(self, runtime: Runtime) -> Fallback:
        fallback = self._fallback
        if fallback is None:
            secure = self._origin is not None and self._origin.scheme == "https"
            context = await self._tls_context(runtime) if secure else None
            fallback = self._fallback or Fallback(context, self._proxy, self._limits.response_bytes)
            self._fallback = fallback
        return fallback

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
            if self._is_http1 and runtime.now() >= self._http1_until:
                self._is_http1 = False
            return runtime
        if runtime is not None and not forked and runtime.is_alive():
            raise httpx.LocalProtocolError("the transport is in use in another event loop: make one for each")
        self._forsake()
        self._generation = _fork.generation()
        self._worker = Worker()
        self._resolver = Resolver(self._worker)
        self._runtime = _runtime.current()
        is_cleartext = self._origin is not None and self._origin.scheme == "http"
        self._is_http1 = self._proxy is not None or (is_cleartext and not self._cleartext_http2)
        self._http1_until = inf
        return self._runtime

    def _forsake(self) -> None:
        """Forget connections whose loop is gone."""
        for seat in self._seats:
            seat.forget()
        for connection in self._open:
            connection.forsake(forked=self._generation != _fork.generation())
        self._open.clear()
        self._fallback = None


def _patience(timeout: Mapping[str, float | None]) -> Patience:
    """The `timeout` extension of httpx."""
    seconds = {name: timeout.get(name) for name in ("connect", "pool", "write", "read")}
    return Patience(**{name: inf if value is None else value for name, value in seconds.items()})


def _encoded(varying: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The headers of one request alone."""
    try:
        return literals(checked(varying)) if varying else b""
    except HeaderError as error:
        raise httpx.LocalProtocolError(str(error)) from None
