"""One authenticated request through an httpx transport, and what came of it.

Theory: everything foreign ends here. Whatever a transport raises becomes one of our errors, raised afresh, so that no
frame of a traceback holds a header or a body; whatever a server answers becomes bytes within a bound, or one of our
errors.

Invariants: raises `PersonalizeError` only (cancellation apart). Credentials go to the configured origin only; redirects
are not followed. At most `MAX_REPLY` bytes of a reply are held, decoded, whatever its content coding promises.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import AsyncIterable, Callable, Sequence
from email.utils import parsedate_to_datetime
from math import inf
from typing import Final, Literal, NoReturn, cast

import anyio
import attrs
import httpx

from ._config import Secret, Settings, current_api_key
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
from .core.wire import read_error
from .http2 import Http2Transport, Lane, Route

MAX_REPLY: Final = 1_048_576


@attrs.frozen(kw_only=True, repr=False)
class Call:
    """A request to be made. Shows nothing of its body.

    Attributes:
        method: `"GET"` or `"POST"`.
        target: Path and query below the base URL.
        body: JSON, or nothing.
        lane: Bulk makes room for interactive on the shared connection.
        on_quota: Told what every reply tells of the quota, errors included.
    """

    method: Literal["GET", "POST"]
    target: str
    body: bytes = b""
    lane: Lane = Lane.INTERACTIVE
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
        self._settings = settings
        self._effects = effects
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._routes: dict[tuple[str, str], Route] = {}  # prepared requests: their headers are encoded once
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
            await self._authorize()
        headers = self._headers
        reply = await self._exchange(call, deadline)
        if call.on_quota is not None and (quota := read_quota(reply.headers, self._effects.wall)) is not None:
            call.on_quota(quota)
        if 200 <= reply.status < 300:
            return reply.body
        if reply.status in (401, 403) and self._headers is headers:
            self.distrust_key()
        raise self._error(reply, call)

    def distrust_key(self) -> None:
        """Has a callable asked for the key again before the next request."""
        if callable(self._settings.api_key):
            self._headers = None
            self._routes.clear()

    async def renew(self) -> None:
        """Asks for the key again if it was refused and comes from a callable; see `credentials_changed`."""
        if self._headers is None:
            await self._authorize()

    async def _exchange(self, call: Call, deadline: float) -> Reply:
        try:
            if isinstance(self._transport, Http2Transport):
                return await self._multiplexed(self._transport, call, deadline)
            with anyio.CancelScope(deadline=deadline):
                return await self._read(await self._transport.handle_async_request(self._request(call, deadline)))
            failure: PersonalizeError = DeadlineExceededError("no answer within the deadline", attempts=1)
        except PersonalizeError as error:
            failure = error
        except httpx.TimeoutException:
            failure = DeadlineExceededError("no answer within the deadline", attempts=1)
        except httpx.DecodingError:
            failure = BadReplyError("the reply's content coding is broken, or more than is accepted", attempts=1)
        except Exception as error:  # whatever a transport raises
            failure = ConnectionFailedError(f"the exchange failed: {type(error).__name__}", attempts=1)
        raise failure

    async def _multiplexed(self, transport: Http2Transport, call: Call, deadline: float) -> Reply:
        """The way past httpx's request and response objects, which cost as much as the exchange itself."""
        key = (call.method, call.target)
        to = self._routes.get(key)
        if to is None:
            url = self._settings.base_url + call.target
            to = self._routes[key] = transport.route(call.method, url, self._headers or ())
        response = await transport.exchange(to, call.body, lane=call.lane, deadline=deadline)
        return Reply(status=response.status, headers=response.headers, body=response.body)

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
                "lane": call.lane.name.lower(),
            },
        )

    async def _read(self, response: httpx.Response) -> Reply:
        try:
            decode = _decoder(response.headers.get("content-encoding", "").strip().lower())
            body = bytearray()
            async for chunk in cast("AsyncIterable[bytes]", response.stream):
                body += decode(chunk, MAX_REPLY + 1 - len(body))
                if len(body) > MAX_REPLY:
                    raise BadReplyError(f"the reply is larger than {MAX_REPLY} bytes", attempts=1)
            return Reply(status=response.status_code, headers=response.headers.raw, body=bytes(body))
        finally:
            await response.aclose()

    async def _authorize(self) -> None:
        key = await current_api_key(self._settings.api_key)
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

    def _error(self, reply: Reply, call: Call) -> ApiError:
        kind = _KINDS.get(reply.status) or (ServerError if reply.status >= 500 else UnexpectedStatusError)
        text = read_error(reply.body, call.body, secrets=[self._settings.workspace_id.reveal()])
        said = ": ".join(part for part in (text.title, text.description) if part)
        return kind(
            f"MoEngage answered {reply.status}{' ' if said else ''}{said}",
            attempts=1,
            status_code=reply.status,
            retry_after=retry_after(httpx.Headers(list(reply.headers)), self._effects.wall()),
            title=text.title,
            description=text.description,
            code=text.code,
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"<Exchange with {self._settings.base_url} by {type(self._transport).__name__}>"


_KINDS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    408: ServerError,
    413: PayloadTooLargeError,
    422: BadRequestError,
    429: RateLimitedError,
}


class _decoder:  # noqa: N801 - used as a function
    """Undoes one content coding, within a bound."""

    def __init__(self, coding: str) -> None:
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise BadReplyError("the reply has a content coding that was not asked for", attempts=1)
        self._inflate = zlib.decompressobj(47) if coding not in {"", "identity"} else None

    def __call__(self, data: bytes, room: int) -> bytes:
        if self._inflate is None:
            return data
        try:
            return self._inflate.decompress(data, room)
        except zlib.error:
            _broken()


def _broken() -> NoReturn:
    raise BadReplyError("the reply's content coding is broken", attempts=1) from None


def retry_after(headers: httpx.Headers, wall: float) -> float | None:
    """Returns the seconds that the server asks to wait, if it does.

    `Retry-After` wins, in seconds or as a date (measured against the server's own clock where it tells it). Then
    `x-ratelimit-reset`, when nothing remains: seconds, or epoch seconds (api-facts.md, section 1.6, has both).
    """
    if text := headers.get("retry-after", "").strip():
        if text.isascii() and text.isdigit():
            return float(text[:9])
        then = _epoch(text)
        return None if then is None else max(0.0, then - (_epoch(headers.get("date", "")) or wall))
    reset = headers.get("x-ratelimit-reset", "").strip()
    if headers.get("x-ratelimit-remaining", "0").strip() == "0" and reset.isascii() and reset.isdigit():
        seconds = float(reset[:12])
        return max(0.0, seconds - wall) if seconds > 1e6 else seconds
    return None


def read_quota(headers: Sequence[tuple[bytes, bytes]], wall: Callable[[], float]) -> Quota | None:
    """Returns what a reply tells of the quota, if it does (`x-ratelimit-*`; api-facts.md, section 1.6)."""
    told = {name.lower(): value.decode("latin-1") for name, value in headers if name[:11].lower() == b"x-ratelimit"}
    remaining = _whole(told.get(b"x-ratelimit-remaining"))
    limit = _whole(told.get(b"x-ratelimit-limit"))
    if remaining is None and limit is None:
        return None
    reset = _whole(told.get(b"x-ratelimit-reset"))
    return Quota(limit, remaining, None if reset is None else max(0.0, reset - wall()) if reset > 1e6 else float(reset))


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text[:12]) if text.isascii() and text.isdigit() else None


def _epoch(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
