"""The shop: its slots, what it reports, and how a click keeps genuine."""

import json
import re
from contextlib import asynccontextmanager
from html import unescape

import httpx
import pytest
from storefront import create_app
from storefront.slots import Hero, Recommendations, row_of
from support.colours import contrast

from moengage_personalize import Experience, Reason
from moengage_personalize.emulator import Emulator, Trouble

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]
PAGES = ["/", "/offers", "/product/coat", "/cart"]


@asynccontextmanager
async def shop(**browser):
    """A visitor in the shop; leaving closes it."""
    app = create_app()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop", **browser) as http,
    ):
        yield http


def links(page):
    return [unescape(link) for link in re.findall(r'href="(/go\?[^"]+)"', page.text)]


def experience(key="home-hero", **payload):
    return Experience(key=key, reason=Reason.MATCHED, source="network", payload=payload, context={"cid": "1"})


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_asks_for_all_its_slots_in_one_request_and_reports_those_it_shows(emulated, path):
    async with shop() as http:
        page = await http.get(path)
    assert page.status_code == 200
    counts = emulated.ledger.counts
    assert counts.fetch_requests == 1
    assert counts.keys_asked > 1
    assert counts.impressions == counts.experiences_served > 0
    assert "personalize;dur=" in page.headers["server-timing"]


async def test_components_that_ask_in_one_turn_share_a_request_and_those_that_asked_lately_share_its_answer(emulated):
    async with shop() as http:
        await http.get("/")
        page = await http.get("/")
        stats = (await http.get("/account")).json()["stats"]
    assert (stats["fetches"], stats["fetch_requests"]) == (8, 1)
    assert re.findall('data-source="([a-z]+)"', page.text) == ["cache"] * 4


async def test_a_page_says_which_variation_and_why(emulated):
    async with shop() as http:
        await http.post("/look", data={"who": "john"})
        page = await http.get("/")
    assert "Gold members, variation" in page.text
    assert re.search(r"(Welcome back to the lounge|Gold looks good on you)", page.text)


async def test_a_page_that_a_proxy_asked_for_twice_is_counted_once(emulated):
    async with shop() as http:
        await http.get("/", headers={"X-Request-ID": "7"})
        once = emulated.ledger.counts.experiences_served
        await http.get("/", headers={"X-Request-ID": "7"})
    assert emulated.ledger.counts.impressions == once


async def test_a_click_is_reported_once_with_the_context_that_was_shown(emulated):
    async with shop() as http:
        link = links(await http.get("/"))[0]
        targets = [(await http.get(link)).headers["location"] for _ in range(2)]
    clicked = [event.action["attributes"] for event in emulated.ledger.events if "CLICKED" in event.action["action"]]
    shown = [event.action["attributes"] for event in emulated.ledger.events if "SHOWN" in event.action["action"]]
    assert targets == ["/product/coat"] * 2
    assert [{**clicked[0], "b_id": None}] == [{**s, "b_id": None} for s in shown if s["cid"] == clicked[0]["cid"]]
    assert len(clicked) == 1
    assert clicked[0]["b_id"] == "cta"


@pytest.mark.parametrize("spoil", [lambda link: link.replace("t=", "t=x"), lambda _: "/go?t=", lambda _: "/go"])
async def test_a_link_that_was_tampered_with_reports_nothing_and_leads_home(emulated, spoil):
    async with shop() as http:
        link = links(await http.get("/"))[0]
        assert (await http.get(spoil(link))).headers["location"] == "/"
    assert emulated.ledger.counts.clicks == 0


async def test_another_visitors_link_reports_nothing(emulated):
    async with shop() as http:
        link = links(await http.get("/"))[0]
        http.cookies.clear()
        assert (await http.get(link)).headers["location"] == "/product/coat"
    assert emulated.ledger.counts.clicks == 0


async def test_a_cookie_that_names_somebody_else_is_ignored(emulated):
    async with shop(cookies={"visitor": "eyJ2aXNpdG9yIjogImpvaG5AZXhhbXBsZS5jb20ifQ==.x.y"}) as http:
        await http.get("/")
    assert "john@example.com" not in {event.customer_id for event in emulated.ledger.events}


class TestWithAHostilePayload:
    @pytest.fixture
    def emulator(self):
        hostile = '"><script>alert(1)</script>'
        hero = dict.fromkeys(["Title", "Subtitle", "Cta"], hostile) | {
            "Colour": "#fff;} body{display:none}",
            "Discount": 1,
        }
        return Emulator("DEMO_WORKSPACE", "demo-key", experiences={"home-hero": hero})

    async def test_everything_is_escaped(self, emulated):
        async with shop() as http:
            page = await http.get("/")
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "display:none" not in page.text


