r"""The bytes of the spool: headers, frames and what they hold. Sans-IO.

A file is a header area of 256 bytes and then frames, each at a multiple of 8:

    marker 8 | mark 4 | crc32 4 | length 4 | kind 1 | ... body ... | zeros to a multiple of 8
    \__________________________/ \_______ what the crc covers ____/

*The marker* is eight random bytes, new for each file and repeated in its header. It makes resynchronising
safe: after damage the scan looks for the next marker, and no payload can contain one, since nobody who
writes payloads knows it. So one checksum does for header and body, and one damaged length costs one record.

*The mark* is 0 while the record counts and `SETTLED` after. It is outside the checksum so that settling is
one store of four bytes in place. No single flipped bit, and no torn store, turns 0 into `SETTLED`: damage can
bring a settled record back (a resend of the same UUID, byte for byte), never lose a pending one.

*The header* is written twice, each copy with its checksum. The first 64 bytes keep their meaning in every
version, so that an old library can tell "newer" from "damaged". A mark at `DOUBT_AT` says that a sync failed.

Invariant: `read_header`, `scan` and the decoders are total. Arbitrary bytes in; out come records that were
written, or nothing.
"""

import enum
import struct
from zlib import crc32

from attrs import frozen

from ._nouns import DeadLetter, Entry

VERSION = 1
RECORDS_AT = 256
PENDING = 0
SETTLED = 0x5E771ED5

MAGIC = b"moespool"
_HEADER = struct.Struct("<8sHHxxxx8sQd20x")  # magic, version, kind, marker, sequence, created; then a crc32
_CRC = struct.Struct("<I")
_COPIES_AT = (0, 128)
DOUBT_AT = 248  # outside of both copies

FRAME = struct.Struct("<8sII")  # marker, mark, crc
FRAME_SIZE = FRAME.size
MARK = struct.Struct("<I")
MARK_AT = 8
_SETTLED_MARK = MARK.pack(SETTLED)
_LENGTH_AT = FRAME.size
_PREFIX = struct.Struct("<IB")  # length of the whole frame without padding, kind
_ENTRY = struct.Struct("<IBBxxIIid36s")  # + flags, len(customer), len(attributes), timezone, accepted at, uuid
_LETTER = struct.Struct("<IBBxxiId")  # + flags, status, len(reason), buried at; then reason and entry
_TOMBSTONE = struct.Struct("<IB3x16sd")  # + digest, forgotten at
_SHORTEST = FRAME.size + _PREFIX.size
_UNKNOWN = 1 << 40
SCRUBBED_FROM = FRAME.size + 4  # forgetting overwrites from here: the length stays

_IMPRESSION, _HAS_OFFSET = 1, 2
_HAS_STATUS = 1
GIL_KEPT = 5 * 1024  # above this, zlib's crc32 releases the GIL, which costs 5 ms beside a busy thread


class Kind(enum.IntEnum):
    """What a frame holds; also what a file is for (an entry's file is a segment)."""

    ENTRY = 1
    LETTER = 2
    TOMBSTONE = 3


_ENTRY_KIND = int(Kind.ENTRY)
_pack_entry = _ENTRY.pack
_ENTRY_OVERHEAD = FRAME.size + _ENTRY.size
_KINDS = frozenset(int(kind) for kind in Kind)


@frozen
class Header:
    """What a file says of itself. `sequence` orders a process's segments; `created` is epoch seconds."""

    kind: Kind
    marker: bytes
    sequence: int = 0
    created: float = 0.0


class HeaderFault(enum.Enum):
    """Why a file cannot be read."""

    BLANK = "blank"  # never put to use
    DAMAGED = "damaged"
    NEWER = "newer"


@frozen
class Frame:
    """One whole record: where it begins, whether it still counts, and its bytes from the length on."""

    offset: int
    settled: bool
    body: bytes


@frozen
class Page:
    """What a scan found: records, where to go on, where the last record ended, damaged places skipped."""

    frames: list[Frame]
    next: int
    tail: int
    skipped: int


