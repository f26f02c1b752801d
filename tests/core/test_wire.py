"""The wire, out and in: sizes to the byte, contexts verbatim, replies of any shape."""

import contextlib
import json
import math
import pickle
import re

import pytest
from core.driving import batch_of
from core.kit import CLICKED, CONTEXT, SHOWN, WALL, numbers, offer, said, uuid
from hypothesis import assume, given, settings, strategies as st

from moengage_personalize import (
    Admission,
    BadReplyError,
    BatchPolicy,
    Experience,
    ExperienceMetadata,
    InSession,
    Reason,
)
from moengage_personalize.core import codec, wire
from moengage_personalize.core.buffer import Buffer
from moengage_personalize.core.wire import answers, errors, metadata

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
CONTEXTS = OBJECTS.map(lambda more: more | CONTEXT)
# Without orjson the standard library is tried twice, so that the names of the two cases stay.
_FIRST = (codec._orjson_dumps, codec.orjson.loads) if codec.orjson else (codec._stdlib_dumps, codec._stdlib_loads)
BACK_ENDS = [_FIRST, (codec._stdlib_dumps, codec._stdlib_loads)]


def reply(**experiences):
    return json.dumps({"experiences": experiences}).encode()


def read(served, key="hero", **more):
    return answers.read_experiences(json.dumps({"experiences": {key: served}} | more).encode(), [key])[key]


def decoded(value, data_type="string"):
    experience = read({"payload": {"it": {"value": value, "data_type": data_type}}, "experience_context": CONTEXT})
    return experience.undecodable.get("it", experience.payload.get("it"))


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    customer=TEXT.filter(bool),
    attributes=st.dictionaries(TEXT.filter(bool), JSON, max_size=3),
    offset=st.none() | st.integers(-54_000, 54_000),
    actions=st.lists(OBJECTS, min_size=1, max_size=3),
)
def test_the_predicted_size_of_an_element_is_the_produced_size(customer, attributes, offset, actions):
    encoded = wire.encode_attributes(attributes)
    name = codec.encode(customer, "it")
    bodies = [codec.encode(action, "it") for action in actions]
    element = wire.encode_element(name, encoded, offset, bodies)
    predicted = (
        wire.element_size(name, offset) + wire.attributes_size(encoded) + sum(map(len, bodies)) + len(bodies) - 1
    )
    assert len(element) == predicted
    found = json.loads(element)
    assert found["customer_id"] == customer
    assert found.get("user_timezone_offset") == offset
    assert found.get("user_attributes", {}) == attributes
    assert found["actions"] == actions
    assert len(wire.encode_events([element, element])) == wire.REQUEST_SIZE + 2 * predicted + 1


def test_no_attributes_take_no_bytes():
    assert wire.attributes_size(None) == wire.attributes_size({}) == 0


@st.composite
def batches(draw):
    count = draw(st.integers(1, 20))
    return batch_of(
        *range(count),
        customers=draw(st.integers(1, count)),
        attributes=draw(st.sets(st.integers(0, count - 1))),
        padding=draw(st.integers(0, 50)),
    )


@given(batch=batches())
def test_a_batch_is_as_large_as_it_says(batch):
    assert batch.size == len(batch.encode())
    assert batch.without_attributes().size == len(batch.without_attributes().encode())
    assert not batch.without_attributes().has_attributes


@given(batch=batches().filter(lambda batch: batch.count > 1))
def test_halves_hold_every_event_once_and_in_order(batch):
    left, right = batch.halves()
    assert numbers(left) + numbers(right) == numbers(batch)
    assert left.count - right.count in (0, 1)
    for half in (left, right):
        assert half.size == len(half.encode())
        for element in said(half):
            own = {f"of {int(action['moe_event_uuid'][-4:], 16)}" for action in element["actions"]}
            assert set(element.get("user_attributes", {})) <= own
    stripped = batch.without_attributes().halves()
    assert not any(half.has_attributes for half in stripped)


