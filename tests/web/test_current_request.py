"""What `fetch` sends along unasked: what was passed wins, nothing leaks, and the background never sees it."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from support.moengage import MoEngage, accepted, make_client, served, serving

from moengage_personalize import (
    AsyncPersonalizeClient,
    CachePolicy,
    InSession,
    InvalidInputError,
    RequestContext,
    current_request,
)

pytestmark = pytest.mark.anyio
PHONE = RequestContext(
    session=InSession(ip_address="203.0.113.7", user_agent="Phone"), attributes={"utm_source": "mail"}
)
SENT = {"USER_IP_ADDRESS": "203.0.113.7", "USER_AGENT": "Phone", "utm_source": "mail"}


@contextmanager
def serving_a(request):
    token = current_request.set(request)
    try:
        yield
    finally:
        current_request.reset(token)


async def sent(request=PHONE, **arguments):
    """What a fetch within a request sends beside its keys."""
    moengage = MoEngage()
    async with make_client(moengage) as client:
        with serving_a(request):
            await client.fetch("home-hero", **arguments)
            await client.fetch_all(**arguments)
    bodies = [{name: body[name] for name in body if name != "experience_key"} for _, body in moengage.requests]
    assert bodies[0] == bodies[1]
    return bodies[0]


async def test_what_the_request_says_is_sent_along():
    assert await sent() == SENT


async def test_without_a_request_nothing_is():
    assert await sent(request=None) == {}


async def test_told_so_nothing_is_sent_along_but_what_was_passed():
    assert await sent(ambient=False) == {}
    assert await sent(ambient=False, session=InSession(user_agent="Mine")) == {"USER_AGENT": "Mine"}


async def test_what_was_passed_wins_field_by_field():
    assert await sent(session=InSession(user_agent="Mine")) == {**SENT, "USER_AGENT": "Mine"}
    moment = InSession.at(datetime(2026, 11, 23, 22, tzinfo=UTC))
    assert await sent(session=moment) == {**SENT, "DAY_OF_THE_WEEK": "Monday", "TIME_OF_THE_DAY": "22"}
    assert await sent(attributes={"utm_source": "mine", "plan": 2}) == {**SENT, "utm_source": "mine", "plan": 2}


@pytest.mark.parametrize("session", [InSession(), None])
async def test_an_empty_session_takes_nothing_away(session):
    assert await sent(session=session, attributes={}) == SENT


async def test_what_cannot_be_sent_is_refused_as_it_would_be_without_a_request():
    with pytest.raises(InvalidInputError, match="attributes must be a mapping"):
        await sent(attributes=["utm_source"])


@pytest.mark.parametrize("attributes", [{"customer_id": "x"}, {"a": "\ud800"}, {"a": None}, {"": "x"}, ["a"]])
def test_a_context_that_cannot_be_sent_cannot_be_made(attributes):
    with pytest.raises(InvalidInputError):
        RequestContext(attributes=attributes)


def test_a_context_that_was_made_can_no_longer_change_and_shows_no_value():
    attributes = {"utm_source": "mail"}
    context = RequestContext(session=PHONE.session, attributes=attributes)
    attributes["customer_id"] = "x"
    assert context.fields == SENT
    assert repr(PHONE) == "RequestContext(InSession(ip_address=…, user_agent=…), 1 attributes)"


async def test_fetches_of_different_requests_never_share_one_and_those_of_the_same_do():
    moengage = MoEngage()

    async def page(request):
        with serving_a(request):
            return await client.fetch("home-hero")

    other = RequestContext(session=InSession(user_agent="Desk"))
    async with make_client(moengage) as client:
        await asyncio.gather(*map(page, [PHONE, other, PHONE, None, other]))
    agents = [body.get("USER_AGENT") for _, body in moengage.requests]
    assert sorted(agents, key=str) == ["Desk", None, "Phone"]


async def test_what_is_kept_for_one_request_is_not_served_to_another():
    moengage = MoEngage()
    async with make_client(moengage, caching=CachePolicy(ttl=60)) as client:
        for request in (PHONE, None, PHONE):
            with serving_a(request):
                await client.fetch("home-hero")
    assert moengage.count("fetch") == 2


async def test_the_background_never_sees_the_request_that_set_it_off():
    seen = []

    def saw(answer):
        seen.append(current_request.get())
        return answer

    moengage = MoEngage(fetch=lambda body: saw(serving(**{"home-hero": served()})), events=lambda body: saw(accepted()))
    client = AsyncPersonalizeClient(
        *("WORKSPACE", lambda: saw("key"), "01"),
        transport=moengage,
        caching=CachePolicy(ttl=1, stale_while_revalidate=60),
        before_send=saw,
    )
    with serving_a(PHONE):
        async with client:
            hero = (await client.fetch("home-hero", customer_id="customer-1"))["home-hero"]
            client.track_impression(hero, customer_id="customer-1")
            await asyncio.sleep(2)
            await client.fetch("home-hero", customer_id="customer-1")  # renews behind the caller's back
            await client.flush()
    assert (moengage.count("fetch"), moengage.count("events")) == (2, 1)
    assert seen.count(PHONE) == 1, "before_send runs in the handler"
    assert len(seen) == 5
    assert seen.count(None) == 4
