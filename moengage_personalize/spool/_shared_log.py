"""A small file of records that all processes share: dead letters, tombstones.

It is rare and small, so every change takes the file's lock, and is durable before it is answered. Records are
framed as in segments, so a torn end or a flipped bit costs a record and not the file. To shorten it, a new
file is written beside it and takes its name; whoever waited for the old one's lock notices and opens again.

Invariant: the header (and with it the marker) stays the same for as long as the file exists.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import frozen

from ._directory import Directory
from ._errors import SpoolBusyError, SpoolDirectoryError, SpoolFormatError
from ._format import (
    MARK,
    MARK_AT,
    RECORDS_AT,
    SETTLED,
    Frame,
    Header,
    HeaderFault,
    Kind,
    framed,
    header_area,
    padded,
    read_header,
    scan,
)


@frozen
class SharedLog:
    """One shared file. `patience` is how long to wait for its lock, in seconds."""

    directory: Directory
    name: str
    kind: Kind
    patience: float = 5.0

    @contextmanager
    def locked(self) -> Iterator["OpenLog"]:
        """Read and change it. Raises `OSError`, `SpoolBusyError`, `SpoolFormatError`."""
        with self.directory.exclusively(self.name, self._attempts()) as fd:
            self.directory.remove(f"{self.name}.new")  # of one who died while shortening it: people may be in there
            if os.fstat(fd).st_size == 0:
                os.pwrite(fd, header_area(Header(self.kind, os.urandom(8))), 0)
                os.fsync(fd)
                self.directory.sync()
            yield OpenLog(self, fd, self._header(fd))

    def version(self) -> tuple[int, int, int] | None:
        """Changes whenever the content does; `None` if there is no file. Raises `OSError`."""
        try:
            found = self.directory.stat(self.name)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> tuple[Header, list[Frame]] | None:
        """The pending records, without the lock; `None` if there is no file. Raises like `locked`."""
        try:
            fd = self.directory.open_file(self.name)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size == 0:
                return None
            log = OpenLog(self, fd, self._header(fd))
            return log.header, log.frames()
        finally:
            os.close(fd)

    def _header(self, fd: int) -> Header:
        header = read_header(os.pread(fd, RECORDS_AT, 0))
        if header is HeaderFault.NEWER:
            raise SpoolFormatError(f"spool: {self.name} was written by a newer version")
        if isinstance(header, HeaderFault) or header.kind != self.kind:
            raise SpoolDirectoryError(f"spool: {self.name} has a damaged header; move it away")
        return header

    def _attempts(self) -> Iterator[None]:
        deadline = time.monotonic() + self.patience
        while True:
            yield
            if time.monotonic() >= deadline:
                raise SpoolBusyError(f"spool: {self.name} is locked by another process")
            time.sleep(0.01)


@frozen
class OpenLog:
    """A shared file under its lock. Its methods raise `OSError`."""

    log: SharedLog
    fd: int
    header: Header

    def frames(self) -> list[Frame]:
        """The pending records."""
        return [frame for frame in self.records() if not frame.settled]

    def records(self) -> list[Frame]:
        """All records: those that count no more are there until the next rewriting."""
        size = self.size()
        data = os.pread(self.fd, size, RECORDS_AT)
        return scan(data, self.header.marker, base=RECORDS_AT, size=RECORDS_AT + len(data), limit=len(data)).frames

    def size(self) -> int:
        """Of the file, in bytes."""
        return os.fstat(self.fd).st_size

    def append(self, bodies: Sequence[bytes]) -> None:
        """Add records, durably, or (no room) none of them."""
        end = self.size()
        data = b"".join(framed(body, self.header.marker) for body in bodies)
        try:
            _write(self.fd, data, max(padded(end), RECORDS_AT))
            os.fsync(self.fd)
        except OSError:
            os.ftruncate(self.fd, end)
            raise

    def settle(self, frames: Sequence[Frame]) -> None:
        """These count no more, durably."""
        if not frames:
            return
        for frame in frames:
            os.pwrite(self.fd, MARK.pack(SETTLED), frame.offset + MARK_AT)
        os.fsync(self.fd)

    def rewrite(self, bodies: Sequence[bytes]) -> None:
        """Replace all records; this must be the last thing done under this lock."""
        directory, temporary = self.log.directory, f"{self.log.name}.new"
        fd = directory.create(temporary)
        try:
            data = header_area(self.header) + b"".join(framed(body, self.header.marker) for body in bodies)
            _write(fd, data, 0)
            os.fsync(fd)
        except BaseException:
            directory.remove(temporary)
            raise
        finally:
            os.close(fd)
        directory.rename(temporary, self.log.name)
        directory.sync()


def _write(fd: int, data: bytes, at: int) -> None:
    """All of it: a file size limit or a nearly full disk writes a part first, and then says no."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)
