"""Tracking and delivery, through the client, against a scripted MoEngage on a clock that jumps."""

import logging
import random
import uuid
from datetime import UTC, datetime

import anyio
import attrs
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client, served, serving

from moengage_personalize import (
    Action,
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    Condition,
    Effects,
    Event,
    RetryPolicy,
    event_uuid_for,
)
from moengage_personalize.core.delivery import Delivery

pytestmark = pytest.mark.anyio
NOW = 1_725_258_666.9


def client_of(moengage, **options):
    options.setdefault("effects", Effects(wall=lambda: NOW, jitter=lambda: 0.5))
    return make_client(moengage, **options)


async def test_impressions_and_clicks_of_one_customer_share_an_element():
    moengage = MoEngage()
    async with client_of(moengage) as client:
        hero = (await client.fetch("hero", customer_id="john"))["hero"]
        assert client.track_impression(hero, customer_id="john") is Admission.ACCEPTED
        assert (
            client.track_click(
                hero,
                customer_id="john",
                b_id="Add to Cart",
                attributes={"position": 3},
                platform="IOS",
                at=datetime(2024, 9, 2, 6, 31, 6, tzinfo=UTC),
                event_uuid="AA886712-4537-47c1-b126-2686efda2e26",
            )
            is Admission.ACCEPTED
        )
        report = await client.flush()
    assert report.delivered == 2
    assert report.balanced
    (element,) = moengage.elements
    impression, click = element["actions"]
    assert element == {"customer_id": "john", "actions": [impression, click]}
    assert impression == {
        "action": "MOE_PERSONALIZATION_MESSAGE_SHOWN",
        "moe_event_uuid": impression["moe_event_uuid"],
        "event_time": int(NOW),
        "platform": "web",
        "attributes": CONTEXT,
    }
    assert uuid.UUID(impression["moe_event_uuid"]).version == 4
    assert click == {
        "action": "MOE_PERSONALIZATION_MESSAGE_CLICKED",
        "moe_event_uuid": "aa886712-4537-47c1-b126-2686efda2e26",
        "event_time": 1725258666,
        "platform": "ios",
        "attributes": {**CONTEXT, "position": 3, "b_id": "Add to Cart"},
    }


async def test_track_is_the_primitive_under_both():
    moengage = MoEngage()
    async with client_of(moengage) as client:
        event = Event(
            action=Action.CLICK,
            experience=CONTEXT,
            customer_id="john",
            b_id="b",
            user_attributes={"name": "John"},
            user_timezone_offset=19_800,
        )
        assert client.track(event) is Admission.ACCEPTED
        await client.flush()
    (element,) = moengage.elements
    assert element["user_attributes"] == {"name": "John"}
    assert element["user_timezone_offset"] == 19_800
    assert element["actions"][0]["attributes"] == {**CONTEXT, "b_id": "b"}


async def test_what_was_never_served_is_not_reported():
    moengage = MoEngage(
        fetch=lambda body: serving(odd={"payload": {"a": {"value": 1}}, "experience_context": {"x": 1}})
    )
    async with client_of(moengage) as client:
        experiences = await client.fetch("absent", "odd")
        assert client.track_impression(experiences["absent"], customer_id="john") is Admission.UNMATCHED
        assert client.track_click(experiences["absent"], customer_id="john") is Admission.UNMATCHED
        # MoEngage's own reply lacks what MoEngage requires: no exception into the page, and nothing to poison a batch.
        assert client.track_impression(experiences["odd"], customer_id="john") is Admission.REFUSED
    assert client.last_report.unmatched == 2
    assert client.last_report.refused == 1
    assert moengage.count("events") == 0


async def test_the_same_uuid_is_sent_once():
    moengage = MoEngage()
    twice = event_uuid_for("order", 7)
    async with client_of(moengage) as client:
        assert client.track_impression(CONTEXT, customer_id="john", event_uuid=twice) is Admission.ACCEPTED
        assert client.track_impression(CONTEXT, customer_id="john", event_uuid=twice) is Admission.DUPLICATE
        await client.flush()
        assert client.track_impression(CONTEXT, customer_id="john", event_uuid=twice) is Admission.DUPLICATE
    assert moengage.uuids == [twice]


