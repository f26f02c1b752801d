"""What is left halfway: by a caller who leaves, by a bug, a fork, a collection, a neighbour, a descriptor too few."""

import asyncio
import errno
import gc
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from spool.helpers import Bench, entry
from spool.test_disk_spool import everything, letter, opened, run

from moengage_personalize.spool import SpoolBusyError, SpoolClosedError, SpoolDirectoryError, SpoolSyncError
from moengage_personalize.spool._dead_letters import DeadLetters
from moengage_personalize.spool._directory import Directory
from moengage_personalize.spool._inheritance import Inheritance
from moengage_personalize.spool._journal import Found
from moengage_personalize.spool._keeper import Keeper
from moengage_personalize.spool._segment import Segment
from moengage_personalize.spool._thread import JournalThread


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr("moengage_personalize.spool._chores._BREATH", 0)
    monkeypatch.setattr("moengage_personalize.spool._records._BREATH", 0)
    return tmp_path / "spool"


def on_disk(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.iterdir())


# -- callers who leave ----------------------------------------------------------------


@run
async def test_a_caller_who_leaves_a_forgetting_does_not_save_the_persons_bytes(root):
    spool = await opened(root, sync_interval=0.01)
    spool.append(entry(1, customer=1))
    spool.append(entry(2, customer=2))
    leaving = asyncio.create_task(spool.forget(b'"customer-1"'))
    while not spool.is_forgotten(b'"customer-1"', 1.0):
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    while b"customer-1" in on_disk(root):
        await asyncio.sleep(0.001)
    assert spool.stats().pending == 1
    await spool.aclose()


def test_a_forgetting_that_fails_halfway_is_finished_by_the_next_cycle(root, monkeypatch):
    bench = Bench(root)
    bench.append(entry(1, customer=1), entry(2, customer=2))

    def busy(*_, **__):
        raise SpoolBusyError("spool: dead-letters is locked by another process")

    monkeypatch.setattr(DeadLetters, "remove", busy)
    with pytest.raises(SpoolBusyError):
        bench.keeper.forget(b'"customer-1"', 10.0)
    assert b"customer-1" in on_disk(root)
    bench.cycle()
    assert b"customer-1" not in on_disk(root)
    assert bench.journal.pending() == 1
    bench.close()


def test_a_segment_that_cannot_be_read_is_looked_through_for_the_forgotten_when_it_can(root, monkeypatch):
    bench, neighbour = Bench(root), Bench(root)
    bench.append(entry(1, customer=1))
    neighbour.keeper.forget(b'"customer-1"', 10.0)
    pread, failing = os.pread, True

    def troubled(fd: int, size: int, at: int) -> bytes:
        if failing and at and fd == bench.journal.active.fd:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", troubled)
    bench.cycle()
    assert b"customer-1" in on_disk(root)
    failing = False
    bench.cycle()
    assert b"customer-1" not in on_disk(root)
    neighbour.close()
    bench.close()


@run
async def test_letters_whose_replaying_is_left_before_they_are_durable_stay_letters_and_nothing_else(root):
    spool = await opened(root)
    await spool.bury([letter(1)])
    leaving = asyncio.create_task(spool.replay())
    while not spool.stats().pending:
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert len(await spool.dead_letters()) == 1
    assert spool.stats().pending == 0
    await spool.aclose()


@run
async def test_letters_that_cannot_be_made_durable_as_entries_stay_letters_and_nothing_else(root, monkeypatch):
    spool = await opened(root)
    await spool.bury([letter(1)])

    def failing(_: Keeper) -> None:
        raise SpoolSyncError("spool: cannot sync: Input/output error")

    monkeypatch.setattr(Keeper, "sync", failing)
    with pytest.raises(SpoolSyncError):
        await spool.replay()
    assert len(await spool.dead_letters()) == 1
    assert spool.stats().pending == 0
    await spool.aclose()


@run
async def test_a_letter_that_cannot_be_removed_is_replayed_all_the_same(root, monkeypatch):
    spool = await opened(root)
    await spool.bury([letter(1)])

    def busy(*_, **__):
        raise SpoolBusyError("spool: dead-letters is locked by another process")

    monkeypatch.setattr(DeadLetters, "remove", busy)
    assert [found for _, found in await spool.replay()] == [entry(1)]
    assert spool.stats().pending == 1
    await spool.aclose()


@run
async def test_a_page_that_is_read_when_the_spool_closes_is_left_to_the_next(root, monkeypatch):
    bench = Bench(root)
    bench.append(entry(1))
    bench.kill()
    spool = await opened(root)
    begun, go, read_page = threading.Event(), threading.Event(), Inheritance.read_page

    def slowly(inheritance: Inheritance, limit: int) -> Found | None:
        begun.set()
        assert go.wait(5)
        return read_page(inheritance, limit)

    with monkeypatch.context() as patched:
        patched.setattr(Inheritance, "read_page", slowly)
        reading, thread = asyncio.create_task(everything(spool)), spool._thread._thread
        await asyncio.to_thread(begun.wait, 5)
        closing = asyncio.create_task(spool.aclose())
        await asyncio.sleep(0)
        go.set()
        thread.join(5)  # the page is read, and its file is closed, before this loop turns again
        with pytest.raises(SpoolClosedError):
            await reading
        await closing
    again = await opened(root)
    assert [found for _, found in await everything(again)] == [entry(1)]
    await again.aclose()


