"""From an ASGI scope to a `RequestContext`.

Invariants: no request fails because of what it says of itself: what cannot be sent is left out. Every request sets the
context anew, also if it says nothing, since a server may start a request where a former one has been; and whatever it
set is gone when the request is over.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from moengage_personalize import ConfigurationError, InSession, InvalidInputError, RequestContext, current_request

from ._addresses import Proxies, says_where

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("moengage_personalize")

MAX_AGENT = 1_024  # bytes; those of browsers have 100 to 400
MAX_NAME, MAX_VALUE = 64, 512  # bytes, of a query parameter
MAX_PARAMETERS = 20  # that are sent
MAX_PAIRS = 200  # that are looked at
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class PersonalizeMiddleware:
    """Puts what `fetch` sends along unasked into `current_request`, for each request and WebSocket.

    It belongs on the outermost application, so that there is no request that it does not see.

    Args:
        app: What it is put around.
        query_parameters: Which of them are custom in-session attributes; `*` stands for anything.
        trusted_proxies: Networks whose members are believed when they say for whom they speak, such as `"10.0.0.0/8"`;
            `"unix"` is whoever comes through a Unix socket. Nobody, unless they are named.
        forwarded_header: Where they say it. There is one, since a proxy passes on what it does not write itself.
            `"Forwarded"` is read by RFC 7239, any other as a list of addresses.

    Raises:
        ConfigurationError: `trusted_proxies` names no network, or everybody; or something is one text, not several.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        query_parameters: Iterable[str] = ("utm_*",),
        trusted_proxies: Iterable[str] = (),
        forwarded_header: str = "X-Forwarded-For",
    ) -> None:
        if isinstance(query_parameters, str):  # its letters would be patterns, and `*` is one of them
            raise ConfigurationError("query_parameters must name several parameters, not be one text")
        self._app = app
        self._wanted = re.compile("|".join(map(translate, query_parameters)) or r"(?!)")
        self._proxies = Proxies.of(trusted_proxies, forwarded_header)
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        token = current_request.set(self._context(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            current_request.reset(token)

    def _context(self, scope: Mapping[str, Any]) -> RequestContext:
        agent = next((value for name, value in scope.get("headers", ()) if name == b"user-agent"), b"")
        return RequestContext(
            session=InSession(ip_address=self._address(scope), user_agent=_text(agent, MAX_AGENT)),
            attributes=dict(self._attributes(scope.get("query_string", b""))),
        )

    def _address(self, scope: Mapping[str, Any]) -> str | None:
        address = self._proxies.visitor(scope)
        if address is not None and says_where(address):
            return str(address)
        if not self._warned and self._proxies.overlooked(scope):
            self._warned = True
            log.warning(
                "requests come through a proxy that is not among the trusted_proxies of PersonalizeMiddleware,"
                " so it is not known where visitors are"
            )
        return None

    def _attributes(self, query: bytes) -> Iterator[tuple[str, str]]:
        """Yields the wanted parameters. Of one that comes twice the first counts, whether it can be sent or not."""
        seen: set[str] = set()
        for pair in query.replace(b"+", b" ").split(b"&", MAX_PAIRS)[:MAX_PAIRS]:
            coded, _, value = pair.partition(b"=")
            name = _text(unquote_to_bytes(coded), MAX_NAME)
            if name is None or name in seen or not self._wanted.match(name):
                continue
            seen.add(name)
            text = _text(unquote_to_bytes(value), MAX_VALUE)
            if text is not None and _may_be_sent(name):
                yield name, text
            if len(seen) == MAX_PARAMETERS:
                return


def _text(raw: bytes, most: int) -> str | None:
    """Returns what can be sent: UTF-8, of so many bytes at the most, not empty, without control characters."""
    try:
        text = raw.decode() if 0 < len(raw) <= most else ""
    except UnicodeDecodeError:
        return None
    return text if text and not _CONTROL.search(text) else None


@lru_cache(128)
def _may_be_sent(name: str) -> bool:
    """Whether an attribute may have this name: MoEngage's own, such as the customer's id, are not for visitors."""
    try:
        RequestContext(attributes={name: ""})
    except InvalidInputError:
        return False
    return True
