"""Looking at a spool's directory from outside, for a person: what is there, and whose it is.

Theory: the processes that own the files go on meanwhile, and nothing of theirs is taken or changed. Their files are
read as they are at that moment; a record that is being written is not whole, and not seen.

Invariant: nothing is created, adopted, marked or removed. To see whether an owner lives, its lock is asked for, shared,
for an instant; who would adopt it at that very instant finds it alive, and tries again later.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import field, frozen

from ._dead_letters import DeadLetters
from ._directory import Directory, ForeignFileError, directory_at
from ._errors import SpoolDirectoryError, speaking_of
from ._format import Frame, Header, HeaderFault, Kind, decode_entry
from ._nouns import DeadLetter, Entry
from ._records import Records, header_of
from ._shared_log import SharedLog
from ._tombstones import Tombstones

_EVERYTHING = 1 << 62


@frozen(kw_only=True)
class SpoolFile:
    """One segment, as it was when it was looked at.

    Attributes:
        name: The file's.
        owner: Whose it is: a random name, one for each time a process opens the spool.
        living: Whether that process holds its lock.
        bytes: Size of the file.
        created: Epoch seconds; 0.0 for a spare, which was never used.
        pending: Entries that are still to be sent.
        settled: Entries that need no sending any more.
        skipped: Places that hold no whole record: torn ends, flipped bits.
        fault: Why it cannot be read, if it cannot: `"damaged"` or `"newer"`.
    """

    name: str
    owner: str
    living: bool
    bytes: int
    created: float = 0.0
    pending: int = 0
    settled: int = 0
    skipped: int = 0
    fault: str | None = None


@frozen
class SpoolInspection:
    """A spool's directory, to be looked at. `inspect_spool` makes one.

    Methods raise `SpoolError` if something cannot be read.
    """

    _directory: Directory = field(repr=False)
    _tombstones: Tombstones = field(repr=False)

    def files(self) -> list[SpoolFile]:
        """Every segment of every process."""
        with _looking("look at its files"):
            found = []
            for owner in self._directory.owners():
                living = self._lives(owner)
                for name in self._directory.segments_of(owner):
                    try:
                        found.append(self._file(name, owner, living=living))
                    except FileNotFoundError:
                        continue  # settled meanwhile
            return found

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """What is still to be sent, with its owner; oldest first per process. Forgotten people's is left out."""
        with _looking("read a segment"):
            for owner in self._directory.owners():
                for name in self._in_order(owner):
                    for frame in self._frames(name):
                        entry = None if frame.settled else decode_entry(frame.body)
                        if entry is not None and not self._tombstones.covers(entry.customer, entry.accepted_at):
                            yield owner, entry

    def dead_letters(self) -> list[DeadLetter]:
        """Events that were refused for good, oldest first."""
        with _looking("read dead letters"):
            log = SharedLog(self._directory, "dead-letters", Kind.LETTER)
            return DeadLetters(log, _EVERYTHING, _EVERYTHING).read()

    def close(self) -> None:
        """Let go of the directory."""
        self._directory.close()

    def _file(self, name: str, owner: str, *, living: bool) -> SpoolFile:
        size = self._directory.stat(name).st_size
        header = header_of(self._directory, name)
        if not isinstance(header, Header):
            fault = None if header is HeaderFault.BLANK else header.value
            return SpoolFile(name=name, owner=owner, living=living, bytes=size, fault=fault)
        pending = settled = skipped = 0
        for frame in (pages := Records(self._directory, name, header)):
            settled += frame.settled
            pending += not frame.settled
        skipped = pages.skipped
        return SpoolFile(
            name=name,
            owner=owner,
            living=living,
            bytes=size,
            created=header.created,
            pending=pending,
            settled=settled,
            skipped=skipped,
        )

    def _in_order(self, owner: str) -> list[str]:
        headers = {name: header_of(self._directory, name) for name in self._directory.segments_of(owner)}
        readable = {name: header.sequence for name, header in headers.items() if isinstance(header, Header)}
        return sorted(readable, key=readable.__getitem__)

    def _frames(self, name: str) -> Iterator[Frame]:
        header = header_of(self._directory, name)
        return iter(Records(self._directory, name, header)) if isinstance(header, Header) else iter(())

    def _lives(self, owner: str) -> bool:
        try:
            fd = self._directory.open_file(f"{owner}.lock")
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


@contextmanager
def _looking(task: str) -> Iterator[None]:
    try:
        with speaking_of(task):
            yield
    except SpoolDirectoryError as error:
        if isinstance(error.__cause__, ForeignFileError):
            raise SpoolDirectoryError(
                "spool: a file is another user's, or a link: look as the user who owns it"
            ) from None
        raise


def inspect_spool(path: str | os.PathLike[str]) -> SpoolInspection:
    """Open a spool's directory to look at it. Close it afterwards.

    Raises:
        SpoolDirectoryError: There is none, or it cannot be read.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - like its neighbours
        raise SpoolDirectoryError("spool: there is no such directory")
    directory = directory_at(path)
    directory.open()
    try:
        tombstones = Tombstones(SharedLog(directory, "tombstones", Kind.TOMBSTONE))
        with _looking("read its tombstones"):
            tombstones.refresh()
    except BaseException:
        directory.close()
        raise
    return SpoolInspection(directory, tombstones)
