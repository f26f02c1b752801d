"""The testing kit, as a type checker sees it: checked, never run."""

from typing import assert_type

import httpx

from moengage_personalize import Action, Admission, AsyncPersonalizeClient, Experience, Reason
from moengage_personalize.emulator import Trouble
from moengage_personalize.testing import Asked, FakePersonalize, FaultyTransport, OfflineClient, Tracked, offline_client


async def a_fake_is_scripted_and_asked(personalize_fake: FakePersonalize) -> None:
    personalize_fake.serve("home-hero", {"Title": "Hi"}, customer_id="john", variation=2, in_control_group=False)
    personalize_fake.withhold("home-hero", Reason.EXPIRED)
    personalize_fake.times_out("home-hero", times=1)
    personalize_fake.fails(status=503, retry_after=7)
    personalize_fake.slow("home-hero", seconds=0.5)
    personalize_fake.fails("home-hero", 503)  # type: ignore[arg-type]
    personalize_fake.slow("home-hero")  # type: ignore[call-arg]
    assert_type(personalize_fake.client, AsyncPersonalizeClient)
    assert_type(personalize_fake.client_class, type[AsyncPersonalizeClient])
    assert_type((await personalize_fake.client.fetch("home-hero"))["home-hero"], Experience)
    assert_type(personalize_fake.shown("home-hero", customer_id="john"), list[Tracked])
    assert_type(personalize_fake.asked, list[Asked])
    assert_type(personalize_fake.clicks[0].action, Action)
    assert_type(personalize_fake.turned_away[0].admission, Admission)
    assert_type(personalize_fake.assert_clicked("home-hero", b_id="cta", attributes={"position": 1}), None)
    with FakePersonalize() as fake:
        assert_type(fake, FakePersonalize)


async def an_offline_client_is_a_client() -> None:
    async with offline_client({"home-hero": {"Title": "Hi"}}) as client:
        assert_type(client, OfflineClient)
        assert_type(client.tracked, list[Tracked])
        hero = (await client.fetch("home-hero", customer_id="john"))["home-hero"]
        assert_type(client.track_impression(hero, customer_id="john"), Admission)
        client.track_click(hero)  # type: ignore[call-arg]


def a_transport_goes_around_any_other(inner: httpx.AsyncBaseTransport) -> AsyncPersonalizeClient:
    return AsyncPersonalizeClient(transport=FaultyTransport(inner, Trouble(status=503, share=0.5), seed=1))
