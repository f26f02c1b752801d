"""A client without a server."""

import pytest

from moengage_personalize import Admission, Reason
from moengage_personalize.testing import offline_client
from moengage_personalize.testing._offline import KEPT

pytestmark = pytest.mark.anyio


async def test_defaults_are_served_and_events_stay_in_memory(monkeypatch):
    for name in ("MOENGAGE_WORKSPACE_ID", "MOENGAGE_PERSONALIZE_API_KEY", "MOENGAGE_DATA_CENTER"):
        monkeypatch.delenv(name, raising=False)
    async with offline_client({"home-hero": {"Title": "Hi"}}) as client:
        found = await client.fetch("home-hero", "home-offers", customer_id="john")
        assert found["home-hero"].get("Title") == "Hi"
        assert found["home-offers"].reason is Reason.NO_MATCH
        assert client.track_impression(found["home-hero"], customer_id="john") is Admission.ACCEPTED
    assert [(event.key, event.customer_id) for event in client.tracked] == [("home-hero", "john")]
    assert repr(client) == "<OfflineClient, 1 events in memory>"


async def test_memory_is_bounded():
    async with offline_client({"home-hero": {}}) as client:
        hero = (await client.fetch("home-hero"))["home-hero"]
        for number in range(KEPT + 10):
            client.track_impression(hero, customer_id=f"customer-{number}")
        assert len(client.tracked) == KEPT
        assert client.tracked[-1].customer_id == f"customer-{KEPT + 9}"


async def test_a_default_that_cannot_be_served_is_refused_at_once():
    async with offline_client() as client:
        assert not (await client.fetch("home-hero"))["home-hero"].matched
