"""The smallest bounds, the strangest ids, and calls that come while the client is closing."""

import asyncio

import anyio
import pytest
from support.inline_spool import InlineThread
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client

from moengage_personalize import BatchPolicy, Effects, PersonalizeError, event_uuid_for
from moengage_personalize.spool import DiskSpool, _disk

pytestmark = pytest.mark.anyio

IDS = ["😀" * 10, "x" * 10_000, 'a\u2028b\x00\x7f"\\', "\x00\x01", "éé", "e\u0301e\u0301"]


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(_disk, "JournalThread", InlineThread)


@pytest.mark.parametrize(
    "least",
    [
        {"max_pending": 1},
        {"max_pending": 1, "max_pending_bytes": 4_096, "max_bytes": 4_096},
        {"max_bytes": 4_096},
        {"senders": 8, "linger": 0, "max_elements": 1},
        {"dedup_window": 0, "max_actions": 1},
    ],
    ids=" ".join,
)
async def test_the_smallest_bounds_lose_nothing_with_a_spool_and_leave_no_file(least, tmp_path):
    moengage, spool = MoEngage(), DiskSpool(tmp_path, segment_bytes=8_192, max_bytes=1 << 20)
    async with make_client(moengage, spool=spool, batching=BatchPolicy(**least)) as client:
        for number in range(50):
            note = "x" * (3_000 if number % 9 == 0 else 10)
            client.track_click(CONTEXT, customer_id=f"customer-{number % 7}", user_attributes={"note": note})
        report = await client.flush(120)
    assert (report.accepted, report.delivered, report.pending) == (50, 50, 0)
    assert report.balanced
    assert len(moengage.uuids) == len(set(moengage.uuids)) == 50
    assert not [*tmp_path.glob("*.seg"), *tmp_path.glob("*.lock")]


async def test_what_a_predecessor_leaves_that_ends_only_now_is_taken_on_within_seconds(tmp_path):
    """As in a rolling deploy, where the new process starts first."""
    moengage, waiting = MoEngage(), BatchPolicy(linger=60)
    async with make_client(MoEngage(), spool=DiskSpool(tmp_path), batching=waiting) as old:
        old.track_click(CONTEXT, customer_id="john")
        async with make_client(moengage, spool=DiskSpool(tmp_path)) as new:
            await anyio.sleep(2)
            assert new.stats().recovered == 0
            await old.aclose(0)
            await anyio.sleep(1.5)
            assert new.stats().recovered == 1
    assert len(moengage.uuids) == 1


async def test_an_event_larger_than_all_the_memory_there_is_comes_back_from_the_spool(tmp_path):
    """One process took it on with more memory than the next one has."""
    down, up = MoEngage(events=lambda body: error(503)), MoEngage()
    async with make_client(down, spool=DiskSpool(tmp_path)) as client:
        for _ in range(5):
            client.track_click(CONTEXT, customer_id="john", user_attributes={"note": "x" * 10_000})
        await client.aclose(0)
    small = BatchPolicy(max_pending_bytes=4_096, max_bytes=4_096)
    async with make_client(up, spool=DiskSpool(tmp_path), batching=small) as client:
        await anyio.sleep(1)
        report = await client.flush(120)
    assert (report.delivered, report.pending, report.dropped) == (5, 0, 0)


async def test_strange_ids_go_through_the_spool_unchanged_and_can_be_forgotten(tmp_path):
    down = MoEngage(events=lambda body: error(503))
    async with make_client(down, spool=DiskSpool(tmp_path)) as client:
        for customer in IDS:
            client.track_click(CONTEXT, customer_id=customer, user_attributes={"\t\n": "\t\n", customer: customer})
        for call in (lambda: client.track_click(CONTEXT, customer_id="\ud800" * 20), lambda: client.forget("\ud800")):
            with pytest.raises(PersonalizeError):
                await call()
        assert client.stats().offered == len(IDS)
        await client.aclose(0)
    up = MoEngage()
    async with make_client(up, spool=DiskSpool(tmp_path), batching=BatchPolicy(max_pending=2)) as client:
        client.pause()
        assert sum([(await client.forget(customer)).spooled for customer in IDS[:2]]) >= 1
        client.resume()
        await anyio.sleep(1)
        report = await client.flush()
        assert report.balanced
    assert set(up.by_customer()) == set(IDS[2:])
    for element in up.elements:
        assert element["user_attributes"] == {"\t\n": "\t\n", element["customer_id"]: element["customer_id"]}


