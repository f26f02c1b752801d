"""The circuit, the quota and the bound, through the client; every knob is turned, and requests are counted."""

import asyncio

import anyio
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, error, make_client, served, serving

from moengage_personalize import (
    AsyncPersonalizeClient,
    AuthenticationError,
    CachePolicy,
    Condition,
    FetchPolicy,
    NotAskedError,
    RateLimitedError,
    Reason,
    RetryPolicy,
    ServerError,
)

pytestmark = pytest.mark.anyio


def policy(**options):
    return FetchPolicy(**{"breaker_failures": 4, "attempts": 1, "open_for": 5.0, **options})


class Outage:
    """A MoEngage that can be switched off."""

    def __init__(self, answer=lambda: error(503)):
        self.down = True
        self.answer = answer
        self.transport = MoEngage(fetch=lambda body: self.answer() if self.down else serving(a=served()))

    @property
    def requests(self):
        return self.transport.count("fetch")


async def ask(client, count, **options):
    return [(await client.fetch("a", customer_id=f"person-{n}", **options))["a"].reason for n in range(count)]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: error(503),
        lambda: httpx.ConnectError("no"),
        lambda: 3_600,
        lambda: error(302),
        lambda: httpx.Response(200, content=b"?"),
    ],
)
async def test_an_outage_opens_the_circuit_and_its_end_closes_it(answer):
    outage = Outage(answer)
    async with make_client(outage.transport, fetching=policy()) as client:
        reasons = await ask(client, 20)
        assert reasons[4:] == [Reason.OPEN_CIRCUIT] * 16
        assert outage.requests == 4
        await anyio.sleep(5.0)
        await ask(client, 20)
        assert outage.requests == 5  # the probe
        outage.down = False
        await anyio.sleep(5.0)
        assert (await ask(client, 20)) == [Reason.MATCHED] * 20
        assert client.stats().circuit_openings == 1
        assert client.stats().fetches_refused == 16 + 19


async def test_the_error_of_an_open_circuit_names_what_opened_it():
    outage = Outage()
    async with make_client(outage.transport, fetching=policy(on_error="raise")) as client:
        for _ in range(4):
            with pytest.raises(ServerError):
                await client.fetch("a")
        with pytest.raises(NotAskedError, match="circuit is open") as raised:
            await client.fetch("a")
    assert isinstance(raised.value.__cause__, ServerError)
    assert raised.value.attempts == 0
    assert 0 < raised.value.retry_after <= 5.0


@pytest.mark.parametrize(("knob", "requests"), [({}, 4), ({"breaker_failures": 9}, 9)])
async def test_breaker_failures_is_how_many_open_it(knob, requests):
    outage = Outage()
    async with make_client(outage.transport, fetching=policy(**knob)) as client:
        await ask(client, 20)
    assert outage.requests == requests


@pytest.mark.parametrize(("window", "requests"), [(10.0, 4), (2.0, 10)])
async def test_breaker_window_is_how_long_a_failure_is_remembered(window, requests):
    outage = Outage()
    async with make_client(outage.transport, fetching=policy(breaker_window=window)) as client:
        for _ in range(10):
            await ask(client, 1)
            await anyio.sleep(1.0)
            if outage.requests == 4 and window == 10.0:
                break
    assert outage.requests == requests


@pytest.mark.parametrize(("seconds", "probes"), [(5.0, 20), (20.0, 5)])
async def test_open_for_is_the_time_between_probes(seconds, probes):
    outage = Outage()
    async with make_client(outage.transport, fetching=policy(open_for=seconds)) as client:
        await ask(client, 10)
        for _ in range(1_000):
            await anyio.sleep(0.1)
            await ask(client, 1)
    assert abs(outage.requests - 4 - probes) <= 1


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_open_it_at_once_and_for_long(status):
    outage = Outage(lambda: error(status))
    async with make_client(outage.transport, fetching=policy(denied_for=60.0)) as client:
        page = await client.fetch("a")
        assert page["a"].reason is Reason.UNAUTHORIZED
        await anyio.sleep(59.0)
        page = await client.fetch("a")
        assert page["a"].reason is Reason.OPEN_CIRCUIT
        assert isinstance(page.error, AuthenticationError)
        assert outage.requests == 1
        outage.down = False
        await anyio.sleep(1.0)
        assert (await client.fetch("a"))["a"].matched


