"""The front of the spool on disk: which thread does what, and when.

`journal`, `settle` and `is_forgotten` go straight to the journal, on the event loop's thread. Everything
else is a job for the keeper, on the spool's thread, and what only the event loop's thread may change is
changed after the `await`. A child of a fork has no such thread and must not write into its parent's files:
it lets go of them, and may open the spool again as a new owner.
"""

import asyncio
import logging
import os
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from ._dead_letters import DeadLetters, chosen
from ._directory import directory_at
from ._errors import SpoolClosedError, SpoolError, SpoolSyncError
from ._format import Kind
from ._inheritance import Inheritance
from ._journal import Chore, Journal
from ._keeper import Keeper
from ._nouns import DeadLetter, Entry, ForgetReceipt, SpoolStats, Ticket
from ._segment import LARGEST
from ._shared_log import SharedLog
from ._thread import JournalThread, fail, succeed, tell
from ._tombstones import Tombstones

_logger = logging.getLogger("moengage_personalize")
_MIB = 1 << 20
_PAGE = 4096


class DiskSpool:
    """A journal of accepted events in a directory, which several processes may share.

    Args:
        directory: Created with mode 0700 if it is not there. Files have mode 0600. It must be on a local
            disk.
        max_bytes: What the segments of all processes together may take. Each process needs two segments.
        segment_bytes: Size of a file, a multiple of the page size. An entry must fit in one.
        sync_interval: Seconds between syncs when nobody awaits one; also how soon a tombstone of another
            process is honoured.
        max_dead_letters: How many are kept; the oldest leave first.
        max_dead_letter_bytes: How many bytes of them are kept.

    Raises:
        ValueError: For bounds that cannot work.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int = 256 * _MIB,
        segment_bytes: int = 4 * _MIB,
        sync_interval: float = 0.5,
        max_dead_letters: int = 1_000,
        max_dead_letter_bytes: int = 8 * _MIB,
    ) -> None:
        if not _PAGE <= segment_bytes <= LARGEST or segment_bytes % _PAGE:
            raise ValueError(f"segment_bytes must be a multiple of {_PAGE}, at most {LARGEST}")
        if max_bytes < 2 * segment_bytes:
            raise ValueError("max_bytes must hold at least two segments: one in use and one spare")
        if not sync_interval > 0 or max_dead_letters < 0 or max_dead_letter_bytes < 0:
            raise ValueError("sync_interval must be positive, and the bounds of dead letters not negative")
        self._path = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._sync_interval = sync_interval
        self._bounds = max_dead_letters, max_dead_letter_bytes
        self._numbers = count(1)  # goes on when it is opened again: an old ticket must not mean a new record
        self._thread: JournalThread | None = None
        self._state = "new"
        self._closing: asyncio.Future[None] | None = None
        self._sync_is_due = False
        self._start_over()

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<DiskSpool {stats.state}: {stats.pending} pending in {stats.segments} segments>"

    async def open(self) -> None:
        """Lock files of our own and prepare the first segment.

        A full disk is no error: appends answer `None` until there is room.

        Raises:
            SpoolDirectoryError: The directory cannot be created, written or locked.
            SpoolClosedError: It is open already, or being closed.
        """
        if self._thread is not None:
            raise SpoolClosedError("spool: open it once; after aclose, it may be opened again")
        if self._closing is not None and self._closing.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(self._closing)  # a closing whose caller was cancelled
        self._start_over()
        self._loop = asyncio.get_running_loop()
        self._thread = thread = JournalThread(self._tick, self._sync_interval, self._keeper.close)
        thread.start()
        _alive.add(self)
        try:
            await thread.call(self._keeper.open)
        except BaseException:
            self._thread = None
            thread.stop_after(self._keeper.close)
            raise
        self._state = "open"

    async def aclose(self) -> None:
        """Sync, remove what is settled, and leave the rest to whoever opens the directory next.

        Idempotent. Cancelling it does not stop the closing, which the spool's thread finishes.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            if self._closing is not None:
                await asyncio.shield(self._closing)
            return
        self._state = "closed"
        self._journal.active, self._journal.closed = None, True
        while self._chores:
            self._journal.do(self._chores.popleft())
        self._closing = self._loop.create_future()
        thread.stop_after(self._close)
        await asyncio.shield(self._closing)

    def journal(
        self,
        customer: bytes,
        event_uuid: str,
        impression: bool,  # noqa: FBT001 - by position, as all of the hot path
        payload: bytes,
        attributes: bytes,
        timezone_offset: int | None,
        accepted_at: float,
    ) -> Ticket | None:
        """Journal what makes an `Entry`, so that it outlives this process.

        Answers `None` when the spool is full, failing or closed, or when the entry is larger than a
        segment; the caller may then keep it in memory. Makes no system call, unless a segment is full.
        """
        return self._journal.append(customer, event_uuid, impression, payload, attributes, timezone_offset, accepted_at)

    def append(self, entry: Entry) -> Ticket | None:
        """Journal an entry; as `journal`."""
        return self._journal.append(*entry.fields())

    def settle(self, tickets: Iterable[Ticket]) -> None:
        """These need no sending any more. Unknown tickets, and settling twice, are ignored."""
        self._journal.settle(tickets)

    def is_forgotten(self, customer: bytes, accepted_at: float) -> bool:
        """Whether this person was forgotten after the event was accepted. Ask before sending."""
        return self._tombstones.covers(customer, accepted_at)

    async def sync(self) -> None:
        """Return when everything appended before this call would survive a power cut.

        Callers share a pass of the disk; nobody joins one that had begun before.

        Raises:
            SpoolSyncError: The disk refused. It keeps failing until what is in doubt has been written anew.
            SpoolClosedError: Not open.
        """
        thread = self._opened()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._syncing.append(waiter)
        if not self._sync_is_due:
            self._sync_is_due = True
            thread.submit(self._sync)
        await waiter

    async def recover(self, *, page: int = 100) -> AsyncIterator[list[tuple[Ticket, Entry]]]:
        """Adopt what dead processes left, and hand it over, oldest first per process.

        Call it at the start and then every so often. Stop iterating when there is no room: what was not
        handed over stays on the disk, and the next call goes on with it. An entry may be handed over twice
        after a crash; it is byte for byte the same.

        Args:
            page: How many entries at once, at most.

        Raises:
            SpoolError: The directory cannot be read.
        """
        await self._opened().call(self._keeper.adopt)
        while True:
            async with self._reading:
                found = await self._opened().call(self._keeper.inheritance.read_page, page)
                self._opened()  # closed meanwhile, its files are let go of
                batch = self._journal.take(found) if found else []
            if found is None:
                return
            if batch:
                yield batch

    async def read(self, tickets: Sequence[Ticket]) -> list[Entry | None]:
        """The entries of these tickets, in their order; `None` for one that is settled or damaged.

        Raises:
            SpoolError: The file cannot be read.
        """
        return await self._opened().call(self._keeper.read, tickets)

    async def forget(self, customer: bytes) -> ForgetReceipt:
        """Remove one person's entries and dead letters, and have every other process do so.

        When it returns, a tombstone is durable and the person's records in this process's files are
        overwritten.

        Raises:
            SpoolError: The tombstone could not be written; nothing is promised then.
        """
        before = self._journal.forgotten
        chores, letters = await self._opened().call(self._keeper.forget, customer, time.time())
        for chore in chores:
            self._opened()  # closed meanwhile, its files are let go of
            self._journal.do(chore)
            await asyncio.sleep(0)
        entries = self._journal.forgotten - before
        await self.sync()
        return ForgetReceipt(entries=entries, dead_letters=letters, other_processes=self._keeper.inheritance.living)

    async def bury(self, letters: Sequence[DeadLetter], tickets: Iterable[Ticket] = ()) -> None:
        """Keep dead letters; once they are durable, settle the tickets.

        A person who was forgotten leaves none.

        Raises:
            SpoolError: They could not be written. The tickets are still pending.
        """
        if letters:
            await self._opened().call(self._keeper.bury, letters)
        self._journal.settle(tickets)

    async def dead_letters(self) -> list[DeadLetter]:
        """What is kept, of all processes, oldest first.

        Raises:
            SpoolError: The file cannot be read.
        """
        return await self._opened().call(self._keeper.dead_letters)

    async def replay(self, event_uuids: Iterable[str] | None = None) -> list[tuple[Ticket, Entry]]:
        """Turn dead letters (all, or these) into pending entries again, with the same UUIDs and bytes.

        They leave the dead letters when their new records are durable. What finds no room stays a dead
        letter.

        Raises:
            SpoolError: They could not be read, written or synced, and are dead letters still.
        """
        wanted = None if event_uuids is None else frozenset(event_uuids)
        matches = chosen(wanted)
        pending = [
            (ticket, letter.entry)
            for letter in await self.dead_letters()
            if matches(letter) and (ticket := self.append(letter.entry)) is not None
        ]
        if pending:
            try:
                await self.sync()
            except BaseException:
                self.settle(ticket for ticket, _ in pending)  # they are dead letters as before
                raise
            with suppress(SpoolError):  # the worst that comes of it is a letter whose event is delivered
                await self.discard(entry.event_uuid for _, entry in pending)
        return pending

    async def discard(self, event_uuids: Iterable[str] | None = None) -> int:
        """Remove dead letters (all, or these).

        Raises:
            SpoolError: The file cannot be changed.
        """
        wanted = None if event_uuids is None else frozenset(event_uuids)
        return await self._opened().call(self._keeper.discard, wanted)

    def stats(self) -> SpoolStats:
        """Counters since `open`, and what there is."""
        journal, keeper = self._journal, self._keeper
        segments = [*journal.segments.values(), *journal.spares, *journal.retired]
        return SpoolStats(
            state=keeper.state() if self._state == "open" else self._state,
            bytes=sum(segment.size for segment in segments),
            segments=len(segments),
            pending=journal.pending(),
            unread_segments=len(keeper.inheritance.unread),
            appended=journal.appended,
            recovered=journal.recovered,
            settled=journal.settled,
            forgotten=journal.forgotten,
            refused=journal.refused,
            carried=journal.carried,
            inline_segments=journal.inline,
            adopted_processes=keeper.inheritance.adopted,
            skipped=keeper.inheritance.skipped,
            left_alone=len(keeper.inheritance.left_alone),
            buried=keeper.buried,
            evicted_letters=keeper.evicted,
            syncs=keeper.syncs,
            last_error=keeper.last_error,
        )

    def _start_over(self) -> None:
        """Fresh state: before the first open, before a later one, and in a forked child."""
        self._home = home = directory_at(self._path)
        self._tombstones = Tombstones(SharedLog(home, "tombstones", Kind.TOMBSTONE))
        letters = DeadLetters(SharedLog(home, "dead-letters", Kind.LETTER), *self._bounds)
        self._keeper = Keeper(home, self._segment_bytes, self._max_bytes, self._tombstones, letters, self._numbers)
        self._journal = self._keeper.journal = Journal(
            segment_bytes=self._segment_bytes,
            create=self._keeper.make_inline,
            wake=partial(_wake, weakref.ref(self)),
            covers=self._tombstones.covers,
        )
        self._keeper.inheritance = Inheritance(home, self._journal, self._keeper.numbers)
        self._chores: deque[Chore] = deque()
        self._syncing: deque[asyncio.Future[None]] = deque()
        self._sync_is_due = False
        self._reading = asyncio.Lock()
        self._closing = None
        self._said = "open"

    def _opened(self) -> JournalThread:
        if self._thread is None:
            raise SpoolClosedError(f"spool: it is {self._state}, not open")
        return self._thread

    def _tick(self) -> None:
        """In the spool's thread. Not before it is open: housekeeping would claim a lock that `open` then forgets."""
        if self._state != "open":
            return
        chores = self._keeper.cycle(time.monotonic())
        if chores:
            tell(self._loop, partial(self._accept, chores))
        self._say(self._keeper.state())

    def _say(self, state: str) -> None:
        """One line per change of state."""
        if state != self._said and self._state == "open":
            self._said = state
            level = logging.INFO if state == "open" else logging.WARNING
            _logger.log(level, "spool is %s%s", state, f" ({why})" if (why := self._keeper.last_error) else "")

    def _accept(self, chores: list[Chore]) -> None:
        if self._state != "open":
            return  # found while it was being closed: its files are let go of, and the next owner finds the same
        idle = not self._chores
        self._chores.extend(chores)
        if idle:
            self._do_one()

    def _do_one(self) -> None:
        """One chore a turn, so that no turn takes long."""
        if self._chores:
            self._journal.do(self._chores.popleft())
            if self._chores:
                self._loop.call_soon(self._do_one)

    def _sync(self) -> None:
        """In the spool's thread."""
        error: SpoolSyncError | None = None
        self._sync_is_due = False  # first: who comes after this submits another
        waiting = [self._syncing.popleft() for _ in range(len(self._syncing))]
        try:
            leaves = self._keeper.sync()
        except SpoolSyncError as failure:
            error = failure
        except Exception as failure:  # a bug must not leave callers waiting
            error = SpoolSyncError(f"spool: syncing failed with {type(failure).__name__}")
            raise
        else:
            if leaves:
                tell(self._loop, partial(self._accept, leaves))
        finally:
            for waiter in waiting:
                answer = partial(fail, waiter, error) if error else partial(succeed, waiter, None)
                tell(self._loop, answer)

    def _answer_syncs(self, error: SpoolClosedError) -> None:
        while self._syncing:
            tell(self._loop, partial(fail, self._syncing.popleft(), error))

    def _close(self) -> None:
        """The last thing in the spool's thread."""
        try:
            self._keeper.close()
        finally:
            self._answer_syncs(SpoolClosedError("spool: closed"))
            if self._closing is not None:
                tell(self._loop, partial(succeed, self._closing, None))

    def _abandon(self) -> None:
        """In a forked child: let go of the parent's files without touching them."""
        journal, keeper = self._journal, self._keeper
        if self._thread is None and not keeper.locks():
            return
        for segment in {*journal.segments.values(), *journal.spares, *journal.retired}:
            with suppress(OSError):  # the parent's thread may have been closing it
                segment.close()
        for lock in keeper.locks():
            with suppress(OSError):
                os.close(lock.fd)
        self._home.close()
        self._thread = None
        self._state = "forked"
        self._start_over()


def _wake(spool: "weakref.ref[DiskSpool]") -> None:
    """Refers to it weakly, since its thread refers to the journal."""
    alive = spool()
    if alive is not None and alive._thread is not None:  # noqa: SLF001 - this class's own
        alive._thread.wake()  # noqa: SLF001


_alive: "weakref.WeakSet[DiskSpool]" = weakref.WeakSet()


def _in_a_forked_child() -> None:
    for spool in list(_alive):
        spool._abandon()  # noqa: SLF001 - the hook is this class's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)