async def test_linger_counts_from_the_oldest_event():
    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(linger=60)) as client:
        began = anyio.current_time()
        for number in range(13):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            await anyio.sleep(5.5)  # a steady trickle does not postpone it
        assert [time - began for time in moengage.times] == [pytest.approx(60)]
        assert len(moengage.elements) == 11


async def test_a_full_request_does_not_linger():
    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(linger=60)) as client:
        for number in range(150):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await anyio.sleep(1)
        assert len(moengage.elements) == 100  # the rest lingers
        assert moengage.count("events") == 1


async def test_a_large_element_bound_is_kept():
    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(max_bytes=1_000_000)) as client:
        for number in range(250):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
    assert [len(body["elements"]) for _, body in moengage.requests] == [100, 100, 50]


async def test_requests_of_one_customer_never_overlap_and_keep_their_order():
    flying = set()

    async def events(body):
        mine = {element["customer_id"] for element in body["elements"]}
        assert not mine & flying, "one request in flight per customer"
        assert len(mine) == len(body["elements"]), "one element per customer"
        flying.update(mine)
        await anyio.sleep(random.Random(len(flying)).random() / 10)
        flying.difference_update(mine)
        return accepted()

    moengage = MoEngage(events=events)
    sent = {f"customer-{number}": [] for number in range(40)}
    async with client_of(moengage, batching=BatchPolicy(linger=0.05, senders=5)) as client:
        for number in range(2_000):
            customer = f"customer-{number * 7 % 40}"
            event_uuid = event_uuid_for(number)
            sent[customer].append(event_uuid)
            assert client.track_impression(CONTEXT, customer_id=customer, event_uuid=event_uuid)
            if number % 50 == 0:
                await anyio.sleep(0.02)
    assert moengage.by_customer() == sent


async def test_20000_impressions_of_500_customers_in_no_more_requests_than_exact_packing_plus_a_tenth():
    async def events(body):
        await anyio.sleep(0.02)
        return accepted()

    moengage = MoEngage(events=events)
    rnd = random.Random(7)
    expected = {}

    async with client_of(moengage, batching=BatchPolicy(max_pending=50_000, max_pending_bytes=1 << 26)) as client:

        async def visitor(number):
            for n in range(100):
                customer, event_uuid = f"customer-{rnd.randrange(500)}", event_uuid_for(number, n)
                expected.setdefault(customer, []).append(event_uuid)
                assert client.track_impression(CONTEXT, customer_id=customer, event_uuid=event_uuid) == "accepted"
                await anyio.sleep(rnd.random() / 10)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(visitor, number)
    assert client.last_report.delivered == 20_000
    assert client.last_report.balanced
    assert moengage.repeated() == {}
    assert moengage.by_customer() == expected
    exact = -(-sum(map(len, moengage.bodies)) // 49_152)
    assert max(map(len, moengage.bodies)) <= 49_152
    assert moengage.count("events") <= exact * 1.1


async def test_beyond_the_bound_exactly_the_oldest_impressions_are_shed_and_no_click():
    moengage = MoEngage()
    async with client_of(moengage) as client:
        offered = []
        for number in range(20_000):
            click = number % 10 == 0
            event_uuid = str(uuid.UUID(int=number, version=4))
            track = client.track_click if click else client.track_impression
            assert track(CONTEXT, customer_id=f"customer-{number % 500}", event_uuid=event_uuid) == "accepted"
            offered.append((event_uuid, click))
        assert client.stats().pending == 10_000
        report = await client.flush()
    clicks = {event_uuid for event_uuid, click in offered if click}
    impressions = [event_uuid for event_uuid, click in offered if not click]
    assert set(moengage.uuids) == clicks | set(impressions[-8_000:])
    assert report.accepted == 20_000
    assert report.dropped == 10_000
    assert report.dropped_by_reason == {"overflow": 10_000}
    assert report.delivered == 10_000
    assert report.balanced


async def test_a_uuid_that_was_dropped_may_come_again():
    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(max_pending=1)) as client:
        first = event_uuid_for(1)
        client.track_impression(CONTEXT, customer_id="john", event_uuid=first)
        client.track_click(CONTEXT, customer_id="jane")
        assert client.stats().dropped == 1
        await client.flush()
        assert client.track_impression(CONTEXT, customer_id="john", event_uuid=first) is Admission.ACCEPTED
    assert first in moengage.uuids


