"""POST /v1/experiences/fetch, rule by rule (api-facts, 1.1 and 1.2)."""

import json

import pytest
from emulator.kit import World, action, ask, element, emulator, events, refused, said, served

from moengage_personalize.emulator import Audience, Catalogue, Experience, Profile, Value, Variation, When

EVERYBODY = Experience.simple("for-everybody", {"Title": "Hi"})
GOLD = Experience(
    key="for-gold",
    audiences=(
        Audience(
            name="Gold",
            when=When(profile={"tier": ("gold",)}),
            variations=(Variation(payload={"Title": Value.of("Gold")}),),
        ),
    ),
)
JOHN = Profile(
    customer_id="john@example.com", attributes={"tier": "gold", "u_em": "john@example.com", "u_mb": 15550100}
)


def members_only(**options):
    return emulator(Catalogue((EVERYBODY, GOLD), profiles=(JOHN,)), **options)


# Identity ------------------------------------------------------------------------------


def test_a_known_customer_is_served_what_the_profile_qualifies_for():
    emu = members_only()
    assert set(served(emu, {"identifiers": {"customer_id": "john@example.com"}})) == {"for-everybody", "for-gold"}
    assert emu.ledger.requests[-1].identity == "known"


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"identifiers": {}},
        {"identifiers": {"customer_id": ""}},
        {"identifiers": {"customer_id": "who@example.com"}},
    ],
)
def test_without_a_known_identity_only_what_is_for_all_users_is_served(identity):
    emu = members_only()
    assert set(served(emu, identity)) == {"for-everybody"}
    assert emu.ledger.counts.anonymous_fetches == 1
    assert emu.ledger.counts.wrong_identity_forms == 0


@pytest.mark.parametrize(
    "identifiers",
    [
        {"user_identifiers": {"u_em": "john@example.com"}},
        {"customer_id": "unknown@example.com", "user_identifiers": {"u_mb": 15550100}},
    ],
)
def test_user_identifiers_stand_in_for_a_missing_or_unknown_customer(identifiers):
    emu = members_only()
    assert "for-gold" in served(emu, {"identifiers": identifiers})
    assert emu.ledger.requests[-1].customer_id == "john@example.com"


def test_user_identifiers_need_identity_resolution():
    emu = emulator(Catalogue((GOLD,), profiles=(JOHN,), identity_resolution=()))
    assert served(emu, {"identifiers": {"user_identifiers": {"u_em": "john@example.com"}}}) == {}


def test_any_attribute_may_take_part_in_identity_resolution():
    emu = emulator(Catalogue((GOLD,), profiles=(JOHN,), identity_resolution=("tier",)))
    assert "for-gold" in served(emu, {"identifiers": {"user_identifiers": {"tier": "gold"}}})


def test_the_older_identity_form_is_silently_anonymous_and_the_ledger_shows_it():
    emu = members_only()
    assert set(served(emu, {"customer_id": "john@example.com"})) == {"for-everybody"}
    assert emu.ledger.requests[-1].identity == "wrong form"
    assert emu.ledger.counts.wrong_identity_forms == 1
    assert "top-level `customer_id` is ignored" in emu.ledger.requests[-1].notes[0]


def test_both_forms_at_once_are_right_under_every_document():
    for identity in ("identifiers", "flat", "either"):
        emu = members_only(identity=identity)
        body = {
            "customer_id": "john@example.com",
            "identifiers": {"customer_id": "john@example.com"},
            "experience_key": ["for-gold"],
        }
        assert "for-gold" in served(emu, body)
        assert emu.ledger.counts.wrong_identity_forms == 0


def test_the_older_document_takes_the_flat_form_and_ignores_the_other():
    emu = members_only(identity="flat")
    assert "for-gold" in served(emu, {"customer_id": "john@example.com", "experience_key": ["for-gold"]})
    assert served(emu, {"identifiers": {"customer_id": "john@example.com"}, "experience_key": ["for-gold"]}) == {}
    assert emu.ledger.counts.wrong_identity_forms == 1


