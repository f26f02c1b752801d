"""What an assertion accepts, and what it says otherwise."""

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake(personalize_fake):
    fake = personalize_fake
    fake.serve("home-hero", variation=2)
    fake.serve("home-offers")
    served = await fake.client.fetch("home-hero", "home-offers", "no-such", customer_id="john")
    fake.client.track_impression(served["home-hero"], customer_id="john")
    fake.client.track_impression(served["home-offers"], customer_id="john")
    fake.client.track_click(served["home-hero"], customer_id="john", b_id="cta", attributes={"position": 3, "row": 1})
    fake.client.track_impression(served["no-such"], customer_id="john")
    return fake


async def test_what_was_shown_and_clicked_is_found_by_any_part_of_it(fake):
    assert [event.key for event in fake.shown(customer_id="john")] == ["home-hero", "home-offers"]
    assert len(fake.shown("home-hero", variation=2)) == len(fake.clicked("home-hero", variation="2")) == 1
    assert not fake.shown("home-hero", variation=1)
    assert not fake.clicked("home-offers")
    assert len(fake.impressions) == 2
    assert len(fake.clicks) == 1
    fake.assert_shown("home-hero", customer_id="john", variation=2, times=1)
    fake.assert_shown(times=2)
    fake.assert_clicked("home-hero", b_id="cta", attributes={"position": 3})
    fake.assert_clicked("home-offers", times=0)


async def test_a_failure_lists_what_was_tracked_the_nearest_first(fake):
    with pytest.raises(AssertionError) as caught:
        fake.assert_clicked("home-hero", customer_id="jane", b_id="cta", attributes={"position": 4})
    assert str(caught.value).splitlines() == [
        "expected at least once, found 0 times: click of 'home-hero' by 'jane', b_id 'cta', attributes {'position': 4}",
        "tracked, the nearest first:",
        (
            "  click of 'home-hero' by 'john', variation '2', b_id 'cta', attributes {'position': 3, 'row': 1}"
            "   <- other customer_id, attributes"
        ),
        "  impression of 'home-hero' by 'john', variation '2'   <- other action, customer_id, b_id, attributes",
        "  impression of 'home-offers' by 'john', variation '1'   <- other action, key, customer_id, b_id, attributes",
        "turned away by the client:",
        "  impression of 'no-such' by 'john': unmatched   <- other action, key, customer_id, b_id, attributes",
    ]


async def test_an_event_of_the_same_action_is_nearer_than_any_other(personalize_fake):
    personalize_fake.serve("home-hero")
    personalize_fake.serve("home-offers")
    served = await personalize_fake.client.fetch("home-hero", "home-offers")
    personalize_fake.client.track_impression(served["home-hero"], customer_id="john")
    personalize_fake.client.track_click(served["home-offers"], customer_id="jane")
    with pytest.raises(
        AssertionError, match=r"first:\n  click of 'home-offers' by 'jane'.*\n  impression of 'home-hero'"
    ):
        personalize_fake.assert_clicked("home-hero", customer_id="john")


async def test_a_failure_says_why_the_client_turned_it_away(fake):
    with pytest.raises(AssertionError, match="turned away by the client:\n  impression of 'no-such' by 'john': unm"):
        fake.assert_shown("no-such")


async def test_the_number_of_times_is_exact(fake):
    with pytest.raises(AssertionError, match="expected 2 times, found 1 times: impression of 'home-hero'"):
        fake.assert_shown("home-hero", times=2)
    with pytest.raises(AssertionError, match="expected 0 times, found 1 times"):
        fake.assert_clicked(times=0)


async def test_anything_tracked_is_too_much_for_nothing(fake):
    with pytest.raises(AssertionError, match="expected that nothing is tracked\ntracked:\n  impression of 'home-hero'"):
        fake.assert_nothing_tracked()


async def test_with_nothing_tracked_a_failure_says_that(personalize_fake):
    personalize_fake.assert_nothing_tracked()
    with pytest.raises(AssertionError, match="nothing was tracked at all"):
        personalize_fake.assert_shown("home-hero")


async def test_a_long_list_is_cut(fake):
    hero = (await fake.client.fetch("home-hero"))["home-hero"]
    for number in range(20):
        fake.client.track_impression(hero, customer_id=f"customer-{number}")
    with pytest.raises(AssertionError, match=r"  \.\.\. and 13 more"):
        fake.assert_shown("no-such")
