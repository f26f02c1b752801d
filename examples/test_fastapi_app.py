"""The tests of fastapi_app.py: no network, no account, no event loop to care for. The fixture is the package's."""

import pytest
from fastapi.testclient import TestClient
from fastapi_app import app

from moengage_personalize.testing import FakePersonalize


@pytest.fixture
def browser(personalize_fake: FakePersonalize, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(app.state, "personalize", personalize_fake.client, raising=False)
    return TestClient(app, follow_redirects=False)


def test_the_hero_is_shown_and_its_impression_reported(browser: TestClient, personalize_fake: FakePersonalize) -> None:
    personalize_fake.serve("home-hero", {"Title": "New this week"})
    assert "<h1>New this week</h1>" in browser.get("/").text
    personalize_fake.assert_shown("home-hero", times=1)


def test_a_page_that_waits_in_vain_shows_its_own_title(browser: TestClient, personalize_fake: FakePersonalize) -> None:
    personalize_fake.times_out("home-hero")
    assert "<h1>Welcome</h1>" in browser.get("/").text
    personalize_fake.assert_nothing_tracked()


def test_a_click_is_of_what_was_shown(browser: TestClient, personalize_fake: FakePersonalize) -> None:
    personalize_fake.serve("home-hero", {"Title": "New this week"}, variation=2)
    browser.get("/")
    browser.get("/collection")
    personalize_fake.assert_clicked("home-hero", b_id="cta", variation=2, times=1)
    assert personalize_fake.clicks[0].customer_id == personalize_fake.impressions[0].customer_id


def test_moengage_hears_where_the_visitor_is_from(browser: TestClient, personalize_fake: FakePersonalize) -> None:
    browser.get("/", headers={"user-agent": "Mozilla/5.0 (iPhone)"})
    assert personalize_fake.asked[0].attributes["USER_AGENT"] == "Mozilla/5.0 (iPhone)"
