"""The front: what each method promises, with the spool's real thread behind it."""

import asyncio
import gc
import logging
import os
import pickle
import signal
import sys
import threading
import uuid
import weakref
from contextlib import suppress

import attrs
import pytest
from spool.helpers import SEGMENT, Bench, entry, segments
from spool.test_format import newer

from moengage_personalize.spool import (
    DeadLetter,
    DiskSpool,
    Entry,
    Spool,
    SpoolClosedError,
    SpoolDirectoryError,
    SpoolFormatError,
    SpoolFullError,
    SpoolSyncError,
    _disk,
    _segment,
)
from moengage_personalize.spool._journal import Scrub
from moengage_personalize.spool._thread import JournalThread


def run(test):
    """Run an async test in a loop of its own."""

    def runner(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    runner.__name__ = test.__name__
    runner.__wrapped__ = test
    runner.pytestmark = getattr(test, "pytestmark", [])
    return runner


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def spool_at(root, **options):
    return DiskSpool(root, **{"segment_bytes": SEGMENT, "max_bytes": 1 << 24, "sync_interval": 60.0, **options})


async def opened(root, **options):
    spool = spool_at(root, **options)
    await spool.open()
    return spool


async def ticked(spool):
    """Returns when the spool's thread has looked once more at what is to be done."""
    spool._thread.wake()
    await spool._thread.call(int)


async def everything(spool):
    return [pair async for page in spool.recover() for pair in page]


def letter(number, *, reason="refused", size=100, customer=0):
    return DeadLetter(
        entry=entry(number, size=size, customer=customer), reason=reason, status=400, buried_at=float(number)
    )


def test_it_fulfils_the_protocol(root):
    spool: Spool = spool_at(root)
    assert {name for name in vars(Spool) if not name.startswith("_")} <= set(dir(spool))


@run
async def test_a_restart_hands_out_what_was_not_settled(root):
    first = await opened(root)
    tickets = [first.append(entry(number)) for number in range(5)]
    first.settle(tickets[1:3])
    await first.aclose()
    second = await opened(root)
    assert [found for _, found in await everything(second)] == [entry(0), entry(3), entry(4)]
    second.settle([ticket for ticket, _ in await everything(second)])
    await second.aclose()


@run
async def test_a_clean_end_with_nothing_pending_leaves_an_empty_directory(root):
    spool = await opened(root)
    spool.settle([spool.append(entry(number, size=900)) for number in range(40)])
    await spool.aclose()
    assert list(root.iterdir()) == []


@run
async def test_recovery_stops_when_the_caller_does_and_goes_on_later(root):
    first = await opened(root)
    made = [entry(number) for number in range(25)]
    for one in made:
        first.append(one)
    await first.aclose()
    second = await opened(root)
    recovered = []
    async for page in second.recover(page=10):
        recovered += page
        break
    assert len(recovered) == 10
    assert second.stats().pending == 10
    recovered += await everything(second)
    assert [found for _, found in recovered] == made
    assert await everything(second) == []
    await second.aclose()


@run
async def test_concurrent_recoveries_share_the_entries(root):
    first = await opened(root)
    for number in range(100):
        first.append(entry(number))
    await first.aclose()
    second = await opened(root)
    halves = await asyncio.gather(*(everything(second) for _ in range(3)))
    found = [one.event_uuid for half in halves for _, one in half]
    assert sorted(found) == sorted(entry(number).event_uuid for number in range(100))
    await second.aclose()


@run
async def test_a_cancelled_recovery_loses_no_page(root):
    first = await opened(root)
    for number in range(50):
        first.append(entry(number))
    await first.aclose()
    second = await opened(root)
    for _ in range(5):
        task = asyncio.create_task(everything(second))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await everything(second)) == 50
    await second.aclose()


@run
async def test_entries_are_read_back_by_their_tickets(root):
    spool = await opened(root)
    tickets = [spool.append(entry(number, size=900)) for number in range(20)]
    spool.settle(tickets[3:4])
    found = await spool.read([tickets[7], tickets[3], tickets[0]])
    assert found == [entry(7, size=900), None, entry(0, size=900)]
    spool.settle(tickets)
    assert await spool.read(tickets[:1]) == [None]
    await spool.aclose()


