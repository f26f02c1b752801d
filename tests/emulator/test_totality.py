"""Whatever a client sends is answered, and what was refused has changed nothing."""

import json

import pytest
from emulator.kit import action, ask, element, emulator, events, request, said
from hypothesis import given, strategies as st

from moengage_personalize.emulator._messages import Request

TEXT = st.text(max_size=8) | st.sampled_from(["john@example.com", "Monday", "07", "home-hero", "\ud800", "web"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
FIELDS = [
    *("customer_id", "identifiers", "user_identifiers", "experience_key", "DAY_OF_THE_WEEK", "TIME_OF_THE_DAY"),
    *("USER_IP_ADDRESS", "USER_AGENT", "elements", "actions", "action", "moe_event_uuid", "event_time", "platform"),
    *("attributes", "b_id", "user_attributes", "user_timezone_offset", "cid", "experience", "audience_name"),
]
SPOILT = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)


def spoil(emu, path, body):
    before = (len(emu.ledger.events), len(emu.profiles), emu.ledger.counts.received)
    reply = ask(emu, path, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert reply.status in {200, 400}
    answer = said(reply)
    if reply.status == 400:
        assert {"title", "description"} <= set(answer)
        assert (len(emu.ledger.events), len(emu.profiles), emu.ledger.counts.received) == before
    json.loads(b"".join(emu.ledger.as_json()))


@given(SPOILT | VALUES)
def test_any_fetch_is_answered(body):
    for identity in ("identifiers", "flat", "either"):
        spoil(emulator(identity=identity), "fetch", body)


@given(SPOILT, SPOILT, SPOILT)
def test_any_events_are_answered(top, middle, bottom):
    spoil(emulator(), "events", {**events(element({**action(), **bottom}, **middle)), **top})


@given(st.binary(max_size=40))
def test_any_bytes_are_answered(body):
    for path in ("fetch", "events"):
        spoil(emulator(), path, body)


@given(
    st.binary(max_size=20), st.dictionaries(st.sampled_from([b"authorization", b"moe-appkey"]), st.binary(max_size=20))
)
def test_any_query_and_any_headers_are_answered(query, headers):
    asked = request("metadata")
    spoilt = Request(method="GET", path=asked.path, query=query, headers={**asked.headers, **headers})
    assert emulator().handle(spoilt).status in {200, 400, 401}


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/experiences/", "/v1/experiences/fetch/", "/V1/experiences/fetch"]
)
def test_any_other_path_is_a_404(path):
    assert emulator().handle(Request(method="POST", path=path)).status == 404
