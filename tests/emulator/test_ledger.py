"""The ledger: exact counts, bounded lists, and what can be read from outside."""

import json

from emulator.kit import CLICKED, action, ask, element, emulator, events, request, uuid4
from hypothesis import given, strategies as st

from moengage_personalize.emulator import Ledger
from moengage_personalize.emulator._control import control
from moengage_personalize.emulator._messages import Streamed
from moengage_personalize.emulator._profiles import Profiles


def read(emu, path):
    reply = control(emu, request(f"/_emulator/{path}"))
    return b"".join(reply.chunks) if isinstance(reply, Streamed) else reply.body


def test_the_ledger_is_one_json_document():
    emu = emulator()
    once = action(moe_event_uuid=uuid4(1))
    ask(emu, "events", events(element(once), element(once, user_timezone_offset=19_800)))
    ask(emu, "fetch", {"experience_key": ["home-hero", "else-where"]})
    document = json.loads(read(emu, "ledger"))
    assert set(document) == {"requests", "events", "duplicates", "counts"}
    (event,) = document["events"]
    assert event["action"] == once
    assert json.loads(event["raw"]) == once
    assert event["customer_id"] == "john@example.com"
    assert event["request"] == 1
    assert [duplicate["identical"] for duplicate in document["duplicates"]] == [True]
    report, fetch = document["requests"]
    assert (report["elements"], report["actions"], report["duplicates"]) == (2, 2, 1)
    assert fetch["served"] == [["home-hero", "home-hero", "All Users", "1"]]
    assert fetch["unserved"] == [["else-where", "INVALID_EXPERIENCE_KEY"]]
    assert document["counts"] == json.loads(read(emu, "counts"))


def test_the_ledger_is_lines_of_json_too():
    emu = emulator()
    ask(emu, "events", events())
    lines = [json.loads(line) for line in read(emu, "ledger?format=ndjson").splitlines()]
    assert [line["kind"] for line in lines] == ["request", "event", "counts"]


def test_counts_tell_impressions_from_clicks():
    emu = emulator()
    ask(emu, "events", events(element(action(), action(action=CLICKED), action())))
    assert (emu.ledger.counts.impressions, emu.ledger.counts.clicks) == (2, 1)
    assert emu.ledger.counts.by_status == {"events 200": 1}


def test_lists_are_bounded_and_counts_are_not():
    emu = emulator(ledger=Ledger(max_requests=3, max_events=4, max_uuids=5))
    for number in range(10):
        ask(emu, "events", events(element(action(moe_event_uuid=uuid4(number)))))
    assert [record.number for record in emu.ledger.requests] == [8, 9, 10]
    assert [event.uuid for event in emu.ledger.events] == [uuid4(number) for number in (6, 7, 8, 9)]
    assert emu.ledger.counts.accepted == 10
    for number in (5, 4):  # 5 is still known, 4 is not
        ask(emu, "events", events(element(action(moe_event_uuid=uuid4(number)))))
    assert emu.ledger.counts.duplicates_identical + emu.ledger.counts.duplicates_different == 1
    assert emu.ledger.counts.accepted == 11


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["web", "ios"]), st.sampled_from(["a@b", "c@d"]))))
def test_what_was_received_is_accepted_or_a_duplicate(arrivals):
    emu, first, identical = emulator(), {}, 0
    for number, platform, customer in arrivals:
        sent = action(moe_event_uuid=uuid4(number), platform=platform)
        ask(emu, "events", events(element(sent, customer_id=customer)))
        identical += first.setdefault(number, (platform, customer)) == (platform, customer)
    counts = emu.ledger.counts
    assert counts.accepted == len(emu.ledger.events) == len(first)
    assert counts.duplicates_identical == identical - len(first)
    assert counts.received == counts.accepted + counts.duplicates_identical + counts.duplicates_different
    assert {event.uuid for event in emu.ledger.events} == {uuid4(number) for number in first}


def test_profiles_are_bounded_and_found_by_what_they_are_called_now():
    profiles = Profiles(limit=2)
    profiles.update("a", {"u_em": "a@example.com"})
    profiles.update("a", {"u_em": "new@example.com"})
    assert profiles.find(None, {"u_em": "a@example.com"}, ("u_em",)) is None
    assert profiles.find(None, {"u_em": "new@example.com"}, ("u_em",)) == "a"
    profiles.update("b", {"u_em": "new@example.com"})
    profiles.update("c", None)
    assert "a" not in profiles
    assert profiles.find(None, {"u_em": "new@example.com"}, ("u_em",)) == "b"


def test_an_action_of_several_lines_is_one_line_of_the_ledger():
    emu = emulator()
    ask(emu, "events", json.dumps(events(element(action(b_id="Zürich\n"))), indent=2, ensure_ascii=False).encode())
    event = json.loads(read(emu, "ledger?format=ndjson").splitlines()[1])
    assert event["action"]["b_id"] == "Zürich\n"
    assert "\n" in event["raw"]
    assert json.loads(read(emu, "ledger"))["events"] == [event]


def test_a_long_ledger_is_told_in_chunks_and_as_it_was_when_asked():
    emu = emulator()
    for _ in range(40):
        ask(emu, "events", events(element(*(action() for _ in range(10)))))
    asked = emu.ledger.as_json(), emu.ledger.as_ndjson()
    ask(emu, "events", events())
    emu.reset()
    document, lines = ([*chunks] for chunks in asked)
    assert min(len(document), len(lines)) > 5
    assert max(map(len, document + lines)) < 2 * 32_768
    whole = json.loads(b"".join(document))
    assert (len(whole["requests"]), len(whole["events"]), whole["counts"]["accepted"]) == (40, 400, 400)
    assert len(b"".join(lines).splitlines()) == 441


def test_an_empty_ledger_is_a_document_too():
    assert json.loads(read(emulator(), "ledger"))["events"] == []
    assert json.loads(read(emulator(), "ledger?format=ndjson"))["kind"] == "counts"