async def test_clicks_beyond_the_bound_are_turned_away_at_the_door():
    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(max_pending=2)) as client:
        admissions = [client.track_click(CONTEXT, customer_id="john") for _ in range(3)]
        assert admissions == ["accepted", "accepted", "dropped"]
        assert client.stats().dropped_at_the_door == 1
        assert client.stats().balanced


async def test_an_event_larger_than_a_request_is_refused():
    moengage = MoEngage()
    async with client_of(moengage) as client:
        admission = client.track_click(CONTEXT, customer_id="john", attributes={"big": "x" * 50_000})
        assert admission is Admission.REFUSED
    assert client.last_report.refused == 1


async def test_ten_seconds_of_outage_cost_nothing():
    began = None

    def events(body):
        if 5 <= anyio.current_time() - began < 15:
            return httpx.ConnectError("down") if random.Random(len(moengage.times)).random() < 0.5 else error(503)
        return accepted()

    moengage = MoEngage(events=events)
    async with client_of(moengage) as client:
        began = anyio.current_time()
        for number in range(2_000):
            assert client.track_impression(
                CONTEXT, customer_id=f"customer-{number % 30}", event_uuid=event_uuid_for(number)
            )
            await anyio.sleep(0.01)
        report = await client.flush(60)
        assert client.stats().retries > 0
        assert client.health().condition is Condition.HEALTHY
    assert report.delivered == 2_000
    assert {action["moe_event_uuid"] for _, action in moengage.actions} == {event_uuid_for(n) for n in range(2_000)}
    versions = {}
    for customer, action in moengage.actions:
        versions.setdefault(action["moe_event_uuid"], set()).add((customer, str(action)))
    assert all(len(version) == 1 for version in versions.values()), "none changed between two tries"


async def test_a_retry_sends_the_same_bytes():
    answers = [error(500), error(500), accepted()]
    moengage = MoEngage(events=lambda body: answers.pop(0))
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john", user_attributes={"b": 1, "a": [2]})
        await client.flush()
    assert len(set(moengage.bodies)) == 1
    assert len(moengage.bodies) == 3


async def test_one_poisoned_action_is_the_only_loss():
    poison = event_uuid_for("poison")

    def events(body):
        uuids = [action["moe_event_uuid"] for element in body["elements"] for action in element["actions"]]
        return error(400, "Errored Field: actions") if poison in uuids else accepted()

    moengage = MoEngage(events=events)
    async with client_of(moengage) as client:
        for number in range(64):
            client.track_impression(
                CONTEXT, customer_id=f"customer-{number % 8}", event_uuid=poison if number == 37 else None
            )
        report = await client.flush()
    assert (report.delivered, report.rejected, report.balanced) == (63, 1, True)
    assert moengage.count("events") <= 2 * 6 + 1


async def test_poisoned_user_attributes_lose_no_action():
    def events(body):
        poisoned = any("poison" in element.get("user_attributes", {}) for element in body["elements"])
        return error(400) if poisoned else accepted()

    moengage = MoEngage(events=events)
    async with client_of(moengage) as client:
        for number in range(20):
            client.track_impression(
                CONTEXT, customer_id=f"customer-{number}", user_attributes={"poison" if number == 5 else "fine": number}
            )
        report = await client.flush()
        assert client.stats().attributes_refused == 1
    assert (report.delivered, report.rejected) == (20, 0)