@run
async def test_a_ticket_of_an_earlier_opening_settles_nothing(root):
    spool = await opened(root)
    old = spool.append(entry(1))
    spool.settle([old])
    await spool.aclose()
    await spool.open()
    spool.append(entry(2))
    spool.settle([old])
    assert await spool.read([old]) == [None]
    assert spool.stats().pending == 1
    await spool.aclose()


# -- dead letters --------------------------------------------------------------------


@run
async def test_letters_that_come_and_go_do_not_make_the_file_grow(root):
    spool = await opened(root, max_dead_letters=5)
    sizes = []
    for number in range(50):
        await spool.bury([letter(number)])
        assert await spool.discard() == 1
        sizes.append((root / "dead-letters").stat().st_size)
    assert max(sizes[10:]) <= max(sizes[:10])
    await spool.aclose()


@run
async def test_letters_that_come_and_go_do_not_make_the_file_grow_in_bytes_either(root):
    spool = await opened(root, max_dead_letter_bytes=1_000)
    for number in range(50):
        await spool.bury([letter(number)])
        await spool.discard()
        assert (root / "dead-letters").stat().st_size <= 2_500
    await spool.aclose()


@run
async def test_what_is_left_of_discarded_letters_is_forgotten_too(root):
    spool = await opened(root)
    await spool.bury([letter(1, customer=1), letter(2, customer=1), letter(3, customer=2)])
    await spool.discard([letter(1).entry.event_uuid])
    receipt = await spool.forget(b'"customer-1"')
    assert receipt.dead_letters == 1
    assert b"customer-1" not in on_disk(root)
    assert [kept.entry for kept in await spool.dead_letters()] == [entry(3, customer=2)]
    await spool.bury([letter(4, customer=3)])
    await spool.discard()
    assert (await spool.forget(b'"customer-3"')).dead_letters == 0
    assert b"customer-3" not in on_disk(root)
    await spool.aclose()


def test_what_a_process_left_that_died_while_it_shortened_the_letters_goes(root):
    bench = Bench(root)
    (root / "dead-letters.new").write_bytes(b'"customer-1"')
    bench.keeper.forget(b'"customer-1"', 10.0)
    assert b"customer-1" not in on_disk(root)
    bench.close()


# -- neighbours ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
def test_a_neighbours_segment_that_leaves_meanwhile_does_not_stop_a_forgetting(root, monkeypatch, number):
    monkeypatch.setattr("moengage_personalize.spool._tombstones._MANY", 2)
    bench, neighbour = Bench(root), Bench(root)
    neighbour.append(entry(1))
    theirs = neighbour.journal.active.name
    opening = Directory.open_file

    def gone(directory: Directory, name: str, **how: bool) -> int:
        if name == theirs:
            raise OSError(number, os.strerror(number))
        return opening(directory, name, **how)

    monkeypatch.setattr(Directory, "open_file", gone)
    for count in range(5):
        bench.keeper.forget(b'"customer-%d"' % count, 10.0)
    assert all(bench.keeper.tombstones.covers(b'"customer-%d"' % count, 10.0) for count in range(5))
    neighbour.close()
    bench.close()


def test_an_adoption_that_fails_halfway_leaves_the_dead_to_be_adopted(root, monkeypatch):
    bench = Bench(root)
    bench.append(entry(1))
    bench.kill()
    heir = Bench(root)
    listing, failures = Directory.segments_of, [1]

    def no_descriptor_left(directory: Directory, owner: str) -> list[str]:
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return listing(directory, owner)

    monkeypatch.setattr(Directory, "segments_of", no_descriptor_left)
    with pytest.raises(SpoolDirectoryError):
        heir.keeper.adopt()
    assert heir.entries() == [entry(1)]
    heir.close()


def test_a_spare_that_is_taken_while_the_directory_is_found_lost_is_no_trouble(root):
    bench = Bench(root)

    class Taken(type(bench.journal.spares)):
        """The event loop's thread takes the last one between a look and a pop."""

        def __bool__(self) -> bool:
            return True

    spare = bench.journal.spares.popleft()
    spare.close()
    bench.journal.spares = Taken()
    root.rename(root.with_name("elsewhere"))
    bench.cycle()
    assert bench.keeper.lock is not None
    bench.journal.spares = type(bench.journal.spares).__mro__[1](bench.journal.spares)
    bench.close()


# -- the thread ----------------------------------------------------------------------


