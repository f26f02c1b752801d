"""`FakePersonalize`: what is scripted is what the client answers, and what it took is there at once."""

import asyncio
import math
import time
from datetime import UTC, datetime
from decimal import Decimal

import anyio
import pytest

from moengage_personalize import (
    Admission,
    AsyncPersonalizeClient,
    AuthenticationError,
    DeadlineExceededError,
    Event,
    InSession,
    InvalidInputError,
    RateLimitedError,
    Reason,
    ServerError,
    event_uuid_for,
)
from moengage_personalize.emulator import Value
from moengage_personalize.testing import FakePersonalize

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]


@pytest.fixture
def fake(personalize_fake):
    return personalize_fake


async def hero_of(fake, customer_id=None, **options):
    return (await fake.client.fetch("home-hero", customer_id=customer_id, **options))["home-hero"]


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_matches_until_the_script_says_so(fake):
    hero = await hero_of(fake)
    assert (hero.matched, hero.reason, hero.get("Title", default="ours")) == (False, Reason.NO_MATCH, "ours")


async def test_what_is_served_arrives_decoded_by_its_type(fake):
    payload = {"Title": "Hi", "count": 3, "share": 0.5, "on": True, "list": [1, {"a": None}]}
    fake.serve("home-hero", payload)
    hero = await hero_of(fake)
    assert hero.payload == payload
    assert {name: type(value) for name, value in hero.payload.items()} == {n: type(v) for n, v in payload.items()}


async def test_a_value_may_say_its_own_type(fake):
    fake.serve("home-hero", {"Title": Value("[1]", "json"), "offers": Value.offerings([{"name": "Coat"}])})
    hero = await hero_of(fake)
    assert hero.payload["Title"] == [1]
    assert hero.get("offers", default=[])[0]["offering_content"] == {"name": "Coat"}


@pytest.mark.parametrize(
    "value", [object(), datetime.now(UTC), Decimal(1), {1}, b"x", math.nan, [object()], {1: object()}]
)
async def test_what_no_server_could_answer_with_is_refused_where_it_is_said(fake, value):
    with pytest.raises(TypeError, match="^the payload of 'home-hero' must be JSON: "):
        fake.serve("home-hero", {"Title": value})
    with pytest.raises(TypeError, match="^a key is text; each is served by a call of its own$"):
        fake.serve(("home-hero", "home-offers"))
    assert not (await fake.client.fetch("home-hero"))["home-hero"].matched


async def test_what_is_said_of_a_person_goes_before_what_is_said_of_all_whichever_came_last(fake):
    fake.serve("home-hero", {"Title": "John"}, customer_id="john", variation=2)
    fake.serve("home-hero", {"Title": "All"})
    john, jane, anonymous = [await hero_of(fake, person) for person in ("john", "jane", None)]
    assert [each.get("Title") for each in (john, jane, anonymous)] == ["John", "All", "All"]
    assert (john.context["moe_variation_id"], jane.context["moe_variation_id"]) == ("2", "1")


async def test_who_is_in_a_control_group_is_shown_nothing_and_the_reason_says_so(fake):
    fake.serve("home-hero", {"Title": "All"})
    fake.serve("home-hero", customer_id="john", in_control_group=True)
    assert (await hero_of(fake, "john")).reason is Reason.CAMPAIGN_CONTROL_GROUP
    assert (await hero_of(fake, "jane")).matched


@pytest.mark.parametrize(
    "reason",
    "NO_MATCH CAMPAIGN_CONTROL_GROUP GLOBAL_CONTROL_GROUP NOT_IN_SEGMENT INVALID_KEY LIMIT_BREACHED NOT_ACTIVE EXPIRED"
    " PERSONALIZATION_FAILED".split(),
)
async def test_what_is_withheld_is_withheld_for_that_reason(fake, reason):
    fake.serve("home-hero", {"Title": "Hi"})
    fake.withhold("home-hero", Reason[reason])
    hero = await hero_of(fake)
    assert (hero.reason, hero.matched) == (Reason[reason], False)


