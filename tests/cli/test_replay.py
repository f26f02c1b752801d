"""`replay`: what counts as a line, what is told of one that does not, and where a second start goes on."""

import asyncio
import fcntl
import gzip
import json
import os
import sys
import threading
from collections import Counter

import pytest
from cli.kit import line_of, numbers
from emulator.kit import CLICKED
from hypothesis import HealthCheck, given, settings, strategies as st

from moengage_personalize.cli import _lines, _patience, _replaying, _source
from moengage_personalize.cli._aside import off_the_loop
from moengage_personalize.cli._checkpoint import Checkpoint, State
from moengage_personalize.cli._lines import BadLineError, event_of
from moengage_personalize.cli._source import Source
from moengage_personalize.emulator import Emulator, serve_in_thread


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_source, "_LINES", 7)


@pytest.fixture
def events(tmp_path):
    """Writes lines into a file, and returns it."""

    def write(*lines, end="\n"):
        path = tmp_path / "events.ndjson"
        path.write_text("\n".join(lines) + end, encoding="utf-8")
        return path

    return write


def state_of(path):
    return json.loads(path.with_name(f"{path.name}.replay").read_text())


def rewind(path, **changes):
    """The state as a run would have left it that was killed earlier."""
    state = path.with_name(f"{path.name}.replay")
    state.write_text(json.dumps({**state_of(path), **changes}))


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_line_arrives_once_under_a_uuid_of_its_own(run, server, events, small_blocks):
    path = events(*map(line_of, range(100)))
    done = run("replay", path, "--json")
    assert done.status == 0
    assert done.json() == {
        "lines": 100, "delivered": 100, "duplicate": 0, "rejected": 0, "bad": 0, "done": True,
        "offset": path.stat().st_size, "problems": [],
    }  # fmt: skip
    arrived = numbers(server.emulator)
    assert Counter(number for number, _ in arrived) == Counter(range(100))
    assert len({uuid for _, uuid in arrived}) == 100


def test_an_event_is_what_its_line_says(run, server, events):
    uuid = "AA886712-4537-47c1-b126-00000000000A"
    extra = {"user_attributes": {"tier": "gold"}, "user_timezone_offset": 19_800, "moe_event_uuid": uuid}
    line = json.loads(line_of(1, action=CLICKED, platform="IOS", **extra))
    line["attributes"]["b_id"] = "cta"
    assert run("replay", events(json.dumps(line))).status == 0
    (event,) = server.emulator.ledger.events
    assert (event.customer_id, event.uuid) == ("customer-1", uuid.lower())
    assert (event.user_attributes, event.user_timezone_offset) == ({"tier": "gold"}, 19_800)
    action = event.action
    assert (action["action"], action["platform"], action["event_time"]) == (CLICKED, "ios", line["event_time"])
    assert action["attributes"] == line["attributes"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        (line_of(1, customer_id=...), "customer_id is missing"),
        (line_of(1, event_time=..., attributes=...), "event_time, attributes is missing"),
        (line_of(1, customer_id=7), "customer_id must be text"),
        (line_of(1, action="SHOWN"), "action must be MOE_PERSONALIZATION_MESSAGE_SHOWN or"),
        (line_of(1, action=["x"]), "action must be"),
        (line_of(1, event_time="2026-11-23T00:00:00Z"), "whole epoch seconds"),
        (line_of(1, event_time=True), "whole epoch seconds"),
        (line_of(1, event_time=1_795_459_200_000), "looks like milliseconds"),
        (line_of(1, platform="fridge"), "platform must be"),
        (line_of(1, attributes=[]), "experience_context"),
        (line_of(1, attributes={"cid": "x"}), "lacks experience"),
        (line_of(1, moe_event_uuid="no"), "version 4 UUID"),
        (line_of(1, user_timezone_offset=60_000), "-54000 to 54000"),
        (line_of(1, surname="Doe"), "a member that no event has"),
        (line_of(1, attributes={**json.loads(line_of(1))["attributes"], "x": "y" * 60_000}), "larger than a request"),
    ],
)
def test_a_line_that_is_no_event_is_told_by_number_and_the_others_arrive(line, words, run, server, events, tmp_path):
    path, rejects = events(line_of(1), "", line, line_of(3)), tmp_path / "rejects.ndjson"
    done = run("replay", path, "--rejects", rejects, "--json")
    assert (done.status, done.json()["bad"], done.json()["delivered"]) == (1, 1, 2)
    (problem,) = done.json()["problems"]
    assert problem["line"] == 3
    assert words in problem["why"]
    assert done.err == f"moengage-personalize: line 3: {problem['why']}\n"
    assert rejects.read_text() == f"{line}\n"