@given(batch=batches(), data=st.data())
def test_a_part_of_a_batch_holds_those_events_with_their_attributes(batch, data):
    records = list(batch.records)
    kept = set(data.draw(st.lists(st.sampled_from(records), unique_by=id, min_size=1)))
    part = batch.only(kept)
    assert list(part.records) == [record for record in records if record in kept]
    assert part.size == len(part.encode())
    assert len(part.elements) == len({record.lane for record in kept})
    names = {name for element in part.elements for name in element.attributes or {}}
    assert names == {name for record in kept for name in record.attributes or {}}


# ── contexts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(context=CONTEXTS)
@settings(max_examples=200)
@pytest.mark.parametrize("back_end", BACK_ENDS, ids=["orjson", "stdlib"])
def test_a_context_goes_back_exactly_as_it_came(back_end, context):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_dumps", back_end[0])
        patch.setattr(answers, "loads", back_end[1])
        experience = read({"payload": {}, "experience_context": context})
        assert experience.matched
        assert experience.context == context
        assert list(experience.context) == list(context)
        action = wire.encode_action(SHOWN, uuid(1), 1, "web", wire.context_of(experience))
        assert json.loads(action)["attributes"] == context
        assert wire.uuid_in(action) == uuid(1)
        assert wire.encode_context(context) == experience.wire_context


def test_the_uuid_of_an_action_is_its_own_whatever_its_context_says():
    context = f'{{"moe_event_uuid":"{uuid(2)}"}}'
    assert wire.uuid_in(wire.encode_action(SHOWN, uuid(1), 1, "web", context)) == uuid(1)


def test_a_context_is_encoded_once():
    experience = read({"payload": {}, "experience_context": CONTEXT})
    first = wire.context_of(experience)
    assert experience.wire_context is first


def test_changing_a_copy_of_the_context_changes_nothing_that_is_reported():
    experience = read({"payload": {}, "experience_context": CONTEXT | {"new": {"deep": [1]}}})
    copy = experience.context
    copy["new"]["deep"].append(2)
    copy["cid"] = "another"
    assert experience.context == CONTEXT | {"new": {"deep": [1]}}
    assert json.loads(wire.context_of(experience)) == CONTEXT | {"new": {"deep": [1]}}


def test_an_experience_that_was_not_served_has_nothing_to_report():
    experience = Experience(key="hero", reason=Reason.NO_MATCH, source="network")
    assert wire.context_of(experience) is Admission.UNMATCHED
    assert experience.wire_context is Admission.UNMATCHED
    assert experience.context == {}


@pytest.mark.parametrize(
    "name", ["cid", "experience", "moe_locale_id", "moe_variation_id", "audience_name", "audience_id"]
)
def test_a_served_context_without_what_is_documented_as_required_is_refused_and_does_not_raise(name):
    context = {key: value for key, value in CONTEXT.items() if key != name}
    assert wire.context_of(read({"payload": {}, "experience_context": context})) is Admission.REFUSED


def test_a_context_needs_no_type():
    context = {key: value for key, value in CONTEXT.items() if key != "type"}
    assert json.loads(wire.encode_context(context)) == context


@given(context=CONTEXTS, b_id=st.none() | TEXT.filter(bool), extra=OBJECTS)
def test_what_belongs_to_a_click_stands_beside_the_context(context, b_id, extra):
    extra = {name: value for name, value in extra.items() if name not in context and name != "b_id"}
    before = dict(context)
    found = json.loads(wire.encode_click_context(context, b_id, extra))
    assert found == context | extra | ({} if b_id is None else {"b_id": b_id})
    assert context == before


def test_a_click_on_a_context_that_has_a_b_id_already_takes_the_newer_one():
    assert json.loads(wire.encode_click_context(CONTEXT | {"b_id": "old"}, "new", None))["b_id"] == "new"
    assert json.loads(wire.encode_click_context(CONTEXT | {"b_id": "old"}, None, {"x": 1}))["b_id"] == "old"


# ── fetch, out ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_asked_once_and_in_order():
    assert wire.check_keys(["b", "a", "b"]) == ("b", "a")
    assert wire.check_keys(["k" * 50]) == ("k" * 50,)


@pytest.mark.parametrize("identity", ["flat", "identifiers", "both"])
def test_nobody_is_asked_for_without_an_identity(identity):
    fields = wire.fetch_fields(
        customer_id=None, user_identifiers=None, session=None, attributes=None, identity=identity
    )
    assert json.loads(wire.fetch_body(wire.encode_context_of_fetch(fields), ["hero"])) == {"experience_key": ["hero"]}
    assert json.loads(wire.fetch_body(wire.encode_context_of_fetch(fields), None)) == {}


