"""The values that cross the seam between a spool and whoever journals events in it.

A spool knows nothing of MoEngage's JSON: an `Entry` is an identity, a person, and bytes. Invariant: nothing
here shows a customer or a payload in its repr.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NewType, Protocol

from attrs import field, frozen

Ticket = NewType("Ticket", int)
"""Where one entry lies. Valid in the process that got it, until it is settled; an `int`, so that a million
of them are cheap to hold (`array("Q")` takes 8 bytes each)."""


@frozen(kw_only=True)
class Entry:
    """One accepted event, as it will be sent.

    Attributes:
        event_uuid: Canonical text of 36 characters.
        customer: The JSON-encoded customer id; compared byte for byte by `Spool.forget`.
        impression: Impressions may be shed before clicks.
        payload: The encoded action, byte for byte what will be sent.
        attributes: The encoded user attributes, or `b""`.
        timezone_offset: Seconds, within 32 bits.
        accepted_at: Wall clock, epoch seconds.
    """

    event_uuid: str = field(repr=False)
    customer: bytes = field(repr=False)
    impression: bool
    payload: bytes = field(repr=False)
    attributes: bytes = field(repr=False, default=b"")
    timezone_offset: int | None = field(repr=False, default=None)
    accepted_at: float

    def fields(self) -> tuple[bytes, str, bool, bytes, bytes, int | None, float]:
        """All of it, in the order that `Spool.journal` takes."""
        return (
            self.customer,
            self.event_uuid,
            self.impression,
            self.payload,
            self.attributes,
            self.timezone_offset,
            self.accepted_at,
        )


@frozen(kw_only=True)
class DeadLetter:
    """An event that MoEngage refused for good: kept, bounded, so that a person can look and replay."""

    entry: Entry
    reason: str
    status: int | None
    buried_at: float


@frozen(kw_only=True)
class ForgetReceipt:
    """What `Spool.forget` found.

    Attributes:
        entries: Unsent events of the person removed from this process's files, adopted ones included.
        dead_letters: The person's dead letters removed.
        other_processes: Living processes that share the directory; each honours the tombstone within its
            sync interval. Files of dead processes honour it when they are adopted.
    """

    entries: int
    dead_letters: int
    other_processes: int


@frozen(kw_only=True)
class SpoolStats:
    """Counters since `open`, and what there is now. Sizes in bytes.

    Attributes:
        pending: Entries handed out as tickets and not settled. What recovery has not read yet is not in it.
        unread_segments: Adopted segments that recovery has not finished reading.
        refused: Appends answered `None`: full, failing, too large, or closed.
        carried: Stragglers moved to a younger segment so that an old one could leave.
        inline_segments: Segments that `append` had to create itself, because no spare was ready.
        skipped: Places where bytes that were no whole record were skipped: torn tails, flipped bits.
        left_alone: Files not read: a newer format, somebody else's, or an unreadable header.
        evicted_letters: Dead letters that left because of the bounds.
        last_error: The latest trouble with the disk, or `None` while all is well.
    """

    state: str
    bytes: int
    segments: int
    pending: int
    unread_segments: int
    appended: int
    recovered: int
    settled: int
    forgotten: int
    refused: int
    carried: int
    inline_segments: int
    adopted_processes: int
    skipped: int
    left_alone: int
    buried: int
    evicted_letters: int
    syncs: int
    last_error: str | None


class Spool(Protocol):
    """A journal of accepted events.

    `journal`, `settle` and `is_forgotten` are called on the event loop's thread, many times a request: they
    return at once and never raise because of the disk. Everything else is awaited. What `journal` answered
    with a ticket survives the end of the process; what `sync` covered survives a power cut.
    """

    async def open(self) -> None:
        """Get ready to append. Raises `SpoolError`."""

    async def aclose(self) -> None:
        """Make everything durable and let go of it; what is pending is left for the next process."""

    def journal(
        self,
        customer: bytes,
        event_uuid: str,
        impression: bool,  # noqa: FBT001 - making an `Entry` would cost every event 0.6 µs
        payload: bytes,
        attributes: bytes,
        timezone_offset: int | None,
        accepted_at: float,
    ) -> Ticket | None:
        """Journal what makes an `Entry`, or answer `None`: then the event exists in memory only."""

    def settle(self, tickets: Iterable[Ticket]) -> None:
        """These need no sending any more, whatever became of them. Settling twice is harmless."""

    async def sync(self) -> None:
        """Return when everything appended before this call would survive a power cut."""

    def recover(self, *, page: int = ...) -> AsyncIterator[list[tuple[Ticket, Entry]]]:
        """Adopt what dead processes left, and hand it over in pages, oldest first."""

    async def read(self, tickets: Sequence[Ticket]) -> list[Entry | None]:
        """The entries of these tickets; `None` for one that is settled or damaged."""

    async def forget(self, customer: bytes) -> ForgetReceipt:
        """Remove one person's entries and dead letters, now and in every process's files."""

    def is_forgotten(self, customer: bytes, accepted_at: float) -> bool:
        """Whether any process has forgotten this person after the event was accepted. Ask before sending."""

    async def bury(self, letters: Sequence[DeadLetter], tickets: Iterable[Ticket] = ()) -> None:
        """Keep these as dead letters; when they are durable, settle the tickets."""

    async def dead_letters(self) -> list[DeadLetter]:
        """The dead letters that are kept, oldest first."""

    async def replay(self, event_uuids: Iterable[str] | None = None) -> list[tuple[Ticket, Entry]]:
        """Turn dead letters (all, or these) back into pending entries."""

    async def discard(self, event_uuids: Iterable[str] | None = None) -> int:
        """Remove dead letters (all, or these); answers how many."""

    def stats(self) -> SpoolStats:
        """What there is, and what has happened."""