@run
async def test_settling_twice_or_after_the_segment_has_left_is_harmless(root):
    spool = await opened(root)
    tickets = [spool.append(entry(number, size=900)) for number in range(20)]
    for _ in range(3):
        spool.settle(tickets)
        await spool.sync()
    assert spool.stats().settled == 20
    assert spool.stats().pending == 0
    await spool.aclose()


# -- sync -----------------------------------------------------------------------


@run
async def test_callers_of_sync_share_passes_and_nobody_joins_one_that_had_begun(root, monkeypatch):
    spool = await opened(root)
    await spool.sync()
    begun, go = threading.Event(), threading.Event()
    real, calls = _segment._sync, []

    def slow(fd):
        calls.append(fd)
        begun.set()
        assert go.wait(10)
        real(fd)

    monkeypatch.setattr(_segment, "_sync", slow)
    spool.append(entry(1))
    first = asyncio.create_task(spool.sync())
    await asyncio.to_thread(begun.wait, 10)
    spool.append(entry(2))
    later = [asyncio.create_task(spool.sync()) for _ in range(50)]
    await asyncio.sleep(0)
    assert not first.done()
    go.set()
    await asyncio.gather(first, *later)
    assert len(calls) == 2
    await spool.aclose()


@run
async def test_a_sync_that_fails_says_so_and_one_after_it_was_written_anew_succeeds(root, monkeypatch):
    spool = await opened(root)
    spool.append(entry(1))
    with monkeypatch.context() as patch:
        patch.setattr(_segment, "_sync", lambda fd: os.close(-1))
        with pytest.raises(SpoolSyncError):
            await spool.sync()
    for _ in range(1000):
        await ticked(spool)
        with suppress(SpoolSyncError):
            await spool.sync()
            break
    assert spool.stats().carried > 0
    assert spool.stats().pending == 1
    await spool.aclose()


@run
async def test_a_cancelled_caller_of_sync_does_not_cancel_the_others(root):
    spool = await opened(root)
    spool.append(entry(1))
    tasks = [asyncio.create_task(spool.sync()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None), type(None)]
    await spool.aclose()


@run
async def test_the_thread_syncs_by_itself(root, monkeypatch):
    sync, synced = _segment._sync, threading.Event()
    spool = await opened(root, sync_interval=0.001)
    monkeypatch.setattr(_segment, "_sync", lambda fd: [sync(fd), synced.set()])
    spool.append(entry(1))
    segment = spool._journal.active
    while segment.is_dirty:
        assert await asyncio.to_thread(synced.wait, 10)
        synced.clear()
        await spool._thread.call(int)  # it has finished what it was at
    await spool.aclose()


# -- life and death -----------------------------------------------------------------


@run
async def test_before_open_and_after_aclose_append_answers_none_and_the_rest_raises(root):
    spool = spool_at(root)
    for state in ("new", "closed"):
        assert spool.append(entry(1)) is None
        spool.settle([1 << 32])
        for call in (spool.sync, spool.dead_letters, spool.replay, lambda: spool.read([]), lambda: everything(spool)):
            with pytest.raises(SpoolClosedError):
                await call()
        assert spool.stats().state == state
        await spool.open()
        await spool.aclose()


@run
async def test_aclose_is_idempotent_and_concurrent_callers_all_wait_for_it(root):
    spool = await opened(root)
    spool.append(entry(1))
    await asyncio.gather(*(spool.aclose() for _ in range(5)))
    await spool.aclose()
    assert spool._home.fd == -1


@run
async def test_cancelling_aclose_does_not_stop_the_closing(root):
    spool = await opened(root)
    task = asyncio.create_task(spool.aclose())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await spool.aclose()
    assert spool._home.fd == -1
    assert list(root.iterdir()) == []


@run
async def test_those_who_wait_for_a_sync_are_answered_when_the_spool_closes(root):
    spool = await opened(root)
    waiting = asyncio.create_task(spool.sync())
    closing = asyncio.create_task(spool.aclose())
    await asyncio.wait([waiting, closing])
    assert closing.exception() is None
    assert waiting.exception() is None or isinstance(waiting.exception(), SpoolClosedError)