@pytest.mark.parametrize("identity", ["identifiers", "both"])
def test_user_identifiers_stand_beside_or_without_a_customer_id(identity):
    def asked(customer_id):
        fields = wire.fetch_fields(
            customer_id=customer_id, user_identifiers={"u_em": "e"}, session=None, attributes=None, identity=identity
        )
        return json.loads(wire.fetch_body(wire.encode_context_of_fetch(fields), None))

    assert asked(None) == {"identifiers": {"user_identifiers": {"u_em": "e"}}}
    both = {"customer_id": "john"} if identity == "both" else {}
    assert asked("john") == both | {"identifiers": {"customer_id": "john", "user_identifiers": {"u_em": "e"}}}


@given(
    attributes=st.dictionaries(
        TEXT.filter(lambda name: name and name not in wire.asking._OURS), st.booleans() | st.integers(-9, 9) | TEXT
    )
)
def test_custom_attributes_travel_at_the_top(attributes):
    fields = wire.fetch_fields(
        customer_id=None, user_identifiers=None, session=InSession(), attributes=attributes, identity="both"
    )
    assert json.loads(wire.fetch_body(wire.encode_context_of_fetch(fields), ["hero"])) == attributes | {
        "experience_key": ["hero"]
    }


# ── fetch, in ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "data_type", "expected"),
    [
        ("Welcome", "string", "Welcome"),
        ("5", "string", "5"),
        ("", "string", ""),
        ("Welcome", None, "Welcome"),
        ({"a": 1}, "hologram", {"a": 1}),
        (5, "number", 5),
        (5.5, "number", 5.5),
        ("5", "number", 5),
        (" -5 ", "number", -5),
        ("5.50", "number", 5.5),
        ("1e3", "number", 1_000.0),
        (5, "float", 5.0),
        ("5", "float", 5.0),
        ("5.5", "float", 5.5),
        (True, "boolean", True),
        ("true", "boolean", True),
        (" False ", "boolean", False),
        ({"a": [1]}, "json", {"a": [1]}),
        ([1, 2], "json", [1, 2]),
        ('{"a": [1]}', "json", {"a": [1]}),
        ("[1, 2]", "json", [1, 2]),
        (None, "json", None),
        (7, "json", 7),
        (
            '[{"offering_content": {}, "dp_offering_id": "1"}]',
            "string",
            '[{"offering_content": {}, "dp_offering_id": "1"}]',
        ),
        ([{"offering_content": {}}], "json", [{"offering_content": {}}]),
        ('[{"offering_content": {}}]', "json", [{"offering_content": {}}]),
        ("five", "number", "not a number"),
        ("", "number", "not a number"),
        ("+5", "number", "not a number"),
        ("05", "number", "not a number"),
        ("5,5", "float", "not a float"),
        ("\u0665", "number", "not a number"),
        (True, "number", "not a number"),
        (None, "float", "not a float"),
        ([5], "number", "not a number"),
        ("1e999", "float", "not JSON"),
        ("yes", "boolean", "not a boolean"),
        (1, "boolean", "not a boolean"),
        (None, "boolean", "not a boolean"),
        ("{", "json", "not JSON"),
        ("NaN", "json", "not JSON"),
        ("[" * 3_000, "json", "not JSON"),
    ],
)
@pytest.mark.parametrize("loads", [loads for _, loads in BACK_ENDS], ids=["orjson", "stdlib"])
def test_a_value_is_decoded_by_its_data_type(monkeypatch, loads, value, data_type, expected):
    monkeypatch.setattr(answers, "loads", loads)
    found = decoded(value, data_type)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("variable", [{}, {"data_type": "string"}, "x", 5, None, []])
def test_a_variable_without_a_value_is_undecodable_and_costs_only_itself(variable):
    payload = {"it": variable, "other": {"value": "x", "data_type": "string"}}
    experience = read({"payload": payload, "experience_context": CONTEXT})
    assert (experience.payload, experience.undecodable, experience.matched) == (
        {"other": "x"},
        {"it": "no value"},
        True,
    )


