"""Trouble around any transport."""

import anyio
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, make_client

from moengage_personalize import FetchPolicy, Reason
from moengage_personalize.emulator import Emulator, Trouble
from moengage_personalize.testing import FaultyTransport

pytestmark = pytest.mark.anyio  # on a clock that jumps


@pytest.fixture
def inner():
    return MoEngage()


async def fetched(transport, **options):
    async with make_client(transport, **options) as client:
        return (await client.fetch("home-hero", deadline=1.0))["home-hero"], client


async def test_without_trouble_everything_passes(inner):
    hero, _ = await fetched(transport := FaultyTransport(inner))
    assert hero.matched
    assert (transport.requests, transport.troubled, inner.closed) == (1, 0, True)


@pytest.mark.parametrize(
    ("trouble", "reason", "arrived"),
    [
        ({"status": 503}, Reason.UNAVAILABLE, 0),
        ({"outcome": "hang"}, Reason.TIMEOUT, 0),
        ({"outcome": "reset"}, Reason.UNAVAILABLE, 0),
        ({"outcome": "lose"}, Reason.UNAVAILABLE, 1),
        ({"outcome": "drain"}, Reason.MATCHED, 1),
        ({"outage": True}, Reason.UNAVAILABLE, 0),
        ({"latency": 2.0}, Reason.TIMEOUT, 0),
        ({"latency": 0.5}, Reason.MATCHED, 1),
        ({"drip": 0.1}, Reason.TIMEOUT, 1),
        ({"drip": 0.0001}, Reason.MATCHED, 1),
        ({"max_body": 10}, Reason.UNAVAILABLE, 0),
        ({"status": 503, "endpoints": ("events",)}, Reason.MATCHED, 1),
        ({"status": 503, "after": 10}, Reason.MATCHED, 1),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else None,
)
async def test_trouble_is_what_the_client_meets(inner, trouble, reason, arrived):
    transport = FaultyTransport(inner, Trouble(**trouble))
    hero, _ = await fetched(transport, fetching=FetchPolicy(attempts=1))
    assert (hero.reason, inner.count("fetch")) == (reason, arrived)


async def test_the_clients_second_attempt_survives_one_failure(inner):
    hero, client = await fetched(FaultyTransport(inner, Trouble(status=503, duration=0.1)))
    assert hero.matched
    assert client.stats().retries == 1


async def test_the_same_seed_is_the_same_trouble():
    async def story(seed):
        transport = FaultyTransport(MoEngage(), Trouble(status=503, share=0.5), seed=seed)
        statuses = []
        async with httpx.AsyncClient(transport=transport, base_url="https://x.invalid") as http:
            for _ in range(40):
                answer = await http.post("/v1/experiences/fetch", json={})
                statuses.append(answer.status_code)
        assert transport.troubled == statuses.count(503)
        return statuses

    first = await story(1)
    assert first == await story(1) != await story(2)
    assert 8 < first.count(503) < 32


async def test_no_event_is_lost_in_it_and_none_counts_twice():
    emulator = Emulator("WORKSPACE", "personalize-key")
    transport = FaultyTransport(
        httpx.ASGITransport(emulator.app),
        Trouble(endpoints=("events",), status=503, share=0.4),
        Trouble(endpoints=("events",), outcome="lose", share=0.4),
        seed=7,
    )
    async with make_client(transport) as client:
        for number in range(50):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            await client.flush()
    assert client.last_report.delivered == emulator.ledger.counts.accepted == 50
    assert transport.troubled > 5
    assert emulator.ledger.counts.duplicates_identical > 0


async def test_a_hang_ends_with_the_requests_own_timeout(inner):
    transport = FaultyTransport(inner, Trouble(outcome="hang"))
    async with httpx.AsyncClient(transport=transport, timeout=5.0) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("https://x.invalid/v1/experiences/metadata")


async def test_trouble_ends_when_it_is_over_and_when_it_is_told_to(inner):
    transport = FaultyTransport(inner)
    async with httpx.AsyncClient(transport=transport, base_url="https://x.invalid") as http:

        async def status():
            return (await http.get("/v1/experiences/metadata")).status_code

        assert await status() == 200
        transport.add(Trouble(status=500, duration=60))
        assert await status() == 500
        await anyio.sleep(61)
        assert await status() == 200
        transport.add(Trouble(status=500))
        assert await status() == 500
        transport.calm()
        assert await status() == 200
        assert "2 of 5 requests" in repr(transport)


def test_what_it_cannot_play_it_refuses(inner):
    with pytest.raises(ValueError, match="poison needs the emulator"):
        FaultyTransport(inner, Trouble(poison="x"))