@run
async def test_it_may_be_opened_again_while_a_cancelled_closing_goes_on(root):
    spool = await opened(root)
    spool.append(entry(1))
    for _ in range(5):
        task = asyncio.create_task(spool.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await spool.open()
        ((ticket, found),) = await everything(spool)
        assert found == entry(1)
        await spool.sync()
        assert await spool.read([ticket]) == [entry(1)]
    await spool.aclose()


@run
async def test_it_opens_once_at_a_time(root):
    spool = await opened(root)
    with pytest.raises(SpoolClosedError):
        await spool.open()
    await spool.aclose()


@run
async def test_an_open_that_fails_leaves_no_thread_and_may_be_tried_again(root):
    root.write_text("")
    spool = spool_at(root)
    with pytest.raises(SpoolDirectoryError):
        await spool.open()
    root.unlink()
    await spool.open()
    assert spool.append(entry(1)) is not None
    await spool.aclose()
    for thread in threading.enumerate():
        if thread.name == "moengage-personalize-spool":
            thread.join(5)
            assert not thread.is_alive()


@run
async def test_tombstones_of_a_newer_version_are_an_error_at_open(root):
    spool = await opened(root)
    await spool.forget(b'"john"')
    await spool.aclose()
    path = root / "tombstones"
    path.write_bytes(newer(path.read_bytes()))
    with pytest.raises(SpoolFormatError):
        await spool_at(root).open()


def test_a_second_event_loop_may_open_it_again(root):
    spool = spool_at(root)

    async def use(number):
        await spool.open()
        assert spool.append(entry(number)) is not None
        found = await everything(spool)
        await spool.aclose()
        return len(found)

    assert [asyncio.run(use(number)) for number in range(3)] == [0, 1, 2]


@run
async def test_two_spools_of_one_process_are_strangers(root):
    first, second = await opened(root), await opened(root)
    first.append(entry(1))
    assert await everything(second) == []
    await first.aclose()
    assert [found for _, found in await everything(second)] == [entry(1)]
    await second.aclose()


@run
async def test_a_forked_child_lets_go_and_may_open_it_as_a_new_owner(root):
    spool = await opened(root)
    ticket = spool.append(entry(1))
    before = {path: path.read_bytes() for path in segments(root)}
    child = os.fork()
    if child == 0:
        try:
            spool.settle([ticket])
            told = spool.append(entry(2)) is None and spool.stats().state == "forked"

            async def fresh():
                await spool.open()
                assert await everything(spool) == []  # the parent lives
                assert spool.append(entry(3)) is not None
                await spool.aclose()

            loop = asyncio.new_event_loop()
            asyncio._set_running_loop(None)
            loop.run_until_complete(fresh())
            os._exit(0 if told else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert spool.append(entry(4)) is not None
    assert [found for _, found in await everything(spool)] == [entry(3)]
    await spool.aclose()


def test_a_parent_that_died_is_inherited_while_its_child_lives(root):
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reading)

        async def die():
            spool = await opened(root)
            spool.append(entry(1))
            if os.fork() == 0:
                os.read(0, 0)
                os.write(writing, b"%d" % os.getpid())
                signal.pause()
            os._exit(0)

        asyncio.run(die())
    os.waitpid(parent, 0)
    os.close(writing)
    child = int(os.read(reading, 20))
    os.close(reading)

    async def inherit():
        spool = await opened(root)
        found = await everything(spool)
        await spool.aclose()
        return [one for _, one in found]

    try:
        assert asyncio.run(inherit()) == [entry(1)]
    finally:
        os.kill(child, 9)


def test_a_thread_whose_owner_is_gone_ends():
    class Owner:
        def tick(self):
            ticks.append(1)

    ticks = []
    owner = Owner()
    thread = JournalThread(owner.tick, 0.001)
    thread.start()
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    thread._thread.join(5)
    assert gone() is None
    assert not thread._thread.is_alive()


# -- forgetting ------------------------------------------------------------------------


@run
async def test_forgetting_removes_a_persons_entries_and_dead_letters_and_nobody_elses(root):
    spool = await opened(root)
    tickets = [spool.append(entry(number, customer=number % 3)) for number in range(30)]
    spool.settle(tickets[:6])
    await spool.bury([letter(100, customer=1), letter(101, customer=2)])
    receipt = await spool.forget(b'"customer-1"')
    assert (receipt.entries, receipt.dead_letters, receipt.other_processes) == (8, 1, 0)
    assert spool.stats().pending == 16
    on_disk = b"".join(path.read_bytes() for path in root.iterdir())
    assert b"customer-1" not in on_disk
    assert b"customer-2" in on_disk
    await spool.aclose()
    again = await opened(root)
    assert {found.customer for _, found in await everything(again)} == {b'"customer-0"', b'"customer-2"'}
    await again.aclose()


@run
async def test_a_tick_before_the_spool_is_open_leaves_no_lock_behind(root, monkeypatch):
    class Hasty(JournalThread):
        def start(self):
            self._tick()()  # as if the machine had let it wait for longer than the interval
            super().start()

    monkeypatch.setattr(_disk, "JournalThread", Hasty)
    spool = await opened(root)
    assert [path.stem for path in root.glob("*.lock")] == [spool._keeper.lock.owner]
    await spool.aclose()
    assert not [*root.glob("*.lock"), *segments(root)]


@run
async def test_a_chore_that_is_found_while_the_spool_closes_touches_no_file_that_is_let_go_of(root, monkeypatch):
    spool = await opened(root)
    spool.append(entry(1))
    loop, done, close = asyncio.get_running_loop(), threading.Event(), _segment.Segment.close

    def close_and_tell(segment):
        def accept():
            spool._accept([Scrub(segment, [(256, 176)])])
            done.set()

        close(segment)
        if segment.number in spool._journal.segments:
            loop.call_soon_threadsafe(accept)
            assert done.wait(5)

    monkeypatch.setattr(_segment.Segment, "close", close_and_tell)
    await spool.aclose()
    assert done.is_set()


@run
async def test_other_living_processes_honour_a_tombstone(root):
    first, second = await opened(root), await opened(root, sync_interval=0.001)
    second.append(entry(1, customer=1))
    second.append(entry(2, customer=2))
    receipt = await first.forget(b'"customer-1"')
    assert receipt.other_processes == 1
    while second.stats().forgotten == 0:
        await ticked(second)
    assert second.is_forgotten(b'"customer-1"', 1.0)
    assert not second.is_forgotten(b'"customer-2"', 1.0)
    assert second.stats().pending == 1
    await first.aclose()
    await second.aclose()


@run
async def test_a_tombstone_is_honoured_by_whoever_adopts(root):
    living = await opened(root)
    await living.forget(b'"customer-1"')
    dead = Bench(root)
    dead.append(entry(1, customer=1), entry(2, customer=2))
    dead.kill()
    ((ticket, found),) = await everything(living)
    assert found == entry(2, customer=2)
    assert living.stats().forgotten == 1
    living.settle([ticket])
    await living.aclose()
    assert segments(root) == []


@run
async def test_who_comes_back_after_being_forgotten_is_a_customer_again(root, monkeypatch):
    spool = await opened(root)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    await spool.forget(b'"customer-1"')
    assert spool.is_forgotten(b'"customer-1"', 999.0)
    assert not spool.is_forgotten(b'"customer-1"', 1000.5)
    spool.append(entry(1, customer=1, at=1000.5))
    receipt = await spool.forget(b'"customer-2"')
    assert receipt.entries == 0
    assert spool.stats().pending == 1
    await spool.aclose()


@run
async def test_forgetting_reaches_what_was_accepted_before_the_clock_was_set_back(root, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1000.0)
    dead = Bench(root)
    dead.append(entry(1, customer=1, at=1001.0))
    dead.kill()
    first, second = await opened(root), await opened(root, sync_interval=0.001)
    first.append(entry(2, customer=1, at=2000.0))
    second.append(entry(3, customer=1, at=3000.0))
    second.append(entry(4, customer=2, at=3000.0))
    assert (await first.forget(b'"customer-1"')).entries == 2
    while second.stats().forgotten == 0:
        await ticked(second)
    for spool in (first, second):
        assert spool.is_forgotten(b'"customer-1"', 3000.0)
        assert not spool.is_forgotten(b'"customer-1"', 3000.5)
        assert not spool.is_forgotten(b'"customer-2"', 1000.0)
    assert (first.stats().pending, second.stats().pending) == (0, 1)
    await first.aclose()
    await second.aclose()


@run
async def test_a_file_that_cannot_be_read_does_not_stop_the_forgetting(root):
    spool = await opened(root)
    spool.append(entry(1, customer=1))
    (root / "0123456789abcdef-00000001.seg").mkdir()
    (root / "0123456789abcdef-00000002.seg").write_bytes(b"")
    assert (await spool.forget(b'"customer-1"')).entries == 1
    await spool.aclose()


@run
async def test_a_forgotten_persons_event_is_not_buried(root):
    spool = await opened(root)
    await spool.forget(b'"customer-1"')
    await spool.bury([letter(1, customer=1), letter(2, customer=2)])
    assert await spool.dead_letters() == [letter(2, customer=2)]
    await spool.aclose()


@run
async def test_settling_what_was_forgotten_in_flight_is_harmless(root):
    spool = await opened(root)
    ticket = spool.append(entry(1, customer=1))
    await spool.forget(b'"customer-1"')
    spool.settle([ticket])
    stats = spool.stats()
    assert (stats.forgotten, stats.settled, stats.pending) == (1, 0, 0)
    await spool.aclose()


@run
async def test_old_tombstones_leave_when_every_file_is_younger(root, monkeypatch):
    spool = await opened(root)
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    for number in range(100):
        await spool.forget(b"%d" % number)
    now[0] = 1_000_000.0
    spool.append(entry(1, at=now[0]))
    await spool.forget(b"the last")
    assert not spool.is_forgotten(b"7", 1.0)
    assert spool.is_forgotten(b"the last", 1.0)
    await spool.aclose()


@run
async def test_old_tombstones_stay_while_an_older_file_is_there(root, monkeypatch):
    spool = await opened(root)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    spool.append(entry(1, at=5.0))
    for number in range(101):
        await spool.forget(b"%d" % number)
    assert spool.is_forgotten(b"7", 1.0)
    await spool.aclose()


# -- dead letters -----------------------------------------------------------------------


@run
async def test_dead_letters_are_kept_with_their_reason_across_restarts_and_processes(root):
    first, second = await opened(root), await opened(root)
    ticket = first.append(entry(1))
    await first.bury([letter(1, reason="40001: bad attribute")], [ticket])
    assert first.stats().pending == 0
    assert await second.dead_letters() == [letter(1, reason="40001: bad attribute")]
    await first.aclose()
    await second.aclose()
    third = await opened(root)
    assert await third.dead_letters() == [letter(1, reason="40001: bad attribute")]
    assert await everything(third) == []
    await third.aclose()


@run
async def test_a_letter_that_cannot_be_written_leaves_its_ticket_pending(root, monkeypatch):
    spool = await opened(root)
    ticket = spool.append(entry(1))
    with monkeypatch.context() as patch:

        def full(*args):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "pwrite", full)
        with pytest.raises(SpoolFullError):
            await spool.bury([letter(1)], [ticket])
    assert spool.stats().pending == 1
    await spool.aclose()


