"""Reads a spool's files without the spool: what is pending on the disk, by the description in `_format`.

Shares no code with the package, so that a mistake in its reader is not a mistake here too.
"""

import struct
import zlib
from pathlib import Path

SETTLED = 0x5E771ED5


def pending(directory: Path) -> dict[str, list[bytes]]:
    """For each UUID that would be sent again, the copies of everything that its record says."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(directory.glob("*.seg")):
        data = path.read_bytes()
        if len(data) < 256 or data[:8] != b"moespool":
            assert not data.strip(b"\0"), "neither a segment nor a spare"
            continue
        marker = data[16:24]
        for at in range(256, len(data), 8):
            if data[at : at + 8] != marker:
                continue
            mark, crc, length, kind = struct.unpack_from("<IIIB", data, at + 8)
            record = data[at + 16 : at + length]
            if zlib.crc32(record) != crc or mark == SETTLED:
                continue
            assert kind == 1
            uuid = record[28:64].decode()
            found.setdefault(uuid, []).append(record)
    return found


def record_of(entry) -> bytes:
    """What a record must say for an entry."""
    flags = (1 if entry.impression else 0) | (0 if entry.timezone_offset is None else 2)
    rest = entry.customer + entry.attributes + entry.payload
    fixed = struct.pack(
        "<IBBHIIid36s",
        80 + len(rest),
        1,
        flags,
        0,
        len(entry.customer),
        len(entry.attributes),
        entry.timezone_offset or 0,
        entry.accepted_at,
        entry.event_uuid.encode(),
    )
    return fixed + rest
