"""httpx's own HTTP/1.1 transport, behind the same bounds: for servers without HTTP/2, proxies, and cleartext."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from math import inf

import anyio
import httpx

from ._headers import Headers
from ._stream import Patience, Response


class Fallback:
    """Exchanges over HTTP/1.1, read within `limit` bytes and one deadline.

    Args:
        context: TLS.
        proxy: Where to send everything, or None.
        limit: The most bytes of a body, as it is on the wire.
    """

    def __init__(self, context: ssl.SSLContext | None, proxy: httpx.Proxy | str | None, limit: int) -> None:
        self._transport = httpx.AsyncHTTPTransport(
            verify=context if context is not None else True,
            proxy=proxy,
            trust_env=False,
            http1=True,
            http2=False,
        )
        self._limit = limit

    async def exchange(
        self,
        method: bytes,
        url: httpx.URL,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        deadline: float,
        patience: Patience,
    ) -> Response:
        """One request.

        Raises:
            httpx.TransportError: as httpx does; `ReadTimeout` when the deadline has passed.
        """
        timeout = {
            name: None if seconds == inf else seconds
            for name, seconds in (
                ("connect", patience.connect),
                ("pool", patience.pool),
                ("write", patience.write),
                ("read", patience.read),
            )
        }
        request = httpx.Request(
            method.decode(),
            url,
            headers=[("host", url.netloc.decode()), *headers],
            content=body,
            extensions={"timeout": timeout},
        )
        with anyio.CancelScope(deadline=deadline) as scope:
            response = await self._transport.handle_async_request(request)
            try:
                return await self._read(response)
            finally:
                await response.aclose()
        assert scope.cancelled_caught
        raise httpx.ReadTimeout("no response in time")

    async def _read(self, response: httpx.Response) -> Response:
        body = bytearray()
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            body += chunk
            if len(body) > self._limit:
                raise httpx.RemoteProtocolError(f"the response is larger than {self._limit} bytes")
        headers: Headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        return Response(response.status_code, headers, bytes(body))

    async def aclose(self) -> None:
        """Close its connections."""
        await self._transport.aclose()