def test_a_data_type_may_be_missing_or_anything():
    assert decoded("x", ["odd"]) == "x"
    assert read({"payload": {"it": {"value": 1}}, "experience_context": CONTEXT}).payload == {"it": 1}


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ({}, Reason.NO_MATCH),
        (None, Reason.NO_MATCH),
        ({"payload": {}}, Reason.NO_MATCH),
        ({"payload": {}, "experience_context": {}}, Reason.NO_MATCH),
        ({"payload": None, "experience_context": None}, Reason.NO_MATCH),
        ("odd", Reason.DECODE_ERROR),
        (5, Reason.DECODE_ERROR),
        ([], Reason.DECODE_ERROR),
        ({"payload": {"a": {"value": 1}}}, Reason.DECODE_ERROR),
        ({"payload": [1], "experience_context": CONTEXT}, Reason.DECODE_ERROR),
        ({"payload": {}, "experience_context": "x"}, Reason.DECODE_ERROR),
        ({"experience_context": CONTEXT}, Reason.DECODE_ERROR),
        ({"payload": {}, "experience_context": CONTEXT}, Reason.MATCHED),
        ({"payload": {"a": {"value": 1}}, "experience_context": {}}, Reason.MATCHED),
    ],
)
def test_what_was_served_is_told_from_what_was_not(served, reason):
    experience = read(served)
    assert (experience.reason, experience.matched, experience.source) == (reason, reason is Reason.MATCHED, "network")


def test_every_key_that_was_asked_has_an_entry_and_none_else():
    body = reply(
        hero={"payload": {}, "experience_context": CONTEXT}, other={"payload": {}, "experience_context": CONTEXT}
    )
    found = answers.read_experiences(body, ["hero", "Hero", "missing"])
    assert {key: entry.reason for key, entry in found.items()} == {
        "hero": Reason.MATCHED,
        "Hero": Reason.NO_MATCH,
        "missing": Reason.NO_MATCH,
    }
    assert list(answers.read_experiences(body, None)) == ["hero", "other"]
    assert answers.read_experiences(reply(), ["hero"])["hero"].reason is Reason.NO_MATCH


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("USER_IN_CAMPAIGN_CONTROL_GROUP", Reason.CAMPAIGN_CONTROL_GROUP),
        ("USER_IN_GLOBAL_CONTROL_GROUP", Reason.GLOBAL_CONTROL_GROUP),
        ("USER_NOT_IN_SEGMENT", Reason.NOT_IN_SEGMENT),
        ("INVALID_EXPERIENCE_KEY", Reason.INVALID_KEY),
        ("IN_VALID_EXPERIENCE_KEY", Reason.INVALID_KEY),
        ("MAX_LIMIT_BREACHED", Reason.LIMIT_BREACHED),
        ("EXPERIENCE_NOT_ACTIVE", Reason.NOT_ACTIVE),
        ("EXPERIENCE_EXPIRED", Reason.EXPIRED),
        ("PERSONALIZATION_FAILED", Reason.PERSONALIZATION_FAILED),
        ("SOMETHING_NEW", Reason.PERSONALIZATION_FAILED),
        (None, Reason.PERSONALIZATION_FAILED),
        ({}, Reason.PERSONALIZATION_FAILED),
    ],
)
def test_failures_become_the_reason_of_the_keys_they_name(named, reason):
    body = {"experiences": {}, "failures": [{"reason": named, "experienceKeys": ["hero", "spare"], "message": "m"}]}
    found = answers.read_experiences(json.dumps(body).encode(), ["hero", "other"])
    assert {key: entry.reason for key, entry in found.items()} == {"hero": reason, "other": Reason.NO_MATCH}


def test_a_failure_does_not_unmatch_what_was_served():
    served = {"payload": {}, "experience_context": CONTEXT}
    failures = [{"reason": "EXPERIENCE_EXPIRED", "experienceKeys": ["hero"]}]
    assert read(served, failures=failures).matched