async def test_many_at_once_make_one_probe():
    outage = Outage()
    async with make_client(outage.transport, fetching=policy()) as client:
        await ask(client, 10)
        await anyio.sleep(5.0)
        await asyncio.gather(*(client.fetch("a", customer_id=f"person-{n}") for n in range(100)))
    assert outage.requests == 5


async def test_a_probe_whose_caller_went_away_is_no_verdict():
    outage = Outage()
    async with make_client(outage.transport, fetching=policy()) as client:
        await ask(client, 10)
        await anyio.sleep(5.0)
        outage.answer = lambda: 3_600
        task = asyncio.create_task(client.fetch("a"))
        await anyio.sleep(0.1)
        task.cancel()
        await anyio.sleep(4.8)
        assert (await ask(client, 1)) == [Reason.OPEN_CIRCUIT]
        outage.down = False
        await anyio.sleep(0.2)
        assert (await ask(client, 1)) == [Reason.MATCHED]


async def test_an_outage_of_twenty_minutes_costs_one_probe_per_interval_plus_the_budget():
    outage = Outage()
    async with make_client(outage.transport) as client:
        for _ in range(1_200):
            await asyncio.gather(*(client.fetch("a", customer_id=f"person-{n}") for n in range(3)))
            await anyio.sleep(1.0)
        assert outage.requests <= 1_200 / 5 + RetryPolicy().budget
        outage.down = False
        await anyio.sleep(5.0)
        await client.fetch("a")
        assert (await ask(client, 3)) == [Reason.MATCHED] * 3


async def test_an_open_circuit_is_answered_with_what_is_stale():
    outage = Outage()
    outage.down = False
    async with make_client(outage.transport, fetching=policy(), caching=CachePolicy(stale_if_error=600)) as client:
        await client.fetch("a", customer_id="person-1")
        outage.down = True
        await ask(client, 10)
        page = await client.fetch("a", customer_id="person-1", on_error="raise")
    assert (page["a"].reason, page["a"].trouble) == (Reason.STALE, Reason.OPEN_CIRCUIT)
    assert page["a"].matched


async def test_a_question_that_is_refused_is_no_sign_of_an_outage():
    moengage = MoEngage(fetch=lambda body: error(400))
    async with make_client(moengage, fetching=policy()) as client:
        assert (await ask(client, 20)) == [Reason.BAD_REQUEST] * 20


# ── the bound ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bound", [3, 8])
async def test_beyond_max_in_flight_the_default_comes_at_once(bound):
    async def fetch(body):
        await anyio.sleep(0.5)
        return serving(a=served())

    moengage = MoEngage(fetch=fetch)
    async with make_client(moengage, fetching=FetchPolicy(max_in_flight=bound)) as client:
        began = anyio.current_time()
        tasks = [asyncio.create_task(client.fetch("a", customer_id=f"person-{n}")) for n in range(10)]
        refused = await asyncio.gather(*tasks[bound:])
        assert anyio.current_time() == began
        assert [page["a"].reason for page in refused] == [Reason.OVERLOADED] * (10 - bound)
        assert isinstance(refused[0].error, NotAskedError)
        assert all(page["a"].matched for page in await asyncio.gather(*tasks[:bound]))
        assert (await client.fetch("a"))["a"].matched


# ── the quota ────────────────────────────────────────────────────────────────────────────────────────────────────────


def limited(limit, *, reset="60", remaining=None):
    """Tells of its quota in every reply."""

    def fetch(body):
        left = limit - moengage.count("fetch") if remaining is None else remaining
        headers = {
            "x-ratelimit-limit": f"{limit}",
            "x-ratelimit-remaining": f"{max(0, left)}",
            "x-ratelimit-reset": reset,
        }
        return httpx.Response(200, json={"experiences": {"a": served()}}, headers=headers)

    moengage = MoEngage(fetch=fetch)
    return moengage


