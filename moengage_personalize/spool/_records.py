"""Reading segments from outside: whoever they belong to, and while they are written.

Invariant: nothing is created, locked, marked or removed. A record that is being written is not whole, and not seen; a
file that is gone has no records.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from ._directory import Directory
from ._format import RECORDS_AT, Frame, Header, HeaderFault, decode_entry, read_header, scan

_WINDOW = 1 << 18
_BREATH = 0.0005  # seconds


class Records:
    """The records of one segment, a window at a time. Iterating raises `OSError`."""

    def __init__(self, directory: Directory, name: str, header: Header) -> None:
        self._directory, self._name, self._marker = directory, name, header.marker
        self.skipped = 0

    def __iter__(self) -> Iterator[Frame]:
        try:
            fd = self._directory.open_file(self._name)
        except FileNotFoundError:
            return
        try:
            size, at, window = os.fstat(fd).st_size, RECORDS_AT, _WINDOW
            while at < size and (data := os.pread(fd, window, at)):
                page = scan(data, self._marker, base=at, size=size, limit=len(data))
                self.skipped += page.skipped
                yield from page.frames
                window = _WINDOW if page.next > at else 2 * window
                at = page.next
        finally:
            os.close(fd)


def header_of(directory: Directory, name: str) -> Header | HeaderFault:
    """A segment's header. Raises `OSError`."""
    try:
        fd = directory.open_file(name)
    except FileNotFoundError:
        return HeaderFault.BLANK
    try:
        return read_header(os.pread(fd, RECORDS_AT, 0))
    finally:
        os.close(fd)


def newest_of(directory: Directory, customer: bytes) -> float:
    """When the newest pending event of a person was accepted, by any process; 0.0: there is none.

    A file that cannot be read has none. Raises `OSError` if the directory cannot be listed.
    """
    newest = 0.0
    for owner in directory.owners():
        for name in directory.segments_of(owner):
            with suppress(OSError):
                newest = max(newest, _newest_in(directory, name, customer))
            time.sleep(_BREATH)  # long scans would have the event loop's thread wait for the GIL
    return newest


def _newest_in(directory: Directory, name: str, customer: bytes) -> float:
    header = header_of(directory, name)
    if not isinstance(header, Header):
        return 0.0
    found = (
        decode_entry(frame.body)
        for frame in Records(directory, name, header)
        if not frame.settled and customer in frame.body
    )
    return max((entry.accepted_at for entry in found if entry and entry.customer == customer), default=0.0)
