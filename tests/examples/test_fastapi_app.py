"""The twenty lines of the README."""

import re
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi_app import app
from support.moengage import MoEngage, make_client

from moengage_personalize import Condition
from moengage_personalize.emulator import Trouble

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]


@asynccontextmanager
async def browser():
    """A visitor's browser at the running application; leaving it stops the application."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http,
    ):
        yield http


async def test_the_page_is_personalised_and_its_impression_arrives(emulated):
    async with browser() as http:
        page = await http.get("/")
    assert re.search("<h1>(Made to be worn for years|New this week)</h1>", page.text)
    assert (emulated.ledger.counts.impressions, emulated.ledger.counts.clicks) == (1, 0)


async def test_what_the_request_says_of_the_visitor_is_sent_along():
    moengage = MoEngage()
    app.state.personalize = make_client(moengage)
    try:
        async with app.state.personalize, browser() as http:
            await http.get("/?utm_source=mail&page=2", headers={"User-Agent": "Phone"})
    finally:
        del app.state.personalize
    asked = moengage.requests[0][1]
    assert {name for name in asked if name[0].isupper() or name == "page"} == {"USER_AGENT"}
    assert (asked["USER_AGENT"], asked["utm_source"]) == ("Phone", "mail")


async def test_a_click_arrives_with_the_context_that_was_served(emulated):
    async with browser() as http:
        await http.get("/")
        assert (await http.get("/collection")).headers["location"] == "/"
    shown, clicked = (event.action["attributes"] for event in emulated.ledger.events)
    assert clicked == {**shown, "b_id": "cta"}


async def test_a_visitor_keeps_their_id(emulated):
    async with browser() as http:
        await http.get("/")
        await http.get("/")
    assert len({event.customer_id for event in emulated.ledger.events}) == 1


async def test_a_forged_cookie_reports_nothing(emulated):
    async with browser() as http:
        http.cookies.set("session", "eyJoZXJvIjoge319.forged")
        await http.get("/collection")
    assert emulated.ledger.counts.received == 0


async def test_in_an_outage_the_page_shows_its_default(emulated):
    emulated.troubles.add(Trouble(endpoints=("fetch",), status=503), now=0)
    async with browser() as http:
        page = await http.get("/")
        assert app.state.personalize.health().condition is Condition.HEALTHY
    assert page.status_code == 200
    assert "<h1>Welcome</h1>" in page.text
    assert emulated.ledger.counts.received == 0


async def test_a_browser_that_does_not_say_what_it_is_is_served(emulated):
    async with browser() as http:
        page = await http.get("/", headers={"User-Agent": ""})
    assert page.status_code == 200
    assert emulated.ledger.counts.impressions == 1