@run
async def test_the_oldest_letters_leave_first_and_are_counted(root):
    spool = await opened(root, max_dead_letters=3)
    for number in range(10):
        await spool.bury([letter(number)])
        kept = await spool.dead_letters()
        assert kept == [letter(one) for one in range(max(0, number - 2), number + 1)]
    assert spool.stats().evicted_letters == 7
    assert (root / "dead-letters").stat().st_size < 256 + 7 * 400
    await spool.aclose()


@run
async def test_letters_are_bounded_in_bytes_too(root):
    spool = await opened(root, max_dead_letter_bytes=5000)
    for number in range(20):
        await spool.bury([letter(number, size=1000)])
    assert await spool.dead_letters() == [letter(number, size=1000) for number in range(16, 20)]
    assert (root / "dead-letters").stat().st_size < 12_000
    await spool.aclose()


@run
async def test_a_letter_buried_twice_is_one(root):
    spool = await opened(root)
    await spool.bury([letter(1), letter(2)])
    await spool.bury([letter(1, reason="again")])
    assert {one.entry.event_uuid: one.reason for one in await spool.dead_letters()} == {
        entry(1).event_uuid: "again",
        entry(2).event_uuid: "refused",
    }
    assert len(await spool.dead_letters()) == 2
    await spool.aclose()


