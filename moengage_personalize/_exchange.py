"""One authenticated request through an httpx transport, and what came of it.

Theory: everything foreign ends here. Whatever a transport raises becomes one of our errors, raised afresh, so that no
frame of a traceback holds a header or a body; whatever a server answers becomes bytes within a bound, or one of our
errors.

Invariants: raises `PersonalizeError` only (cancellation apart). Credentials go to the configured origin only; redirects
are not followed. At most `MAX_REPLY` bytes of a reply are held, coded or decoded, whatever its content coding promises.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import AsyncIterable, Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, Literal, cast

import anyio
import attrs
import httpx

from ._cause import cause_of
from ._config import Secret, Settings
from ._credentials import current_api_key
from ._effects import Effects
from ._errors import (
    ApiError,
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    ConnectionFailedError,
    DeadlineExceededError,
    PayloadTooLargeError,
    PersonalizeError,
    RateLimitedError,
    ServerError,
    UnexpectedStatusError,
)
from ._version import __version__
from .core.breaker import Quota
from .core.content import codings_of, undone
from .core.wire.errors import read_error
from .core.wire.limits import read_quota, retry_after

if TYPE_CHECKING:
    from .http2 import Http2Transport, Response, Route, Sending

MAX_REPLY: Final = 1_048_576


@attrs.frozen(kw_only=True, repr=False)
class Call:
    """A request to be made. Shows nothing of its body.

    Attributes:
        method: `"GET"` or `"POST"`.
        target: Path and query below the base URL.
        body: JSON, or nothing.
        bulk: Whether it makes room for others on the shared connection.
        on_quota: Told what every reply tells of the quota, errors included.
    """

    method: Literal["GET", "POST"]
    target: str
    body: bytes = b""
    bulk: bool = False
    on_quota: Callable[[Quota], None] | None = None


@attrs.frozen(kw_only=True, repr=False)
class Reply:
    """What came back. Shows nothing of its content."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class Exchange:
    """Makes calls. Holds the credentials, and nothing that belongs to one call.

    Args:
        transport: Carries the requests.
        settings: Where to, as whom.
        effects: The wall clock, for dates in `Retry-After`.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, settings: Settings, effects: Effects) -> None:
        self._transport = transport
        self._multiplexer = _multiplexer(transport)
        self._settings = settings
        self._effects = effects
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._routes: dict[tuple[str, str], Route] = {}  # prepared requests: their headers are encoded once
        self._quotaless: Sequence[tuple[bytes, bytes]] | None = (
            None  # headers that tell nothing of a quota, known by identity
        )
        self._credentials = Secret.of("")
        self.credentials_changed = 0  # how often the key was found to be another

    async def request(self, call: Call, *, deadline: float) -> bytes:
        """Returns the body of a 2xx.

        Args:
            call: What to ask.
            deadline: When to give up, on the clock of the event loop, in seconds.

        Raises:
            DeadlineExceededError: It is over.
            ConnectionFailedError: No complete reply arrived.
            BadReplyError: The reply is too large, or encoded in a way that is not accepted.
            ApiError: The reply is not a 2xx.
            ConfigurationError: The `api_key` callable failed.
        """
        if self._headers is None:
            await self._authorize(deadline)
        headers = self._headers
        answer = self._answer(call, await self._exchange(call, deadline), headers)
        if isinstance(answer, PersonalizeError):
            raise answer
        return answer

    def begin(self, call: Call, ended: Callable[[bytes | PersonalizeError | None], None]) -> Sending | None:
        """Starts an interactive call that has no deadline, without a task, where the transport can; see `push`.

        Args:
            call: What to ask.
            ended: Told what `request` would have returned or raised, or None: it was not made, and `request` may do
                what this cannot. It must not raise.

        Returns:
            How to call it off. None: nothing has begun; use `request`.
        """
        transport, headers = self._multiplexer, self._headers
        if transport is None or headers is None:
            return None

        def told(response: Response | httpx.RequestError | None) -> None:
            if response is None:
                ended(None)
            elif isinstance(response, httpx.RequestError):
                ended(_failure(response))
            else:
                ended(self._answer(call, response, headers))

        try:
            return transport.begin(self._route(transport, call), call.body, ended=told)
        except httpx.TransportError:  # `request` meets it again, and says so
            return None

    def push(self) -> None:
        """Sends what has begun."""
        if self._multiplexer is not None:
            self._multiplexer.push()

    def _answer(
        self, call: Call, reply: Reply | Response, headers: Sequence[tuple[bytes, bytes]] | None
    ) -> bytes | ApiError:
        """What a reply means, to a request that was made with these headers."""
        if call.on_quota is not None and reply.headers is not self._quotaless:
            quota = read_quota(reply.headers, self._effects.wall())
            if quota is not None:
                call.on_quota(quota)
            else:
                self._quotaless = reply.headers
        if 200 <= reply.status < 300:
            return reply.body
        if reply.status in (401, 403) and self._headers is headers:
            self.distrust_key()
        return self._error(reply, call)

    async def warm_up(self) -> None:
        """Opens the connection ahead of the first call, if the transport is the SDK's own.

        Raises:
            ConnectionFailedError: It cannot be opened.
        """
        if self._multiplexer is not None:
            try:
                await self._multiplexer.warm_up(self._settings.base_url)
            except httpx.TransportError as error:
                failure = f"the connection cannot be opened: {cause_of(error)}"
            else:
                return
            raise ConnectionFailedError(failure)

    @property
    def connections_opened(self) -> int:
        """How many, if the transport is the SDK's own."""
        return 0 if self._multiplexer is None else self._multiplexer.stats().connections_opened

    def distrust_key(self) -> None:
        """Has a callable asked for the key again before the next request."""
        if callable(self._settings.api_key):
            self._headers = None
            self._routes.clear()

    async def renew(self) -> None:
        """Asks for the key again if it was refused and comes from a callable; see `credentials_changed`.

        As long as it takes: the caller has a deadline.
        """
        if self._headers is None:
            await self._authorize(inf)

    async def _exchange(self, call: Call, deadline: float) -> Reply | Response:
        try:
            if (transport := self._multiplexer) is not None:
                from .http2 import Lane  # it is there: the transport is one of its

                # Past httpx's request and response objects, which cost as much as the exchange itself.
                lane = Lane.BULK if call.bulk else Lane.INTERACTIVE
                return await transport.exchange(self._route(transport, call), call.body, lane=lane, deadline=deadline)
            with anyio.CancelScope(deadline=deadline):
                return await self._read(await self._transport.handle_async_request(self._request(call, deadline)))
            failure: PersonalizeError = DeadlineExceededError("no answer within the deadline", attempts=1)
        except Exception as error:  # whatever a transport raises
            failure = _failure(error)
        raise failure

    def _route(self, transport: Http2Transport, call: Call) -> Route:
        key = (call.method, call.target)
        to = self._routes.get(key)
        if to is None:
            url = self._settings.base_url + call.target
            to = self._routes[key] = transport.route(call.method, url, self._headers or ())
        return to

    def _request(self, call: Call, deadline: float) -> httpx.Request:
        left = None if deadline == inf else max(0.001, deadline - anyio.current_time())
        return httpx.Request(
            call.method,
            self._settings.base_url + call.target,
            headers=self._headers,
            content=call.body,
            extensions={
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), left),
                "deadline": deadline,
                "lane": "bulk" if call.bulk else "interactive",
            },
        )

    async def _read(self, response: httpx.Response) -> Reply:
        try:
            coded = bytearray()
            async for chunk in cast("AsyncIterable[bytes]", response.stream):
                coded += chunk
                if len(coded) > MAX_REPLY:
                    raise BadReplyError(f"the reply is larger than {MAX_REPLY} bytes", attempts=1)
            codings = codings_of(response.headers.get("content-encoding", ""))
            body, problem = undone(codings, bytes(coded), MAX_REPLY)
            if problem is not None:
                raise BadReplyError(problem, attempts=1)
            return Reply(status=response.status_code, headers=response.headers.raw, body=body)
        finally:
            await response.aclose()

    async def _authorize(self, deadline: float) -> None:
        key: Secret | None = None
        with anyio.CancelScope(deadline=deadline):
            key = await current_api_key(self._settings.api_key)
        if key is None:
            raise DeadlineExceededError("the api_key callable did not return within the deadline")
        workspace = self._settings.workspace_id
        credentials = b64encode(f"{workspace.reveal()}:{key.reveal()}".encode())
        self.credentials_changed += credentials.decode() != self._credentials.reveal()
        self._credentials = Secret.of(credentials.decode())
        self._headers = [
            (b"authorization", b"Basic " + credentials),
            (b"moe-appkey", workspace.reveal().encode()),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip"),
            (b"user-agent", f"moengage-personalize-python/{__version__}".encode()),
        ]

    def _error(self, reply: Reply | Response, call: Call) -> ApiError:
        kind = _KINDS.get(reply.status) or (ServerError if reply.status >= 500 else UnexpectedStatusError)
        text = read_error(reply.body, call.body, secrets=[self._settings.workspace_id.reveal()])
        said = ": ".join(part for part in (text.title, text.description) if part)
        return kind(
            f"MoEngage answered {reply.status}{' ' if said else ''}{said}",
            attempts=1,
            status_code=reply.status,
            retry_after=retry_after(reply.headers, self._effects.wall()),
            title=text.title,
            description=text.description,
            code=text.code,
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"<Exchange with {self._settings.base_url} by {type(self._transport).__name__}>"


def _multiplexer(transport: httpx.AsyncBaseTransport) -> Http2Transport | None:
    """The transport, if it is our own. Whoever has one has imported it; nobody else needs to."""
    http2 = sys.modules.get(f"{__package__}.http2")
    return transport if http2 is not None and isinstance(transport, http2.Http2Transport) else None


def _failure(error: Exception) -> PersonalizeError:
    """What a transport raised, as one of ours and with nothing of its own."""
    match error:
        case PersonalizeError():
            return error
        case httpx.TimeoutException():
            return DeadlineExceededError("no answer within the deadline", attempts=1)
        case httpx.DecodingError():
            return BadReplyError("the reply's content coding is broken, or more than is accepted", attempts=1)
        case _:
            return ConnectionFailedError(f"the exchange failed: {cause_of(error)}", attempts=1)


_KINDS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    408: ServerError,
    413: PayloadTooLargeError,
    422: BadRequestError,
    429: RateLimitedError,
}
