"""Applications that make their own client, in a test: `client_class` in the class's place."""

import pytest

from moengage_personalize import (
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    CachePolicy,
    Experience,
    FetchPolicy,
    Reason,
    UsageError,
)
from moengage_personalize.spool import DiskSpool

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake(personalize_fake):
    personalize_fake.serve("home-hero", {"Title": "Hi"})
    return personalize_fake


@pytest.fixture
def make(fake):
    return fake.client_class


async def test_it_needs_no_credentials_and_is_a_client_with_a_clients_life(make, fake):
    client = make()
    assert isinstance(client, AsyncPersonalizeClient)
    with pytest.raises(UsageError, match="not open"):
        await client.fetch("home-hero")
    async with client:
        hero = (await client.fetch("home-hero", customer_id="john"))["home-hero"]
        assert client.track_impression(hero, customer_id="john") is Admission.ACCEPTED
        fake.assert_shown("home-hero", customer_id="john", times=1)
    assert client.last_report.delivered == 1
    assert client.track_impression(hero, customer_id="john") is Admission.CLOSED
    assert [event.admission for event in fake.turned_away] == [Admission.CLOSED]
    with pytest.raises(UsageError, match="closed"):
        await client.fetch("home-hero")


async def test_what_leads_to_a_network_or_a_disk_is_left_alone(make, tmp_path):
    directory = tmp_path / "spool"
    async with make(
        "workspace",
        lambda: 1 / 0,
        "03",
        base_url="https://moengage.example",
        spool=DiskSpool(directory),
        proxy="http://x",
    ) as client:
        assert (await client.fetch("home-hero"))["home-hero"].matched
    assert not directory.exists()


async def test_policies_and_hooks_are_the_applications(make, fake):
    consents = []

    def before_send(event):
        consents.append(event.customer_id)
        return event if event.customer_id == "john" else None

    async with make(
        before_send=before_send,
        caching=CachePolicy(ttl=60),
        fetching=FetchPolicy(identity="flat"),
        batching=BatchPolicy(max_pending=1),
    ) as client:
        for _ in range(2):
            hero = (await client.fetch("home-hero", customer_id="john"))["home-hero"]
        assert hero.reason is Reason.CACHED
        assert client.track_impression(hero, customer_id="jane") is Admission.REFUSED
        assert client.track_click(hero, customer_id="john") is Admission.ACCEPTED
    assert consents == ["jane", "john"]
    assert [event.customer_id for event in fake.tracked] == ["john"]
    assert [event.customer_id for event in fake.turned_away] == ["jane"]
    assert [asked.customer_id for asked in fake.asked] == ["john"]


async def test_what_a_hook_changes_is_what_is_recorded_and_one_that_raises_refuses(make, fake):
    import attrs

    async with make(before_send=lambda event: attrs.evolve(event, customer_id="somebody")) as client:
        client.track_impression((await client.fetch("home-hero"))["home-hero"], customer_id="john")
    fake.assert_shown(customer_id="somebody", times=1)
    async with make(before_send=lambda event: 1 / 0) as client:
        hero = (await client.fetch("home-hero"))["home-hero"]
        assert client.track_impression(hero, customer_id="john") is Admission.REFUSED
    assert [event.customer_id for event in fake.turned_away] == ["john"]


async def test_a_client_that_is_not_enabled_does_nothing(make, fake):
    async with make(enabled=False) as client:
        hero = (await client.fetch("home-hero"))["home-hero"]
        assert client.track_impression(hero, customer_id="john") is Admission.DISABLED
    assert hero.reason is Reason.DISABLED
    fake.assert_nothing_tracked()


async def test_an_argument_that_the_client_has_not_is_an_error(make):
    with pytest.raises(TypeError):
        make(workspace="typo")


async def test_all_clients_of_a_fake_are_on_one_record(make, fake):
    hero = Experience(key="home-hero", reason=Reason.NO_MATCH, source="default")
    async with make() as one, make() as other:
        one.track_impression(hero, customer_id="john")
        other.track_impression(hero, customer_id="john")
    assert len(fake.turned_away) == 2
