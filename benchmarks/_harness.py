"""Fair benchmarks on a shared machine: each contender in a process of its own, rounds in turn, medians.

Whatever slows the machine for a while slows everybody's round, not one contender's number; so ratios of one
run hold where absolute times do not. The parent asks (`Worker.ask`), the worker runs a load and answers with
its own CPU time (`serve`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

import attrs


@attrs.frozen
class Sample:
    """One round of one contender. CPU is the client's process, all of its threads, user and system."""

    cpu_us: float  # per request
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def median(samples: Sequence[Sample]) -> Sample:
    """Field by field; errors are added up."""

    def middle(field: str) -> float:
        return float(statistics.median(getattr(sample, field) for sample in samples))

    return Sample(
        cpu_us=middle("cpu_us"),
        per_second=middle("per_second"),
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        errors=sum(sample.errors for sample in samples),
    )


# ── the worker's side ────────────────────────────────────────────────────────────────────────────


def serve(contender: AbstractAsyncContextManager[Callable[[], Awaitable[tuple[int, int]]]], *, uvloop: bool) -> None:
    """Answer one JSON line a command (`{"concurrency": 32, "requests": 1000}`) with one JSON line, until the
    input ends.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with contender as send:
            while line := await commands.readline():
                sample = await _load(send, **json.loads(line))
                print(json.dumps(attrs.asdict(sample)), flush=True)

    factory = None
    if uvloop:
        import uvloop as uvloop_module

        factory = uvloop_module.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def _load(send: Callable[[], Awaitable[tuple[int, int]]], *, concurrency: int, requests: int) -> Sample:
    """`requests` in all, by `concurrency` callers, each of which waits for its answer before it asks again.

    First one each that is not measured: since its last turn a client may have let its idle connections go
    (httpx after 5 s).
    """
    left, errors = concurrency, 0
    latencies: list[float] = []

    async def caller() -> None:
        nonlocal left, errors
        while left > 0:
            left -= 1
            began = time.perf_counter()
            try:
                status, length = await send()
                errors += status != 200 or length < 2
            except Exception:
                errors += 1
            latencies.append(time.perf_counter() - began)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(caller())

    await run()
    left, errors = requests, 0
    latencies.clear()
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    latencies.sort()
    count = len(latencies)
    return Sample(
        cpu_us=cpu / count * 1e6,
        per_second=count / wall,
        p50_ms=latencies[count // 2] * 1e3,
        p99_ms=latencies[min(count - 1, count * 99 // 100)] * 1e3,
        errors=errors,
    )


# ── the parent's side ────────────────────────────────────────────────────────────────────────────


class Worker:
    """One contender in its own process."""

    def __init__(self, command: Sequence[str | Path], *, path: Iterable[Path]) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **command: Any) -> Sample:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("a contender's process died")
        return Sample(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Progress:
    """One line that is overwritten, on a terminal only."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._began = time.monotonic()

    def step(self, what: str) -> None:
        self._done += 1
        if sys.stderr.isatty():
            left = (time.monotonic() - self._began) / self._done * (self._steps - self._done)
            sys.stderr.write(f"\r\x1b[K[{self._done}/{self._steps}, {left:.0f} s left] {what}")
            if self._done == self._steps:
                sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def alternate(
    commands: Mapping[str, Sequence[str | Path]],
    loads: Sequence[Mapping[str, int]],
    rounds: int,
    *,
    path: Iterable[Path],
) -> dict[int, dict[str, list[Sample]]]:
    """Every load, `rounds` times, each time by every contender in turn (the order turns too). By concurrency,
    then by name.
    """
    progress = Progress(len(loads) * (rounds + 1) * len(commands))
    results: dict[int, dict[str, list[Sample]]] = {}
    paths = list(path)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(command, path=paths)) for name, command in commands.items()}
        for load in loads:
            samples = results[load["concurrency"]] = {name: [] for name in workers}
            for number in range(-1, rounds):  # the first is to warm up: connections, caches, branch predictors
                names = list(workers)
                turned = names[number % len(names) :] + names[: number % len(names)]
                for name in turned:
                    sample = workers[name].ask(**(load if number >= 0 else {**load, "requests": load["requests"] // 3}))
                    if number >= 0:
                        samples[name].append(sample)
                    progress.step(f"{load['concurrency']} concurrent: {name}")
    return results


def environment(packages: Iterable[str]) -> dict[str, str]:
    """What the numbers were measured on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "cores": str(os.cpu_count()), "load": f"{os.getloadavg()[0]:.1f}"}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Plain text, the first column to the left."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "  ".join(
            word.ljust(w) if not i else word.rjust(w) for i, (word, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([title, texts[0], "-" * len(texts[0]), *texts[1:]])
