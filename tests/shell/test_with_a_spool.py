"""A client with a spool on disk: what a process leaves, another one sends."""

import anyio
import pytest
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client

from moengage_personalize import Admission, BatchPolicy, PersonalizeError, event_uuid_for
from moengage_personalize.spool import DiskSpool, SpoolError

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]  # the spool has a thread, so the clock must not jump


def client_of(moengage, directory, **options):
    return make_client(moengage, spool=DiskSpool(directory), **options)


async def recovered(client, count):
    with anyio.fail_after(10):
        while client.stats().recovered < count:
            await anyio.sleep(0.01)


async def test_what_is_left_at_the_end_is_sent_by_the_next_with_the_same_bytes(tmp_path):
    down = MoEngage(events=lambda body: error(503))
    async with client_of(down, tmp_path, batching=BatchPolicy(linger=0)) as client:
        for number in range(50):
            client.track_impression(
                CONTEXT,
                customer_id=f"customer-{number % 5}",
                event_uuid=event_uuid_for(number),
                user_attributes={"Zürich\t": [1, 2.5, number], "b": "x\ny"},
                user_timezone_offset=-19_800,
            )
        await anyio.sleep(0.05)
        report = await client.aclose(0.1)
    assert (report.pending, report.spooled, report.dropped) == (50, 50, 0)
    assert report.balanced

    up = MoEngage()
    async with client_of(up, tmp_path) as client:
        await recovered(client, 50)
        report = await client.flush()
    assert (report.recovered, report.delivered, report.pending) == (50, 50, 0)
    assert report.balanced
    sent = {action["moe_event_uuid"]: (customer, str(action)) for customer, action in down.actions}
    resent = {action["moe_event_uuid"]: (customer, str(action)) for customer, action in up.actions}
    assert sent.items() <= resent.items()
    assert up.by_customer() == {
        f"customer-{customer}": [event_uuid_for(number) for number in range(customer, 50, 5)] for customer in range(5)
    }
    (element,) = [element for element in up.elements if element["customer_id"] == "customer-4"]
    assert element["user_attributes"] == {"Zürich\t": [1, 2.5, 49], "b": "x\ny"}
    assert element["user_timezone_offset"] == -19_800

    third = MoEngage()
    async with client_of(third, tmp_path) as client:
        await anyio.sleep(0.2)
    assert third.requests == []


async def test_beyond_the_bounds_the_spool_takes_over_and_nothing_is_shed(tmp_path):
    broken = True
    moengage = MoEngage(events=lambda body: error(503) if broken else accepted())
    batching = BatchPolicy(max_pending=100, linger=0)
    async with client_of(moengage, tmp_path, batching=batching) as client:
        for number in range(1_000):
            admission = client.track_impression(
                CONTEXT, customer_id=f"customer-{number % 7}", event_uuid=event_uuid_for(number)
            )
            assert admission is Admission.ACCEPTED
        assert (client.stats().pending, client.stats().spooled) == (1_000, 1_000)
        assert client._buffer.in_memory == 100
        assert client.track_impression(CONTEXT, customer_id="x@y", event_uuid=event_uuid_for(999)) == "duplicate"
        broken = False
        report = await client.flush(30)
        assert (report.delivered, report.dropped, report.pending) == (1_000, 0, 0)
        assert report.balanced
    assert moengage.by_customer() == {
        f"customer-{customer}": [event_uuid_for(number) for number in range(customer, 1_000, 7)]
        for customer in range(7)
    }


async def test_rejected_events_are_kept_with_their_reason_and_may_be_replayed(tmp_path):
    poison = event_uuid_for("poison")
    picky = True

    def events(body):
        uuids = [action["moe_event_uuid"] for element in body["elements"] for action in element["actions"]]
        return error(400, "Errored Field: platform") if picky and poison in uuids else accepted()

    moengage = MoEngage(events=events)
    spool = DiskSpool(tmp_path)
    async with make_client(moengage, spool=spool) as client:
        client.track_impression(CONTEXT, customer_id="jane")
        await client.flush()
        client.track_impression(CONTEXT, customer_id="john", event_uuid=poison)
        assert (await client.flush()).rejected == 1
        (letter,) = await spool.dead_letters()
        assert letter.entry.event_uuid == poison
        assert letter.status == 400
        assert "Errored Field" in letter.reason
        picky = False
        assert await client.replay() == 1
        report = await client.flush()
        assert (report.replayed, report.delivered) == (1, 2)
        assert report.balanced
        assert await spool.dead_letters() == []


