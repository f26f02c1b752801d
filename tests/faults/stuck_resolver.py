"""A process whose resolver is stuck for five seconds: do callers leave in time, are the application's threads
free, does it end?

Run as a script. Prints `slowest_caller=`, `slowest_to_thread=` (seconds) and `closing=` (the wall clock when
the closing began).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.subject import attempt, make_transport

STUCK = 5.0


def _stuck(*_: Any, **__: Any) -> Any:
    time.sleep(STUCK)
    raise socket.gaierror(socket.EAI_AGAIN, "stuck")


async def _caller(transport: Any, times: list[float]) -> None:
    result = await attempt(transport, "https://stuck.test/", deadline=0.3, timeout=0.3)
    assert isinstance(result.outcome, httpx.TimeoutException), result
    times.append(result.seconds)


async def main() -> None:
    socket.getaddrinfo = _stuck
    transport = make_transport(httpx.create_ssl_context())
    callers: list[float] = []
    threads: list[float] = []
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(_caller, transport, callers)
        await anyio.sleep(0.05)
        for offload in (asyncio.to_thread, anyio.to_thread.run_sync) * 10:
            began = time.monotonic()
            await offload(time.monotonic)
            threads.append(time.monotonic() - began)
    sys.stdout.write(f"slowest_caller={max(callers)} slowest_to_thread={max(threads)}\n")
    sys.stdout.write(f"closing={time.time()}\n")
    sys.stdout.flush()
    await transport.aclose()


if __name__ == "__main__":
    asyncio.run(main())
