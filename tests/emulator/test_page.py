"""The live page in a real browser: it shows what happens within two seconds, and its switches work."""

import time
import uuid

import httpx
import pytest
from emulator.kit import CLICKED, action, element, events
from support.chromium import MISSING, chromium

from moengage_personalize.emulator import Emulator, serve_in_thread

pytestmark = [pytest.mark.conformance, pytest.mark.skipif(MISSING, reason="needs selenium, chromium, chromium-driver")]

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


class Page:
    """The page of one emulator, and a client beside it."""

    def __init__(self, browser, emulator, server, http):
        self.browser, self.emulator, self.server, self.http = browser, emulator, server, http
        browser.get(server.page_url)

    def text(self, css):
        return self.browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def click(self, css):
        self.browser.find_element("css selector", css).click()

    def shows(self, css, words, *, within=10.0):
        """Waits until an element shows some words."""
        began = time.monotonic()
        while words not in self.text(css):
            assert time.monotonic() - began < within, f"{css} shows {self.text(css)!r}, not {words!r}"
            time.sleep(0.05)

    def fetch(self, customer="john@example.com"):
        body = {"experience_key": ["home-hero", "cart-upsell"], "identifiers": {"customer_id": customer}}
        return self.http.post("/v1/experiences/fetch", json=body)

    def report(self, *actions, customer="john@example.com"):
        return self.http.post("/v1/experiences/events", json=events(element(*actions, customer_id=customer)))

    def visit(self, customer="john@example.com"):
        """A page view with an impression and a click of the hero."""
        context = self.fetch(customer).json()["experiences"]["home-hero"]["experience_context"]
        seen = action(attributes=context, moe_event_uuid=str(uuid.uuid4()))
        clicked = action(action=CLICKED, attributes={**context, "b_id": "Shop"}, moe_event_uuid=str(uuid.uuid4()))
        assert self.report(seen, clicked, customer=customer).status_code == 200
        return seen


@pytest.fixture
def page(browser):
    emulator = Emulator()
    with (
        serve_in_thread(emulator, page_port=0) as server,
        httpx.Client(
            base_url=server.base_url,
            verify=server.ssl_context(),
            http2=True,
            auth=("DEMO_WORKSPACE", "demo-key"),
            headers={"MOE-APPKEY": "DEMO_WORKSPACE"},
            trust_env=False,
        ) as http,
    ):
        yield Page(browser, emulator, server, http)
        problems = [entry for entry in browser.get_log("browser") if "/_emulator/live" not in entry["message"]]
        browser.get("about:blank")
    assert problems == []


def test_a_newcomer_is_told_how_to_begin(page):
    page.shows("#exports", f"export MOENGAGE_PERSONALIZE_BASE_URL='{page.server.base_url}'")
    page.shows("#state", "Live")
    page.visit()
    page.shows("#accepted", "2")
    assert not page.browser.find_element("id", "welcome").is_displayed()


def test_requests_and_events_appear_within_two_seconds(page):
    page.shows("#state", "Live")
    seen = page.visit()
    page.shows("#request-list", "john@example.com · 2 events", within=2)
    page.shows("#accepted-note", "1 shown, 1 clicked", within=2)
    page.shows("#ratio", "2.0", within=2)
    page.shows("#experience-list", "100 %", within=2)
    page.report(seen)
    page.shows("#duplicates", "1", within=2)
    page.shows("#duplicate-list", "identical", within=2)
    page.http.post("/v1/experiences/events", content=b"{")
    page.shows("#request-list", "Malformed JSON", within=2)
    page.shows("#refused-note", "events 400: 1", within=2)


def test_batches_are_drawn_customer_by_customer_and_event_by_event(page):
    page.shows("#batch-list", "No event has come yet")
    page.visit()
    page.report(*(action(moe_event_uuid=str(uuid.uuid4())) for _ in range(50)))
    page.shows("#batch-list .frame", "+10")
    drawn = "return ['li', '.frame', '.frame i', '.frame i.click'].map((c) => document.querySelectorAll('#batch-list ' + c).length)"
    assert page.browser.execute_script(drawn) == [2, 2, 42, 1]


def test_a_wrong_identity_form_is_seen(page):
    page.http.post("/v1/experiences/fetch", json={"customer_id": "john@example.com"})
    page.shows("#request-list", "answered as anonymous")


def test_one_customer_s_story_is_told(page):
    page.visit()
    page.visit("asha@example.com")
    page.shows("#recent", "asha@example.com")
    page.browser.find_element("id", "customer").send_keys("asha@example.com")
    page.click("#story-form button")
    page.shows("#story-list", "impression")
    page.shows("#story-list", "Shop")
    page.shows("#profile", "tier silver")
    assert page.text("#story-list").count("impression") == 1


def test_a_switch_makes_trouble_and_ends_it(page):
    page.shows("#state", "Live")
    page.click("#switch-errors")
    page.shows("#state", "Errors")
    page.shows("#switch-errors .left", "s")
    assert page.fetch().status_code == 503
    page.shows("#request-list", "Errors")
    page.click("#switch-errors")
    page.shows("#state", "Live")
    assert page.fetch().status_code == 200


def test_duration_endpoints_and_share_are_chosen(page):
    page.shows("#state", "Live")
    script = """for (const [id, value] of [["duration", ""], ["endpoints", "events"], ["share", "50"]]) {
        document.getElementById(id).value = value;
        document.getElementById(id).dispatchEvent(new Event("input"));
    }"""
    page.browser.execute_script(script)
    page.click("#switch-limit")
    page.shows("#switch-limit .left", "on")
    (wish,) = page.emulator.troubles.current(time.time())
    assert (wish.trouble.endpoints, wish.trouble.share, wish.trouble.duration) == (("events",), 0.5, None)
    page.click("#calm")
    page.shows("#state", "Live")


def test_an_outage_counts_down_and_ends_by_itself(page):
    page.visit()
    page.shows("#state", "Live")
    page.browser.execute_script("document.querySelector('#duration option').value = '2'")
    page.click("#switch-outage")
    page.shows("#state", "Outage")
    with pytest.raises(httpx.TransportError):
        page.fetch()
    page.shows("#state", "Live")
    assert page.fetch().status_code == 200


def test_what_a_client_sends_is_shown_as_text(page):
    page.visit(HOSTILE)
    page.shows("#request-list", HOSTILE)
    page.browser.find_element("css selector", "#request-list .link").click()
    page.shows("#story-list", "click")
    assert page.browser.execute_script("return document.querySelectorAll('main img').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1400])
def test_nothing_overflows_sideways_on_any_screen(page, width, scheme):
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page.visit("somebody-with-a-rather-long-identifier-at-a-long-domain@example.com")
        page.shows("#accepted", "2")
        wide = page.browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        paper = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_everything_that_can_be_pressed_has_a_name_and_can_be_reached(page):
    page.visit()
    page.shows("#request-list", "john@example.com")
    nameless = page.browser.execute_script(
        """return [...document.querySelectorAll("button, a, input, select")].filter(
            (node) => !(node.innerText.trim() || node.getAttribute("aria-label") || node.labels?.length)
            || node.tabIndex < 0).map((node) => node.outerHTML)"""
    )
    assert nameless == []
