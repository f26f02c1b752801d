"""A client that is open from the start, in whichever event loop it is used, and in none.

Theory: a real client belongs to one event loop, and a test's application may have several (Starlette's `TestClient`
makes one for each request, unless it is entered), or none yet. So the real one lives in a loop of its own, in a thread
that starts when it is first needed, and every method of it is passed on. Calls that begin in one turn of the caller's
loop arrive in one turn there, so that they merge as they would have.

Invariants: that loop's time passes only while it is idle, and at once while a scripted answer is what it waits for: a
slow machine makes nothing late, and a slow answer takes no time. A call from a thread without an event loop is refused
as the client refuses it, but for the thread that made this: a test's own.
"""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial, wraps
from operator import methodcaller
from threading import Lock, Thread, get_ident
from time import monotonic
from typing import Any, Self, TypeVar

import attrs

from moengage_personalize import AsyncPersonalizeClient, DeliveryReport, UsageError

from ._scripted import ScriptedClient, Stage

T = TypeVar("T")


class _IdleClock(selectors.DefaultSelector):
    """Counts the time for which nothing was to be done."""

    def __init__(self, hurried: Callable[[], bool]) -> None:
        super().__init__()
        self._hurried = hurried
        self.idle = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = monotonic()
        hurried = self._hurried()
        ready = super().select(0 if hurried and timeout else timeout)
        if timeout and not ready:
            self.idle += timeout
        elif timeout and not hurried:
            self.idle += min(timeout, monotonic() - began)
        return ready


class _IdleLoop(asyncio.SelectorEventLoop):
    """Its time is how long it was idle."""

    def __init__(self, hurried: Callable[[], bool]) -> None:
        self._idle_clock = _IdleClock(hurried)
        super().__init__(self._idle_clock)

    def time(self) -> float:
        return 1_000.0 + self._idle_clock.idle

    def skip(self, seconds: float) -> None:
        """Lets time pass."""
        self._idle_clock.idle += seconds


@attrs.define(eq=False)
class _Order:
    """A call on its way to the other loop."""

    begin: Callable[[], Coroutine[Any, Any, Any]]
    context: Context = attrs.field(factory=copy_context)
    done: Future[Any] = attrs.field(factory=Future)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self.begin(), context=self.context)
        task.add_done_callback(self._ended)
        self.done.add_done_callback(lambda done: done.cancelled() and loop.call_soon_threadsafe(task.cancel))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.done.cancel()
        elif not self.done.set_running_or_notify_cancel():
            return  # cancelled meanwhile
        elif error := task.exception():
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


class Backstage:
    """The thread, its loop, and the client in it.

    Args:
        stage: What the client plays on.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lock = Lock()
        self._thread: Thread | None = None
        self._orders: dict[asyncio.AbstractEventLoop, list[_Order]] = {}
        self._home = get_ident()
        self._closed = False
        self.client: ScriptedClient
        self._loop: _IdleLoop
        self._end: asyncio.Event

    def start(self) -> None:
        """Starts what has not been started.

        Raises:
            UsageError: It has ended.
        """
        with self._lock:
            if self._closed:
                raise UsageError("the fake is closed: a test that needs one asks for the fixture itself")
            if self._thread is None:
                ready: Future[None] = Future()
                thread = Thread(target=self._run, args=(ready,), name="moengage-fake", daemon=True)
                thread.start()
                ready.result()
                self._thread = thread

    def close(self) -> None:
        """Ends the client, its loop and the thread. May be repeated."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join()

    def _run(self, ready: Future[None]) -> None:
        def make_loop() -> asyncio.AbstractEventLoop:
            self._loop = _IdleLoop(self._hurried)
            return self._loop

        try:
            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(self._host(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def _hurried(self) -> bool:
        return hasattr(self, "client") and self.client.transport.pausing > 0

    async def _host(self, ready: Future[None]) -> None:
        self._end = asyncio.Event()
        async with ScriptedClient(self._stage) as self.client:
            ready.set_result(None)
            await self._end.wait()

    def pass_time(self, seconds: float) -> None:
        """Lets time pass there, at once. Before there is a client, it has nothing to wait for."""
        if self._thread is not None:
            self.call(lambda _: self._loop.skip(seconds))

    def call(self, function: Callable[[ScriptedClient], T]) -> T:
        """Calls a function there, with the client, and waits for what it returns or raises."""
        self.start()
        if self._is_foreign():
            return function(self.client)  # which says what is wrong
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(_perform, partial(function, self.client), done)
        return done.result()

    def _is_foreign(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return get_ident() != self._home
        return False

    async def run(self, begin: Callable[[ScriptedClient], Coroutine[Any, Any, T]]) -> T:
        """Runs a method of the client there; cancelling it here cancels it there."""
        self.start()
        here = asyncio.get_running_loop()
        order = _Order(partial(begin, self.client))
        orders = self._orders.setdefault(here, [])
        orders.append(order)
        if len(orders) == 1:
            here.call_soon(self._hand_over, here)
        result: T = await asyncio.wrap_future(order.done)
        return result

    def _hand_over(self, here: asyncio.AbstractEventLoop) -> None:
        self._loop.call_soon_threadsafe(self._start_all, self._orders.pop(here))

    def _start_all(self, orders: list[_Order]) -> None:
        for order in orders:
            if not order.done.cancelled():
                order.start(self._loop)


def _perform(function: Callable[[], T], done: Future[T]) -> None:
    try:
        done.set_result(function())
    except BaseException as error:
        done.set_exception(error)


class ReadyClient(AsyncPersonalizeClient):
    """The client of a fake: open from the start, and until the fake is closed. See the module's docstring.

    `async with` may be around it, and around it again; leaving it delivers what is waiting, and closes nothing.
    """

    def __init__(self, backstage: Backstage) -> None:
        self._backstage = backstage
        self.last_report = None

    async def __aenter__(self) -> Self:
        return self

    async def aclose(self, grace: float | None = None) -> DeliveryReport:
        """Delivers what is waiting. The client stays open for the next test application."""
        self.last_report = await self.flush(5.0 if grace is None else grace)
        return self.last_report

    def __repr__(self) -> str:
        return "<ReadyClient of a fake>"


def _elsewhere(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, passed on to the client backstage."""

    @wraps(method)
    def call(self: ReadyClient, *args: Any, **kwargs: Any) -> Any:
        return self._backstage.call(methodcaller(name, *args, **kwargs))

    @wraps(method)
    async def run(self: ReadyClient, *args: Any, **kwargs: Any) -> Any:
        return await self._backstage.run(methodcaller(name, *args, **kwargs))

    return run if inspect.iscoroutinefunction(method) else call


for _name, _method in list(vars(AsyncPersonalizeClient).items()):
    if inspect.isfunction(_method) and not _name.startswith("_") and _name not in vars(ReadyClient):
        setattr(ReadyClient, _name, _elsewhere(_name, _method))
