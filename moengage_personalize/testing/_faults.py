"""Trouble between a client and whatever answers it: a transport around anybody's `httpx.AsyncBaseTransport`.

Theory: it speaks the emulator's language of trouble (`emulator.Trouble`, and so its scenario files too), and plays it
over any transport: the application's real one, a mock, an ASGI application. Chance comes from a seed.

Invariant: a request that trouble keeps from being processed never reaches the inner transport; one whose answer is
lost always does.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx

from moengage_personalize.emulator import Trouble, Troubles

UNPROCESSED = {"reset", "refuse", "goaway", "disconnect"}


class FaultyTransport(httpx.AsyncBaseTransport):
    """Passes requests on, but for what goes wrong with those to MoEngage's endpoints.

    Args:
        inner: What answers; closed with this.
        *troubles: What goes wrong. Times count from the first request. `poison` is the emulator's alone.
        seed: Of the chances; the same seed, the same requests, the same trouble.
        sleep: How to wait for so many seconds.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *troubles: Trouble,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[Any]] = anyio.sleep,
    ) -> None:
        self._inner = inner
        self._troubles = Troubles()
        self._random = random.Random(seed).random
        self._sleep = sleep
        self._began: float | None = None
        self.requests = 0
        """How many came."""
        self.troubled = 0
        """How many of them met trouble."""
        for trouble in troubles:
            self.add(trouble)

    def add(self, trouble: Trouble) -> None:
        """Wishes for more trouble, from now on.

        Raises:
            ValueError: It is `poison`, which needs an emulator that reads bodies.
        """
        if trouble.poison is not None:
            raise ValueError("poison needs the emulator, which reads bodies")
        self._troubles.add(trouble, self._now() if self._began is not None else 0.0)

    def calm(self) -> None:
        """Ends all trouble."""
        self._troubles.clear()

    def _now(self) -> float:
        now = anyio.current_time()
        if self._began is None:
            self._began = now
        return now - self._began

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        now = self._now()
        if self._troubles.outage(now):
            self.troubled += 1
            raise httpx.ConnectError("the connection was refused, as was wished for", request=request)
        endpoint = request.url.path.rpartition("/")[2]
        size = len(request.content) if hasattr(request, "_content") else 0
        plan = self._troubles.plan(endpoint, size, now, self._random)
        if plan.label is None:
            return await self._inner.handle_async_request(request)
        self.troubled += 1
        if plan.delay:
            await self._within(request, self._sleep(plan.delay))
        if plan.outcome == "hang":
            await self._within(request, anyio.sleep_forever())
        if plan.outcome in UNPROCESSED:
            raise httpx.RemoteProtocolError(f"{plan.outcome}, as was wished for", request=request)
        if plan.status is not None:
            return _error(plan.status, plan.retry_after)
        response = await self._inner.handle_async_request(request)
        if plan.outcome == "lose":
            await response.aclose()
            raise httpx.ReadError("the answer was lost, as was wished for", request=request)
        if plan.drip:
            response.stream = _Dripping(response.stream, plan.drip, self._sleep)  # type: ignore[arg-type]
        return response

    async def _within(self, request: httpx.Request, waiting: Awaitable[Any]) -> None:
        """Waits no longer than the request's own read timeout."""
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            with anyio.fail_after(seconds):
                await waiting
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time, as was wished for", request=request) from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __repr__(self) -> str:
        return f"<FaultyTransport around {self._inner!r}, {self.troubled} of {self.requests} requests met trouble>"


def _error(status: int, retry_after: float | None) -> httpx.Response:
    headers = {} if retry_after is None else {"retry-after": f"{max(1, round(retry_after))}"}
    return httpx.Response(status, headers=headers, json={"title": "Error", "description": "as was wished for"})


class _Dripping(httpx.AsyncByteStream):
    """An answer, a byte at a time."""

    def __init__(self, inner: httpx.AsyncByteStream, pause: float, sleep: Callable[[float], Awaitable[Any]]) -> None:
        self._inner = inner
        self._pause = pause
        self._sleep = sleep

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            for place in range(len(chunk)):
                yield chunk[place : place + 1]
                await self._sleep(self._pause)

    async def aclose(self) -> None:
        await self._inner.aclose()
