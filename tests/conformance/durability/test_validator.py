"""What settles up with the ledger finds what there is to find. (Quick: nobody is killed here.)"""

import hashlib
import json

import pytest
from conformance.durability import validator


def action(number, *, event_time=1_700_000_000, text='{[{["\\'):
    """An action's bytes."""
    context = {"label": f"event {number}", "text": text}
    return json.dumps({"moe_event_uuid": f"uuid-{number}", "event_time": event_time, "attributes": context}).encode()


def request(*events, status=200):
    """A line of the ledger; the events are customers and actions."""
    elements = b",".join(
        b'{"customer_id":%b,"user_attributes":{"a":[{"b":[{}]}]},"actions":[%b]}' % (json.dumps(customer).encode(), raw)
        for customer, raw in events
    )
    return {"status": status, "body": (b'{"elements":[%b]}' % elements).decode("latin-1")}


def notes(number, customer="Zoë"):
    digest = hashlib.sha256(action(number)).hexdigest()
    said = {"customer": customer, "sha256": digest}
    when = {"earliest": 1_700_000_000, "latest": 1_700_000_000, "label": f"event {number}"}
    return [{"offered": f"uuid-{number}", **said}, {"accepted": f"uuid-{number}", **said, **when}]


NOTES = [[*notes(1), *notes(2)], notes(3, "Bob")]
WHOLE = [request(("Zoë", action(1)), ("Bob", action(3))), request(("Zoë", action(2)))]


def problems(*ledger, process_notes=NOTES):
    return [problem.partition(":")[0] for problem in validator.account(ledger, process_notes).problems]


def test_when_everything_accepted_came_as_it_was_nothing_is_wrong():
    assert problems(*WHOLE) == []


def test_what_comes_again_byte_for_byte_is_a_duplicate_and_nothing_wrong():
    account = validator.account([*WHOLE, WHOLE[0], request(("Zoë", action(2)), status=503)], NOTES)
    assert (account.problems, account.duplicates, len(account.delivered)) == ([], 2, 3)


def test_what_was_offered_and_not_accepted_may_come_or_not():
    offered = [notes(4)[0]]
    assert problems(*WHOLE, process_notes=[*NOTES, offered]) == []
    assert problems(*WHOLE, request(("Zoë", action(4))), process_notes=[*NOTES, offered]) == []


def test_an_event_that_never_came_is_lost():
    assert problems(WHOLE[0]) == ["lost"]


def test_an_event_that_was_only_refused_is_lost():
    assert problems(WHOLE[0], request(("Zoë", action(2)), status=503)) == ["lost"]


@pytest.mark.parametrize("at", range(len(action(2))))
def test_an_altered_byte_is_found_wherever_it_is(at):
    raw = bytearray(action(2))
    raw[at] ^= 1
    try:
        found = problems(WHOLE[0], request(("Zoë", bytes(raw))))
    except (ValueError, KeyError, AssertionError):  # not what a request looks like
        return
    assert "altered" in found or "foreign" in found


def test_an_altered_time_is_found():
    late = action(2, event_time=1_700_000_001)
    assert problems(WHOLE[0], request(("Zoë", late))) == ["altered", "event_time"]


def test_a_time_that_was_altered_before_the_event_was_journaled_is_found():
    late = action(2, event_time=1_700_000_001)
    digest = hashlib.sha256(late).hexdigest()
    said = [{**line, "sha256": digest} for line in notes(2)]
    assert problems(WHOLE[0], request(("Zoë", late)), process_notes=[*NOTES, said]) == ["event_time"]


def test_somebody_elses_event_is_found():
    assert problems(WHOLE[0], request(("Bob", action(2)))) == ["altered", "another event"]


def test_one_of_two_deliveries_that_differs_is_found():
    assert problems(*WHOLE, request(("Zoë", action(2, text="other")))) == ["altered", "duplicates differ"]


def test_an_event_that_nobody_offered_is_found():
    assert problems(*WHOLE, request(("Zoë", action(9)))) == ["foreign"]
    assert problems(*WHOLE, request(("Zoë", action(9)), status=503)) == ["foreign"]


def test_a_customers_events_out_of_order_are_found():
    assert problems(WHOLE[1], WHOLE[0]) == ["order"]


def test_what_was_cut_off_was_not_said(tmp_path):
    file = tmp_path / "notes"
    file.write_bytes(b'{"offered": "a"}\n{"accepted"')
    assert validator.lines(file) == [{"offered": "a"}]