async def test_a_flush_that_is_cancelled_leaves_nothing_behind():
    moengage = MoEngage(events=lambda body: error(503))
    async with make_client(moengage, batching=BatchPolicy(linger=0, grace=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        flushes = [asyncio.create_task(client.flush(1_000)) for _ in range(3)]
        await anyio.sleep(1)
        assert len(client._buffer._barriers) == 3
        flushes[0].cancel()
        await anyio.sleep(1)
        assert len(client._buffer._barriers) == 2
        for flush in flushes:
            flush.cancel()
        await asyncio.gather(*flushes, return_exceptions=True)
        for seconds in (-1.0, 0.0, 1e-9):
            assert (await client.flush(seconds)).pending == 1
        assert client._buffer._barriers == []


async def test_who_pauses_during_a_flush_may_close_at_once():
    moengage = MoEngage(events=lambda body: error(503))
    async with make_client(moengage, batching=BatchPolicy(linger=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        flush = asyncio.create_task(client.flush(30))
        await anyio.sleep(1)
        client.pause()
        await anyio.sleep(1)
        closed = anyio.current_time()
        report = await client.aclose()
        assert anyio.current_time() - closed < 0.2
        assert (await flush).balanced
    assert report.balanced
    assert report.dropped == 1


async def test_a_person_who_is_forgotten_several_times_while_the_client_closes_is_forgotten(tmp_path):
    down = MoEngage(events=lambda body: error(503))
    async with make_client(down, spool=DiskSpool(tmp_path), batching=BatchPolicy(linger=0)) as client:
        for _ in range(20):
            client.track_impression(CONTEXT, customer_id="john")
        client.track_impression(CONTEXT, customer_id="jane")
        await anyio.sleep(1)
        forgetting = [asyncio.create_task(client.forget("john")) for _ in range(3)]
        closing = asyncio.create_task(client.aclose(0.5))
        for receipt in await asyncio.gather(*forgetting, return_exceptions=True):
            assert not isinstance(receipt, BaseException) or isinstance(receipt, PersonalizeError)
        assert (await closing).balanced
    up = MoEngage()
    async with make_client(up, spool=DiskSpool(tmp_path)) as client:
        await anyio.sleep(1)
        await client.flush()
    assert list(up.by_customer()) == ["jane"]


@pytest.mark.parametrize("turns", range(12))
async def test_letters_that_are_replayed_while_the_client_closes_are_letters_or_pending(turns, tmp_path):
    picky = True
    moengage = MoEngage(events=lambda body: error(400) if picky and "poison" in str(body) else accepted())
    async with make_client(moengage, spool=DiskSpool(tmp_path)) as client:
        client.track_impression(CONTEXT, customer_id="jane")
        client.track_impression(CONTEXT, customer_id="poison")
        await client.flush()
        await anyio.sleep(1)
        picky = False
        replaying = [asyncio.create_task(client.replay()) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        report = await client.aclose(0)
        await asyncio.gather(*replaying, return_exceptions=True)
        assert report.balanced
    async with make_client(moengage, spool=DiskSpool(tmp_path)) as client:
        await anyio.sleep(1)
        await client.replay()
        await client.flush()
    poison = {action["moe_event_uuid"]: str(action) for customer, action in moengage.actions if customer == "poison"}
    assert len(poison) == 1
    assert len(moengage.by_customer()["poison"]) >= 2


async def test_a_clock_that_is_set_back_and_forth_loses_nothing_that_is_spooled(tmp_path):
    wall = [1.8e9]
    effects = Effects(wall=lambda: wall[0], jitter=lambda: 0.5)
    async with make_client(spool=DiskSpool(tmp_path), effects=effects, batching=BatchPolicy(linger=5)) as client:
        for jump in (-172_800.0, 400 * 86_400.0, 0.0):
            client.track_impression(CONTEXT, customer_id="john")
            wall[0] += jump
        assert (await client.flush()).delivered == 3


async def test_an_event_that_is_offered_again_before_it_is_recovered_is_sent_once_and_leaves_no_file(tmp_path):
    down, up = MoEngage(events=lambda body: error(503)), MoEngage()
    async with make_client(down, spool=DiskSpool(tmp_path)) as client:
        client.track_impression(CONTEXT, customer_id="john", event_uuid=event_uuid_for("a page"))
        await client.aclose(0)
    async with make_client(up, spool=DiskSpool(tmp_path)) as client:
        client.track_impression(CONTEXT, customer_id="john", event_uuid=event_uuid_for("a page"))
        await anyio.sleep(1)
        report = await client.flush()
        assert (report.accepted, report.recovered, report.delivered) == (1, 0, 1)
    assert up.uuids == [event_uuid_for("a page")]
    assert not [*tmp_path.glob("*.seg"), *tmp_path.glob("*.lock")]
