"""The journal: a restart keeps the ledger, and a torn line costs nothing that was acknowledged."""

import json

import pytest
from emulator.kit import action, ask, element, emulator, events, refused, served, uuid4

from moengage_personalize.emulator import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.ndjson"


@pytest.fixture
def start(path):
    """Starts an emulator over the same file, ending the one before."""
    journals = []

    def start():
        while journals:
            journals.pop().close()
        emu = emulator()
        journals.append(Journal(emu, path))
        return emu

    yield start
    for journal in journals:
        journal.close()


def busy(emu):
    once = action(moe_event_uuid=uuid4(1))
    ask(emu, "events", events(element(once, user_attributes={"tier": "gold"}), element(customer_id="asha@example.com")))
    ask(emu, "events", events(element(once, user_timezone_offset=3600)))
    served(emu, {"experience_key": ["home-hero", "else-where"], "identifiers": {"customer_id": "john@example.com"}})
    served(emu, {"customer_id": "john@example.com"})
    refused(emu, "fetch", {"DAY_OF_THE_WEEK": "x"})
    emu.trouble(status=503)
    asked = ask(emu, "metadata")
    assert asked.status == 200


def test_a_restart_keeps_everything(start):
    before = start()
    busy(before)
    after = start()
    assert json.loads(b"".join(after.ledger.as_json())) == json.loads(b"".join(before.ledger.as_json()))
    assert after.ledger.tallies == before.ledger.tallies
    assert after.profiles["john@example.com"] == {"tier": "gold"}


def test_a_uuid_from_before_the_restart_is_still_a_duplicate(start):
    once = action()
    ask(start(), "events", events(element(once)))
    emu = start()
    ask(emu, "events", events(element(once)))
    assert emu.ledger.counts.accepted == 1
    assert emu.ledger.counts.duplicates_identical == 1
    assert emu.ledger.requests[-1].number == 2


def test_a_torn_last_line_is_cut_off(start, path):
    busy(start())
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"request": {"num')
    emu = start()
    assert emu.ledger.counts.requests == 6
    assert path.read_bytes() == whole
    busy(emu)
    assert start().ledger.counts.requests == 12


def test_a_file_that_is_something_else_is_refused_and_not_touched(path):
    path.write_bytes(b"hello\n")
    with pytest.raises(ValueError, match=r"ledger\.ndjson:1: not a line of an emulator's journal"):
        Journal(emulator(), path)
    assert path.read_bytes() == b"hello\n"


def test_a_reset_empties_the_file(start, path):
    emu = start()
    busy(emu)
    emu.reset()
    assert path.read_bytes() == b""
    ask(emu, "events", events())
    assert start().ledger.counts.accepted == 1