async def test_refused_credentials_keep_everything_and_recover_without_a_restart(caplog):
    caplog.set_level(logging.INFO, "moengage_personalize")
    keys = ["old-key"] * 3 + ["new-key"] * 10
    moengage = MoEngage()
    moengage.events = lambda body: accepted() if moengage.headers[-1]["authorization"].endswith(new) else error(401)
    new = "bmV3LWtleQ=="
    client = AsyncPersonalizeClient(
        "WORKSPACE", lambda: keys.pop(0), "01", transport=moengage, effects=Effects(jitter=lambda: 0.5)
    )
    async with client:
        new = httpx.BasicAuth("WORKSPACE", "new-key")._auth_header.split()[1]
        for number in range(500):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await client.flush(0.5)
        assert client.health().condition is Condition.MISCONFIGURED
        assert "check workspace_id, api_key" in client.health().detail
        assert client.stats().delivered == 0
        assert client.stats().dropped == 0
        report = await client.flush(60)
        assert client.health().condition is Condition.HEALTHY
    assert report.delivered == 500
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "once per change of state"
    assert "misconfigured" in said[0]
    assert "healthy" in said[1]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_callable_key_is_asked_again_before_every_probe(status):
    asked = []
    moengage = MoEngage(events=lambda body: error(status))
    client = AsyncPersonalizeClient(
        "WORKSPACE", lambda: asked.append(1) or "key", "01", transport=moengage, effects=Effects(jitter=lambda: 0.5)
    )
    async with client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush(60)
        assert client.health().condition is Condition.MISCONFIGURED
        assert moengage.count("events") > 5
        assert len(asked) == moengage.count("events")
        await client.aclose(0)


async def test_retry_after_pauses_every_sender():
    answers = [error(429, retry_after="30")]
    moengage = MoEngage(events=lambda body: answers.pop(0) if answers else accepted())
    async with client_of(moengage, batching=BatchPolicy(linger=0, senders=4)) as client:
        began = anyio.current_time()
        client.track_impression(CONTEXT, customer_id="first")
        await anyio.sleep(1)
        for number in range(400):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await client.flush(60)
        assert client.stats().delivered == 401
    later = [time - began for time in moengage.times[1:]]
    assert min(later) >= 30


@pytest.mark.parametrize("reset", ["30", str(int(NOW) + 31)], ids=["seconds", "epoch"])
async def test_x_ratelimit_reset_pauses_every_sender(reset):
    answers = [error(429, x_ratelimit_remaining="0", x_ratelimit_reset=reset)]
    moengage = MoEngage(events=lambda body: answers.pop(0) if answers else accepted())
    async with client_of(moengage, batching=BatchPolicy(linger=0, senders=4)) as client:
        began = anyio.current_time()
        client.track_impression(CONTEXT, customer_id="first")
        await anyio.sleep(1)
        for number in range(400):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await client.flush(60)
        assert client.stats().delivered == 401
    later = [time - began for time in moengage.times[1:]]
    assert min(later) >= 30


@pytest.mark.parametrize("body", [b"", b"<html>", b"[", b"{}"])
async def test_an_acknowledgement_is_a_status_and_not_a_body(body):
    moengage = MoEngage(events=lambda _: httpx.Response(200, content=body))
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        assert (await client.flush()).delivered == 1
    assert moengage.count("events") == 1


async def test_an_acknowledgement_beyond_the_bound_is_asked_for_again_with_the_same_bytes():
    answers = [httpx.Response(200, content=b"x" * 2_000_000)]
    moengage = MoEngage(events=lambda body: answers.pop() if answers else accepted())
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        assert (await client.flush()).delivered == 1
    first, second = moengage.bodies
    assert first == second


async def test_a_bug_in_a_delivery_is_counted_and_the_next_one_goes_on(monkeypatch, caplog):
    def bug(*_):
        monkeypatch.undo()
        raise ZeroDivisionError

    moengage = MoEngage()
    async with client_of(moengage, batching=BatchPolicy(linger=0, senders=1)) as client:
        monkeypatch.setattr(Delivery, "next", bug)
        client.track_impression(CONTEXT, customer_id="john")
        report = await client.flush()
        assert (report.dropped_by_reason, report.balanced) == ({"internal error": 1}, True)
        client.track_impression(CONTEXT, customer_id="jane")
        assert (await client.flush()).delivered == 1
    assert "a delivery failed with ZeroDivisionError" in caplog.text


