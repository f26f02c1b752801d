"""`spool`: looking into a directory beside those who use it, and doing something about what lies there."""

import asyncio
import os

import pytest
from emulator.kit import CONTEXT
from hypothesis import given, strategies as st

from moengage_personalize import AsyncPersonalizeClient, RetryPolicy, event_uuid_for
from moengage_personalize.cli._spool import encoded_customer
from moengage_personalize.core.codec import encode
from moengage_personalize.spool import DeadLetter, DiskSpool, SpoolDirectoryError, SpoolFile, inspect_spool

PERSON = "canary@example.com"


def report(directory, *numbers, **options):
    """A process that accepts events while MoEngage is down, and ends."""

    async def work():
        options.setdefault("retrying", RetryPolicy(initial=5, maximum=10))
        async with AsyncPersonalizeClient(
            "W", "k", base_url="https://127.0.0.1:9", spool=DiskSpool(directory), **options
        ) as client:
            for number in numbers:
                client.track_click(
                    {**CONTEXT, "number": number, f"only-{number}": True},
                    customer_id=PERSON if number % 2 else "somebody",
                    event_uuid=event_uuid_for("test", number),
                    user_attributes={"té\tr": ["a", number]},
                    user_timezone_offset=19_800,
                    b_id="cta",
                )
            await client.aclose(0)

    asyncio.run(work())


def bury(directory, *, reason="attributes are too long", status=400, among=None):
    """Makes dead letters of what waits."""

    async def work():
        spool = DiskSpool(directory)
        await spool.open()
        async for page in spool.recover():
            chosen = [(ticket, entry) for ticket, entry in page if among is None or entry.event_uuid in among]
            letters = [DeadLetter(entry=entry, reason=reason, status=status, buried_at=1e9) for _, entry in chosen]
            await spool.bury(letters, [ticket for ticket, _ in chosen])
        await spool.aclose()

    asyncio.run(work())


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "spool"


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ls_lists_files_with_owners_and_what_waits_in_them(run, directory):
    report(directory, 1, 2, 3)
    report(directory, 4)
    found = run("spool", "ls", directory, "--json").json()
    assert found["pending"] == 4
    used = [each for each in found["segments"] if each["pending"]]
    assert all(not each["living"] for each in used)
    lines = run("spool", "ls", directory).out.splitlines()
    assert lines[0].startswith("file\towner\tprocess\tpending")
    assert any("\tdead\t" in line for line in lines[1:])


def test_ls_sees_who_lives_and_disturbs_nobody(run, directory):
    async def beside():
        spool = DiskSpool(directory)
        await spool.open()
        before = sorted((path.name, path.stat().st_mtime_ns) for path in directory.iterdir())
        found = await asyncio.to_thread(lambda: inspect_spool(directory))
        files = found.files()
        found.close()
        assert [file.living for file in files] == [True]
        assert sorted((path.name, path.stat().st_mtime_ns) for path in directory.iterdir()) == before
        assert spool.stats().state == "open"
        await spool.aclose()

    asyncio.run(beside())
    assert list(directory.iterdir()) == []


def test_ls_lists_dead_letters_by_their_reasons(run, directory):
    report(directory, 1, 2, 3)
    bury(directory)
    found = run("spool", "ls", directory, "--json").json()
    assert found["pending"] == 0
    assert found["dead_letters"] == [{"status": 400, "reason": "attributes are too long", "count": 3}]
    assert "3\t400\tattributes are too long" in run("spool", "ls", directory).out


def test_a_directory_without_a_spool_says_so(run, tmp_path):
    done = run("spool", "ls", tmp_path)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"moengage-personalize: {tmp_path}: no spool has left anything here\n"


def test_a_directory_that_is_none_is_a_usage_error(run, tmp_path):
    assert run("spool", "ls", tmp_path / "nowhere").status == 2
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(SpoolDirectoryError):
        inspect_spool(tmp_path / "nowhere")


