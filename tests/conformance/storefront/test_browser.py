"""The shop and the live page in a real browser, side by side: what is clicked in one is seen in the other."""

import time

import pytest
from support.chromium import MISSING, Window, chromium
from support.storefront import REPORTED, storefront, ten_clicks

pytestmark = [pytest.mark.conformance, pytest.mark.skipif(MISSING, reason="needs selenium, chromium, chromium-driver")]

SLOW = 2.0  # times slower than ours may a machine be
PAGES = ("", "offers", "cart", "product/coat")
TROUBLED = ("could not be reached", "No answer arrived within the deadline", "failed too often just now")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def world():
    with storefront() as world:
        yield world


@pytest.fixture
def shop(driver, world):
    driver.delete_all_cookies()  # a visitor who has not been here
    window = Window(driver, world.shop_url)
    yield window
    problems = window.driver.get_log("browser")
    window.leave()
    assert problems == []


@pytest.fixture
def john(shop):
    shop.press("[value=john]")
    return shop


@pytest.fixture
def asha(driver, world):
    window = Window(driver, world.same_shop_url)
    window.press("[value=asha]")
    yield window
    window.leave()


@pytest.fixture
def live(driver, world):
    window = Window(driver, world.page_url)
    yield window
    window.leave()


def sources(window):
    return set(window.attributes(".slots li", "data-source"))


def waiting(world):
    return world.account()["stats"]["pending"]


def test_ten_clicks_are_seen_on_the_live_page_within_two_seconds_in_coalesced_batches(john, asha, live, world):
    live.shows("#state", "Live")
    ten_clicks(john, asha)
    accepted = world.account()["accepted"]
    took = live.shows("#accepted-note", f"{len(accepted) - REPORTED} shown, {REPORTED} clicked", within=2 * SLOW)
    print(f"seen after {took:.2f} s")
    requests, elements, actions = (live.count(f"#batch-list {css}") for css in ("li", ".frame", ".frame i"))
    assert 0 < requests < elements < actions <= len(accepted)  # of the newest requests
    assert live.count("#batch-list .click") > 1
    assert sorted(event["uuid"] for event in world.ledger()["events"]) == sorted(accepted)


def test_in_an_outage_of_ten_seconds_the_shop_shows_its_defaults_and_no_event_is_lost(shop, live, world):
    shop.press("[value=john]")
    assert sources(shop) <= {"network", "cache"}
    began = time.monotonic()
    live.click("#switch-outage")
    live.shows("#state", "Outage")
    before = len(world.account()["accepted"])
    shop.press(".hero .button")  # served before; what the visitor does now has to wait
    assert len(world.account()["accepted"]) > before
    shop.press("[value=asha]")
    shop.press("[value=social]")  # and nobody has asked this before
    assert sources(shop) == {"default"}
    assert shop.text("h1") == "Good things, made to last"
    assert any(reason in shop.text("[data-key=home-hero] summary") for reason in TROUBLED)
    assert shop.attributes(".hero .button", "href") == ["/product/coat"]
    assert waiting(world) > 0
    live.shows("#state", "Live", within=30)
    assert time.monotonic() - began > 9
    live.until(lambda: waiting(world) == 0, within=30)
    account, ledger = world.account(), world.ledger()
    assert sorted(event["uuid"] for event in ledger["events"]) == sorted(account["accepted"])
    assert account["stats"]["delivered"] == len(account["accepted"])
    live.shows("#accepted", str(len(account["accepted"])))

    def served_again():
        shop.open(world.shop_url)
        return sources(shop) <= {"network", "cache"}

    shop.until(served_again, within=30)
    assert shop.text("h1") != "Good things, made to last"


def test_the_same_page_a_moment_later_comes_from_the_cache_and_says_how_old_it_is(shop):
    shop.press("[value=john]")
    shop.press(".brand")
    assert sources(shop) == {"cache"}
    assert "s old" in shop.text("[data-key=home-hero] .source")
    shop.click("[data-key=home-hero] summary")
    assert "audience 'Gold members', variation '1'" in shop.text("[data-key=home-hero] pre")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
def test_nothing_overflows_sideways_and_every_text_can_be_read(shop, world, width, scheme):
    shop.screen(width, 900, scheme=scheme)
    shop.press("[value=john]")
    shop.press(".card .add")
    for page in PAGES:
        shop.open(f"{world.shop_url}{page}")
        assert shop.run("return document.documentElement.scrollWidth") <= width, page
        assert shop.run(FAINT) == [], page


@pytest.mark.parametrize("page", PAGES)
def test_everything_that_can_be_pressed_has_a_name_and_can_be_reached(shop, world, page):
    shop.press("[value=john]")
    shop.press(".card .add")
    shop.open(f"{world.shop_url}{page}")
    nameless = """return [...document.querySelectorAll("button, a, input:not([type=hidden]), select, summary")].filter(
        (node) => !(node.innerText.trim() || node.getAttribute("aria-label") || node.labels?.length)
        || node.tabIndex < 0).map((node) => node.outerHTML)"""
    assert shop.run(nameless) == []
    assert (
        shop.run("return ['header', 'nav', 'main', 'aside', 'footer'].filter((n) => !document.querySelector(n))") == []
    )
    levels = shop.run("return [...document.querySelectorAll('h1, h2')].map((n) => n.tagName)")
    assert levels.count("H1") == 1
    assert levels[0] == "H1"


# Texts on a plain ground whose contrast is below 4.5 to 1 (or 3 to 1, if they are large). The hero stands on a picture;
# tests/examples looks at its colours.
FAINT = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = rgba(getComputedStyle(node).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".hero, option, .visually-hidden")) continue;
  const style = getComputedStyle(node);
  const [one, other] = [light(rgba(style.color)), light(ground(node))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push(`${node.outerHTML.slice(0, 80)} ${ratio.toFixed(1)}`);
}
return found;
"""
