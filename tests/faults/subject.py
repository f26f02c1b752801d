"""The transport under test, and the few ways in which the tests call it.

`MOENGAGE_TEST_TRANSPORT=stock` puts httpx's own HTTP/2 transport in its place: the tests then have to fail
where it is known to fail, which shows that they can.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, Literal

import anyio
import attrs
import httpx

STOCK = os.environ.get("MOENGAGE_TEST_TRANSPORT") == "stock"
FETCH_BODY = b'{"customer_id": "c", "slots": ["home"], "padding": "' + b"p" * 240 + b'"}'
BATCH_BODY = b'{"events": "' + b"e" * (48 * 1024 - 14) + b'"}'

Lane = Literal["interactive", "bulk"]
Outcome = httpx.Response | httpx.HTTPError


def make_transport(context: ssl.SSLContext | None, **options: Any) -> Any:
    if STOCK:
        return httpx.AsyncHTTPTransport(
            http2=True, verify=context or True, trust_env=False, limits=httpx.Limits(keepalive_expiry=None), **options
        )
    from moengage_personalize.http2 import Http2Transport

    return Http2Transport(ssl_context=context, **options)


def request(
    url: str,
    *,
    body: bytes = FETCH_BODY,
    lane: Lane = "interactive",
    timeout: float | None = None,
    deadline: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Request:
    """A POST as the client sends it. `timeout` is httpx's four, `deadline` ours, in seconds from now."""
    extensions: dict[str, Any] = {"lane": lane}
    if timeout is not None or STOCK:
        limit = timeout if timeout is not None else deadline
        extensions["timeout"] = {"connect": limit, "read": limit, "write": limit, "pool": limit}
    if deadline is not None:
        extensions["deadline"] = anyio.current_time() + deadline
    all_headers = {"content-type": "application/json", "user-agent": "conformance", **(headers or {})}
    return httpx.Request("POST", url, content=body, headers=all_headers, extensions=extensions)


async def call(transport: Any, url: str, **options: Any) -> httpx.Response:
    """One exchange, the body read whole; raises what the transport raises."""
    response: httpx.Response = await transport.handle_async_request(request(url, **options))
    try:
        await response.aread()
    finally:
        await response.aclose()
    return response


@attrs.frozen
class Result:
    """What came out of one exchange, and when."""

    outcome: Outcome
    seconds: float

    @property
    def status(self) -> int:
        assert isinstance(self.outcome, httpx.Response), repr(self.outcome)
        return self.outcome.status_code

    @property
    def ok(self) -> bool:
        return isinstance(self.outcome, httpx.Response) and self.outcome.status_code == 200


async def attempt(transport: Any, url: str, **options: Any) -> Result:
    """One exchange as a value. Only httpx's exceptions are outcomes; anything else is a defect and goes
    through.
    """
    began = time.monotonic()
    try:
        outcome: Outcome = await call(transport, url, **options)
    except httpx.HTTPError as error:
        outcome = error
    return Result(outcome, time.monotonic() - began)


async def attempt_all(transport: Any, urls: list[str], **options: Any) -> list[Result]:
    """All at once; results in the order of the urls."""
    results: dict[int, Result] = {}

    async def one(number: int, url: str) -> None:
        results[number] = await attempt(transport, url, **options)

    async with anyio.create_task_group() as group:
        for number, url in enumerate(urls):
            group.start_soon(one, number, url)
    return [results[number] for number in range(len(urls))]
