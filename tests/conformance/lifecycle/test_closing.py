"""Closing takes as long as it was given, whoever is on the other side, and nothing is lost in silence.

Read `BEHAVIOURS` as a claim. The time is the wall's, less what this machine itself lost meanwhile.
"""

import asyncio
import contextlib
import threading

import anyio
import pytest
from conformance.lifecycle.closing import BEHAVIOURS, CONTEXT, STUCK, Stopwatch, client_of, resolver_stuck_for, track
from faults.accounts import nothing_left_behind

from moengage_personalize import Admission, AsyncPersonalizeClient, BatchPolicy, Reason
from moengage_personalize.emulator import Trouble
from moengage_personalize.spool import DiskSpool

pytestmark = [pytest.mark.conformance, pytest.mark.anyio, pytest.mark.real_loops]

GRACE = 0.3
RETURNS_BY = GRACE + 0.1
MARGIN = 0.1  # seconds, for a machine that has other things to do; the next timeout of anybody is a second or more
EVENTS = 200
DELIVERS_SOME = {"gives no credit"}  # as much as the first window holds


@contextlib.asynccontextmanager
async def opened(client):
    """Opens it, and closes it only if the test forgot: its own closing is what is measured."""
    await client.__aenter__()
    try:
        yield client
    finally:
        await client.aclose(0)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_closing_takes_no_longer_than_its_grace_from_a_server_that(
    behaviour, certificates, monkeypatch, tmp_path, emulated
):
    async with nothing_left_behind():
        with resolver_stuck_for(STUCK, monkeypatch), BEHAVIOURS[behaviour].serving(certificates) as url:
            without = client_of(url, certificates)
            spooling = client_of(url, certificates, spool=DiskSpool(tmp_path, segment_bytes=1 << 16))
            async with opened(without), opened(spooling):
                for client in (without, spooling):
                    await BEHAVIOURS[behaviour].prepare(client)
                    track(client, EVENTS)
                await anyio.sleep(0.2)  # in the midst of it
                track(without, EVENTS, "late")
                async with Stopwatch() as watch:
                    one, other = await asyncio.gather(without.aclose(GRACE), spooling.aclose(GRACE))
    assert watch.took <= RETURNS_BY + MARGIN, f"{watch.wall:.3f} s, of which the machine lost {watch.lost:.3f} s"
    some = 2 * EVENTS if behaviour in DELIVERS_SOME else 0
    assert one.balanced
    assert (one.accepted, one.pending) == (2 * EVENTS, 0)
    assert one.dropped_by_reason == {"closed": 2 * EVENTS - one.delivered}
    assert other.balanced
    assert (other.dropped, other.rejected) == (0, 0)
    assert other.pending == other.spooled == EVENTS - other.delivered
    assert one.delivered <= some
    assert other.delivered <= some

    async with AsyncPersonalizeClient(spool=DiskSpool(tmp_path)) as second:
        with anyio.fail_after(10):
            while second.stats().delivered < other.pending:
                await anyio.sleep(0.02)
    assert second.last_report.recovered == second.last_report.delivered == other.pending
    assert len({event.uuid for event in emulated.ledger.events}) == other.pending
    assert emulated.ledger.counts.duplicates_different == 0


# ── a healthy server ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spooled", [False, True], ids=["without a spool", "with a spool"])
async def test_closing_delivers_a_thousand_that_wait(spooled, emulated, tmp_path):
    spool = DiskSpool(tmp_path) if spooled else None
    async with AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0), spool=spool) as client:
        track(client, 1_000)
        async with Stopwatch() as watch:
            report = await client.aclose()
    assert (report.delivered, report.dropped, report.pending) == (1_000, 0, 0)
    assert emulated.ledger.counts.accepted == emulated.ledger.counts.received == 1_000
    assert watch.took < 2.5  # half of the grace


async def test_a_slow_server_gets_the_whole_grace_and_no_more_is_taken(emulated):
    emulated.troubles.add(Trouble(latency=0.3), emulated.effects.now())
    async with AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0)) as client:
        track(client, 500)
        report = await client.aclose(4.0)
    assert (report.delivered, report.dropped) == (500, 0)


# ── who closes, how often, and who gives up ──────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def hung(certificates, **options):
    """A client of a server that never answers, with events under way and others waiting."""
    with BEHAVIOURS["hangs after a request"].serving(certificates) as url:
        async with nothing_left_behind(), opened(client_of(url, certificates, **options)) as client:
            track(client, EVENTS)
            await anyio.sleep(0.1)
            track(client, EVENTS, "late")
            yield client


def settled(client):
    """The report balances, and tells of every event that was lost."""
    report = client.last_report
    assert report.balanced
    assert report.dropped_by_reason == {"closed": 2 * EVENTS}
    return True


async def test_closing_from_a_handler_while_others_call_ends_all_of_them(certificates):
    async with hung(certificates) as client:
        answers = []

        async def asking(number):
            answers.append(await client.fetch("home-hero", customer_id=f"person-{number}", deadline=10.0))

        async def handler():
            await anyio.sleep(0.05)
            await client.aclose(GRACE)

        async with Stopwatch() as watch:
            async with anyio.create_task_group() as handlers:
                for number in range(10):
                    handlers.start_soon(asking, number)
                handlers.start_soon(handler)
    assert watch.took <= RETURNS_BY + 0.05 + MARGIN
    assert {page["home-hero"].reason for page in answers} == {Reason.CLOSED}
    assert settled(client)


