"""The spool's own thread: jobs in order, and a tick when there are none.

A daemon, so that a spool that nobody closed does not hold up the interpreter's exit; what it would have
synced is in the page cache anyway. It refers to its owner weakly, and ends when that is gone.

Invariants: `wake` and `submit` put into a `SimpleQueue` and do nothing else: a C queue whose `put` neither
waits nor releases the GIL. A job's future is always answered, unless its loop is closed. A tick is never later than
its interval and one job, however many jobs there are; and no bug in either ends the thread, on which others wait.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakMethod

P = ParamSpec("P")
T = TypeVar("T")

_logger = logging.getLogger("moengage_personalize")
_Job = Callable[[], None]


class JournalThread:
    """One thread.

    Args:
        tick: A bound method, called at least every `interval` seconds and after `wake`.
        interval: Seconds.
        orphaned: Called at the end if the owner of `tick` is gone, and refers to that owner weakly at most.
    """

    def __init__(self, tick: Callable[[], None], interval: float, orphaned: _Job = lambda: None) -> None:
        self._tick = WeakMethod(tick)
        self._interval = interval
        self._orphaned = orphaned
        self._failed = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._awake = self._ended = False
        self._thread = threading.Thread(target=self._run, name="moengage-personalize-spool", daemon=True)

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def wake(self) -> None:
        """Tick soon. From the event loop's thread."""
        if not self._awake:
            self._awake = True
            self._jobs.put(None)

    def stop_after(self, job: _Job) -> None:
        """Do this last."""

        def last() -> None:
            self._ended = True
            job()

        self._jobs.put(last)

    def submit(self, job: _Job) -> None:
        """Do this in its turn; the job must not raise."""
        self._jobs.put(job)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the thread and await its result. A cancelled caller does not stop it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                tell(loop, partial(fail, answer, error))
            else:
                tell(loop, partial(succeed, answer, result))

        self._jobs.put(job)
        return await answer

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._ended:
            try:
                job = self._jobs.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                job = None
            if job is not None:
                self._do(job)
                del job  # it may hold the owner
                if self._ended or time.monotonic() < due:
                    continue
            self._awake = False
            tick = self._tick()
            if tick is None:
                self._do(self._orphaned)
                return
            self._do(tick)
            del tick
            due = time.monotonic() + self._interval

    def _do(self, work: _Job) -> None:
        try:
            work()
        except Exception as error:
            if not self._failed:
                _logger.critical(
                    "the spool's thread failed with %s: this is a bug of moengage_personalize", type(error).__name__
                )
            self._failed = True


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back on the loop's thread; a loop that is closed has nobody left to tell."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def succeed(answer: "asyncio.Future[T]", result: T) -> None:
    """Answer, unless the caller has gone."""
    if not answer.done():
        answer.set_result(result)


def fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    """Answer with an error, unless the caller has gone."""
    if not answer.done():
        answer.set_exception(error)