def test_jobs_without_end_do_not_hold_up_a_tick():
    ticked, deadline = threading.Event(), time.monotonic() + 10

    class Owner:
        def tick(self):
            ticked.set()

    owner = Owner()
    thread = JournalThread(owner.tick, 0.001)

    def another():
        if not ticked.is_set() and time.monotonic() < deadline:
            thread.submit(another)

    thread.submit(another)
    thread.start()
    try:
        assert ticked.wait(20)
        assert time.monotonic() < deadline
    finally:
        thread.stop_after(lambda: None)
        thread._thread.join(5)


def test_no_bug_ends_the_thread_and_it_is_told_once(caplog):
    ticked = threading.Event()

    class Owner:
        ticks = 0

        def tick(self):
            self.ticks += 1
            if self.ticks == 3:
                ticked.set()
            raise ZeroDivisionError

    owner = Owner()
    thread = JournalThread(owner.tick, 0.001)
    thread.start()
    assert ticked.wait(10)
    thread.stop_after(lambda: None)
    thread._thread.join(5)
    (record,) = caplog.records
    assert (record.levelname, "ZeroDivisionError" in record.getMessage()) == ("CRITICAL", True)


@run
async def test_those_who_wait_are_answered_even_by_a_bug(root, monkeypatch):
    spool = await opened(root)
    ticket = spool.append(entry(1))

    def broken(_: Keeper) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "sync", broken)
        with pytest.raises(SpoolSyncError, match="MemoryError"):
            await spool.sync()
        with pytest.raises(SpoolSyncError, match="MemoryError"):
            await spool.sync()
    await spool.sync()
    spool.settle([ticket])
    monkeypatch.setattr(Keeper, "sync", broken)
    await spool.aclose()  # and does not hang


# -- forks and collections -------------------------------------------------------------


@run
async def test_a_child_that_is_forked_while_the_spool_closes_does_not_keep_it_locked(root, monkeypatch):
    spool = await opened(root)
    spool.append(entry(1))
    begun, go, close = threading.Event(), threading.Event(), Keeper.close

    def slowly(keeper: Keeper) -> None:
        begun.set()
        assert go.wait(5)
        close(keeper)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "close", slowly)
        closing = asyncio.create_task(spool.aclose())
        await asyncio.to_thread(begun.wait, 5)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"!")
            signal.pause()
            os._exit(0)
        assert os.read(reading, 1) == b"!"  # by now it has let go
        os.close(reading)
        os.close(writing)
        go.set()
        await closing
    try:
        again = await opened(root)
        assert [found for _, found in await everything(again)] == [entry(1)]
        await again.aclose()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@run
async def test_a_spool_that_is_collected_unclosed_lets_go_of_its_files(root):
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    spool = await opened(root, sync_interval=0.001)
    spool.append(entry(1))
    thread = spool._thread._thread
    del spool
    while thread.is_alive():
        gc.collect()
        await asyncio.sleep(0.001)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    again = await opened(root)
    assert [found for _, found in await everything(again)] == [entry(1)]
    await again.aclose()


@run
async def test_tickets_may_be_settled_while_the_spools_thread_closes_its_files(root, monkeypatch):
    spool, close = await opened(root), Segment.close
    tickets = [spool.append(entry(number, size=1000)) for number in range(1, 30)]

    def settled_meanwhile(segment):
        close(segment)
        spool.settle(tickets)  # as the event loop's thread might do now

    monkeypatch.setattr(Segment, "close", settled_meanwhile)
    await spool.aclose()
    again = await opened(root)
    assert len(await everything(again)) == 29
    await again.aclose()


# -- two threads, one directory -------------------------------------------------------


def test_a_look_at_the_directory_sees_each_file_once_while_another_thread_looks_too(root):
    # The event loop's thread measures the directory when it needs a file at once, and the spool's thread may be
    # adopting. A file adopted twice would be taken for its own duplicate, and what it holds be lost.
    bench = Bench(root)
    names = sorted(f"{'0' * 16}-{number:08x}.seg" for number in range(300))
    for name in names:
        (root / name).touch()
    directory, measured = bench.keeper.directory, bench.keeper.directory.bytes_of_segments()
    sizes, done = [], threading.Event()

    def measure():
        while not done.is_set():
            sizes.append(directory.bytes_of_segments())

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        seen = [directory.segments_of("0" * 16) for _ in range(300)]
    finally:
        done.set()
        thread.join()
    assert all(listing == names for listing in seen)
    assert set(sizes) == {measured}
    bench.kill()


def test_a_look_that_was_begun_does_not_hide_files_from_the_next(root):
    bench = Bench(root)
    bench.append(entry(1))
    directory = bench.keeper.directory
    whole = directory.owners(), directory.segments_of(bench.keeper.lock.owner), directory.bytes_of_segments()
    with os.scandir(directory.fd) as begun:
        next(begun)
        assert whole == (
            directory.owners(),
            directory.segments_of(bench.keeper.lock.owner),
            directory.bytes_of_segments(),
        )
    assert all(whole)
    bench.kill()