@pytest.mark.parametrize(
    "failures", [None, {}, "x", [None], [5], [{}], [{"experienceKeys": "hero"}], [{"experienceKeys": [5, None]}], [[]]]
)
def test_odd_failures_are_passed_over(failures):
    assert read(None, failures=failures).reason is Reason.NO_MATCH


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the reply is not JSON"),
        (b"<html>", "the reply is not JSON"),
        (b'{"experiences": {}', "the reply is not JSON"),
        (b'"\xff"', "the reply is not JSON"),
        (b"[" * 100_000, "the reply is not JSON"),
        (b"[]", "the reply is not a JSON object"),
        (b"null", "the reply is not a JSON object"),
        (b"{}", "the reply has no experiences"),
        (b'{"experiences": []}', "the reply has no experiences"),
    ],
)
@pytest.mark.parametrize("loads", [loads for _, loads in BACK_ENDS], ids=["orjson", "stdlib"])
def test_a_reply_that_cannot_be_read_says_so_and_shows_nothing(monkeypatch, loads, body, message):
    monkeypatch.setattr(answers, "loads", loads)
    with pytest.raises(BadReplyError) as caught:
        answers.read_experiences(body, ["hero"])
    assert str(caught.value) == message


ODD = st.recursive(
    SCALARS | st.integers() | st.sampled_from(["hero", "true", "1", "[1]", "{", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "experiences payload experience_context hero value data_type failures reason experienceKeys metadata count "
                "experience_key experience_name status title description code error message".split()
            ),
            inner | st.sampled_from(["number", "float", "boolean", "json", "string"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    body=ODD
    | ODD.map(lambda odd: {"experiences": {"hero": odd}})
    | ODD.map(lambda odd: {"experiences": {"hero": {"payload": {"it": odd}, "experience_context": odd}}})
)
@settings(max_examples=300)
@pytest.mark.parametrize("loads", [loads for _, loads in BACK_ENDS], ids=["orjson", "stdlib"])
def test_whatever_json_the_reply_is_reading_it_raises_nothing_but_bad_reply(loads, body):
    data = json.dumps(body).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "loads", loads)
        patch.setattr(errors, "loads", loads)
        for keys in (["hero"], None):
            try:
                found = answers.read_experiences(data, keys)
            except BadReplyError:
                continue
            for entry in found.values():
                wire.context_of(entry)
                assert entry.get("it", 1.5) is not None
        with contextlib.suppress(BadReplyError):
            metadata.read_metadata(data)
        errors.read_error(data, data)


@given(body=st.binary(max_size=40))
def test_whatever_bytes_the_reply_is_reading_it_raises_nothing_but_bad_reply(body):
    for reading in (lambda: answers.read_experiences(body, None), lambda: metadata.read_metadata(body)):
        with contextlib.suppress(BadReplyError):
            reading()
    assert errors.read_error(body, b"{}") is not None


@pytest.mark.parametrize("loads", [loads for _, loads in BACK_ENDS], ids=["orjson", "stdlib"])
def test_numbers_beyond_a_double_make_a_bad_reply_or_an_undecodable_variable(monkeypatch, loads):
    monkeypatch.setattr(answers, "loads", loads)
    served = {"payload": {"it": {"value": "1" + "0" * 400, "data_type": "float"}}, "experience_context": CONTEXT}
    assert read(served).undecodable == {"it": "not JSON"}
    body = json.dumps({"experiences": {"hero": served}}).replace('"1000', "1000").replace('0", "data', '0, "data')
    with pytest.raises(BadReplyError):
        answers.read_experiences(body.encode(), ["hero"])


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statuses", "query"),
    [
        (None, ""),
        ("Active", "?status=Active"),
        (["Active", "Paused"], "?status=Active,Paused"),
        (iter(("Scheduled",)), "?status=Scheduled"),
    ],
)
def test_metadata_is_asked_by_status(statuses, query):
    assert metadata.metadata_target(statuses) == f"/v1/experiences/metadata{query}"


def test_metadata_is_read_by_key():
    entries = [
        {"experience_name": "Hero", "experience_key": "home-hero", "status": "Active"},
        {"experience_name": "Old", "experience_key": "old", "status": "Archived", "new": 1},
    ]
    found = metadata.read_metadata(json.dumps({"metadata": {"count": 7, "experiences": entries, "x": 1}}).encode())
    assert dict(found) == {
        "home-hero": ExperienceMetadata(name="Hero", key="home-hero", status="Active"),
        "old": ExperienceMetadata(name="Old", key="old", status="Archived"),
    }
    assert (found.count, len(found), repr(found)) == (7, 2, "<ExperiencesMetadata of 7>")
    assert metadata.read_metadata(b'{"metadata":{"experiences":[]}}').count == 0


def test_an_odd_entry_of_the_metadata_is_left_out_and_counted():
    good = {"experience_name": "Hero", "experience_key": "home-hero", "status": "Active"}
    found = metadata.read_metadata(
        json.dumps({"metadata": {"experiences": [7, good, {"experience_key": "x"}]}}).encode()
    )
    assert (list(found), found.count, found.unreadable) == (["home-hero"], 3, 2)


@pytest.mark.parametrize("body", [b"{}", b'{"metadata":[]}', b'{"metadata":{"experiences":7}}'])
def test_metadata_of_another_shape_is_a_bad_reply(body):
    with pytest.raises(BadReplyError, match=r"^the metadata cannot be read \(\w+\)$"):
        metadata.read_metadata(body)


def test_the_applications_own_cattrs_hooks_do_not_touch_the_metadata():
    import cattrs

    hook = cattrs.global_converter.get_structure_hook(metadata._MetadataReply)
    cattrs.register_structure_hook(metadata._MetadataReply, lambda *_: "theirs")
    try:
        assert metadata.read_metadata(b'{"metadata":{"experiences":[]}}').count == 0
    finally:
        cattrs.register_structure_hook(metadata._MetadataReply, hook)


# ── what an error says ───────────────────────────────────────────────────────────────────────────────────────────────

SENT = json.dumps(
    {
        "elements": [
            {
                "customer_id": "john@example.com",
                "user_attributes": {"name": "Dom\\User", "náme": 'quo"ted', "vip": True, "pin": 41_327},
                "actions": [{"action": CLICKED, "moe_event_uuid": uuid(1), "event_time": 5, "platform": "web"}],
            }
        ]
    }
).encode()


def error_text(text, sent=SENT):
    return errors.read_error(json.dumps({"description": text}).encode(), sent).description


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("john@example.com", "***"),
        ("customer_id 'john@example.com' is bad.", "customer_id '***' is bad."),
        ("customer_id=john@example.com;", "customer_id=***;"),
        ("JOHN@EXAMPLE.COM", "***"),
        ("john%40example.com", "***"),
        ("|john@example.com|", "***"),
        ("“john@example.com”", "***"),
        ('{\\"customer_id\\":\\"john@example.com\\"}', None),
        ("john@exam... is too long", "*** is too long"),
        ("mailto:john@example.com", "mailto:***"),
        ("name Dom\\User", "*** ***"),
        ('quo"ted', '***"***'),
        ("náme is no attribute", "*** is no attribute"),
        ("pin 41327", "*** ***"),
        (f"event {uuid(1)}", "event ***"),
        ("value True", "value ***"),
        ("line\nbreak\x00", "line break "),
        ("x" * 1_000, "x" * 400),
    ],
)
def test_what_the_request_carried_is_masked(text, shown):
    found = error_text(text)
    assert shown is None or found == shown
    assert "john" not in found.lower()
    assert "dom" not in found.lower()


