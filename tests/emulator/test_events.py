"""POST /v1/experiences/events, rule by rule (api-facts, 1.3 and 1.4)."""

import json

import pytest
from emulator.kit import CLICKED, CONTEXT, NOW, action, ask, element, emulator, events, refused, said, spoiled, uuid4


def test_accepted_events_are_answered_with_the_documented_body():
    reply = ask(emulator(), "events", events())
    assert reply.status == 200
    assert said(reply) == {
        "status": "success",
        "message": "Your request has been accepted and will be processed soon.",
        "req_id": "req-1",
    }


def test_an_accepted_action_is_kept_as_the_exact_text_that_came():
    emu = emulator()
    text = json.dumps(action(b_id="Ünder  Cart"), indent=3, ensure_ascii=False)
    body = '{ "elements" :[ {"customer_id":"a@b.c","actions" : [\n' + text + f" ,{json.dumps(action())}]}} ] }}"
    assert ask(emu, "events", body.encode()).status == 200
    assert emu.ledger.events[0].raw == text
    assert emu.ledger.counts.accepted == 2


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b'{"elements":[}', b'{"elements":[{"actions":[{]}]}', b"\xff{}"])
def test_a_body_that_is_no_json_is_a_400(body):
    refused(emulator(), "events", body)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"{}", {"elements": []}, {"elements": {}}, {"elements": [1]}])
def test_a_body_without_elements_is_a_400(body):
    refused(emulator(), "events", body)


def test_trailing_commas_and_trailing_text_are_no_json():
    good = json.dumps(events())
    for bad in (good + "x", good.replace("}]}]}", "}],}]}"), good.replace("}]}]}", "},]}]}"), good[:-1]):
        assert "JSON" in refused(emulator(), "events", bad.encode())


def test_nan_is_no_json():
    refused(emulator(), "events", json.dumps(events(element(user_attributes={"x": float("nan")}))).encode())


def test_a_hundred_elements_are_accepted_and_one_more_is_a_400():
    emu = emulator()
    assert ask(emu, "events", events(*(element() for _ in range(100)))).status == 200
    assert "at most 100" in refused(emu, "events", events(*(element() for _ in range(101))))


@pytest.mark.parametrize("bad", [..., "", 5, None])
def test_every_element_needs_a_customer_id(bad):
    assert refused(emulator(), "events", events(element(customer_id=bad))).endswith("customer_id")


@pytest.mark.parametrize("bad", [54_001, -54_001, "19800", 19800.5, True])
def test_a_timezone_offset_beyond_54000_seconds_is_a_400(bad):
    assert refused(emulator(), "events", events(element(user_timezone_offset=bad))).endswith("user_timezone_offset")


@pytest.mark.parametrize("good", [54_000, -54_000, 0, 19_800, ...])
def test_a_timezone_offset_up_to_54000_seconds_is_accepted(good):
    assert ask(emulator(), "events", events(element(user_timezone_offset=good))).status == 200


@pytest.mark.parametrize("bad", [..., [], {}, "x", [1]])
def test_every_element_needs_actions(bad):
    assert refused(emulator(), "events", events(element(actions=bad))).endswith("actions")


@pytest.mark.parametrize("bad", [..., "moe_personalization_message_shown", "SHOWN", 1])
def test_the_action_name_is_one_of_two_and_case_sensitive(bad):
    assert refused(emulator(), "events", events(element(action(action=bad)))).endswith("action")


@pytest.mark.parametrize(
    "bad",
    [
        ...,
        "",
        7,
        "aa886712-4537-17c1-b126-2686efda2e26",  # version 1
        "aa886712-4537-47c1-c126-2686efda2e26",  # another variant
        "aa886712453747c1b1262686efda2e26",
        "aa886712-4537-47c1-b126-2686efda2e26x",
    ],
)
def test_the_event_uuid_must_be_of_version_4(bad):
    assert refused(emulator(), "events", events(element(action(moe_event_uuid=bad)))).endswith("moe_event_uuid")


@pytest.mark.parametrize("bad", [..., None, -1, 1.5, "yesterday", True])
def test_the_event_time_is_integer_seconds(bad):
    for identity in ("identifiers", "flat"):
        body = events(element(action(event_time=bad)))
        assert refused(emulator(identity=identity), "events", body).endswith("event_time")


def test_an_iso_8601_event_time_is_what_only_the_older_documents_know():
    body = events(element(action(event_time="2026-11-23T18:00:00Z")))
    refused(emulator(), "events", body)
    assert ask(emulator(identity="flat"), "events", body).status == 200


