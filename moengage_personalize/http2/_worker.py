"""One daemon thread of ours for what blocks: looking up names, reading certificates.

The application's thread pool is never used: a call that is stuck there would take its threads away and hold
up the process's exit. The thread is started when first needed, and a stuck one is simply left behind at
exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from ._runtime import Runtime

T = TypeVar("T")


class Worker:
    """Runs functions one after the other."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in the thread. It must not raise."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_work, args=(self._jobs,), name="moengage-worker", daemon=True).start()
        self._jobs.put(job)

    async def run(self, function: Callable[[], T], runtime: Runtime) -> T:
        """What `function` returns or raises. Waiting may be given up; the function runs on."""
        waiter = runtime.waiter()
        result: list[Any] = []

        def job() -> None:
            try:
                result.append(function())
            except Exception as error:
                result.extend((None, error))
            runtime.from_thread(lambda: runtime.wake(waiter))

        self.submit(job)
        await waiter
        if len(result) > 1:
            raise result[1]
        value: T = result[0]
        return value

    def stop(self) -> None:
        """Let the thread go, as soon as it is done with what it is doing."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