async def test_events_expire_by_the_wall_clock():
    wall = NOW
    moengage = MoEngage(events=lambda body: error(503))
    effects = Effects(wall=lambda: wall, jitter=lambda: 0.5)
    async with client_of(moengage, effects=effects, batching=BatchPolicy(time_to_live=60)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush(5)
        assert client.stats().pending == 1
        wall += 61
        await client.flush(30)
        assert client.stats().dropped_by_reason == {"expired": 1}


async def test_a_parked_batch_holds_no_sender():
    def events(body):
        stuck = any(element["customer_id"] == "stuck" for element in body["elements"])
        return error(500) if stuck else accepted()

    moengage = MoEngage(events=events)
    async with client_of(moengage, batching=BatchPolicy(linger=0, senders=2)) as client:
        client.track_impression(CONTEXT, customer_id="stuck")
        await anyio.sleep(0.01)
        for number in range(50):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            await anyio.sleep(1)
        assert client.stats().delivered == 50
        assert client.stats().pending == 1
        report = await client.aclose(0)
    assert report.dropped_by_reason == {"closed": 1}


async def test_disabled_needs_no_credentials_and_counts(monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_DISABLED", "true")
    async with AsyncPersonalizeClient() as client:
        experiences = await client.fetch("hero")
        assert experiences["hero"].reason == "disabled"
        assert client.track_impression(CONTEXT, customer_id="john") is Admission.DISABLED
        assert (await client.flush()).offered == 0
        assert client.stats().disabled == 1
        assert client.health().condition is Condition.DISABLED


async def test_pause_keeps_what_is_waiting_and_takes_nothing_on():
    moengage = MoEngage()
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        client.pause()
        assert client.track_impression(CONTEXT, customer_id="john") is Admission.PAUSED
        assert client.health().condition is Condition.PAUSED
        await anyio.sleep(100)
        assert moengage.requests == []
        client.resume()
        await anyio.sleep(1)
        assert len(moengage.actions) == 1
        assert client.stats().paused == 1


async def test_retries_are_paid_from_a_budget():
    moengage = MoEngage(events=lambda body: error(503))
    retrying = RetryPolicy(initial=0.001, maximum=0.001, budget=20)
    async with client_of(moengage, retrying=retrying, batching=BatchPolicy(grace=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await anyio.sleep(60)
        assert 60 <= moengage.count("events") <= 20 + 60 + 2


async def test_health_and_the_log_say_that_requests_fail_and_why(caplog):
    moengage = MoEngage(events=lambda body: error(503))
    async with client_of(moengage, batching=BatchPolicy(grace=0, linger=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await anyio.sleep(1)
        health = client.health()
        assert health.condition is Condition.DEGRADED
        assert "tried again: MoEngage answered 503" in health.detail
        assert f"events are degraded (1 pending): {health.detail}" in caplog.text


async def test_a_first_event_that_is_refused_is_held_since_it_may_be_configuration():
    broken = True
    moengage = MoEngage(events=lambda body: error(400) if broken else accepted())
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush(30)
        assert client.stats().pending == 1
        assert client.health().condition is Condition.MISCONFIGURED
        assert "refused every event so far" in client.health().detail
        broken = False
        assert (await client.flush(30)).delivered == 1


async def test_what_is_reported_is_what_was_served_whatever_a_page_did_to_its_copy():
    moengage = MoEngage(fetch=lambda body: serving(hero=served(Title="x")))
    async with client_of(moengage) as client:
        hero = (await client.fetch("hero"))["hero"]
        hero.context["cid"] = "tampered"
        client.track_impression(hero, customer_id="john")
    assert moengage.actions[0][1]["attributes"] == CONTEXT


async def test_before_send_may_change_or_refuse_an_event():
    def consent(event):
        if event.customer_id == "no":
            return None
        if event.customer_id == "bug":
            raise RuntimeError("secret words")
        return attrs.evolve(event, user_attributes={"scrubbed": True})

    moengage = MoEngage()
    async with client_of(moengage, before_send=consent) as client:
        assert client.track_impression(CONTEXT, customer_id="yes", user_attributes={"name": "x"}) == "accepted"
        assert client.track_click(CONTEXT, customer_id="no") is Admission.REFUSED
        assert client.track_click(CONTEXT, customer_id="bug") is Admission.REFUSED
        assert client.stats().refused == 2
        assert client.stats().balanced
    assert [(element["customer_id"], element["user_attributes"]) for element in moengage.elements] == [
        ("yes", {"scrubbed": True})
    ]


async def test_on_dropped_hears_of_every_loss_and_the_log_of_each_episode(caplog):
    caplog.set_level(logging.WARNING, "moengage_personalize")
    heard = []
    moengage = MoEngage(events=lambda body: 3_600)

    def listen(loss):
        heard.extend((loss.reason, event_uuid) for event_uuid in loss.event_uuids)
        raise RuntimeError("a listener's own trouble")

    async with client_of(moengage, on_dropped=listen, batching=BatchPolicy(max_pending=2, linger=0, grace=0)) as client:
        for number in range(4):
            client.track_impression(CONTEXT, customer_id="john", event_uuid=event_uuid_for(number))
        client.track_click(CONTEXT, customer_id="john", event_uuid=event_uuid_for(4))
        client.track_click(CONTEXT, customer_id="john", event_uuid=event_uuid_for(5))
        client.track_click(CONTEXT, customer_id="john", event_uuid=event_uuid_for(6))
        await anyio.sleep(0.1)
    assert heard == [
        *[("overflow", event_uuid_for(number)) for number in range(4)],
        ("no room", event_uuid_for(6)),
        ("closed", event_uuid_for(4)),
        ("closed", event_uuid_for(5)),
    ]
    assert sum("events are dropped" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("position", [0, 1, 249, 250, 498, 499])
@pytest.mark.parametrize("where", ["action", "attributes"])
async def test_poison_among_500_actions_of_50_customers_costs_at_most_21_requests(where, position):
    poison = event_uuid_for("poison")

    def events(body):
        for element in body["elements"]:
            if "poison" in element.get("user_attributes", {}):
                return error(400)
            if where == "action" and any(action["moe_event_uuid"] == poison for action in element["actions"]):
                return error(400)
        return accepted()

    moengage = MoEngage(events=events)
    losses = []
    batching = BatchPolicy(linger=60, max_bytes=1 << 20)
    async with client_of(moengage, batching=batching, on_dropped=losses.append) as client:
        for number in range(500):
            bad = number == position
            client.track_impression(
                CONTEXT,
                customer_id=f"customer-{number % 50}",
                event_uuid=poison if bad else None,
                user_attributes={"poison" if bad and where == "attributes" else "fine": number},
            )
        report = await client.flush()
        assert client.stats().attributes_refused == (where == "attributes")
    assert len(moengage.requests[0][1]["elements"]) == 50
    assert moengage.count("events") <= 21
    lost = [(loss.reason, loss.event_uuids) for loss in losses]
    assert lost == ([("rejected", (poison,))] if where == "action" else [])
    assert report.delivered == 500 - len(lost)


async def test_a_backlog_of_nothing_but_poison_after_a_success_ends_within_two_requests_an_event():
    poisonous = False
    moengage = MoEngage(events=lambda body: error(400) if poisonous else accepted())
    async with client_of(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush()
        poisonous, before = True, moengage.count("events")
        for number in range(60):
            client.track_impression(CONTEXT, customer_id=f"customer-{number % 7}")
        report = await client.flush()
        assert (report.rejected, report.pending) == (60, 0)
        assert moengage.count("events") - before <= 2 * 60 + 1
