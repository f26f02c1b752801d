"""trio: sockets are read and written by system tasks, which belong to the run and to no nursery."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any

import trio

from ._runtime import Receiver


class _Waiter:
    """An event that can be awaited as such."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def __await__(self) -> Generator[Any, Any, None]:
        return self.event.wait().__await__()


class TrioRuntime:
    """See `Runtime`."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.now = trio.current_time
        self.waiter = _Waiter
        self._ended = False
        self.spawn(self._watch)

    async def _watch(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._ended = True

    def is_current(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def is_alive(self) -> bool:
        return not self._ended

    def wake(self, waiter: _Waiter) -> None:
        waiter.event.set()

    def soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)

    def at(self, when: float, callback: Callable[[], None]) -> trio.CancelScope:
        async def wait() -> None:
            await trio.sleep_until(when)
            callback()

        return self.spawn(wait)

    def from_thread(self, callback: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):  # nobody waits
            self._token.run_sync_soon(callback)

    def spawn(self, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def within() -> None:
            with scope:
                await work()

        trio.lowlevel.spawn_system_task(within, context=Context())
        return scope

    async def connect(self, sock: socket.socket, address: Any) -> None:
        await trio.socket.from_stdlib_socket(sock).connect(address)

    async def link(self, sock: socket.socket, receiver: Receiver) -> None:
        link = _Link(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), receiver)
        receiver.connected(link)
        self.spawn(link.read)
        self.spawn(link.send)


class _Link:
    """See `Link`. One task reads, one writes, each alone."""

    def __init__(self, stream: trio.SocketStream, receiver: Receiver) -> None:
        self._stream = stream
        self._receiver = receiver
        self._unsent = bytearray()
        self._work = trio.Event()
        self._closing = self._ended = False

    def write(self, data: bytes) -> None:
        self._unsent += data
        self._work.set()

    def close(self) -> None:
        self._closing = True
        self._work.set()

    def abort(self) -> None:
        self._unsent.clear()
        self.close()
        self._stream.socket.close()

    async def send(self) -> None:
        """Write what there is, until closed."""
        try:
            while self._unsent or not self._closing:
                if not self._unsent:
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                data, self._unsent = self._unsent, bytearray()
                self._receiver.writable(ready=False)
                await self._stream.send_all(data)
                self._receiver.writable(ready=True)
            self._end(None)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
        finally:
            self._stream.socket.close()

    async def read(self) -> None:
        """Read until the end."""
        try:
            while data := await self._stream.receive_some(65_536):
                self._receiver.received(bytes(data))
            self._end(None)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
        finally:
            self._stream.socket.close()
            self.close()

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._receiver.ended(error)