@pytest.mark.parametrize("path", PAGES)
async def test_in_an_outage_every_page_shows_its_defaults(emulated, path):
    emulated.troubles.add(Trouble(endpoints=("fetch",), status=500), now=0)
    async with shop() as http:
        page = await http.get(path)
    assert page.status_code == 200
    assert "Our favourites" in page.text
    assert "/go?" not in page.text
    assert emulated.ledger.counts.received == 0


async def test_the_cart_keeps_what_is_put_into_it_and_nothing_else(emulated):
    async with shop() as http:
        await http.post("/cart/boots")
        await http.post("/cart/nonsense")
        page = await http.get("/cart")
        assert "Cart <b>(1)</b>" in page.text
        assert (await http.get("/product/nonsense")).headers["location"] == "/"
        assert (await http.get("/healthz")).json()["condition"] == "healthy"


async def test_whoever_looks_from_elsewhere_or_at_another_time_sees_something_else(emulated):
    async with shop() as http:
        await http.post("/look", data={"who": "asha", "hour": "23"})
        assert "The harbour is asleep" in (await http.get("/")).text
        await http.post("/look", data={"campaign": "email", "day": "Monday", "hour": "09"})
        page = (await http.get("/")).text
        assert "One coat away from gold" in page
        assert "Because you opened our letter" in page
        assert "Order before midnight" not in page
        await http.post("/look", data={"campaign": "none", "day": "Saturday", "hour": "19"})
        page = (await http.get("/")).text
        assert "Until Sunday night" in page
        assert "Order before midnight" in page
        assert (await http.post("/look", data={"hour": "24"})).status_code == 422


async def test_a_campaign_in_the_address_counts_until_another_one_does(emulated):
    async with shop() as http:
        await http.get("/?utm_medium=email")
        assert "Because you opened our letter" in (await http.get("/")).text
        await http.get("/?utm_medium=social")
        assert "Seen on somebody" in (await http.get("/offers")).text


async def test_who_stays_anonymous_is_served_what_is_for_all_and_nothing_is_reported(emulated):
    async with shop() as http:
        await http.post("/look", data={"who": "nobody"})
        page = await http.get("/")
    assert "All Users, variation" in page.text
    assert links(page) == []
    assert (emulated.ledger.counts.anonymous_fetches, emulated.ledger.counts.received) == (1, 0)


async def test_what_is_put_into_the_cart_brings_what_goes_with_it_and_that_is_a_click(emulated):
    async with shop() as http:
        await http.post("/look", data={"who": "john"})
        assert "Leather balm" not in (await http.get("/cart")).text
        await http.post("/cart/boots")
        page = (await http.get("/cart")).text
        assert "Leather balm keeps the rain out" in page
        token = unescape(re.search('name="t" value="([^"]+)"', page)[1])
        await http.post("/cart/balm", data={"t": token})
        page = (await http.get("/cart")).text
        assert "Cart <b>(2)</b>" in page
        assert "Leather balm keeps" not in page
    clicked = [event.action["attributes"] for event in emulated.ledger.events if "CLICKED" in event.action["action"]]
    assert [(click["experience"], click["b_id"]) for click in clicked] == [("Upsell in the cart", "add")]


async def test_it_leaves_a_report_of_what_it_accepted(emulated, monkeypatch, tmp_path):
    monkeypatch.setenv("STOREFRONT_REPORT", str(tmp_path / "report.json"))
    async with shop() as http:
        await http.get(links(await http.get("/"))[0])
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(report["accepted"]) == sorted(event.uuid for event in emulated.ledger.events)
    assert report["stats"]["delivered"] == len(report["accepted"]) > 1


@pytest.mark.parametrize(
    "offerings", ["{", "[7]", '[{"offering_content": {}}]', '[{"offering_content": {"name": "Coat", "price": "dear"}}]']
)
def test_a_row_that_does_not_fit_is_the_default_row(offerings):
    assert row_of(experience("recommendations", Items=offerings)) == Recommendations()


def test_white_can_be_read_on_every_colour_that_a_hero_has():
    """The words stand on the colour, or on a darker shade of it."""
    (shown,) = (experience for experience in Emulator().catalogue if experience.key == "home-hero")
    served = [variation.payload["Colour"].value for audience in shown.audiences for variation in audience.variations]
    faint = [colour for colour in (*served, Hero().colour) if contrast("#ffffff", colour) < 4.5]
    assert faint == []


def test_a_colour_that_is_none_is_the_default_colour():
    assert Hero(colour="red;} body{").accent == Hero().accent