async def test_nothing_is_asked_when_nothing_remains_until_the_reset():
    moengage = limited(10, reset="20")
    async with make_client(moengage) as client:
        reasons = await ask(client, 15)
        assert reasons == [Reason.MATCHED] * 10 + [Reason.RATE_LIMITED] * 5
        page = await client.fetch("a")
        assert isinstance(page.error, RateLimitedError)
        assert (page.error.attempts, page.error.retry_after) == (0, pytest.approx(20))
        await anyio.sleep(20)
        assert (await client.fetch("a"))["a"].matched
    assert moengage.count("fetch") == 11


async def test_a_reset_in_epoch_seconds_is_understood():
    from moengage_personalize import Effects

    moengage = limited(1, reset="1795459230")
    async with make_client(moengage, effects=Effects(wall=lambda: 1795459200.0, jitter=lambda: 0.5)) as client:
        await client.fetch("a")
        assert (await client.fetch("a")).error.retry_after == pytest.approx(30)


@pytest.mark.parametrize(("share", "sent"), [(1.0, 40), (0.5, 20), (0.1, 4)])
async def test_quota_share_is_what_this_process_may_use(share, sent):
    moengage = limited(40, remaining=39)
    async with make_client(moengage, fetching=FetchPolicy(quota_share=share)) as client:
        await ask(client, 60)
        assert moengage.count("fetch") == sent
        assert client.stats().fetches_refused == 60 - sent


async def test_after_a_429_everybody_waits_as_long_as_it_says():
    outage = Outage(lambda: error(429, retry_after="7"))
    async with make_client(outage.transport) as client:
        assert (await ask(client, 10)) == [Reason.RATE_LIMITED] * 10
        assert outage.requests == 1
        outage.down = False
        await anyio.sleep(6.9)
        assert (await ask(client, 1)) == [Reason.RATE_LIMITED]
        await anyio.sleep(0.1)
        assert (await ask(client, 1)) == [Reason.MATCHED]


# ── retries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_is_how_often_a_request_is_sent(attempts):
    outage = Outage()
    async with make_client(outage.transport, fetching=FetchPolicy(attempts=attempts)) as client:
        await client.fetch("a", deadline=5.0)
    assert outage.requests == attempts


async def test_there_is_no_retry_without_time_for_it():
    async def fetch(body):
        await anyio.sleep(0.8)
        return error(500)

    moengage = MoEngage(fetch=fetch)
    async with make_client(moengage) as client:
        began = anyio.current_time()
        page = await client.fetch("a", deadline=1.0)
        assert anyio.current_time() - began == pytest.approx(0.8)
        assert isinstance(page.error, ServerError)
    assert moengage.count("fetch") == 1


async def test_closing_answers_those_who_wait_at_once():
    moengage = MoEngage(fetch=lambda body: 3_600)
    client = make_client(moengage)
    async with client:
        task = asyncio.create_task(client.fetch("a", deadline=100.0))
        await anyio.sleep(0.1)
        began = anyio.current_time()
    page = await task
    assert anyio.current_time() - began < 1.0
    assert page["a"].reason is Reason.CLOSED
    assert isinstance(page.error, NotAskedError)
    assert moengage.under_way == 0


async def test_closing_answers_those_who_have_not_left_yet():
    moengage = MoEngage(fetch=lambda body: 3_600)
    client = make_client(moengage, fetching=FetchPolicy(merge_window=0.005))
    async with client:
        task = asyncio.create_task(client.fetch("a", deadline=100.0))
        await anyio.sleep(0)
        client._engine.fetcher.close()
        assert (await client.fetch("b", deadline=100.0))["b"].reason is Reason.CLOSED
        assert (await task)["a"].reason is Reason.CLOSED
    assert moengage.count("fetch") == 0


async def test_a_bug_leaves_nobody_waiting():
    async with make_client() as client:
        client._engine.fetcher.pilot.fly = None
        page = await client.fetch("a", deadline=100.0)
    assert page["a"].reason is Reason.UNAVAILABLE
    assert "this is a bug" in str(page.error)


async def test_a_key_that_cannot_be_asked_for_again_leaves_the_circuit_open():
    keys = ["old"]
    outage = Outage(lambda: error(401))
    from moengage_personalize import AsyncPersonalizeClient

    async with AsyncPersonalizeClient("WORKSPACE", keys.pop, "01", transport=outage.transport) as client:
        assert (await client.fetch("a"))["a"].reason is Reason.UNAUTHORIZED
        assert (await client.fetch("a"))["a"].reason is Reason.OPEN_CIRCUIT
    assert outage.requests == 1


