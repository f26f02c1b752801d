"""The transport: httpx's interface, and two leaner ones, of which one needs no task.

The invariant: whichever way a request comes, it meets one outcome, `_sending`'s; nothing of httpx is made for those who
do not ask for it. Which connection takes it is `_pool`'s business.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import inf
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx
from attrs import asdict, frozen

from ._connection import Origin
from ._content import decoded
from ._errors import exception
from ._headers import VARYING, HeaderError, Route, checked, literals, route
from ._pool import Options, Pool
from ._sending import Sending
from ._stream import PATIENT, Exchange, Failure, Lane, Outcome, Patience, Response, Why
from ._terms import Counters, Limits

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
        self._options = Options(
            ssl_context=ssl_context,
            max_age=max_age,
            proxy=proxy,
            limits=Limits(response_bytes=max_response_bytes),
            connections=connections,
            cleartext_http2=cleartext_http2,
            jitter=jitter,
        )
        self._counters = Counters()
        self._origin: Origin | None = None
        self._routes: dict[Any, Route] = {}
        self._pool: Pool | None = None
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
            extensions={"http_version": b"HTTP/1.1" if self.stats().protocol == "http/1.1" else b"HTTP/2"},
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
        varying: Sequence[tuple[bytes, bytes]] = (),
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
        pool = self._here()
        if pool.runtime.now() >= deadline:
            raise httpx.PoolTimeout("the deadline had passed before the request was sent")
        exchange = Exchange(
            route=to, varying=_encoded(varying, body), body=body, lane=lane, deadline=deadline, patience=patience
        )
        del body  # a traceback with its locals shows an exchange's repr, and no content
        response = None if pool.speaks_http1() else await self._multiplexed(exchange, pool)
        if response is None:
            fallback = await pool.http1()
            response = await fallback.exchange(exchange, varying)
        return decoded(response, self._options.limits.response_bytes)

    def begin(
        self, to: Route, body: bytes, *, ended: Callable[[Response | httpx.RequestError | None], None]
    ) -> Sending | None:
        """Start what `exchange` does, but without a task: whoever waits is told by a call, in the loop's thread.

        It leaves with the next `push`, so that many share one write, or with whatever the connection sends before.

        Args:
            to: From `route`.
            body: The request's body.
            ended: Told the response, or the exception that `exchange` would have raised, or None: HTTP/2 is not to be
                had after all, and nothing was sent. It must not raise.

        Returns:
            How to call it off. None: HTTP/1.1 is spoken, and nothing has begun.
        """
        pool = self._here()
        if pool.speaks_http1():
            return None

        def told(outcome: Outcome) -> None:
            result: Response | httpx.RequestError | None = None
            if not isinstance(outcome, Failure):
                try:
                    result = decoded(outcome, self._options.limits.response_bytes)
                except httpx.DecodingError as error:
                    result = error
            elif outcome.why is Why.NOT_HTTP2:
                pool.fall_back()
            else:
                result = exception(outcome)
            ended(result)

        sending = Sending(Exchange(route=to, varying=_encoded((), body), body=body), pool, self._counters, told)
        sending.leave(at_once=False)
        return sending

    def push(self) -> None:
        """Send what has begun."""
        if self._pool is not None:
            self._pool.push()

    async def warm_up(self, url: httpx.URL | str) -> None:
        """Open the connection ahead of the first request.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it cannot be opened.
        """
        self._bind(httpx.URL(url))
        await self._here().warm_up()

    def stats(self) -> TransportStats:
        """Counts since the transport was made."""
        is_http1 = self._pool is not None and self._pool.is_http1
        return TransportStats(protocol="http/1.1" if is_http1 else "h2", **asdict(self._counters))

    async def aclose(self) -> None:
        """End everything: requests in flight fail, connections say GOAWAY, sockets are closed."""
        self._closed = True
        if self._pool is None:
            return
        if self._pool.is_here:
            await self._pool.close()
        else:
            self._pool.forsake()
            self._pool = None

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
        what = "closed" if self._closed else repr(self._pool) if self._pool else "idle"
        return f"<Http2Transport {where} {what}>"

    # ── one exchange ──────────────────────────────────────────────────────────────────────────────────────

    async def _multiplexed(self, exchange: Exchange, pool: Pool) -> Response | None:
        """None: the server does not speak HTTP/2."""
        outcomes: list[Outcome] = []
        waiter = pool.runtime.waiter()

        def ended(outcome: Outcome) -> None:
            outcomes.append(outcome)
            pool.runtime.wake(waiter)

        sending = Sending(exchange, pool, self._counters, ended)
        sending.leave()
        try:
            await waiter
        except BaseException:
            sending.abandon()
            raise
        outcome = outcomes[0]
        if not isinstance(outcome, Failure):
            return outcome
        if outcome.why is not Why.NOT_HTTP2:
            raise exception(outcome)
        pool.fall_back()
        return None

    def _route_of(self, request: httpx.Request) -> tuple[list[tuple[bytes, bytes]], Route]:
        """The request's headers, divided into those that vary and a route, which is remembered."""
        constant: list[tuple[bytes, bytes]] = []
        varying: list[tuple[bytes, bytes]] = []
        for name, value in request.headers.raw:
            name = name.lower()  # noqa: PLW2901
            if name != b"content-length":
                (varying if name in VARYING else constant).append((name, value))
        key = (request.method, request.url.raw_scheme, request.url.netloc, request.url.raw_path, tuple(constant))
        to = self._routes.get(key)
        if to is None:
            to = self.route(request.method, request.url, constant)
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[key] = to
        return varying, to

    def _bind(self, url: httpx.URL) -> None:
        """One origin a transport, so that credentials cannot go astray."""
        if url.scheme not in {"https", "http"}:
            raise httpx.UnsupportedProtocol("only https:// and http:// are supported")
        origin = Origin(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        if self._origin is None:
            self._origin = origin
        elif self._origin != origin:
            raise httpx.LocalProtocolError("this transport serves another origin")

    def _here(self) -> Pool:
        """The pool of the running loop: a new one in another loop than before, or in a forked child."""
        if self._closed:
            raise httpx.LocalProtocolError("the transport is closed")
        pool = self._pool
        if pool is not None:
            if pool.is_here:
                return pool
            if pool.is_own and pool.runtime.is_alive():
                raise httpx.LocalProtocolError("the transport is in use in another event loop: each needs its own")
            pool.forsake()
        if self._origin is None:
            raise httpx.LocalProtocolError("the route is another transport's")
        self._pool = Pool(self._origin, self._options, self._counters)
        return self._pool


def _patience(timeout: Mapping[str, float | None]) -> Patience:
    """The `timeout` extension of httpx."""
    seconds = {name: timeout.get(name) for name in ("connect", "pool", "write", "read")}
    return Patience(**{name: inf if value is None else value for name, value in seconds.items()})


def _encoded(varying: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The headers of one request alone."""
    try:
        extra = literals(checked(varying)) if varying else b""
    except HeaderError as error:
        raise httpx.LocalProtocolError(str(error)) from None
    return _content_length(len(body)) + extra if body else extra


@lru_cache(1024)
def _content_length(size: int) -> bytes:
    """The same few sizes again and again."""
    return literals(((b"content-length", b"%d" % size),))