def test_no_complaint_repeats_what_a_line_says(run, server, events):
    canary = "canary-customer"
    lines = (line_of(1, customer_id=canary, event_time=canary), line_of(1, **{canary: 1}), f'{{"{canary}"')
    done = run("replay", events(*lines, line_of(1, customer_id={canary: 1}), line_of(2, platform=canary)))
    assert done.status == 1
    assert "canary" not in done.out + done.err


def test_many_bad_lines_are_counted_and_the_first_are_told(run, server, events):
    done = run("replay", events(*["no"] * 50), "--json")
    assert (done.json()["bad"], len(done.json()["problems"])) == (50, _replaying.TOLD)
    assert "and 30 more lines" in done.err


def test_a_line_without_an_end_in_sight_is_passed_over(run, server, events, monkeypatch):
    monkeypatch.setattr(_source, "LONGEST", 1_000)
    done = run("replay", events(line_of(1), "x" * 5_500, line_of(3)), "--json")
    assert (done.json()["delivered"], done.json()["problems"]) == (
        2,
        [{"line": 2, "why": "it is longer than any event may be"}],
    )


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_a_line(run, server, tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(line_of, range(3))).encode())
    assert run("replay", path, "--json").json()["delivered"] == 3


def test_the_same_uuid_twice_is_a_duplicate_and_sent_once(run, server, events):
    twin = line_of(1, moe_event_uuid="aa886712-4537-47c1-b126-000000000001")
    done = run("replay", events(twin, twin), "--json")
    assert (done.status, done.json()["delivered"], done.json()["duplicate"]) == (0, 1, 1)
    assert server.emulator.ledger.counts.received == 1


def test_what_moengage_refuses_is_told_by_number_and_kept(run, server, events, tmp_path, small_blocks):
    poisoned = {**json.loads(line_of(20))["attributes"], "poison": 1}
    lines = [line_of(number) if number != 20 else line_of(20, attributes=poisoned) for number in range(40)]
    server.emulator.trouble(endpoints=("events",), poison="poison")
    rejects = tmp_path / "rejects.ndjson"
    done = run("replay", events(*lines), "--rejects", rejects, "--json")
    assert (done.status, done.json()["delivered"], done.json()["rejected"]) == (1, 39, 1)
    assert done.json()["problems"] == [{"line": 21, "why": "MoEngage refused it"}]
    assert rejects.read_text() == lines[20] + "\n"


def test_what_was_refused_is_not_remembered_for_ever(run, server, events, monkeypatch):
    kept, note = [], _replaying._note

    def noting(loss, refused):
        note(loss, refused)
        kept.append(refused)

    monkeypatch.setattr(_replaying, "_note", noting)
    poisoned = {**json.loads(line_of(1))["attributes"], "poison": 1}
    server.emulator.trouble(endpoints=("events",), poison="poison")
    assert run("replay", events(line_of(0), line_of(1, attributes=poisoned)), "--json").json()["rejected"] == 1
    assert kept == [set()]


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_compressed_file_is_a_file(run, server, tmp_path, small_blocks):
    path = tmp_path / "events.gz"
    path.write_bytes(gzip.compress("\n".join(map(line_of, range(30))).encode()))
    assert run("replay", path, "--json").json()["delivered"] == 30