async def test_what_no_answer_of_moengages_could_say_is_refused(fake):
    with pytest.raises(ValueError, match="reason must be one of"):
        fake.withhold("home-hero", Reason.TIMEOUT)
    with pytest.raises(ValueError, match="status"):
        fake.fails(status=200)
    with pytest.raises(ValueError, match="times"):
        fake.times_out(times=0)
    with pytest.raises(ValueError, match="seconds"):
        fake.slow(seconds=-1)
    with pytest.raises(ValueError, match="seconds"):
        fake.pass_time(-1)


async def test_everything_and_the_list_of_experiences_are_what_is_served(fake):
    fake.serve("home-hero", {"Title": "Hi"})
    fake.serve("home-offers", customer_id="john")
    assert set(await fake.client.fetch_all(customer_id="john")) == {"home-hero", "home-offers"}
    assert set(await fake.client.fetch_all()) == {"home-hero"}
    assert set(await fake.client.metadata()) == {"home-hero", "home-offers"}


async def test_a_key_that_is_expected_exists(fake):
    fake.client.expect("home-hero")
    assert await fake.client.unknown_keys() == {}


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_timeout_takes_no_time(fake):
    fake.serve("home-hero", {"Title": "Hi"})
    fake.times_out("home-hero")
    began = time.monotonic()
    experiences = await fake.client.fetch("home-hero", deadline=60)
    assert time.monotonic() - began < 10
    assert experiences["home-hero"].reason is Reason.TIMEOUT
    assert isinstance(experiences.error, DeadlineExceededError)
    fake.calm()
    assert (await hero_of(fake)).matched


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (503, Reason.UNAVAILABLE, ServerError),
        (401, Reason.UNAUTHORIZED, AuthenticationError),
        (429, Reason.RATE_LIMITED, RateLimitedError),
    ],
)
async def test_a_status_is_what_the_client_makes_of_it(fake, status, reason, error):
    fake.fails("home-hero", status=status, retry_after=7)
    with pytest.raises(error) as caught:
        await hero_of(fake, on_error="raise")
    assert (caught.value.status_code, caught.value.retry_after) == (status, 7)
    fake.calm()
    fake.fails("home-hero", status=status)
    assert (await hero_of(fake)).reason is reason
    fake.calm()
    assert (await hero_of(fake)).reason is Reason.NO_MATCH


async def test_after_a_refusal_the_client_asks_no_more_until_time_has_passed(fake):
    fake.fails(status=401, times=1)
    reasons = [(await hero_of(fake)).reason for _ in range(2)]
    fake.pass_time(60)
    assert [*reasons, (await hero_of(fake)).reason] == [Reason.UNAUTHORIZED, Reason.OPEN_CIRCUIT, Reason.NO_MATCH]


async def test_trouble_for_n_requests_meets_n(fake):
    fake.serve("home-hero")
    fake.fails(times=2)
    reasons = [(await hero_of(fake)).reason for _ in range(3)]
    assert reasons == [Reason.UNAVAILABLE, Reason.UNAVAILABLE, Reason.MATCHED]


async def test_the_newest_trouble_decides(fake):
    fake.times_out("home-hero")
    fake.fails("home-hero", times=1)
    assert [(await hero_of(fake)).reason for _ in range(2)] == [Reason.UNAVAILABLE, Reason.TIMEOUT]


async def test_trouble_of_a_key_or_a_person_is_no_trouble_of_another(fake):
    fake.serve("home-hero")
    fake.serve("home-offers")
    fake.times_out("home-hero", customer_id="john")
    assert (await hero_of(fake, "john")).reason is Reason.TIMEOUT
    assert (await hero_of(fake, "jane")).matched
    assert (await fake.client.fetch("home-offers", customer_id="john"))["home-offers"].matched
    assert (await fake.client.fetch_all(customer_id="john"))["home-hero"].matched


