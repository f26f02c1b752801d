"""The taskiq worker: done means on the disk, and twice means once."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
import taskiq_worker
from emulator.kit import CONTEXT

from moengage_personalize.emulator import Trouble

pytestmark = pytest.mark.anyio
AT = time.time()


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}


@pytest.fixture(autouse=True)
def _spool(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONALIZE_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(taskiq_worker, "PAUSE", 0.01)


@asynccontextmanager
async def worker():
    await taskiq_worker.broker.startup()
    try:
        yield taskiq_worker.broker.state.personalize
    finally:
        await taskiq_worker.broker.shutdown()


async def done(*arguments, task_id=None, **named):
    kicker = taskiq_worker.report.kicker()
    task = await (kicker.with_task_id(task_id) if task_id else kicker).kiq(*arguments, **named)
    await taskiq_worker.broker.wait_all()
    (await task.get_result()).raise_for_error()


async def test_every_task_arrives_once_and_those_that_run_together_share_requests(emulated):
    async with worker():
        await asyncio.gather(*(done("click", f"customer-{n}", CONTEXT, AT, b_id="cta") for n in range(20)))
    counts = emulated.ledger.counts
    assert (counts.clicks, counts.duplicates_identical) == (20, 0)
    assert counts.event_requests < 10, "twenty, if each task sent its own"


async def test_a_task_is_done_in_an_outage_too_and_the_next_worker_delivers_it(emulated):
    emulated.troubles.add(Trouble(endpoints=("events",), status=503), now=0)
    async with worker() as client:
        await done("impression", "customer-1", CONTEXT, AT)
        await client.aclose(grace=0)
    assert client.last_report.pending == 1
    assert emulated.ledger.counts.accepted == 0
    emulated.troubles.clear()
    async with worker() as client:
        while not emulated.ledger.counts.accepted:
            await asyncio.sleep(0)
    assert emulated.ledger.counts.impressions == 1


async def test_a_task_that_two_workers_run_is_one_event(emulated):
    for _ in range(2):
        async with worker():
            await done("click", "customer-1", CONTEXT, AT, task_id="task-1")
    counts = emulated.ledger.counts
    assert (counts.accepted, counts.duplicates_different) == (1, 0)


async def test_a_task_that_could_not_be_taken_on_comes_again(emulated):
    async with worker() as client:
        client.pause()
        task = await taskiq_worker.report.kiq("click", "customer-1", CONTEXT, AT)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not await task.is_ready()
        client.resume()
        (await task.wait_result(timeout=10)).raise_for_error()
    assert emulated.ledger.counts.clicks == 1


async def test_a_task_that_can_never_be_sent_fails(emulated):
    async with worker():
        with pytest.raises(ValueError, match="lacks"):
            await done("click", "customer-1", {"cid": "1"}, AT)