@run
async def test_replaying_makes_letters_pending_entries_with_the_same_bytes(root):
    spool = await opened(root)
    await spool.bury([letter(number) for number in range(4)])
    replayed = await spool.replay([entry(1).event_uuid, entry(3).event_uuid])
    assert [found for _, found in replayed] == [entry(1), entry(3)]
    assert await spool.dead_letters() == [letter(0), letter(2)]
    assert spool.stats().pending == 2
    assert len(await spool.replay()) == 2
    assert await spool.dead_letters() == []
    await spool.aclose()
    again = await opened(root)
    assert len(await everything(again)) == 4
    await again.aclose()


@run
async def test_what_finds_no_room_stays_a_dead_letter(root):
    spool = await opened(root)
    await spool.bury([letter(1, size=SEGMENT), letter(2)])
    assert [found for _, found in await spool.replay()] == [entry(2)]
    assert await spool.dead_letters() == [letter(1, size=SEGMENT)]
    await spool.aclose()


@run
async def test_letters_can_be_discarded(root):
    spool = await opened(root)
    await spool.bury([letter(number) for number in range(4)])
    assert await spool.discard([entry(1).event_uuid, str(uuid.UUID(int=99))]) == 1
    assert await spool.discard() == 3
    assert await spool.dead_letters() == []
    await spool.aclose()


