"""One file of entries, preallocated and mapped.

Storing into a mapping makes no system call and keeps the GIL; what is stored is the kernel's at once, so it
outlives the process. Its blocks are allocated before it is mapped (`posix_fallocate`): a store to a hole on a
full disk would be a SIGBUS. Reading goes through `pread`, where a bad sector is an error and not a signal. So
does syncing: `mmap.flush` keeps the GIL while it waits for the disk, `fdatasync` does not, and Linux and
macOS write mapped pages with it.

Invariant: a record's marker is stored last, after all of its bytes, so that a process killed in the middle of
an append leaves a gap and not a record. (The checksum says the same to a power cut.)
"""

import errno
import mmap
import os
import struct
from collections.abc import Callable
from zlib import crc32

from attrs import define, field

from ._directory import Directory, Lock
from ._format import (
    DOUBT_AT,
    FRAME,
    FRAME_SIZE,
    GIL_KEPT,
    MARK,
    MARK_AT,
    PENDING,
    RECORDS_AT,
    SCRUBBED_FROM,
    SETTLED,
    Frame,
    Header,
    HeaderFault,
    Kind,
    Page,
    checksum,
    header_area,
    read_header,
    scan,
)
from ._nouns import Ticket

_WINDOW = 256 * 1024
OFFSET_BITS = 32
LARGEST = 1 << 30
OFFSETS = (1 << OFFSET_BITS) - 1
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class UnreadableSegmentError(Exception):
    """A file under a segment's name holds nothing that this version reads; `fault` says why."""

    def __init__(self, fault: HeaderFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def segment_number(ticket: int) -> int:
    """Which segment a ticket belongs to."""
    return ticket >> OFFSET_BITS


def offset_in(ticket: int) -> int:
    """Where in its segment a ticket's record begins."""
    return ticket & OFFSETS


@define(eq=False)
class Segment:
    """A mapped file. Counters belong to the event loop's thread, `synced` and `sealed_at` to the journal's.

    Attributes:
        number: Its place in tickets, unique in this process.
        lock: Under whose lock it lies.
        tail: Where the last known record ends, and in the active segment the next one goes.
        cursor: Up to where recovery has read an adopted segment; its size for our own.
        total: Records known.
        done: How many of those are settled, or have been copied elsewhere.
        synced: The tail when the last sync began.
        touched: Something else was stored since then.
        carried: Some of its records have been copied elsewhere, so it stays until the copies are durable.
        doomed: Must be left for another segment: a sync failed, or the file's name is gone.
        sealed_at: Monotonic time when the journal's thread first saw that nothing is appended any more.
    """

    number: int
    name: str
    lock: Lock
    fd: int
    map: mmap.mmap
    size: int
    header: Header
    tail: int
    cursor: int
    base: int = field(init=False)
    marker: bytes = field(init=False)
    synced: int = 0
    touched: bool = False
    total: int = 0
    done: int = 0
    named: bool = False
    carried: bool = False
    doomed: bool = False
    sealed_at: float | None = None

    def __attrs_post_init__(self) -> None:
        self.base = self.number << OFFSET_BITS
        self.marker = self.header.marker

    @property
    def pending(self) -> int:
        """Records handed out and not settled."""
        return self.total - self.done

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to sync."""
        return self.touched or self.tail != self.synced

    @property
    def end(self) -> int:
        """Behind this there are no records."""
        return self.tail if self.is_read else self.size

    @property
    def is_read(self) -> bool:
        """Whether recovery has nothing left to read in it."""
        return self.cursor >= self.size

    def activate(self, header: Header) -> None:
        """Store the header: from here on the file is a segment, to whoever finds it."""
        self.header = header
        self.map[:RECORDS_AT] = header_area(header)
        self.touched = True

    def append(self, body: bytes) -> Ticket:
        """Store a record and answer its ticket. There must be room."""
        at = self.tail
        begin = at + FRAME_SIZE
        end = begin + len(body)
        self.map[begin:end] = body
        crc = crc32(body) if end - begin <= GIL_KEPT else checksum(body)
        FRAME.pack_into(self.map, at, self.marker, PENDING, crc)
        self.tail = (end + 7) & -8
        self.total += 1
        return self.base | at  # type: ignore[return-value]  # `Ticket(...)` would be a call on the hot path

    def is_pending(self, offset: int) -> bool:
        """Whether the record has not been marked."""
        return bool(MARK.unpack_from(self.map, offset + MARK_AT)[0] != SETTLED)

    def mark(self, offset: int) -> bool:
        """Mark a record as settled; false if it was."""
        if not self.is_pending(offset):
            return False
        MARK.pack_into(self.map, offset + MARK_AT, SETTLED)
        self.touched = True
        return True

    def scrub(self, offset: int, length: int) -> None:
        """Overwrite a marked record's content."""
        begin = offset + SCRUBBED_FROM
        end = offset + FRAME.size + length
        self.map[begin:end] = bytes(end - begin)
        self.touched = True

    def doom(self) -> None:
        """Have everything pending copied elsewhere, also by whoever adopts this file."""
        self.doomed = True
        MARK.pack_into(self.map, DOUBT_AT, SETTLED)

    def page(self, at: int, *, limit: int, until: int | None = None) -> Page:
        """Up to `limit` records from `at` on, read from the file. Raises `OSError`."""
        size = self.size if until is None else until
        window = _WINDOW
        while True:
            data = os.pread(self.fd, min(window, size - at), at)
            if not data:
                return Page([], self.size, at, 0)
            page = scan(data, self.marker, base=at, size=size, limit=limit)
            if page.next > at:
                return page
            window *= 2

    def record(self, offset: int) -> Frame | None:
        """The whole record at an offset, read from the file. Raises `OSError`."""
        page = self.page(offset, limit=1)
        return page.frames[0] if page.frames and page.frames[0].offset == offset else None

    def sync(self) -> None:
        """Make everything stored before this call durable. Raises `OSError`, also if the file was removed."""
        self.touched, self.synced = False, self.tail
        _sync(self.fd)
        if os.fstat(self.fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "a segment was removed")

    def close(self) -> None:
        """Unmap; the file stays."""
        self.map.close()
        os.close(self.fd)


def create_segment(directory: Directory, lock: Lock, *, number: int, size: int) -> Segment:
    """A spare: allocated and mapped, but with no header yet. Raises `OSError`; then no file is left."""
    name = f"{lock.owner}-{number:08x}.seg"
    fd = directory.create(name)
    try:
        _allocate(fd, size)
        for at in range(0, size, _WINDOW):
            os.pread(fd, _WINDOW, at)  # else the first store waits a millisecond for the page cache
        mapped = mmap.mmap(fd, size)
    except BaseException:
        os.close(fd)
        directory.remove(name)
        raise
    header = Header(Kind.ENTRY, os.urandom(8))
    return Segment(number, name, lock, fd, mapped, size, header, tail=RECORDS_AT, cursor=size)


def adopt_segment(directory: Directory, lock: Lock, name: str, *, number: int) -> Segment:
    """A dead process's file, to be read from its beginning. Raises `OSError`, `UnreadableSegmentError`."""
    fd = directory.open_file(name)
    try:
        header = _header_of(fd)
        size = min(os.fstat(fd).st_size, LARGEST)
        _allocate(fd, size)  # a copied or truncated file may have holes, which must not be mapped
        mapped = mmap.mmap(fd, size)
    except BaseException:
        os.close(fd)
        raise
    segment = Segment(number, name, lock, fd, mapped, size, header, tail=RECORDS_AT, cursor=RECORDS_AT)
    segment.touched = True  # nobody knows whether it was ever synced
    segment.doomed = MARK.unpack_from(mapped, DOUBT_AT)[0] == SETTLED
    return segment


def _header_of(fd: int) -> Header:
    area = os.pread(fd, RECORDS_AT + 1, 0)
    header = read_header(area) if len(area) > RECORDS_AT else HeaderFault.BLANK  # it can hold no record
    if isinstance(header, HeaderFault):
        raise UnreadableSegmentError(header)
    return header


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    elif (have := os.fstat(fd).st_size) < size:  # macOS
        os.pwrite(fd, bytes(size - have), have)


ENCODING_ERRORS = (struct.error, UnicodeEncodeError, OverflowError)
