"""The spool's thread without a thread: its jobs are turns of the event loop, so that a clock may jump."""

import asyncio
import os
from collections import deque


class InlineThread:
    """What `JournalThread` promises, on the event loop that runs when it starts."""

    def __init__(self, tick, interval, orphaned=None):
        self._tick, self._interval = tick, interval
        self._jobs = deque()
        self._awake = self._due = False
        self.ended = False

    def start(self):
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._idle)

    def wake(self):
        if not self._awake:
            self._awake = True
            self.submit(None)

    def submit(self, job):
        self._jobs.append(job)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def stop_after(self, job):
        def last():
            self.end()
            job()

        self.submit(last)

    async def call(self, function, *args, **kwargs):
        answer = asyncio.get_running_loop().create_future()

        def job():
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        self.submit(job)
        return await answer

    def end(self):
        self.ended = True
        self._timer.cancel()

    def _idle(self):
        self.wake()
        self._timer = self._loop.call_later(self._interval, self._idle)

    def _turn(self):
        self._due = False
        if self.ended or not self._jobs:
            return
        job = self._jobs.popleft()
        if self._jobs:
            self._due = True
            self._loop.call_soon(self._turn)
        if job is None:
            self._awake = False
            self._tick()
        else:
            job()


def kill(spool):
    """What SIGKILL does to a process with this spool: files are let go of as they are, and nothing is written again."""
    journal, keeper = spool._journal, spool._keeper
    spool._thread.end()
    spool._thread = None
    spool._state = "closed"
    spool.settle = lambda tickets: None
    for segment in {*journal.segments.values(), *journal.spares, *journal.retired}:
        segment.close()
    for lock in keeper.locks():
        os.close(lock.fd)
    keeper.directory.close()