async def test_a_slow_answer_is_in_time_or_not_and_takes_no_time(fake):
    fake.serve("home-hero")
    fake.slow(seconds=30)
    began = time.monotonic()
    patient, hasty = await hero_of(fake, deadline=31), await hero_of(fake, deadline=29)
    assert time.monotonic() - began < 10
    assert (patient.reason, hasty.reason) == (Reason.MATCHED, Reason.TIMEOUT)


async def test_a_slow_neighbour_makes_nobody_late(fake):
    fake.serve("home-hero")
    fake.slow(seconds=3_600, customer_id="john")
    john, jane = await asyncio.gather(hero_of(fake, "john", deadline=5), hero_of(fake, "jane", deadline=0.001))
    assert (john.reason, jane.reason) == (Reason.TIMEOUT, Reason.MATCHED)


async def test_a_fake_that_is_reset_is_as_new(fake):
    fake.serve("home-hero")
    fake.client.track_impression(await hero_of(fake), customer_id="john")
    fake.fails(status=401)
    await hero_of(fake)
    fake.reset()
    assert (await hero_of(fake)).reason is Reason.NO_MATCH
    assert not await fake.client.metadata()
    assert (fake.tracked, fake.turned_away, len(fake.asked)) == ([], [], 1)


# ── the client's own ways ────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_the_clients_type_and_has_all_its_methods(fake):
    assert isinstance(fake.client, AsyncPersonalizeClient)
    own = {name for name in vars(type(fake.client)) if not name.startswith("_")}
    assert own == {name for name in vars(AsyncPersonalizeClient) if not name.startswith("_")}


async def test_bad_input_is_refused_as_in_production(fake):
    fake.serve("home-hero")
    hero = await hero_of(fake)
    with pytest.raises(InvalidInputError, match="at least one experience key"):
        await fake.client.fetch()
    with pytest.raises(InvalidInputError, match="deadline"):
        await fake.client.fetch("home-hero", deadline=0)
    with pytest.raises(InvalidInputError, match="user_timezone_offset"):
        fake.client.track_impression(hero, customer_id="john", user_timezone_offset=60_000)
    with pytest.raises(InvalidInputError, match="context lacks"):
        fake.client.track_click({"cid": "1"}, customer_id="john")
    with pytest.raises(TypeError):
        fake.client.track_click(hero, customer="john")
    fake.assert_nothing_tracked()


async def test_fetches_of_one_person_that_begin_together_are_one_request(fake):
    fake.serve("home-hero")
    keys = ("home-hero", "home-offers", "home-hero")
    found = await asyncio.gather(*(fake.client.fetch(key, customer_id="john") for key in keys))
    assert [list(each) for each in found] == [[key] for key in keys]
    (asked,) = fake.asked
    assert (asked.keys, asked.customer_id) == (("home-hero", "home-offers"), "john")
    assert fake.client.stats().fetches_merged == 2


async def test_they_are_one_request_every_time(fake):
    keys = tuple(f"key-{number}" for number in range(25))
    for person in range(40):
        await asyncio.gather(*(fake.client.fetch(key, customer_id=f"customer-{person}") for key in keys))
    assert [asked.keys for asked in fake.asked] == [keys] * 40


async def test_what_was_asked_is_what_moengage_would_have_seen(fake):
    await hero_of(
        fake,
        "john",
        user_identifiers={"u_em": "john@example.com"},
        session=InSession(user_agent="Mozilla/5.0"),
        attributes={"utm_medium": "email"},
    )
    (asked,) = fake.asked
    assert asked.attributes == {"USER_AGENT": "Mozilla/5.0", "utm_medium": "email"}
    assert asked.user_identifiers == {"u_em": "john@example.com"}
    await hero_of(fake)
    assert fake.asked[1].customer_id is None


