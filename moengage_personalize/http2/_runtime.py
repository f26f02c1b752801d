"""What the shell needs of an event loop: a clock, wake-ups, tasks of its own, a socket that pushes.

Two loops provide it: asyncio's own interface (uvloop included), where a socket is a `Protocol` and costs no
task at all, and trio. What is owned here (tasks, timers, callbacks) runs in an empty context, belongs to
nobody's cancel scope, and never raises: a caller's cancellation cannot reach a socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Waiter(Protocol):
    """Something one task awaits, and `Runtime.wake` ends."""

    def __await__(self) -> Any: ...


class Handle(Protocol):
    """A callback that is still ahead, or a task that still runs."""

    def cancel(self) -> Any:
        """Never call it, or end it where it waits. Of what is done: nothing."""


class Receiver(Protocol):
    """Whom a link tells what happens. Its methods are total."""

    def connected(self, link: Link) -> None:
        """First of all: here it is."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def ended(self, error: Exception | None) -> None:
        """There will be no more; called once. None: the peer closed it."""

    def writable(self, *, ready: bool) -> None:
        """The socket's buffer is full, or has room again."""


class Link(Protocol):
    """One connected socket."""

    def write(self, data: bytes) -> None:
        """Send, after what was written before; never blocks, never raises."""

    def close(self) -> None:
        """Send what was written, then close. `Receiver.ended` follows."""

    def abort(self) -> None:
        """Close now."""


class Runtime(Protocol):
    """One event loop, from within."""

    def now(self) -> float:
        """The loop's clock, in seconds: `anyio.current_time()`."""

    def is_current(self) -> bool:
        """Whether the running loop is this one."""

    def is_alive(self) -> bool:
        """Whether this loop is running, in whatever thread."""

    def waiter(self) -> Waiter:
        """A new one."""

    def wake(self, waiter: Any) -> None:
        """End its wait; of one that was woken or cancelled: nothing."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call it in the loop's next turn."""

    def at(self, when: float, callback: Callable[[], None]) -> Handle:
        """Call it at `when`."""

    def from_thread(self, callback: Callable[[], None]) -> None:
        """Call it in the loop, soon; from any thread. If the loop has ended: nothing."""

    def spawn(self, work: Callable[[], Awaitable[None]]) -> Handle:
        """Run it as a task of our own. It must not raise."""

    async def connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket."""

    async def link(self, sock: socket.socket, receiver: Receiver) -> None:
        """Take a connected socket over, and tell the receiver."""


def current() -> Runtime:
    """The running loop's."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        from ._trio import TrioRuntime  # trio is optional

        return TrioRuntime()
    from ._asyncio import AsyncioRuntime  # late, as the other

    return AsyncioRuntime(loop)