def test_files_that_cannot_be_read_are_listed_with_their_fault(run, directory):
    report(directory, 1)
    (segment,) = directory.glob("*.seg")
    with segment.open("r+b") as file:
        file.write(b"\xff" * 256)
    (found,) = run("spool", "ls", directory, "--json").json()["segments"]
    assert (found["fault"], found["pending"]) == ("damaged", 0)
    assert run("spool", "show", directory).status == 1


def test_a_file_of_somebody_else_is_trouble_of_this_machine(run, directory):
    report(directory, 1)
    (segment,) = directory.glob("*.seg")
    os.link(segment, directory / "another-name")
    done = run("spool", "show", directory)
    assert (done.status, "another user's" in done.err) == (4, True)


def test_show_tells_who_is_the_same_and_not_who_it_is(run, directory):
    report(directory, 1, 2, 3)
    done = run("spool", "show", directory, "--json")
    events = done.documents()
    assert (done.status, len(events)) == (0, 3)
    assert events[0]["customer"] == events[2]["customer"] != events[1]["customer"]
    assert {event["kind"] for event in events} == {"click"}
    assert "canary" not in done.out
    assert "19800" not in done.out
    again = run("spool", "show", directory, "--json").documents()
    assert again[0]["customer"] != events[0]["customer"], "salted anew"
    assert "canary" not in run("spool", "show", directory).out


def test_show_reveals_what_the_operator_asks_for_in_the_form_that_replay_reads(run, directory, server, tmp_path):
    report(directory, 1, 2)
    bury(directory, among=[event_uuid_for("test", 2)])
    done = run("spool", "show", directory, "--json", "--reveal")
    first, second = done.documents()
    assert (first["customer_id"], first["moe_event_uuid"]) == (PERSON, event_uuid_for("test", 1))
    assert first["user_attributes"] == {"té\tr": ["a", 1]}
    assert first["user_timezone_offset"] == 19_800
    assert (first["spool"]["state"], second["spool"]["state"]) == ("pending", "dead")
    assert second["spool"]["reason"] == "attributes are too long"
    path = tmp_path / "events.ndjson"
    path.write_text(done.out)
    assert run("replay", path, "--json").json()["delivered"] == 2
    arrived = {event.uuid: event for event in server.emulator.ledger.events}
    assert set(arrived) == {event_uuid_for("test", 1), event_uuid_for("test", 2)}
    assert arrived[event_uuid_for("test", 1)].user_attributes == {"té\tr": ["a", 1]}
    assert arrived[event_uuid_for("test", 1)].action["attributes"]["b_id"] == "cta"


def test_show_shows_some(run, directory):
    report(directory, *range(10))
    bury(directory, among=[event_uuid_for("test", 3)])
    count = lambda *options: len(run("spool", "show", directory, "--json", *options).documents())  # noqa: E731
    assert (count(), count("--state", "dead"), count("--state", "pending")) == (10, 1, 9)
    assert (count("--limit", "4"), count("--customer-id", PERSON)) == (4, 5)
    assert run("spool", "show", directory, "--customer-id", "nobody").status == 1


def test_who_was_forgotten_is_not_shown(run, directory):
    report(directory, 1, 2)

    async def beside():
        spool = DiskSpool(directory, sync_interval=60)
        await spool.open()
        await spool.forget(encoded_customer(PERSON))
        await spool.aclose()

    kept = {path: path.read_bytes() for path in directory.glob("*.seg")}
    asyncio.run(beside())
    for path, content in kept.items():  # as a living process has them until it looks
        path.write_bytes(content)
    assert len(run("spool", "show", directory, "--json").documents()) == 1


# ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_replay_sends_dead_letters_under_their_uuids(run, directory, server):
    report(directory, 1, 2, 3)
    bury(directory)
    done = run("spool", "replay", directory, "--json")
    assert (done.status, done.json()) == (
        0, {"replayed": 3, "recovered": 0, "delivered": 3, "rejected": 0, "pending": 0}
    )  # fmt: skip
    assert {event.uuid for event in server.emulator.ledger.events} == {event_uuid_for("test", n) for n in (1, 2, 3)}
    assert list(directory.glob("*.seg")) == []
    assert run("spool", "replay", directory).status == 1, "there is nothing left"


def test_replay_sends_those_that_are_named(run, directory, server):
    report(directory, 1, 2, 3)
    bury(directory)
    assert run("spool", "replay", directory, "--event", event_uuid_for("test", 2)[:8].upper()).status == 0
    assert [event.uuid for event in server.emulator.ledger.events] == [event_uuid_for("test", 2)]
    assert len(run("spool", "show", directory, "--json").documents()) == 2
    assert run("spool", "replay", directory, "--event", "ffffffff").status == 2


def test_replay_takes_what_dead_processes_left_along(run, directory, server):
    report(directory, 1, 2, 3)
    done = run("spool", "replay", directory, "--json").json()
    assert (done["recovered"], done["delivered"]) == (3, 3)


def test_what_is_refused_before_anything_was_accepted_is_held(run, directory, server):
    report(directory, 1, 2)
    bury(directory)
    server.emulator.trouble(endpoints=("events",), poison="number")
    done = run("spool", "replay", directory, "--timeout", "0.5", "--json")
    assert done.status == 2, "these credentials have had no success: it may be the configuration"
    assert done.json()["pending"] == 2
    assert "held" in done.err
    assert len(run("spool", "show", directory, "--json").documents()) == 2


def test_what_is_refused_again_is_a_dead_letter_again(run, directory, server):
    report(directory, 1, 2)
    bury(directory, among=[event_uuid_for("test", 1)])
    server.emulator.trouble(endpoints=("events",), poison="only-1")
    done = run("spool", "replay", directory, "--json")
    counts = {"replayed": 1, "recovered": 1, "delivered": 1, "rejected": 1, "pending": 0}
    assert (done.status, done.json()) == (1, counts)
    (left,) = run("spool", "show", directory, "--json").documents()
    assert left["state"] == "dead"


def test_what_cannot_be_delivered_waits(run, directory, server):
    report(directory, 1, 2)
    bury(directory)
    server.emulator.trouble(endpoints=("events",), status=503)
    done = run("spool", "replay", directory, "--timeout", "0.3", "--json")
    assert (done.status, done.json()["pending"]) == (3, 2)
    assert len(run("spool", "show", directory, "--state", "pending", "--json").documents()) == 2


def test_forget_removes_one_person_and_nobody_else(run, directory):
    report(directory, *range(10))
    bury(directory, among=[event_uuid_for("test", n) for n in (1, 2)])
    done = run("spool", "forget", directory, "--customer-id", PERSON, "--json")
    assert (done.status, done.json()) == (0, {"events": 4, "dead_letters": 1, "other_processes": 0})
    assert len(run("spool", "show", directory, "--json").documents()) == 5
    held = b"".join(path.read_bytes() for path in directory.iterdir())
    assert b"canary" not in held
    assert "canary" not in run("spool", "forget", directory, "--customer-id", PERSON).out


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_customer_is_encoded_as_the_client_does(customer_id):
    assert encoded_customer(customer_id) == encode(customer_id, "customer_id")


def test_a_large_file_is_read_in_windows(directory, monkeypatch):
    monkeypatch.setattr("moengage_personalize.spool._records._WINDOW", 512)
    report(directory, *range(40))
    spool = inspect_spool(directory)
    (found,) = [file for file in spool.files() if file.pending]
    assert isinstance(found, SpoolFile)
    assert (found.pending, found.skipped) == (40, 0)
    uuids = [entry.event_uuid for _, entry in spool.entries()]
    assert uuids == [event_uuid_for("test", number) for number in range(40)]
    spool.close()
