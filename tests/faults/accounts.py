"""The account of what was left behind: tasks and sockets are back to what they were."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import sniffio


@contextlib.asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Tasks and file descriptors are back to what they were, at most a second after the end (servers in
    threads close late).
    """
    tasks_before, descriptors_before = _tasks(), _sockets()
    yield
    give_up = time.monotonic() + 1.0
    while (_tasks() > tasks_before or _sockets() > descriptors_before) and time.monotonic() < give_up:
        await anyio.sleep(0.01)
    assert _tasks() <= tasks_before, f"{_tasks() - tasks_before} more tasks: {asyncio.all_tasks()}"
    assert _sockets() <= descriptors_before, f"{_sockets() - descriptors_before} sockets are still open"


def _tasks() -> int:
    """On trio no task can be left behind: that is what a nursery is."""
    return len(asyncio.all_tasks()) if sniffio.current_async_library() == "asyncio" else 0


def _sockets() -> int:
    """Open sockets of this process. (Other descriptors come and go with the loops of servers in threads.)"""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count