def padded(size: int) -> int:
    """The next multiple of 8."""
    return (size + 7) & -8


def checksum(data: bytes) -> int:
    """CRC-32 that never releases the GIL."""
    if len(data) <= GIL_KEPT:
        return crc32(data)
    crc = 0
    for at in range(0, len(data), GIL_KEPT):
        crc = crc32(data[at : at + GIL_KEPT], crc)
    return crc


def header_area(header: Header) -> bytes:
    """The first `RECORDS_AT` bytes of a file."""
    copy = _HEADER.pack(MAGIC, VERSION, header.kind, header.marker, header.sequence, header.created)
    copy += _CRC.pack(crc32(copy))
    area = bytearray(RECORDS_AT)
    for at in _COPIES_AT:
        area[at : at + len(copy)] = copy
    return bytes(area)


def read_header(area: bytes) -> Header | HeaderFault:
    """The first intact copy of a file's header, or why there is none."""
    for at in _COPIES_AT:
        copy = area[at : at + _HEADER.size]
        crc = area[at + _HEADER.size : at + _HEADER.size + _CRC.size]
        if len(crc) < _CRC.size or crc != _CRC.pack(crc32(copy)):
            continue
        magic, version, kind, marker, sequence, created = _HEADER.unpack(copy)
        if magic == MAGIC and version > VERSION:
            return HeaderFault.NEWER
        if magic == MAGIC and kind in _KINDS:
            return Header(Kind(kind), marker, sequence, created)
    return HeaderFault.DAMAGED if area.strip(b"\0") else HeaderFault.BLANK


def framed(body: bytes, marker: bytes) -> bytes:
    """A pending frame with its padding, for files that are written and not mapped."""
    frame = FRAME.pack(marker, PENDING, checksum(body)) + body
    return frame.ljust(padded(len(frame)), b"\0")


def encode_fields(
    customer: bytes,
    event_uuid: str,
    impression: bool,  # noqa: FBT001 - by position, as all of the hot path
    payload: bytes,
    attributes: bytes,
    timezone_offset: int | None,
    accepted_at: float,
) -> bytes:
    """The body of an entry's frame. Raises `struct.error` or `ValueError` for what cannot be represented."""
    flags = _IMPRESSION if impression else 0
    if timezone_offset is None:
        timezone_offset = 0
    else:
        flags |= _HAS_OFFSET
    persons, extras = len(customer), len(attributes)
    fixed = _pack_entry(
        _ENTRY_OVERHEAD + persons + extras + len(payload),
        _ENTRY_KIND,
        flags,
        persons,
        extras,
        timezone_offset,
        accepted_at,
        event_uuid.encode("ascii"),
    )
    return b"".join((fixed, customer, attributes, payload))


def encode_entry(entry: Entry) -> bytes:
    """The same, of an `Entry`."""
    return encode_fields(*entry.fields())


def decode_entry(body: bytes) -> Entry | None:
    """The entry in a frame's body; `None` if it holds something else."""
    if len(body) < _ENTRY.size or body[4] != Kind.ENTRY:
        return None
    _, _, flags, customer, attributes, offset, accepted_at, uuid = _ENTRY.unpack_from(body)
    attributes_at = _ENTRY.size + customer
    payload_at = attributes_at + attributes
    if payload_at > len(body) or not uuid.isascii():
        return None
    return Entry(
        event_uuid=uuid.decode("ascii"),
        customer=body[_ENTRY.size : attributes_at],
        impression=bool(flags & _IMPRESSION),
        payload=body[payload_at:],
        attributes=body[attributes_at:payload_at],
        timezone_offset=offset if flags & _HAS_OFFSET else None,
        accepted_at=accepted_at,
    )