def test_a_compressed_file_that_ends_too_early_is_delivered_as_far_as_it_goes(run, server, tmp_path, small_blocks):
    whole = gzip.compress("\n".join(map(line_of, range(300))).encode())
    path = tmp_path / "events.gz"
    path.write_bytes(whole[: len(whole) // 2])
    done = run("replay", path, "--json")
    assert done.status == 4
    assert "ends too early" in done.err
    assert server.emulator.ledger.counts.accepted == done.json()["delivered"] > 100
    path.write_bytes(whole)
    assert run("replay", path, "--json").json()["delivered"] == 300
    assert server.emulator.ledger.counts.duplicates_identical == 0


@pytest.mark.parametrize("place", [0, 300])
def test_a_damaged_compressed_file_is_trouble_of_this_machine(place, run, server, tmp_path):
    whole = bytearray(gzip.compress("\n".join(map(line_of, range(300))).encode()))
    whole[10 + place : 40 + place] = b"\xff" * 30
    path = tmp_path / "events.gz"
    path.write_bytes(whole)
    assert run("replay", path).status == 4


def test_stdin_is_read_to_its_end(run, server, events):
    path = events(*map(line_of, range(20)))
    kept = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
        done = run("replay", "-", "--json")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert (done.status, done.json()["delivered"]) == (0, 20)
    assert list(path.parent.iterdir()) == [path], "no state is kept for it"


def test_an_empty_file_is_done(run, server, events):
    assert run("replay", events(end=""), "--json").json()["done"]


def test_a_last_line_that_is_still_being_written_is_not_passed_over(run, server, events):
    half = line_of(2)[:30]
    path = events(line_of(0), line_of(1), half, end="")
    done = run("replay", path, "--json")
    assert (done.status, done.json()["delivered"], done.json()["bad"], done.json()["done"]) == (1, 2, 0, False)
    assert "may still be written" in done.err
    with path.open("a") as file:
        file.write(line_of(2)[30:] + "\n" + line_of(3))
    assert run("replay", path, "--json").json()["delivered"] == 4
    assert Counter(number for number, _ in numbers(server.emulator)) == Counter(range(4))


@given(
    sizes=st.lists(st.integers(0, 40), max_size=30),
    lines=st.integers(1, 5),
    bytes_=st.integers(1, 200),
    ended=st.booleans(),
    zipped=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_from_the_end_of_any_block_reading_goes_on_with_the_next_line(
    sizes, lines, bytes_, ended, zipped, tmp_path_factory
):
    path = tmp_path_factory.mktemp("source") / "file"
    texts = [b"%d" % number + b"x" * size for number, size in enumerate(sizes)]
    content = b"\n".join(texts) + (b"\n" if ended and texts else b"")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_source, "_LINES", lines)
        patched.setattr(_source, "_BYTES", bytes_)
        with Source(str(path)) as source:
            blocks = list(iter(source.block, None))
        assert [line.text for block in blocks for line in block.lines] == texts
        assert [line.number for block in blocks for line in block.lines] == list(range(1, len(texts) + 1))
        for place, block in enumerate(blocks):
            with Source(str(path)) as again:
                again.go_to(block.end, block.lines[-1].number)
                rest = [line for each in iter(again.block, None) for line in each.lines]
            assert rest == [line for each in blocks[place + 1 :] for line in each.lines]


# ── going on ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_start_has_nothing_left_to_do(run, server, events, small_blocks):
    path = events(*map(line_of, range(20)))
    first = run("replay", path, "--json").json()
    done = run("replay", path, "--json")
    assert (done.status, done.json()) == (0, first)
    assert server.emulator.ledger.counts.received == 20


def test_a_file_that_has_grown_is_gone_on_with(run, server, events):
    path = events(*map(line_of, range(20)))
    run("replay", path)
    with path.open("a") as file:
        file.write("".join(line_of(number) + "\n" for number in range(20, 30)))
    assert run("replay", path, "--json").json()["delivered"] == 30
    assert server.emulator.ledger.counts.received == 30


def test_what_is_repeated_has_the_same_uuid_and_the_same_bytes(run, server, events):
    path = events(*map(line_of, range(20)))
    run("replay", path)
    assert run("replay", path, "--restart", "--json").json()["delivered"] == 20
    counts = server.emulator.ledger.counts
    assert (counts.accepted, counts.duplicates_identical, counts.duplicates_different) == (20, 20, 0)


def test_a_line_has_its_uuid_from_the_first_line_its_number_and_its_text():
    text = line_of(1).encode()
    uuid = event_of(text, 7, "identity").event_uuid
    assert event_of(text, 7, "identity").event_uuid == uuid
    others = {
        event_of(text, 8, "identity").event_uuid,
        event_of(text, 7, "another").event_uuid,
        event_of(line_of(2).encode(), 7, "identity").event_uuid,
    }
    assert len(others | {uuid}) == 4
    with pytest.raises(BadLineError):
        event_of(b"\xff", 1, "identity")


def test_rejects_that_a_killed_run_wrote_beyond_its_state_are_not_kept_twice(run, server, events, tmp_path):
    path, rejects = events(line_of(0), "bad", line_of(2)), tmp_path / "rejects"
    run("replay", path, "--rejects", rejects)
    rewind(path, offset=0, lines=0, delivered=0, bad=0, rejects_bytes=0, done=False)
    assert run("replay", path, "--rejects", rejects, "--json").json()["bad"] == 1
    assert rejects.read_text() == "bad\n"


def test_the_state_of_another_file_is_refused(run, server, events):
    path = events(line_of(1))
    run("replay", path)
    path.write_text(line_of(2))
    done = run("replay", path)
    assert done.status == 2
    assert "another file" in done.err
    assert run("replay", path, "--restart").status == 0


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 1, "x": 2}', "{"])
def test_a_state_that_is_none_is_refused(content, run, server, events):
    path = events(line_of(1))
    path.with_name("events.ndjson.replay").write_text(content)
    assert run("replay", path).status == 2


def test_a_file_that_has_shrunk_is_refused(run, server, events):
    path = events(line_of(1), line_of(2))
    run("replay", path)
    path.write_text(line_of(1) + "\n")
    done = run("replay", path)
    assert done.status == 2
    assert "less of it" in done.err


def test_two_runs_at_once_of_one_file_are_refused(run, server, events):
    path = events(line_of(1))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = run("replay", path)
    assert done.status == 2
    assert "another process" in done.err


def test_the_state_is_replaced_whole_and_rejects_come_first(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "state", tmp_path / "rejects")
    saved = checkpoint.save(State(identity="x", offset=1), [b"one", b"two"])
    assert saved.rejects_bytes == 8

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(State(identity="x", offset=2, rejects_bytes=8), [b"three"])
    assert checkpoint.load("x", restart=False) == saved
    assert (tmp_path / "rejects").read_bytes() == b"one\ntwo\n"


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_outage_is_waited_for(run, server, events, small_blocks):
    server.emulator.trouble(endpoints=("events",), status=503, duration=0.4)
    done = run("replay", events(*map(line_of, range(50))), "--json")
    assert (done.status, done.json()["delivered"]) == (0, 50)
    assert server.emulator.ledger.counts.accepted == 50


def test_without_progress_it_gives_up_and_goes_on_the_next_time(run, server, events, small_blocks):
    path = events(*map(line_of, range(50)))
    server.emulator.trouble(endpoints=("events",), status=503)
    done = run("replay", path, "--patience", "0.3", "--json")
    assert (done.status, done.json()["lines"], done.json()["done"]) == (3, 0, False)
    assert "given up after line 0" in done.err
    server.emulator.troubles.clear()
    assert run("replay", path, "--json").json()["delivered"] == 50
    assert server.emulator.ledger.counts.accepted == 50


def test_refused_credentials_end_it_with_a_usage_error(run, server, events, monkeypatch):
    monkeypatch.setattr(_patience, "MISCONFIGURED_FOR", 0.3)
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", "wrong")
    done = run("replay", events(line_of(1)), "--json")
    assert (done.status, done.json()["delivered"]) == (2, 0)
    assert "refuses the credentials" in done.err


def test_a_client_that_is_switched_off_replays_nothing(run, server, events, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_DISABLED", "1")
    assert run("replay", events(line_of(1))).status == 2
    assert server.emulator.ledger.counts.requests == 0


def test_a_state_that_cannot_be_written_is_trouble_of_this_machine(run, server, events):
    path = events(line_of(1))
    done = run("replay", path, "--state", path.parent / "nowhere" / "state")
    assert done.status == 4
    assert "No such file" in done.err


def test_progress_is_told_on_stderr(run, server, events, monkeypatch, small_blocks):
    monkeypatch.setattr("moengage_personalize.cli._progress.EVERY", 0.0)
    done = run("replay", events(*map(line_of, range(50))))
    assert "50 lines, 100 %" in done.err
    assert "a second" in done.err
    assert done.out == "lines\tdelivered\tduplicate\trejected\tbad\tdone\n50\t50\t0\t0\t0\ttrue\n"


def test_progress_is_told_of_each_block_though_all_of_them_are_settled_before_anybody_waits(
    run, server, events, monkeypatch, small_blocks
):
    async def at_once(client, timeout):
        pass

    monkeypatch.setattr("moengage_personalize.cli._progress.EVERY", 0.0)
    monkeypatch.setattr("moengage_personalize.AsyncPersonalizeClient.flush", at_once)
    done = run("replay", events(*map(line_of, range(50))))
    assert done.err.count("a second") >= 50 / 7


@pytest.mark.anyio
async def test_a_read_that_never_ends_holds_up_nobody():
    waiting = asyncio.create_task(off_the_loop(threading.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "moengage-personalize-replay")


def test_orjson_and_the_standard_library_read_the_same_lines(monkeypatch):
    text = line_of(1).encode()
    found = event_of(text, 1, "x")
    monkeypatch.setitem(sys.modules, "orjson", None)
    monkeypatch.setattr(_lines, "_loads", _lines._decoder())
    assert _lines._loads is json.loads
    assert event_of(text, 1, "x") == found


def test_a_workspace_that_refuses_everything_holds_events_and_says_so(run, events, monkeypatch):
    monkeypatch.setattr(_patience, "MISCONFIGURED_FOR", 0.3)
    emulator = Emulator()
    with serve_in_thread(emulator) as server:
        for name, value in emulator.exports.items():
            monkeypatch.setenv(name, value)
        emulator.trouble(endpoints=("events",), status=400)
        done = run("replay", events(line_of(1), line_of(2)), "--json")
        assert server.emulator.ledger.counts.accepted == 0
    assert (done.status, done.json()["lines"]) == (2, 0)
    assert "refused every event so far" in done.err
