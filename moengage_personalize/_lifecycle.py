"""Whether a client can be used, here and now.

Theory: a client is new, opening, open, closing and closed, in this order and once, in one event loop of one thread of
one process; a fork takes it from the child. For tracking all of that is one look: `door.owner` is the thread that may
come in, and nobody's while the client is not open, or paused. Whoever is turned away is told here why.

Invariants: opening and closing may happen in different tasks. A call from where the client cannot serve says so and
names the remedy; it never hangs, races or returns None.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable
from math import inf
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Literal

from ._door import Door
from ._errors import UsageError
from ._events import Admission
from ._report import Condition, Health
from .core.circuit import Circuit

if TYPE_CHECKING:
    from ._engine import Engine

_State = Literal["new", "opening", "open", "closing", "closed", "forked"]
_opened: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


class Lifecycle:
    """One client's. See the module's docstring.

    Args:
        door: Opened and shut with the client.
        circuit: Paused with it.

    Attributes:
        state: Where it is.
        engine: The background, from opening on; None with `enabled=False`.
        now: The clock of the client's loop, in seconds.
        disabled: Events that were turned away since the client is not enabled.
        paused: Since it is paused.
        closed: Since it is closed.
    """

    def __init__(self, door: Door, circuit: Circuit) -> None:
        self.state: _State = "new"
        self.engine: Engine | None = None
        self.now: Callable[[], float] = lambda: 0.0
        self.disabled = self.paused = self.closed = 0
        self._door = door
        self._circuit = circuit
        self._loop: asyncio.AbstractEventLoop | None = None

    # ── from one state to the next ───────────────────────────────────────────────────────────────────────────────────

    async def open(self, make: Callable[[], Awaitable[Engine | None]]) -> None:
        """Opens the client, in the loop that runs.

        Args:
            make: Returns its background, which is started here.

        Raises:
            UsageError: It was opened before, or closed meanwhile.
        """
        if self.state == "forked":
            self.check()
        if self.state != "new":
            raise UsageError("a client is opened once: make a new one")
        self.state = "opening"
        try:
            await self._open(make)
        except BaseException:
            self.state = "closed"
            raise

    async def _open(self, make: Callable[[], Awaitable[Engine | None]]) -> None:
        self._loop = asyncio.get_running_loop()
        # asyncio's own clock is this one behind a method; other loops have clocks of their own.
        self.now = monotonic if type(self._loop).time is asyncio.BaseEventLoop.time else self._loop.time
        self.engine = await make()
        if self.engine is not None:
            await self.engine.start()
        if self.state != "opening":  # somebody closed it
            await self._end(-inf)
            raise UsageError("the client was closed while it was being opened")
        if self.engine is not None:
            self._door.owner, self._door.now, self._door.wake = get_ident(), self.now, self.engine.wake
        self.state = "open"
        _opened.add(self)

    async def close(self, grace: float) -> None:
        """Delivers what is left and closes within `grace` seconds; the earliest deadline of all calls holds.

        Cancelling the wait does not cancel the closing.
        """
        if self.engine is None or self.engine.has_ended or self.state in ("new", "opening", "forked"):
            self.state, self._door.owner = "closed", 0
            if self.engine is not None and self.engine.has_ended:
                self.engine.pump.abandon()  # a loop that was closed under it counted nothing
        elif self.state != "closed":
            self.check_loop()
            self.state = "closing"
            await self._end(self.now() + grace)
            self.state = "closed"
        _opened.discard(self)

    async def _end(self, deadline: float) -> None:
        self._door.owner = 0
        if self.engine is not None:
            self.engine.close(deadline)
            await self.engine.ended()

    def pause(self) -> None:
        """Shuts the door, and stops sending and fetching."""
        self.check()
        self._circuit.paused, self._door.owner = True, 0

    def resume(self) -> None:
        """Undoes `pause`."""
        self.check()
        self._circuit.paused = False
        if self.engine is not None and not self.engine.has_ended:
            self._door.owner = get_ident()
            self.engine.pump.wake()

    def forked(self) -> None:
        """Takes the client from this process, which is a child of the one that opened it."""
        self.state, self._door.owner = "forked", 0

    # ── who may come in ──────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Returns if the client is open, in the loop that runs.

        Raises:
            UsageError: It is not, and what to do.
        """
        match self.state:
            case "new" | "opening":
                raise UsageError("the client is not open: use `async with AsyncPersonalizeClient(…) as client`")
            case "closing" | "closed":
                raise UsageError("the client is closed: make a new one")
            case "forked":
                raise UsageError("this process was forked after the client was opened: open one in the child")
            case "open":
                self.check_loop()

    def check_loop(self) -> None:
        """Returns if the client was opened in the loop that runs.

        Raises:
            UsageError: It was not, and what to do.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise UsageError(
                "the client was opened in another event loop: open one in each, or call it in its own; from a thread"
                " that is anyio.from_thread.run(client.fetch, …)"
            )

    def turn_away(self) -> Admission:
        """Returns why the door is shut, and counts.

        Raises:
            UsageError: The client is not open, or this is not its thread.
        """
        match self.state:
            case "open" if self.engine is None:
                self.disabled += 1
                return Admission.DISABLED
            case "open" if self._circuit.paused:
                self.paused += 1
                return Admission.PAUSED
            case "closing" | "closed":
                self.closed += 1
                return Admission.CLOSED
            case "open" if self._has_ended:
                self.check_loop()
                self.closed += 1
                return Admission.CLOSED
            case "open":
                raise UsageError(
                    "tracking belongs to the thread of the client's event loop: from a FastAPI `def` endpoint, use"
                    " anyio.from_thread.run_sync(partial(client.track_impression, …)); from a thread of your own,"
                    " loop.call_soon_threadsafe(partial(…))"
                )
        self.check()
        raise AssertionError  # pragma: no cover - the line above raised

    def health(self) -> Health:
        """Returns how the client is doing, and what to do about it."""
        match self.state:
            case "open" if self.engine is None:
                return Health(condition=Condition.DISABLED)
            case "open" if self._has_ended:
                return Health(condition=Condition.CLOSED, detail="the tasks of the client's event loop were cancelled")
            case "open" if self._circuit.paused:
                return Health(condition=Condition.PAUSED)
            case "open":
                assert self.engine is not None  # noqa: S101 - the first case
                return self.engine.health()
            case state:
                return Health(condition=Condition.CLOSED, detail=f"the client is {state}")

    @property
    def _has_ended(self) -> bool:
        """Whether the background has ended although nobody closed the client."""
        return self.engine is not None and self.engine.has_ended


def _after_fork_in_child() -> None:
    for each in list(_opened):
        each.forked()
    _opened.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX
    os.register_at_fork(after_in_child=_after_fork_in_child)