def test_either_takes_both_forms():
    emu = members_only(identity="either")
    for identity in ({"customer_id": "john@example.com"}, {"identifiers": {"customer_id": "john@example.com"}}):
        assert "for-gold" in served(emu, identity)


@pytest.mark.parametrize(
    "bad",
    [
        {"identifiers": "john"},
        {"identifiers": {"customer_id": 5}},
        {"identifiers": {"user_identifiers": "u_em"}},
        {"identifiers": {"user_identifiers": [1]}},
    ],
)
def test_an_identity_of_the_wrong_type_is_a_400(bad):
    assert "identifiers" in refused(members_only(), "fetch", bad)


def test_a_profile_that_events_made_qualifies_the_next_fetch():
    emu = members_only()
    asha = {"identifiers": {"customer_id": "asha@example.com"}}
    assert "for-gold" not in served(emu, asha)
    ask(emu, "events", events(element(action(), customer_id="asha@example.com", user_attributes={"tier": "gold"})))
    assert "for-gold" in served(emu, asha)


def test_a_fetch_makes_no_profile():
    emu = members_only()
    served(emu, {"identifiers": {"customer_id": "asha@example.com"}})
    assert "asha@example.com" not in emu.profiles


# Keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{}, {"experience_key": []}, {"experience_key": None}])
def test_without_keys_everything_active_that_matches_is_served(body):
    assert set(served(members_only(), body)) == {"for-everybody"}


def test_the_older_document_demands_keys():
    assert "mandatory" in refused(members_only(identity="flat"), "fetch", {})


@pytest.mark.parametrize("bad", ["home-hero", [1], {"a": 1}, 5, [["home-hero"]]])
def test_keys_must_be_a_list_of_strings(bad):
    assert "experience_key" in refused(members_only(), "fetch", {"experience_key": bad})


def test_only_the_first_25_keys_are_served():
    names = [f"experience-{number:02}" for number in range(30)]
    emu = emulator({name: {"Title": name} for name in names}, failures=True)
    reply = said(ask(emu, "fetch", {"experience_key": names}))
    assert list(reply["experiences"]) == names[:25]
    assert reply["failures"] == [{"reason": "MAX_LIMIT_BREACHED", "experienceKeys": names[25:]}]
    assert "first 25" in emu.ledger.requests[-1].notes[0]
    assert len(emu.ledger.requests[-1].asked) == 25


def test_keys_are_case_sensitive():
    assert served(emulator({"Test-1": {"a": 1}}), {"experience_key": ["test-1", "TEST-1"]}) == {}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("never-heard-of", "INVALID_EXPERIENCE_KEY"),
        ("is-paused", "EXPERIENCE_NOT_ACTIVE"),
        ("is-scheduled", "EXPERIENCE_NOT_ACTIVE"),
        ("for-gold", "USER_NOT_IN_SEGMENT"),
    ],
)
def test_what_is_not_served_is_absent_from_a_200(key, reason):
    import attrs

    paused = attrs.evolve(EVERYBODY, key="is-paused", name="Is paused", status="Paused")
    scheduled = attrs.evolve(EVERYBODY, key="is-scheduled", name="Is scheduled", status="Scheduled")
    emu = emulator((EVERYBODY, GOLD, paused, scheduled))
    assert set(served(emu, {"experience_key": [key, "for-everybody"]})) == {"for-everybody"}
    assert served(emu, {"experience_key": [key]}) == {}
    assert emu.ledger.requests[-1].unserved == ((key, reason),)


def test_failures_are_answered_only_when_asked_for():
    body = {"experience_key": ["never-heard-of", "for-gold", "for-everybody"]}
    assert set(said(ask(members_only(), "fetch", body))) == {"experiences"}
    assert said(ask(members_only(failures=True), "fetch", body))["failures"] == [
        {"reason": "INVALID_EXPERIENCE_KEY", "experienceKeys": ["never-heard-of"]},
        {"reason": "USER_NOT_IN_SEGMENT", "experienceKeys": ["for-gold"]},
    ]


# In-session attributes ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["monday", "MONDAY", "Mon", "", 1])
def test_the_day_is_case_sensitive(bad):
    assert "DAY_OF_THE_WEEK" in refused(emulator(), "fetch", {"DAY_OF_THE_WEEK": bad})


