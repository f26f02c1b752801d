"""A contender's process: reads commands as JSON lines, answers each with one.

Started as `python -m _events.worker NAME URL CA [--without-orjson]` with `benchmarks` on the path.
"""

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from contextlib import nullcontext

TURN = 100  # events tracked in one turn of the loop


class Worker:
    def __init__(self, kind, url, ca):
        self._kind, self._url, self._ca = kind, url, ca
        self._start = 0

    async def open(self, url=None, capacity=None):
        contender = self._kind(url or self._url, self._ca, capacity)
        await contender.open()
        return contender

    async def start(self):
        self.contender = await self.open()
        await self._load(self.contender, self.contender.warm_up)
        return {"version": self.contender.version()}

    async def _load(self, contender, events, meter=None):
        """Tracks that many, a hundred in a turn, and lets the SDK settle whenever its room is used."""
        from _events.workload import customers

        aside = meter.aside if meter else nullcontext
        track = contender.track
        since = 0
        for start in range(0, events, TURN):
            count = min(TURN, events - start)
            with aside():
                items = contender.prepare(count)
                people = customers(count, start)
            for customer, item in zip(people, items, strict=True):
                track(customer, item)
            since += count
            if since >= contender.room:
                since = 0
                await contender.settle()
            else:
                await asyncio.sleep(0)
        await contender.settle()

    async def cpu(self, events, *, busy=False, repeat=1):
        """CPU and time from the first call to the last acknowledgement, per event, in microseconds."""
        from _events.measure import Busy, Meter

        found = []
        gc.collect()
        with Busy() if busy else nullcontext() as neighbour:
            for _ in range(repeat):
                meter = Meter(neighbour)
                with meter.running():
                    await self._load(self.contender, events, meter)
                found.append((meter.cpu / events * 1e6, meter.wall / events * 1e6))
        found.sort()
        cpu, wall = found[len(found) // 2]
        return {"cpu": cpu, "wall": wall, "events": events * repeat}

    async def caller(self, events, *, busy=False):
        """What the caller of one event waits, in microseconds."""
        from _events.measure import Busy, summary, timer_overhead, yardstick
        from _events.workload import customers

        contender, clock, samples, sticks = self.contender, time.perf_counter_ns, [], []
        track = contender.track
        gc.collect()
        with Busy() if busy else nullcontext():
            for start in range(0, events, TURN):
                items = list(contender.prepare(TURN))
                for customer, item in zip(customers(TURN, start), items, strict=True):
                    before = clock()
                    track(customer, item)
                    samples.append(clock() - before)
                for _ in range(5):
                    before = clock()
                    yardstick()
                    sticks.append(clock() - before)
                if start % 2_000 == 2_000 - TURN:
                    await contender.settle()
                else:
                    await asyncio.sleep(0)
            await contender.settle()
        speed = {"timer": timer_overhead()["p50"], "yardstick": summary(sticks)["p50"]}
        return {**summary(samples), **speed, "events": len(samples)}

    async def stall(self):
        """How late a task of the same loop is while everything pending is flushed, in milliseconds."""
        from _events.measure import Ticker
        from _events.workload import customers

        contender = self.contender
        count = contender.stall_events
        for customer, item in zip(customers(count), list(contender.prepare(count)), strict=True):
            contender.track(customer, item)
        gc.collect()
        async with Ticker() as ticker:
            await contender.settle()
        return {**ticker.summary(), "events": count}

    async def memory(self, events, steps):
        """Bytes per pending event; the server does not answer meanwhile."""
        from _events.workload import customers

        self._held = contender = await self.open(capacity=100_000)
        found, sizes = [], []
        tracemalloc.start()
        total = 0
        for count in [1_000] + [events] * steps:
            for start in range(0, count, TURN):
                for customer, item in zip(customers(TURN, total + start), contender.prepare(TURN), strict=True):
                    contender.track(customer, item)
                await asyncio.sleep(0)
            item = None
            await asyncio.sleep(0.3)
            gc.collect()
            total += count
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        found = [(sizes[step] - sizes[0]) / (events * step) for step in range(1, steps + 1)]
        return {"bytes": found, "events": total}

    async def release(self):
        await self._held.settle()
        await self._held.close()
        self._held = None
        return {}

    async def wire(self, url, events):
        """Sends some over a new connection, for others to count the bytes of."""
        contender = await self.open(url)
        await self._load(contender, events)
        await contender.close()
        return {"events": events}

    async def stop(self):
        await self.contender.close()
        return {}


async def main(name, url, ca):
    from _events.contenders import KINDS

    worker = Worker(KINDS[name], url, ca)
    loop = asyncio.get_running_loop()
    out = sys.stdout
    sys.stdout = sys.stderr
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        what = command.pop("do")
        try:
            answer = await getattr(worker, what)(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)
        if what == "stop":
            return


if __name__ == "__main__":
    if "--without-orjson" in sys.argv:
        sys.modules["orjson"] = None
    asyncio.run(main(*sys.argv[1:4]))
