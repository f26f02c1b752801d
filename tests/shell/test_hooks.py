"""What the application hands in is called at our expense: whatever it does, nothing is lost and no page breaks."""

import asyncio

import anyio
import attrs
import pytest
from support.moengage import CONTEXT, MoEngage, error, make_client

from moengage_personalize import Admission, AsyncPersonalizeClient, BatchPolicy, Condition, Effects, Reason

pytestmark = pytest.mark.anyio


def client_with(api_key, moengage):
    return AsyncPersonalizeClient("WORKSPACE", api_key, "01", transport=moengage, effects=Effects(jitter=lambda: 0.5))


# ── api_key ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_callable_whose_own_work_is_cancelled_fails_and_may_succeed_the_next_time():
    refreshing = asyncio.get_running_loop().create_future()

    async def api_key():
        return "the-key" if asked.append(1) or len(asked) > 3 else await refreshing

    asked, moengage = [], MoEngage()
    async with client_with(api_key, moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        refreshing.cancel()
        assert (await client.flush(0.01)).pending == 1
        assert client.health().condition is Condition.MISCONFIGURED
        assert "callable" in client.health().detail
        assert (await client.flush()).delivered == 1


async def test_a_key_callable_whose_own_work_is_cancelled_is_their_trouble_to_a_page():
    def api_key():
        raise asyncio.CancelledError

    async with client_with(api_key, MoEngage()) as client:
        experiences = await client.fetch("hero")
        assert experiences["hero"].reason is not Reason.CLOSED
        assert "cancelled" in str(experiences.error)


async def test_a_caller_who_is_cancelled_while_a_key_is_asked_for_is_cancelled():
    async with client_with(lambda: asyncio.get_running_loop().create_future(), MoEngage()) as client:
        with anyio.move_on_after(1) as scope:
            await client.fetch("hero", deadline=60)
        assert scope.cancelled_caught


@pytest.mark.parametrize("key", ["", " ", "a\nb", None, 7])
async def test_a_key_that_is_none_keeps_the_events_and_says_so(key):
    async with client_with(lambda: key, MoEngage()) as client:
        client.track_impression(CONTEXT, customer_id="john")
        assert (await client.flush(30)).pending == 1
        assert "callable" in client.health().detail


# ── before_send ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        lambda event: True,
        lambda event: {},
        lambda event: attrs.evolve(event, platform="fridge"),
        lambda event: attrs.evolve(event, customer_id=""),
        lambda event: attrs.evolve(event, user_attributes={"x": object()}),
    ],
    ids=["a flag", "a mapping", "a platform", "an empty id", "no JSON"],
)
async def test_a_hook_that_returns_what_cannot_be_sent_refuses_the_event(answer):
    async with make_client(before_send=answer) as client:
        assert client.track_impression(CONTEXT, customer_id="john") is Admission.REFUSED
        assert (client.stats().refused, client.stats().offered) == (1, 1)


@pytest.mark.parametrize("hook", [lambda event: event, lambda event: attrs.evolve(event, user_attributes={"a": 1})])
async def test_bad_input_still_raises_where_a_hook_passes_it_on(hook):
    async with make_client(before_send=hook) as client:
        with pytest.raises(ValueError, match="platform"):
            client.track_impression(CONTEXT, customer_id="john", platform="fridge")
        assert client.stats().offered == 0


async def test_a_hook_may_pause_and_may_track():
    moengage = MoEngage()

    def hook(event):
        if event.customer_id == "pauses":
            client.pause()
        if event.customer_id == "tracks":
            assert client.track_impression(CONTEXT, customer_id="inner") is Admission.ACCEPTED
        if event.customer_id == "recurses":
            return client.track_impression(CONTEXT, customer_id="recurses") and None
        return event

    async with make_client(moengage, before_send=hook) as client:
        assert client.track_impression(CONTEXT, customer_id="tracks") is Admission.ACCEPTED
        assert client.track_impression(CONTEXT, customer_id="recurses") is Admission.REFUSED
        assert client.track_impression(CONTEXT, customer_id="pauses") is Admission.ACCEPTED
        assert client.track_impression(CONTEXT, customer_id="jane") is Admission.PAUSED
        assert client.stats().balanced
        client.resume()
        await client.flush()
    assert set(moengage.by_customer()) == {"inner", "tracks", "pauses"}


# ── on_dropped ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_listener_may_raise_and_may_track():
    def listen(loss):
        heard.extend(loss.event_uuids)
        client.track_impression(CONTEXT, customer_id="listener")
        raise ZeroDivisionError

    heard = []
    batching = BatchPolicy(max_pending=2)
    async with make_client(on_dropped=listen, batching=batching) as client:
        for number in range(10):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await client.flush()
    report = client.last_report
    assert report.balanced
    assert len(heard) == report.dropped + report.dropped_at_the_door >= 10


async def test_a_listener_hears_of_losses_while_every_sender_waits(caplog):
    moengage, heard = MoEngage(events=lambda body: error(429, retry_after="300")), []
    batching = BatchPolicy(linger=0, max_pending=10)
    async with make_client(
        moengage, batching=batching, on_dropped=lambda loss: heard.extend(loss.event_uuids)
    ) as client:
        client.track_impression(CONTEXT, customer_id="first")
        await anyio.sleep(1)
        for number in range(1_000):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            await anyio.sleep(0.01)
        await anyio.sleep(2)
        assert moengage.count("events") < 5
        assert len(heard) == client.stats().dropped == 991
        assert not client._buffer.losses  # else they grow with the outage, beyond every bound
        assert sum("events are dropped" in record.message for record in caplog.records) == 1
        await client.aclose(0)
