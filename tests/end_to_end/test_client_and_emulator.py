"""The client and the emulator, over real TLS and real HTTP/2 on loopback, on asyncio and on uvloop."""

import asyncio
import json
import random

import anyio
import pytest
from support.moengage import CONTEXT

from moengage_personalize import (
    AsyncPersonalizeClient,
    BatchPolicy,
    Condition,
    FetchPolicy,
    InSession,
    Reason,
    RetryPolicy,
    event_uuid_for,
)
from moengage_personalize.emulator import Emulator, Trouble, serve

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]


def client_of(server, **options):
    return AsyncPersonalizeClient(
        options.pop("workspace_id", "DEMO_WORKSPACE"),
        options.pop("api_key", "demo-key"),
        base_url=server.base_url,
        ssl_context=server.ssl_context(),
        **options,
    )


async def test_a_visitor_is_served_and_what_happened_is_reported():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    async with serve(emulator) as server, client_of(server) as client:
        experiences = await client.fetch(
            "home-hero",
            "no-such-key",
            customer_id="john@example.com",
            session=InSession(ip_address="192.0.2.7", user_agent="Mozilla/5.0 (iPhone)"),
            attributes={"utm_medium": "email"},
            deadline=10,
        )
        hero = experiences["home-hero"]
        assert hero.matched
        assert isinstance(hero.get("Title"), str)
        assert experiences["no-such-key"].reason is Reason.NO_MATCH
        client.track_impression(hero, customer_id="john@example.com", user_timezone_offset=19_800)
        client.track_click(hero, customer_id="john@example.com", b_id="cta", user_attributes={"tier": "gold"})
        report = await client.flush()
    assert report.delivered == 2
    assert [event.customer_id for event in emulator.ledger.events] == ["john@example.com"] * 2
    impression, click = (json.loads(event.raw) for event in emulator.ledger.events)
    assert impression["action"] == "MOE_PERSONALIZATION_MESSAGE_SHOWN"
    assert impression["attributes"] == hero.context
    assert click["attributes"] == {**hero.context, "b_id": "cta"}
    assert emulator.ledger.counts.wrong_identity_forms == 0


@pytest.mark.parametrize("identity", ["both", "identifiers", "flat"])
async def test_each_identity_form_reaches_the_person_where_its_document_holds(identity):
    for documents in ("identifiers", "flat"):
        emulator = Emulator("DEMO_WORKSPACE", "demo-key", identity=documents)
        policy = FetchPolicy(identity=identity, deadline=10)
        async with serve(emulator) as server, client_of(server, fetching=policy) as client:
            await client.fetch("home-hero", customer_id="john@example.com")
        understood = identity in ("both", documents)
        assert emulator.ledger.counts.anonymous_fetches == (0 if understood else 1)


async def test_fetch_all_and_metadata():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    async with serve(emulator) as server, client_of(server) as client:
        metadata = await client.metadata()
        assert metadata["home-hero"].status == "Active"
        assert "home-hero" in await client.metadata(["Active"])
        assert "home-hero" not in await client.metadata("Paused")
        everything = await client.fetch_all(customer_id="john@example.com", deadline=10)
        assert everything["home-hero"].matched


async def test_wrong_credentials_are_told_and_events_survive_them():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    keys = ["wrong-key"]
    retrying = RetryPolicy(initial=0.01, maximum=0.05)
    async with (
        serve(emulator) as server,
        client_of(server, api_key=lambda: keys[-1], retrying=retrying, batching=BatchPolicy(linger=0)) as client,
    ):
        experiences = await client.fetch("home-hero", deadline=10)
        assert experiences["home-hero"].reason is Reason.UNAUTHORIZED
        assert experiences.error.title
        client.track_impression(CONTEXT, customer_id="john@example.com")
        await client.flush(0.5)
        assert client.health().condition is Condition.MISCONFIGURED
        keys.append("demo-key")
        assert (await client.flush(10)).delivered == 1
        assert client.health().condition is Condition.HEALTHY


async def test_20000_impressions_of_500_customers_arrive_exactly_once_in_order_in_no_more_requests_than_packing_plus_a_tenth():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    batching = BatchPolicy(max_pending=50_000, max_pending_bytes=1 << 26)
    rnd = random.Random(5)
    expected = {}
    async with serve(emulator) as server, client_of(server, batching=batching) as client:

        async def visitor(number):
            for n in range(100):
                customer, event_uuid = f"customer-{rnd.randrange(500)}", event_uuid_for(number, n)
                expected.setdefault(customer, []).append(event_uuid)
                assert client.track_impression(CONTEXT, customer_id=customer, event_uuid=event_uuid) == "accepted"
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(visitor, number)
        report = await client.flush(60)
        stats = client.stats()
    assert report.delivered == 20_000
    assert report.balanced
    counts = emulator.ledger.counts
    assert (counts.accepted, counts.duplicates_identical, counts.duplicates_different) == (20_000, 0, 0)
    arrived = {}
    for event in emulator.ledger.events:
        arrived.setdefault(event.customer_id, []).append(event.uuid)
    assert arrived == expected
    exact = -(-sum(len(event.raw) for event in emulator.ledger.events) // batching.max_bytes)
    assert counts.event_requests == stats.event_requests <= exact * 1.1


async def comes(condition):
    """Gives way to everybody else until the condition is true."""
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0)


async def test_an_outage_costs_nothing():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    retrying = RetryPolicy(initial=0.02, maximum=0.2)
    batching = BatchPolicy(linger=0.02)
    async with serve(emulator) as server, client_of(server, retrying=retrying, batching=batching) as client:
        for number in range(600):
            if number == 200:
                emulator.troubles.add(Trouble(outage=True), now=emulator.effects.now())
                await comes(lambda: server.is_out)
            if number == 400:
                await comes(lambda: client.stats().retries)
                emulator.troubles.clear()
            client.track_impression(CONTEXT, customer_id=f"customer-{number % 20}", event_uuid=event_uuid_for(number))
        report = await client.flush(30)
    assert report.delivered == 600
    assert [event.uuid for event in emulator.ledger.events if event.customer_id == "customer-3"] == [
        event_uuid_for(number) for number in range(3, 600, 20)
    ]
    assert emulator.ledger.counts.accepted == 600
    assert emulator.ledger.counts.duplicates_different == 0


async def test_leaving_the_loop_leaves_no_task_behind():
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    async with serve(emulator) as server:
        before = asyncio.all_tasks()
        async with client_of(server) as client:
            await client.fetch("home-hero", deadline=10)
        await anyio.sleep(0)
        assert {task for task in asyncio.all_tasks() if not task.done()} <= before | {asyncio.current_task()}