@pytest.mark.parametrize(
    "text",
    [
        "elements - Validators Failed : Validator: Element, Errored Field: actions",
        "Invalid value for platform: unsupported platform",
        "MOE_PERSONALIZATION_MESSAGE_CLICKED is an action",
        "MoEngage Client not found",
        "user_timezone_offset should be between -54000 and 54000",
    ],
)
def test_moengages_own_words_are_kept(text):
    assert error_text(text) == text


def test_the_word_workspace_is_kept_whatever_the_workspace_is_called():
    body = json.dumps({"description": "The workspace DEMO_WORKSPACE is unknown: workspace=demo_workspace"}).encode()
    found = errors.read_error(body, b"", secrets=["DEMO_WORKSPACE"]).description
    assert found == "The workspace *** is unknown: workspace=***"


@given(
    customer_id=st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")) | st.sampled_from('a@.\\|é"'), min_size=4
    )
)
@settings(max_examples=300)
def test_a_customer_id_is_never_repeated(customer_id):
    assume(re.search(r"\w", customer_id))
    sent = codec.encode({"customer_id": customer_id}, "it")
    upper = customer_id.upper() if customer_id.isascii() else customer_id
    for spelling in (customer_id, upper, f"<{customer_id}>", customer_id[: len(customer_id) // 2 + 4]):
        assume(spelling.strip("<>") not in errors._VOCABULARY)
        assert spelling not in error_text(f"the id {spelling} is bad", sent)


@pytest.mark.parametrize(
    ("body", "title", "description", "code"),
    [
        (
            {"title": "Invalid Field Value", "description": "d", "code": "ABCDEFGH"},
            "Invalid Field Value",
            "d",
            "ABCDEFGH",
        ),
        ({"title": "Authentication required", "description": "d"}, "Authentication required", "d", None),
        ({"status": "fail", "error": {"message": "m", "type": "t", "request_id": "r"}}, "t", "m", None),
        ({"response_id": "r", "error": {"code": "c", "message": "m", "target": "t", "details": []}}, "t", "m", "c"),
        ({"error": "IP blocked", "message": "m"}, "IP blocked", "m", None),
        ({"title": 5, "description": None, "code": {}}, None, None, None),
        ({}, None, None, None),
        ([], None, None, None),
        ("text", None, None, None),
    ],
)
def test_an_error_is_read_in_each_of_its_shapes(body, title, description, code):
    found = errors.read_error(json.dumps(body).encode(), b"")
    assert (found.title, found.description, found.code) == (title, description, code)


@pytest.mark.parametrize("body", [b"", b"<html>502 Bad Gateway</html>", b"\xff\xfe", b"[" * 100_000])
def test_an_error_that_is_no_json_says_nothing(body):
    assert errors.read_error(body, SENT) == errors.ErrorText()


# ── what an Experience hands out ─────────────────────────────────────────────────────────────────────────────────────


def served(**payload):
    return Experience(key="hero", reason=Reason.MATCHED, source="network", payload=payload, context=CONTEXT)


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("Hi", "Welcome", "Hi"),
        ("Hi", None, "Hi"),
        (5, "Welcome", "Welcome"),
        (None, "Welcome", "Welcome"),
        (None, None, None),
        (5, 1, 5),
        (5.0, 1, 1),
        (5, 1.0, 5.0),
        (5.5, 1.0, 5.5),
        (True, 1, 1),
        (True, 1.0, 1.0),
        (1, True, True),
        (False, True, False),
        ({"a": 1}, {}, {"a": 1}),
        ([1], [], [1]),
        ([1], {}, {}),
        ("x", [], []),
        (True, object, object),
    ],
)
def test_get_returns_a_value_of_its_defaults_type_or_the_default(value, default, expected):
    found = served(it=value).get("it", default)
    assert found == expected
    assert type(found) is type(expected)


@given(value=JSON, default=JSON.filter(lambda value: value is not None))
def test_what_get_returns_is_of_its_defaults_type(value, default):
    assert type(served(it=value).get("it", default)) is type(default)
    assert served().get("it", default) is default


def test_get_takes_subclasses_of_the_defaults_type():
    class Text(str):
        __slots__ = ()

    assert served(it=Text("x")).get("it", "default") == "x"


def test_reprs_and_errors_show_no_content():
    experience = served(Title="secret title")
    assert repr(experience) == "<Experience 'hero' matched, 1 variables from network>"
    buffer = Buffer(BatchPolicy())
    offer(buffer, 1, "john@example.com", attributes={"name": "John"})
    batch = buffer.take(WALL)
    shown = repr([buffer, batch, batch.elements, list(batch.records), list(buffer.lanes()), InSession(user_agent="UA")])
    for secret in ("john", "John", uuid(1), "UA", "name"):
        assert secret not in shown


def test_an_experience_survives_pickling_whole():
    experience = served(Title="Hi")
    wire.context_of(experience)
    copy = pickle.loads(pickle.dumps(experience))
    assert copy == experience
    assert copy.wire_context == experience.wire_context
    assert math.isclose(copy.age, 0.0)