async def test_forgetting_reaches_the_spool(tmp_path):
    down = MoEngage(events=lambda body: error(503))
    async with client_of(down, tmp_path) as client:
        client.track_impression(CONTEXT, customer_id="john@example.com")
        client.track_impression(CONTEXT, customer_id="jane@example.com")
        await client.aclose(0)
    async with client_of(down, tmp_path, batching=BatchPolicy(linger=60)) as client:
        await recovered(client, 2)
        await client.forget("john@example.com")
        await client.aclose(0)
    up = MoEngage()
    async with client_of(up, tmp_path) as client:
        await anyio.sleep(0.2)
        await client.flush()
    assert list(up.by_customer()) == ["jane@example.com"]
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"john@example.com" not in left


async def test_journaled_returns(tmp_path):
    async with client_of(MoEngage(), tmp_path) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.journaled()


async def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path):
    place = tmp_path / "a-file"
    place.write_text("x")
    with pytest.raises(PersonalizeError, match="spool"):
        await client_of(MoEngage(), place).__aenter__()


async def test_flushing_ends_with_the_client_although_the_events_stay(tmp_path):
    down = MoEngage(events=lambda body: error(503))
    async with client_of(down, tmp_path) as client:
        client.track_impression(CONTEXT, customer_id="john")
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(10):
                tasks.start_soon(client.flush, 60.0)
                await anyio.sleep(0.05)
                await client.aclose(0.05)
    assert client.last_report.spooled == 1


async def test_journaled_raises_while_something_is_in_memory_only(tmp_path):
    broken = True
    moengage = MoEngage(events=lambda body: error(503) if broken else accepted())
    spool = DiskSpool(tmp_path, max_bytes=8_192, segment_bytes=4_096)
    async with make_client(moengage, spool=spool, batching=BatchPolicy(linger=0)) as client:
        client.track_click(CONTEXT, customer_id="john")
        await client.journaled()
        for _ in range(30):
            assert client.track_click(CONTEXT, customer_id="john") is Admission.ACCEPTED
        assert client.stats().spooled < client.stats().pending == 31
        with pytest.raises(SpoolError, match="memory"):
            await client.journaled()
        broken = False
        await client.flush()
        await client.journaled()


async def test_a_replay_whose_caller_leaves_goes_on(tmp_path):
    picky = True
    moengage = MoEngage(events=lambda body: error(400) if picky and "poison" in str(body) else accepted())
    spool = DiskSpool(tmp_path)
    async with make_client(moengage, spool=spool) as client:
        client.track_impression(CONTEXT, customer_id="jane")
        client.track_impression(CONTEXT, customer_id="poison")
        await client.flush()
        with anyio.fail_after(10):
            while not await spool.dead_letters():
                await anyio.sleep(0.001)
        picky = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.replay)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(10):
            while client.stats().replayed == 0:
                await anyio.sleep(0.001)
        report = await client.flush()
        assert (report.replayed, report.delivered, report.pending) == (1, 2, 0)
        assert await spool.dead_letters() == []
        assert spool.stats().pending == 0


async def test_a_replay_that_fails_after_its_caller_has_left_is_nobodys_trouble(tmp_path, monkeypatch):
    spool = DiskSpool(tmp_path)

    async def failing(event_uuids=None):
        await anyio.sleep(0.01)
        raise SpoolError("spool: cannot read dead letters")

    monkeypatch.setattr(spool, "replay", failing)
    async with make_client(spool=spool) as client:
        with pytest.raises(SpoolError):
            await client.replay()
        with anyio.move_on_after(0.001):
            await client.replay()
        await anyio.sleep(0.05)
