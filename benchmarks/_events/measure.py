"""Clocks and counters for one process: CPU without what is not the SDK's, stalls of the loop, a busy neighbour."""

import asyncio
import time
from contextlib import contextmanager
from threading import Thread


def percentile(ordered, share):
    """A percentile of sorted values, the higher neighbour."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(samples):
    """Of nanoseconds, in microseconds."""
    ordered = sorted(samples)
    return {
        "p50": percentile(ordered, 0.50) / 1e3,
        "p99": percentile(ordered, 0.99) / 1e3,
        "p999": percentile(ordered, 0.999) / 1e3,
        "max": ordered[-1] / 1e3,
        "mean": sum(ordered) / len(ordered) / 1e3,
    }


def timer_overhead():
    """What two readings of the clock cost by themselves, in microseconds."""
    clock = time.perf_counter_ns
    return summary([-clock() + clock() for _ in range(20_000)])


def yardstick():
    """A fixed piece of plain Python, to tell how fast the machine is just now; 2.7 µs at its best here."""
    made, length = {}, 0
    for number in range(20):
        made[number] = (number, str(number))
        length += len(made[number][1])
    return length


class Busy:
    """A thread that computes without a pause, as a template engine or a model beside us would."""

    def __init__(self):
        self.cpu = 0.0
        self._running = True
        self._thread = Thread(target=self._run, daemon=True)

    def _run(self):
        while self._running:
            sum(range(500))
            self.cpu = time.thread_time()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._running = False
        self._thread.join()


class Meter:
    """Adds up CPU and wall time between `start` and `stop`, less what happens inside `aside`.

    CPU is the whole process's, all threads, less the busy neighbour's.
    """

    def __init__(self, busy=None):
        self._busy = busy
        self.cpu = self.wall = 0.0

    def _cpu(self):
        return time.process_time() - (self._busy.cpu if self._busy else 0.0)

    @contextmanager
    def running(self):
        cpu, wall = self._cpu(), time.perf_counter()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += self._cpu() - cpu

    @contextmanager
    def aside(self):
        cpu, wall = time.thread_time(), time.perf_counter()
        yield
        self.wall -= time.perf_counter() - wall
        self.cpu -= time.thread_time() - cpu


class Ticker:
    """A task that wants to run every millisecond, and notes how late it was.

    `late` is what another task of the loop would have waited. `own` is the part of it during which this process was
    computing; the rest is the machine's (other processes, the scheduler), and there even in an idle loop.
    """

    def __init__(self, period=0.001):
        self._period = period
        self.late = []
        self.own = []

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _run(self):
        while True:
            due, cpu = time.perf_counter() + self._period, time.process_time()
            await asyncio.sleep(self._period)
            late, own = time.perf_counter() - due, time.process_time() - cpu
            self.late.append(max(0.0, late))
            self.own.append(max(0.0, min(late, own)))

    def summary(self):
        late, own = sorted(self.late), sorted(self.own)
        return {
            "ticks": len(late),
            "late_max": late[-1] * 1e3,
            "late_p999": percentile(late, 0.999) * 1e3,
            "own_max": own[-1] * 1e3,
            "own_p999": percentile(own, 0.999) * 1e3,
        }