def test_a_future_event_time_is_accepted_and_noted():
    emu = emulator()
    assert ask(emu, "events", events(element(action(event_time=int(NOW) * 1000)))).status == 200
    assert "milliseconds" in emu.ledger.requests[-1].notes[0]


@pytest.mark.parametrize("good", ["web", "android", "ios", "tv", "Web", "iOS", "TV", "Android"])
def test_the_platform_is_one_of_four_in_any_case(good):
    assert ask(emulator(), "events", events(element(action(platform=good)))).status == 200


@pytest.mark.parametrize("bad", ["windows", "", 5])
def test_an_unsupported_platform_is_a_400(bad):
    assert refused(emulator(), "events", events(element(action(platform=bad)))).endswith("platform")


def test_a_missing_platform_is_recorded_as_unknown():
    emu = emulator()
    assert ask(emu, "events", events(element(action(platform=...)))).status == 200
    assert "Unknown" in emu.ledger.requests[-1].notes[0]


@pytest.mark.parametrize(
    "missing", ["cid", "experience", "moe_locale_id", "moe_variation_id", "audience_name", "audience_id"]
)
def test_each_required_member_of_the_context_is_missed(missing):
    spoilt = action(attributes=spoiled(CONTEXT, {missing: ...}))
    assert refused(emulator(), "events", events(element(spoilt))).endswith("attributes")


def test_the_type_of_the_context_is_not_required():
    assert ask(emulator(), "events", events(element(action(attributes=spoiled(CONTEXT, {"type": ...}))))).status == 200


@pytest.mark.parametrize("bad", [..., None, "x", []])
def test_attributes_must_be_an_object(bad):
    assert refused(emulator(), "events", events(element(action(attributes=bad)))).endswith("attributes")


def test_b_id_is_accepted_inside_attributes_and_beside_them():
    inside = action(action=CLICKED, attributes={**CONTEXT, "b_id": "Add to Cart"})
    assert ask(emulator(), "events", events(element(inside, action(b_id="Add to Cart")))).status == 200
    assert refused(emulator(), "events", events(element(action(b_id=5)))).endswith("b_id")


def test_unknown_members_are_accepted_everywhere():
    body = events(element(action(widget_id="w1", attributes={**CONTEXT, "button_id": "b"}), note=1))
    assert ask(emulator(), "events", {**body, "more": True}).status == 200


def test_one_bad_element_fails_the_whole_request_and_nothing_of_it_is_kept():
    emu = emulator()
    refused(emu, "events", events(element(user_attributes={"tier": "gold"}), element(action(action="x"))))
    assert emu.ledger.counts.received == 0
    assert "john@example.com" not in emu.profiles


def test_an_unknown_customer_gets_a_profile_and_attributes_update_it():
    emu = emulator()
    ask(emu, "events", events(element(user_attributes={"tier": "gold", "name": "John"})))
    ask(emu, "events", events(element(user_attributes={"tier": "silver"})))
    assert emu.profiles["john@example.com"] == {"tier": "silver", "name": "John"}
    assert emu.ledger.counts.profiles_created == 1
    assert refused(emu, "events", events(element(user_attributes=[1]))).endswith("user_attributes")


@pytest.mark.parametrize("reserved", ["guest", "NULL", "0", "x", "user_id"])
def test_a_reserved_customer_id_is_accepted_and_noted(reserved):
    emu = emulator()
    assert ask(emu, "events", events(element(customer_id=reserved))).status == 200
    assert "reserves" in emu.ledger.requests[-1].notes[0]


def test_an_event_uuid_counts_once_however_often_it_comes():
    emu = emulator()
    once = action(moe_event_uuid=uuid4(1))
    for _ in range(3):
        assert ask(emu, "events", events(element(once))).status == 200
    assert emu.ledger.counts.accepted == 1
    assert emu.ledger.counts.duplicates_identical == 2
    assert len(emu.ledger.events) == 1


def test_the_same_uuid_with_other_content_is_told_apart():
    emu = emulator()
    once = action(moe_event_uuid=uuid4(1))
    ask(emu, "events", events(element(once), element({**once, "platform": "ios"})))
    ask(emu, "events", events(element(once, customer_id="asha@example.com")))
    ask(emu, "events", events(element({**once, "moe_event_uuid": uuid4(1).upper()})))
    assert emu.ledger.counts.duplicates_different == 3
    assert emu.ledger.counts.duplicates_identical == 0
    assert emu.ledger.counts.received == 4