# -- what it shows ------------------------------------------------------------------------


def test_nothing_shows_a_person_or_a_payload():
    secret = attrs.evolve(entry(1), customer=b"CANARY", payload=b"CANARY", attributes=b"CANARY", event_uuid="CANARY")
    shown = repr(secret) + repr(DeadLetter(entry=secret, reason="r", status=None, buried_at=0.0))
    assert "CANARY" not in shown
    assert isinstance(pickle.loads(pickle.dumps(secret)), Entry)


@pytest.mark.parametrize("kind", [SpoolDirectoryError, SpoolFullError, SpoolSyncError, SpoolClosedError])
def test_errors_are_picklable(kind):
    error = pickle.loads(pickle.dumps(kind("spool: why")))
    assert (type(error), str(error)) == (kind, "spool: why")


@run
async def test_the_repr_is_the_state(root):
    spool = spool_at(root)
    assert repr(spool) == "<DiskSpool new: 0 pending in 0 segments>"
    await spool.open()
    spool.append(entry(1))
    assert repr(spool).startswith("<DiskSpool open: 1 pending in ")
    await spool.aclose()


@run
async def test_a_change_of_state_is_logged_once(root, caplog):
    caplog.set_level(logging.INFO, logger="moengage_personalize")
    spool = await opened(root, max_bytes=2 * SEGMENT)
    tickets = []
    while (ticket := spool.append(entry(1, size=900))) is not None:
        tickets.append(ticket)
        await spool._thread.call(spool._tick)
    for _ in range(3):
        await spool._thread.call(spool._tick)
    spool.settle(tickets)
    for _ in range(3):
        await spool._thread.call(spool._tick)
    assert [record.getMessage() for record in caplog.records] == ["spool is full", "spool is open"]
    await spool.aclose()


# -- the hot path -------------------------------------------------------------------------


@run
async def test_an_append_and_a_settlement_call_no_function_of_the_system(root, monkeypatch):
    spool = await opened(root, segment_bytes=1 << 20)
    first = spool.append(entry(0))
    await spool._thread.call(lambda: None)
    for name in ("open", "write", "pwrite", "fsync", "fdatasync", "stat", "posix_fallocate", "pread"):
        monkeypatch.setattr(os, name, None)
    tickets = [spool.append(entry(number)) for number in range(100)]
    spool.settle([first, *tickets[1:]])
    monkeypatch.undo()
    assert spool.stats().pending == 1
    await spool.aclose()


@run
async def test_an_append_does_not_release_the_gil_however_large_the_entry(root):
    spool = await opened(root, segment_bytes=1 << 24, max_bytes=1 << 26)
    large = [entry(number, size=400_000) for number in range(20)]
    spool.append(entry(99))
    await spool.sync()
    gate, ran = threading.Lock(), []
    gate.acquire()

    def other():
        with gate:
            ran.append(1)

    thread = threading.Thread(target=other)
    thread.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody is made to let go
    try:
        gate.release()
        tickets = [spool.append(one) for one in large]
        spool.settle(tickets)
        assert ran == []
    finally:
        sys.setswitchinterval(before)
    thread.join()
    await spool.aclose()
