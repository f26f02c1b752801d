"""Who is shown what: audiences, devices, countries, weights, stickiness and control groups."""

import attrs
import pytest
from emulator.kit import World, emulator, served
from hypothesis import given, strategies as st

from moengage_personalize.emulator import Audience, Catalogue, Experience, Network, Profile, Value, Variation, When
from moengage_personalize.emulator._catalogue import device_of

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/142.0.0.0 Mobile Safari/537.36"
TABLET = "Mozilla/5.0 (Linux; Android 15; SM-X910) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"
IPAD = "Mozilla/5.0 (iPad; CPU OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"


def variations(*weights):
    return tuple(Variation(weight=weight, payload={"n": Value.of(number)}) for number, weight in enumerate(weights, 1))


def only(**when):
    """An emulator with one experience for one audience."""
    audience = Audience(name="Some", when=When(**when), variations=variations(1))
    networks = (Network("203.0.113.0/24", "IN"), Network("2001:db8::/32", "JP"))
    john = Profile(customer_id="john@example.com", attributes={"tier": "gold", "age": 42, "vip": True})
    return emulator(Catalogue((Experience(key="some-key", audiences=(audience,)),), networks, (john,)))


def matches(emu, **body):
    return "some-key" in served(emu, body)


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (PHONE, "Mobile"),
        (ANDROID, "Mobile"),
        (TABLET, "Tablet"),
        (IPAD, "Tablet"),
        (DESKTOP, "Desktop"),
        ("curl/8", "Desktop"),
        ("", None),
        (None, None),
    ],
)
def test_the_device_class_follows_from_the_user_agent(agent, device):
    assert device_of(agent) == device


def test_devices_are_targeted():
    emu = only(devices=("Mobile", "Tablet"))
    assert matches(emu, USER_AGENT=PHONE)
    assert matches(emu, USER_AGENT=IPAD)
    assert not matches(emu, USER_AGENT=DESKTOP)
    assert not matches(emu)


def test_days_and_hours_are_targeted():
    emu = only(days=("Sunday",), hours=("07", "08"))
    assert matches(emu, DAY_OF_THE_WEEK="Sunday", TIME_OF_THE_DAY="08")
    assert not matches(emu, DAY_OF_THE_WEEK="Monday", TIME_OF_THE_DAY="08")
    assert not matches(emu, DAY_OF_THE_WEEK="Sunday", TIME_OF_THE_DAY="09")
    assert not matches(emu, DAY_OF_THE_WEEK="Sunday")


@pytest.mark.parametrize(("address", "expected"), [("203.0.113.9", True), ("198.51.100.1", False), ("::1", False)])
def test_countries_are_targeted_by_address(address, expected):
    assert matches(only(countries=("IN",)), USER_IP_ADDRESS=address) is expected


def test_ipv6_addresses_have_countries_too_and_nonsense_has_none():
    assert matches(only(countries=("JP",)), USER_IP_ADDRESS="2001:db8::7")
    assert not matches(only(countries=("JP",)), USER_IP_ADDRESS="nonsense")
    assert not matches(only(countries=("JP",)))


def test_custom_attributes_are_targeted():
    emu = only(attributes={"utm_medium": ("email", "sms")})
    assert matches(emu, utm_medium="email")
    assert not matches(emu, utm_medium="Email")
    assert not matches(emu, utm_source="email")


def test_profile_attributes_are_targeted():
    john = {"identifiers": {"customer_id": "john@example.com"}}
    assert matches(only(profile={"tier": ("gold",)}), **john)
    assert matches(only(profile={"age": ("42",), "vip": ("true",)}), **john)
    assert not matches(only(profile={"tier": ("silver",)}), **john)
    assert not matches(only(profile={"tier": ("gold",)}), tier="gold")


def test_the_first_audience_that_matches_wins():
    first = Audience(name="First", when=When(attributes={"a": ("1",)}), variations=variations(1))
    second = Audience(name="Second", variations=variations(1))
    emu = emulator((Experience(key="some-key", audiences=(first, second)),))
    for body, name in (({"a": "1"}, "First"), ({"a": "2"}, "Second")):
        assert served(emu, body)["some-key"]["experience_context"]["audience_name"] == name


# Draws ------------------------------------------------------------------------------


def drawn(emu, customer):
    entry = served(emu, {"identifiers": {"customer_id": customer}}).get("some-key")
    return entry and entry["experience_context"]["moe_variation_id"]


def drawing(**changes):
    experience = Experience(key="some-key", audiences=(Audience(variations=variations(1, 1, 2)),))
    return emulator((attrs.evolve(experience, **changes),), rate_limit=None)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_customer_meets_the_same_variation_in_every_process(customer):
    assert drawn(drawing(), customer) == drawn(drawing(), customer)


def test_the_draw_is_the_same_for_ever():
    """A literal, so that another hash, Python or machine would be noticed."""
    assert [drawn(drawing(), f"c{number}") for number in range(12)] == list("313323331323")


def test_weights_are_shares():
    emu = drawing()
    counts = {"1": 0, "2": 0, "3": 0}
    for number in range(4000):
        counts[drawn(emu, f"customer-{number}")] += 1
    assert 850 < counts["1"] < 1150
    assert 850 < counts["2"] < 1150
    assert 1850 < counts["3"] < 2150


def test_different_experiences_draw_independently():
    audiences = (Audience(variations=variations(1, 1)),)
    emu = emulator([Experience(key=f"key-{number}", audiences=audiences) for number in range(2)], rate_limit=None)
    pairs = set()
    for number in range(60):
        found = served(emu, {"identifiers": {"customer_id": f"c{number}"}})
        pairs.add(tuple(entry["experience_context"]["moe_variation_id"] for entry in found.values()))
    assert len(pairs) == 4


def test_a_control_group_is_a_sticky_share_that_is_shown_nothing():
    emu = drawing(control_group=0.25)
    shown = [drawn(emu, f"customer-{number}") for number in range(2000)]
    assert 430 < shown.count(None) < 570
    assert shown == [drawn(emu, f"customer-{number}") for number in range(2000)]
    assert {reason for record in emu.ledger.requests for _, reason in record.unserved} == {
        "USER_IN_CAMPAIGN_CONTROL_GROUP"
    }


def test_a_global_control_group_is_shown_nothing_of_any_experience():
    audiences = (Audience(variations=variations(1)),)
    keys = [Experience(key=f"key-{number}", audiences=audiences) for number in range(3)]
    emu = emulator(Catalogue(tuple(keys), global_control_group=0.5), rate_limit=None)
    sizes = {len(served(emu, {"identifiers": {"customer_id": f"c{number}"}})) for number in range(50)}
    assert sizes == {0, 3}


def test_anonymous_visitors_are_drawn_by_dice():
    world = World()
    emu = emulator((Experience(key="some-key", audiences=(Audience(variations=variations(1, 1)),)),), world=world)
    world.dice = 0.99
    assert served(emu, {})["some-key"]["experience_context"]["moe_variation_id"] == "2"