def encode_letter(letter: DeadLetter) -> bytes:
    """The body of a dead letter's frame."""
    reason, entry = letter.reason.encode("utf-8", "replace"), encode_entry(letter.entry)
    flags, status = (0, 0) if letter.status is None else (_HAS_STATUS, letter.status)
    length = FRAME.size + _LETTER.size + len(reason) + len(entry)
    fixed = _LETTER.pack(length, Kind.LETTER, flags, status, len(reason), letter.buried_at)
    return b"".join((fixed, reason, entry))


def decode_letter(body: bytes) -> DeadLetter | None:
    """The dead letter in a frame's body; `None` if it holds something else."""
    if len(body) < _LETTER.size or body[4] != Kind.LETTER:
        return None
    _, _, flags, status, reason, buried_at = _LETTER.unpack_from(body)
    entry_at = _LETTER.size + reason
    entry = decode_entry(body[entry_at:])
    if entry is None:
        return None
    text = body[_LETTER.size : entry_at].decode("utf-8", "replace")
    return DeadLetter(entry=entry, reason=text, status=status if flags & _HAS_STATUS else None, buried_at=buried_at)


def encode_tombstone(digest: bytes, forgotten_at: float) -> bytes:
    """The body of a tombstone's frame; `digest` has 16 bytes."""
    return _TOMBSTONE.pack(FRAME.size + _TOMBSTONE.size, Kind.TOMBSTONE, digest, forgotten_at)


def decode_tombstone(body: bytes) -> tuple[bytes, float] | None:
    """Digest and time of the tombstone in a frame's body; `None` if it holds something else."""
    if len(body) != _TOMBSTONE.size or body[4] != Kind.TOMBSTONE:
        return None
    _, _, digest, forgotten_at = _TOMBSTONE.unpack(body)
    return digest, forgotten_at


def scan(window: bytes, marker: bytes, *, base: int, size: int, limit: int) -> Page:
    """Read up to `limit` records from a window of a file.

    Args:
        window: The file's bytes from `base` (a multiple of 8) on.
        marker: From the file's header.
        base: Where the window lies in the file.
        size: The file's size. A record that begins in the window and may end beyond it is left for the
            next call: `Page.next` points at it. Make the window larger when there is no progress.
        limit: How many records, settled ones included.
    """
    frames: list[Frame] = []
    at = tail = skipped = 0
    stop = len(window)
    final = base + stop >= size
    while at < stop and len(frames) < limit:
        beginning, scrubbed = at, False
        if window.startswith(marker, at):
            end = _end_at(window, at)
            if end > stop and not final and (end == _UNKNOWN or base + end <= size):
                break
            if end <= stop and (frame := _frame_at(window, at, end, base)) is not None:
                frames.append(frame)
                at = tail = padded(end)
                continue
            scrubbed = window.startswith(_SETTLED_MARK, at + MARK_AT)
            beginning = at + len(marker)
        found = _next_marker(window, marker, beginning)
        if found < 0 and not final:
            found = max(beginning, (stop - 7) & -8)  # the window may end within a marker
            if found == at:
                break
        elif found < 0:
            found = stop
        skipped += not scrubbed and bool(window[beginning:found].strip(b"\0"))
        at = found
    return Page(frames, min(base + at, size), base + tail, skipped)


def _end_at(window: bytes, at: int) -> int:
    """Where the frame at a marker says that it ends; `_UNKNOWN` when the window ends before it says so."""
    if at + _SHORTEST > len(window):
        return _UNKNOWN
    return at + int(_PREFIX.unpack_from(window, at + _LENGTH_AT)[0])


def _frame_at(window: bytes, at: int, end: int, base: int) -> Frame | None:
    """The record between two offsets, if it is whole."""
    if end - at < _SHORTEST:
        return None
    _, mark, crc = FRAME.unpack_from(window, at)
    body = window[at + FRAME.size : end]
    return Frame(base + at, mark == SETTLED, body) if checksum(body) == crc else None


def _next_marker(window: bytes, marker: bytes, at: int) -> int:
    found = window.find(marker, at)
    while found >= 0 and found % 8:
        found = window.find(marker, found + 1)
    return found