async def test_closing_twice_at_the_same_time_gives_both_the_same_report(certificates):
    async with hung(certificates) as client:
        async with Stopwatch() as watch:
            reports = await asyncio.gather(client.aclose(GRACE), client.aclose(60.0), client.aclose(GRACE))
    assert watch.took <= RETURNS_BY + MARGIN
    assert reports == [client.last_report] * 3
    assert settled(client)


async def test_a_second_closing_may_shorten_the_first(certificates):
    async with hung(certificates) as client:
        first = asyncio.create_task(client.aclose(60.0))
        await anyio.sleep(0.1)
        async with Stopwatch() as watch:
            report = await client.aclose(0.2)
            assert await first == report
    assert watch.took <= 0.3 + MARGIN
    assert settled(client)


async def test_a_waiter_that_is_cancelled_does_not_cancel_the_closing(certificates):
    async with hung(certificates) as client:
        async with Stopwatch() as watch:
            first = asyncio.create_task(client.aclose(GRACE))
            await anyio.sleep(0.05)
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            assert client.stats().pending == 2 * EVENTS
            await client.aclose()
    assert watch.wall >= GRACE - 0.05
    assert watch.took <= RETURNS_BY + MARGIN
    assert settled(client)


async def test_flushing_ends_with_the_client(certificates, tmp_path):
    """With a spool the events stay pending: nobody may wait for them."""
    async with hung(certificates, spool=DiskSpool(tmp_path)) as client:
        flushing = asyncio.create_task(client.flush(30.0))
        await anyio.sleep(0.05)
        async with Stopwatch() as watch:
            await client.aclose(GRACE)
            report = await flushing
    assert watch.took <= RETURNS_BY + MARGIN
    assert report.pending == report.spooled == 2 * EVENTS


async def test_an_api_key_that_never_comes_does_not_hold_up_the_closing(certificates):
    async def api_key():
        await anyio.sleep(3_600)

    with BEHAVIOURS["hangs after a request"].serving(certificates) as url:
        client = AsyncPersonalizeClient(
            "W", api_key, base_url=url, ssl_context=certificates.client_context(), batching=BatchPolicy(linger=0)
        )
        async with opened(client):
            track(client, 10)
            await anyio.sleep(0.05)
            async with Stopwatch() as watch:
                report = await client.aclose(GRACE)
    assert watch.took <= RETURNS_BY + MARGIN
    assert report.dropped == 10


# ── lifespans that are cancelled ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_that_is_cancelled_in_the_body_delivers_on_its_way_out(emulated):
    client = AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0))

    async def lifespan():
        async with client:
            track(client, 100)
            await anyio.sleep(60)

    task = asyncio.create_task(lifespan())
    await anyio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (client.last_report.delivered, emulated.ledger.counts.accepted) == (100, 100)


async def test_a_cancelled_scope_delivers_on_its_way_out(emulated):
    """anyio's cancellation comes again at every await; leaving the client is shielded from it, within the grace."""
    client = AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0))
    with anyio.move_on_after(0.2) as scope:
        async with client:
            track(client, 100)
            await anyio.sleep(60)
    assert scope.cancelled_caught
    assert (client.last_report.delivered, emulated.ledger.counts.accepted) == (100, 100)


async def test_a_cancelled_scope_waits_no_longer_than_the_grace(certificates):
    with BEHAVIOURS["hangs after a request"].serving(certificates) as url:
        async with nothing_left_behind():
            with anyio.move_on_after(0.2):
                async with client_of(url, certificates, batching=BatchPolicy(grace=GRACE)) as client:
                    track(client, 100)
                    try:
                        await anyio.sleep(60)
                    finally:
                        began = anyio.current_time()
            assert anyio.current_time() - began <= 1.0
    assert client.last_report.dropped_by_reason == {"closed": 100}


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_entering_that_is_cancelled_leaves_nothing_behind(after, emulated, tmp_path):
    async with nothing_left_behind():
        client = AsyncPersonalizeClient(spool=DiskSpool(tmp_path))
        task = asyncio.create_task(client.__aenter__())
        for _ in range(after):
            await anyio.sleep(0.0005)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled() and after:
            assert client.track_click(CONTEXT, customer_id="late") is Admission.CLOSED
        await client.aclose()
    for thread in threading.enumerate():
        if thread.name.startswith("moengage-personalize"):
            thread.join(1.0)
            assert not thread.is_alive()
    async with AsyncPersonalizeClient(spool=DiskSpool(tmp_path)) as second:
        track(second, 1)
    assert second.last_report.delivered == 1


async def test_leaving_that_is_cancelled_goes_on_and_a_second_closing_tells_how_it_ended(certificates, tmp_path):
    async with hung(certificates, spool=DiskSpool(tmp_path), batching=BatchPolicy(grace=GRACE)) as client:
        leaving = asyncio.create_task(client.__aexit__(None, None, None))
        await anyio.sleep(0.05)
        leaving.cancel()
        await asyncio.wait([leaving])
        report = await client.aclose()
    assert report.pending == report.spooled == 2 * EVENTS


async def test_a_client_whose_background_was_cancelled_takes_nothing_on(emulated):
    """As a shutdown does that cancels every task it finds."""
    async with AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0)) as client:
        track(client, 10)
        (host,) = [task for task in asyncio.all_tasks() if task.get_name() == "moengage_personalize"]
        host.cancel()
        await asyncio.wait([host])
        assert client.stats().dropped_by_reason == {"closed": 10}
        assert client.track_click(CONTEXT, customer_id="late") is Admission.CLOSED
        assert client.stats().closed == 1
        assert client.stats().balanced
