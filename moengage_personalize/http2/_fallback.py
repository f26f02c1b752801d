"""HTTP/1.1 by httpx's own transport, in the same bounds: servers without HTTP/2, proxies, cleartext."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from math import inf
from typing import cast

import anyio
import httpx

from ._headers import Headers
from ._stream import Exchange, Response


class Fallback:
    """Exchanges over HTTP/1.1, read within `limit` bytes and one deadline.

    Args:
        context: TLS.
        proxy: Where to send everything, or None.
        limit: The most bytes of a body, as it is on the wire.
    """

    def __init__(self, context: ssl.SSLContext | None, proxy: httpx.Proxy | str | None, limit: int) -> None:
        self._transport = httpx.AsyncHTTPTransport(
            verify=context if context is not None else True, proxy=proxy, trust_env=False, http1=True, http2=False
        )
        self._limit = limit

    async def exchange(self, exchange: Exchange, varying: Iterable[tuple[bytes, bytes]]) -> Response:
        """One request.

        Raises:
            httpx.TransportError: as httpx does; `ReadTimeout` when the deadline has passed.
        """
        to, patience = exchange.route, exchange.patience
        url = httpx.URL(to.url)
        seconds = {"connect": patience.connect, "pool": patience.pool, "write": patience.write, "read": patience.read}
        request = httpx.Request(
            to.method.decode(),
            url,
            headers=[(b"host", url.netloc), *to.headers, *varying],
            content=exchange.body,
            extensions={"timeout": {name: None if value == inf else value for name, value in seconds.items()}},
        )
        with anyio.CancelScope(deadline=exchange.deadline):
            response = await self._transport.handle_async_request(request)
            try:
                return await self._read(response)
            finally:
                await response.aclose()
        raise httpx.ReadTimeout("no response in time")

    async def _read(self, response: httpx.Response) -> Response:
        body = bytearray()
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > self._limit:
                    raise httpx.RemoteProtocolError(f"the response is larger than {self._limit} bytes")
        headers: Headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        return Response(response.status_code, headers, bytes(body))

    async def aclose(self) -> None:
        """Close its connections."""
        await self._transport.aclose()