async def test_the_same_uuid_is_tracked_once(fake):
    fake.serve("home-hero")
    hero = await hero_of(fake)
    uuid = event_uuid_for("order-1017")
    admissions = [fake.client.track_click(hero, customer_id="john", event_uuid=uuid) for _ in range(2)]
    assert admissions == [Admission.ACCEPTED, Admission.DUPLICATE]
    (click,) = fake.clicks
    assert click.event_uuid == uuid
    assert [event.admission for event in fake.turned_away] == [Admission.DUPLICATE]


async def test_what_was_not_served_is_not_tracked(fake):
    assert fake.client.track_impression(await hero_of(fake), customer_id="john") is Admission.UNMATCHED
    fake.assert_nothing_tracked()
    (event,) = fake.turned_away
    assert (event.key, event.admission) == ("home-hero", Admission.UNMATCHED)


async def test_while_paused_nothing_is_tracked_and_that_is_known(fake):
    fake.serve("home-hero")
    hero = await hero_of(fake)
    fake.client.pause()
    assert fake.client.track_click(experience=hero, customer_id="john", b_id="cta") is Admission.PAUSED
    assert (await hero_of(fake)).reason is Reason.PAUSED
    assert fake.client.track(None) is fake.client.track_impression(None, customer_id="jane") is Admission.PAUSED
    fake.client.resume()
    assert fake.client.track_click(hero, customer_id="john") is Admission.ACCEPTED
    assert [(event.customer_id, event.b_id) for event in fake.turned_away] == [("john", "cta"), ("jane", None)]


async def test_an_event_is_whole(fake):
    fake.serve("home-hero", variation="7")
    hero = await hero_of(fake)
    before = time.time()
    fake.client.track_click(
        hero,
        customer_id="john",
        platform="ios",
        b_id="cta",
        attributes={"position": 3},
        user_attributes={"plan": "gold"},
        user_timezone_offset=19_800,
    )
    (click,) = fake.clicks
    assert before <= click.at <= time.time()
    assert (click.key, click.variation, click.platform, click.b_id) == ("home-hero", "7", "ios", "cta")
    assert (click.attributes, click.user_attributes, click.user_timezone_offset) == (
        {"position": 3},
        {"plan": "gold"},
        19_800,
    )
    assert click.context == hero.context
    assert str(click) == "click of 'home-hero' by 'john', variation '7', b_id 'cta', attributes {'position': 3}"


async def test_an_event_object_and_a_context_from_a_browser_are_tracked_alike(fake):
    fake.serve("home-hero")
    context = (await hero_of(fake)).context
    fake.client.track(Event(action="MOE_PERSONALIZATION_MESSAGE_SHOWN", experience=context, customer_id="john"))
    assert fake.shown("home-hero", customer_id="john")


async def test_what_was_tracked_is_delivered_as_ever(fake):
    fake.serve("home-hero")
    async with fake.client as client:
        client.track_impression(await hero_of(fake), customer_id="john")
    assert client.last_report.delivered == client.last_report.accepted == 1
    assert client.last_report.balanced


async def test_a_caller_who_goes_away_is_gone_there_too(fake):
    fake.slow(seconds=1e9)

    async def ask():
        await hero_of(fake, deadline=1e12)

    with anyio.move_on_after(0) as scope:
        await ask()
    assert scope.cancelled_caught
    fake.calm()
    assert (await hero_of(fake)).reason is Reason.NO_MATCH


async def test_a_frozen_clock_is_the_time_of_events(fake, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_795_459_200.5)
    fake.serve("home-hero")
    fake.client.track_impression(await hero_of(fake), customer_id="john")
    assert [event.at for event in fake.impressions] == [1_795_459_200.5]


async def test_a_suite_that_switches_personalisation_off_can_use_a_fake(monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_DISABLED", "1")
    with FakePersonalize() as fake:
        fake.serve("home-hero")
        assert (await hero_of(fake)).matched
