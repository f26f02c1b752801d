"""The clock that the other tests rely on."""

import time

import anyio
import pytest

pytestmark = pytest.mark.anyio


async def test_an_hour_takes_no_time():
    began, before = time.monotonic(), anyio.current_time()
    await anyio.sleep(3_600)
    assert anyio.current_time() - before == pytest.approx(3_600)
    assert time.monotonic() - began < 5


async def test_sleepers_wake_in_order():
    woken = []

    async def sleeper(seconds):
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20):
            tasks.start_soon(sleeper, seconds)
    assert woken == [10, 20, 30]


@pytest.mark.real_loops
async def test_real_loops_have_a_real_clock():
    assert abs(anyio.current_time() - time.monotonic()) < 60