@pytest.mark.parametrize("bad", ["24", "7", "07:00", "19,20", "", 7])
def test_the_hour_has_two_digits(bad):
    assert "TIME_OF_THE_DAY" in refused(emulator(), "fetch", {"TIME_OF_THE_DAY": bad})


def test_every_day_and_hour_is_accepted():
    emu = emulator()
    for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"):
        for hour in range(24):
            served(emu, {"DAY_OF_THE_WEEK": day, "TIME_OF_THE_DAY": f"{hour:02}"})


@pytest.mark.parametrize("name", ["USER_IP_ADDRESS", "USER_AGENT"])
def test_address_and_user_agent_are_strings(name):
    assert name in refused(emulator(), "fetch", {name: 5})
    served(emulator(), {name: "whatever"})


def test_custom_attributes_of_any_type_are_accepted():
    served(emulator(), {"utm_medium": "email", "n": 5, "list": [1], "null": None, "Custom_attribute": {"a": 1}})


@pytest.mark.parametrize("body", [b"", b"\n", b"{", b"[]", b'"x"', b"null", b"[" * 100_000, b"\xff"])
def test_an_empty_or_malformed_body_is_a_400(body):
    refused(emulator(), "fetch", body)


# The answer ------------------------------------------------------------------------------


def test_an_experience_is_a_payload_and_a_context_as_documented():
    payload = {
        "Title": "Hällo",
        "Count": 5,
        "Price": 9.5,
        "Open": True,
        "Tree": {"a": [1]},
        "List": [1, 2],
        "Offers": Value.offerings([{"name": "Coat"}]),
    }
    entry = served(emulator({"home-hero": payload}), {})["home-hero"]
    assert set(entry) == {"payload", "experience_context"}
    types = {name: held["data_type"] for name, held in entry["payload"].items()}
    assert types == {
        "Title": "string",
        "Count": "number",
        "Price": "float",
        "Open": "boolean",
        "Tree": "json",
        "List": "json",
        "Offers": "string",
    }
    assert {name: held["value"] for name, held in entry["payload"].items() if name != "Offers"} == {
        name: value for name, value in payload.items() if name != "Offers"
    }
    context = entry["experience_context"]
    assert set(context) == {
        "cid",
        "experience",
        "moe_locale_id",
        "moe_variation_id",
        "audience_name",
        "audience_id",
        "type",
        "experience_type",
    }
    assert all(isinstance(value, str) for value in context.values())
    assert context["type"] == "Web Personalization"


def test_offerings_are_a_json_array_in_a_string():
    entry = served(emulator({"home-hero": {"Offers": Value.offerings([{"name": "Coat"}, {"name": "Hat"}])}}), {})
    offers = json.loads(entry["home-hero"]["payload"]["Offers"]["value"])
    assert [set(offer) for offer in offers] == [{"offering_content", "offering_context", "dp_offering_id"}] * 2
    with pytest.raises(ValueError, match="at most 10 offerings"):
        Value.offerings([{}] * 11)


def test_the_context_of_a_fetch_is_accepted_by_events():
    emu = emulator()
    context = served(emu, {})["home-hero"]["experience_context"]
    assert ask(emu, "events", events(element(action(attributes=context)))).status == 200
    ((name, tally),) = emu.ledger.tallies.items()
    assert name == ("home-hero", "All Users", "1")
    assert (tally.served, tally.impressions, tally.clicks) == (1, 1, 0)


def test_dice_decide_for_visitors_without_any_identity():
    two = Experience(
        key="two-ways",
        audiences=(
            Audience(variations=(Variation(payload={"a": Value.of(1)}), Variation(payload={"a": Value.of(2)}))),
        ),
    )
    world = World(dice=0.4)
    emu = emulator((two,), world=world)
    assert served(emu, {})["two-ways"]["experience_context"]["moe_variation_id"] == "1"
    world.dice = 0.6
    assert served(emu, {})["two-ways"]["experience_context"]["moe_variation_id"] == "2"