async def test_a_transports_own_timeout_after_an_error_has_that_as_its_cause():
    answers = [error(500), httpx.ReadTimeout("late")]
    moengage = MoEngage(fetch=lambda body: answers.pop(0))
    async with make_client(moengage) as client:
        page = await client.fetch("a")
    assert page["a"].reason is Reason.TIMEOUT
    assert isinstance(page.error.__cause__, ServerError)


async def test_there_is_no_retry_for_nobody():
    moengage = MoEngage(fetch=lambda body: error(500, retry_after="1"))
    async with make_client(moengage, caching=CachePolicy(ttl=30, late=5.0)) as client:
        first = asyncio.create_task(client.fetch("a", deadline=3.0))
        await anyio.sleep(0.5)
        first.cancel()
        await anyio.sleep(3.0)
    assert moengage.count("fetch") == 1


@pytest.mark.parametrize(
    ("answer", "condition"), [(lambda: error(401), "misconfigured"), (lambda: error(503), "degraded")]
)
async def test_health_and_the_log_say_that_the_circuit_is_open_once(answer, condition, caplog):
    caplog.set_level("INFO")
    outage = Outage(answer)
    async with make_client(outage.transport, fetching=policy(denied_for=5.0)) as client:
        await ask(client, 10)
        await anyio.sleep(5.0)
        await ask(client, 10)
        assert client.health().condition == condition
        outage.down = False
        await anyio.sleep(5.0)
        await ask(client, 1)
        assert client.health().condition == "healthy"
    suspended, resumed = [record.message for record in caplog.records if record.name == "moengage_personalize"]
    why = {
        "misconfigured": "MoEngage refuses the workspace id or the key (`moengage-personalize doctor` says which)",
        "degraded": "ServerError",
    }
    assert suspended == f"fetching is suspended, but for probes: {why[condition]}"
    assert resumed == "fetching is resumed"


async def test_the_log_says_why_nobody_can_be_reached(caplog):
    def refused(request):
        raise httpx.ConnectError("secret") from ConnectionRefusedError(111, "secret")

    async with make_client(httpx.MockTransport(refused)) as client:
        await ask(client, 20)
    (said,) = [record.message for record in caplog.records if record.name == "moengage_personalize"]
    why = "ConnectionFailedError: the exchange failed: ConnectError: Connection refused"
    assert said == f"fetching is suspended, but for probes: {why}"


async def test_health_says_that_every_fetch_was_refused_until_one_is_accepted(caplog):
    caplog.set_level("INFO")
    outage = Outage(lambda: error(400))
    async with make_client(outage.transport) as client:
        await ask(client, 2)
        assert client.health().condition is Condition.HEALTHY, "a question may be wrong"
        await ask(client, 3)
        assert client.health().condition is Condition.MISCONFIGURED
        assert "check workspace_id and data_center" in client.health().detail
        outage.down = False
        await ask(client, 1)
        assert client.health().condition is Condition.HEALTHY
        outage.down = True
        await ask(client, 10)
        assert client.health().condition is Condition.HEALTHY, "these credentials have had a success"
    refused, accepted = [record.message for record in caplog.records if record.name == "moengage_personalize"]
    assert refused.startswith("MoEngage has refused every fetch so far")
    assert accepted == "fetching is refused no longer"


async def test_a_key_that_the_senders_of_events_have_renewed_opens_fetching_again():
    keys = ["old"]

    def answer(body):
        new = "bmV3" in moengage.headers[-1]["authorization"] or "Om5ld" in moengage.headers[-1]["authorization"]
        return None if new else error(401)

    moengage = MoEngage()
    fetch, events = moengage.fetch, moengage.events
    moengage.fetch = lambda body: answer(body) or fetch(body)
    moengage.events = lambda body: answer(body) or events(body)
    async with AsyncPersonalizeClient("WORKSPACE", lambda: keys[-1], "01", transport=moengage) as client:
        assert (await client.fetch("hero"))["hero"].reason is Reason.UNAUTHORIZED
        keys.append("new")
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush()
        assert client.health().condition is Condition.HEALTHY
        assert (await client.fetch("hero"))["hero"].matched
