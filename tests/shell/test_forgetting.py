"""Forgetting a person while their events are on the way, asked here or in another process."""

import anyio
import pytest
from support.inline_spool import InlineThread
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client

from moengage_personalize import BatchPolicy
from moengage_personalize.spool import DiskSpool, _disk

pytestmark = pytest.mark.anyio


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(_disk, "JournalThread", InlineThread)


@pytest.mark.parametrize("trouble", [lambda: error(503), lambda: error(401), lambda: error(429, retry_after="60")])
async def test_an_event_that_waits_for_its_next_try_is_forgotten(trouble):
    down = True
    moengage = MoEngage(events=lambda body: trouble() if down else accepted())
    async with make_client(moengage, batching=BatchPolicy(linger=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        client.track_impression(CONTEXT, customer_id="jane")
        await anyio.sleep(1)
        assert set(moengage.by_customer()) == {"john", "jane"}
        receipts = [await client.forget("john"), await client.forget("john")]
        assert [receipt.events_in_flight for receipt in receipts] == [1, 1]
        client.track_impression(CONTEXT, customer_id="john", platform="ios")  # who comes back is a customer again
        down, sent = False, len(moengage.bodies)
        report = await client.flush(400)
    assert (report.forgotten, report.delivered, report.pending) == (1, 2, 0)
    later = [action for body in moengage.requests[sent:] for action in body[1]["elements"]]
    johns = [action for element in later if element["customer_id"] == "john" for action in element["actions"]]
    assert [action["platform"] for action in johns] == ["ios"]


async def test_an_event_that_waits_for_its_first_try_is_forgotten_by_another_process(tmp_path, inline):
    moengage, neighbour = MoEngage(), DiskSpool(tmp_path)
    async with make_client(moengage, batching=BatchPolicy(linger=60), spool=DiskSpool(tmp_path)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        client.track_impression(CONTEXT, customer_id="jane")
        await neighbour.open()
        await neighbour.forget(b'"john"')
        await anyio.sleep(1)
        await neighbour.aclose()
        report = await client.flush()
    assert list(moengage.by_customer()) == ["jane"]
    assert (report.forgotten, report.delivered, report.pending) == (1, 1, 0)


async def test_an_event_that_waits_for_its_next_try_is_forgotten_by_another_process(tmp_path, inline):
    down = True
    moengage = MoEngage(events=lambda body: error(503) if down else accepted())
    neighbour = DiskSpool(tmp_path)
    async with make_client(moengage, batching=BatchPolicy(linger=0), spool=DiskSpool(tmp_path)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        client.track_impression(CONTEXT, customer_id="jane")
        await anyio.sleep(1)
        await neighbour.open()
        await neighbour.forget(b'"john"')
        await anyio.sleep(1)
        down, sent = False, len(moengage.bodies)
        report = await client.flush(400)
        await neighbour.aclose()
    assert (report.forgotten, report.delivered, report.pending) == (1, 1, 0)
    assert b"john" not in b"".join(moengage.bodies[sent:])


async def test_what_the_spool_could_not_take_is_given_to_it_when_it_can(tmp_path, inline, monkeypatch):
    moengage = MoEngage(events=lambda body: error(503))
    spool = DiskSpool(tmp_path, segment_bytes=4_096, max_bytes=1 << 20)
    async with make_client(moengage, batching=BatchPolicy(linger=0), spool=spool) as client:
        with monkeypatch.context() as full:

            def no_room(*_: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr("os.posix_fallocate", no_room)
            for number in range(300):
                client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            assert client.stats().spooled < client.stats().pending == 300
            await anyio.sleep(5)
        await anyio.sleep(5)
        assert client.stats().spooled == client.stats().pending == 300
        await client.journaled()
        report = await client.aclose(0)
    assert (report.pending, report.spooled, report.dropped) == (300, 300, 0)
    assert report.balanced

    up = MoEngage()
    async with make_client(up, spool=DiskSpool(tmp_path)) as client:
        await anyio.sleep(1)
        assert (await client.flush()).delivered == 300
    assert up.repeated() == {}
