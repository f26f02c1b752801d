"""asyncio and uvloop: sockets as protocols, so that neither a read nor a write needs a task."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any, cast

from ._runtime import Receiver


class AsyncioRuntime:
    """See `Runtime`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = Context()
        self._tasks: set[asyncio.Task[None]] = set()
        # asyncio's own clock is this one behind a method; other loops have clocks of their own.
        self.now = monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
        self.waiter = loop.create_future

    def is_current(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def is_alive(self) -> bool:
        return self._loop.is_running()

    def wake(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback, context=self._context)

    def at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(when, callback, context=self._context)

    def from_thread(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(callback, context=self._context)

    def spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = self._loop.create_task(cast("Coroutine[Any, Any, None]", work()), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(self, sock: socket.socket, address: Any) -> None:
        await self._loop.sock_connect(sock, address)

    async def link(self, sock: socket.socket, receiver: Receiver) -> None:
        await self._loop.create_connection(lambda: _Link(receiver), sock=sock)


class _Link(asyncio.Protocol):
    """See `Link`. asyncio's transport buffers what the socket does not take, and tells when that grows."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self.data_received = receiver.received  # type: ignore[method-assign]  # one call less per read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._receiver.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._receiver.ended(exc)

    def pause_writing(self) -> None:
        self._receiver.writable(ready=False)

    def resume_writing(self) -> None:
        self._receiver.writable(ready=True)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
