"""The contenders of `bench_fetch`: each a coroutine that yields `send()`, one POST with its whole answer.

Run as a script, this is one contender in a process of its own (see `_harness.Worker`): CPU time is then that
client's and nobody else's. All send the same headers and body, verify the same authority, and read the body
as bytes.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
from _harness import serve

Send = Callable[[], Awaitable[tuple[int, int]]]

PATIENCE = 60.0  # seconds; every client that has a timeout has this one, so that all of them pay for one
BODY = (
    b'{"customer_id": "customer-0123456789", "experiences": ["home_hero", "home_row"], "padding": "'
    + b"p" * 206
    + b'"}'
)
HEADERS = {
    "content-type": "application/json",
    "authorization": "Basic d29ya3NwYWNlOmtleS1rZXkta2V5LWtleS1rZXkta2V5",
    "moe-appkey": "WORKSPACE0123456789ABCDEF",
    "user-agent": "bench/1.0",
}


@attrs.frozen
class Target:
    """Where to send, and whom to trust."""

    url: str
    authority: str

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


@asynccontextmanager
async def ours_exchange(target: Target) -> AsyncIterator[Send]:
    """The lean entry: a prepared route, no httpx objects, a deadline on every call."""
    import anyio

    from moengage_personalize.http2 import Http2Transport

    async with Http2Transport(ssl_context=target.context()) as transport:
        route = transport.route("POST", target.url, [(k.encode(), v.encode()) for k, v in HEADERS.items()])

        async def send() -> tuple[int, int]:
            response = await transport.exchange(route, BODY, deadline=anyio.current_time() + PATIENCE)
            return response.status, len(response.body)

        yield send


@asynccontextmanager
async def ours_transport(target: Target) -> AsyncIterator[Send]:
    """httpx's transport interface: an `httpx.Request` in, an `httpx.Response` out."""
    import anyio
    import httpx

    from moengage_personalize.http2 import Http2Transport

    async with Http2Transport(ssl_context=target.context()) as transport:
        url = httpx.URL(target.url)

        async def send() -> tuple[int, int]:
            extensions = {"deadline": anyio.current_time() + PATIENCE}
            response = await transport.handle_async_request(
                httpx.Request("POST", url, headers=HEADERS, content=BODY, extensions=extensions)
            )
            return response.status_code, len(await response.aread())

        yield send


@asynccontextmanager
async def ours_client(target: Target) -> AsyncIterator[Send]:
    import httpx

    from moengage_personalize.http2 import Http2Transport

    async with httpx.AsyncClient(transport=Http2Transport(ssl_context=target.context()), timeout=PATIENCE) as client:
        yield _httpx_send(client, target)


@asynccontextmanager
async def httpx_http2(target: Target) -> AsyncIterator[Send]:
    import httpx

    async with httpx.AsyncClient(http2=True, verify=target.context(), timeout=PATIENCE, trust_env=False) as client:
        yield _httpx_send(client, target)


@asynccontextmanager
async def httpx_http1(target: Target) -> AsyncIterator[Send]:
    import httpx

    async with httpx.AsyncClient(verify=target.context(), timeout=PATIENCE, trust_env=False) as client:
        yield _httpx_send(client, target)


def _httpx_send(client: object, target: Target) -> Send:
    post = client.post  # type: ignore[attr-defined]

    async def send() -> tuple[int, int]:
        response = await post(target.url, headers=HEADERS, content=BODY)
        return response.status_code, len(response.content)

    return send


@asynccontextmanager
async def aiohttp_http1(target: Target) -> AsyncIterator[Send]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(ssl=target.context())
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def send() -> tuple[int, int]:
            async with session.post(target.url, data=BODY) as response:
                return response.status, len(await response.read())

        yield send


@asynccontextmanager
async def _pyreqwest(target: Target, *, http2: bool) -> AsyncIterator[Send]:
    from datetime import timedelta
    from pathlib import Path

    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().add_root_certificate_pem(Path(target.authority).read_bytes())
    async with builder.http2(http2).timeout(timedelta(seconds=PATIENCE)).build() as client:

        async def send() -> tuple[int, int]:
            response = await client.post(target.url).headers(HEADERS).body_bytes(BODY).build().send()
            return response.status, len(await response.bytes())

        yield send


def pyreqwest_http1(target: Target) -> AbstractAsyncContextManager[Send]:
    return _pyreqwest(target, http2=False)


def pyreqwest_http2(target: Target) -> AbstractAsyncContextManager[Send]:
    return _pyreqwest(target, http2=True)


@asynccontextmanager
async def bare_h2(target: Target) -> AsyncIterator[Send]:
    from _bare_h2 import BareH2

    connection = await BareH2.connect(target.url, target.context())
    headers = list(HEADERS.items())

    async def send() -> tuple[int, int]:
        status, body = await connection.post(headers, BODY)
        return status, len(body)

    yield send
    await connection.close()


CONTENDERS: dict[str, Callable[[Target], AbstractAsyncContextManager[Send]]] = {
    "ours: exchange()": ours_exchange,
    "ours: httpx transport": ours_transport,
    "ours: httpx.AsyncClient": ours_client,
    "httpx http2=True": httpx_http2,
    "httpx": httpx_http1,
    "aiohttp": aiohttp_http1,
    "pyreqwest": pyreqwest_http1,
    "pyreqwest http2": pyreqwest_http2,
    "h2 bare (floor)": bare_h2,
}

if __name__ == "__main__":
    name, loop, url, authority = sys.argv[1:]
    serve(CONTENDERS[name](Target(url, authority)), uvloop=loop == "uvloop")
