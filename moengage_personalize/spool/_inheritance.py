"""What dead processes left: taking it over where it lies, and reading it.

To adopt is to get the lock of an owner that died. Its segments are then ours: marked, swept and, should we
die too, inherited again.

Invariant: an entry leaves the disk only through its mark. A file that cannot be read is left alone, for a
newer version or a luckier process, and counted.
"""

import os
from collections import deque
from collections.abc import Iterator

from attrs import Factory, define

from ._directory import Directory, Lock
from ._errors import speaking_of
from ._format import Frame, HeaderFault, decode_entry
from ._journal import Found, Journal
from ._nouns import Entry
from ._segment import Segment, UnreadableSegmentError, adopt_segment


@define(eq=False)
class Inheritance:
    """The owners whose locks we hold besides our own. For the spool's thread.

    Attributes:
        unread: Segments that are not read to their end, in the order in which they were written.
        living: Other owners that held their locks when we looked.
    """

    directory: Directory
    journal: Journal
    numbers: Iterator[int]
    unread: deque[Segment] = Factory(deque)
    held: dict[str, Lock] = Factory(dict)
    left_alone: set[str] = Factory(set)
    living: int = 0
    adopted: int = 0
    skipped: int = 0

    def adopt(self, own: Lock | None) -> None:
        """Take over what dead processes left. Raises `SpoolError` if the directory cannot be read."""
        self.living, self.left_alone = 0, set()
        with speaking_of("look for files to adopt"):
            for owner in self.directory.owners():
                if own is None or owner != own.owner:
                    self._adopt_from(owner)

    def read_page(self, limit: int) -> Found | None:
        """The next page of what was adopted; `None` at the end."""
        while self.unread:
            segment = self._next_unread()
            if segment.is_read:
                self.unread.remove(segment)
                continue
            try:
                page = segment.page(segment.cursor, limit=limit)
            except OSError:
                self.unread.remove(segment)  # it stays on the disk, for a process that has better luck
                self.left_alone.add(segment.name)
                continue
            self.skipped += page.skipped
            entries = [(frame.offset, entry) for frame in page.frames if (entry := pending_entry(frame))]
            return Found(segment, page.next, page.tail, len(page.frames), entries)
        return None

    def _next_unread(self) -> Segment:
        """The doomed ones come last: of two copies, the one handed out first is the one that stays."""
        return next((segment for segment in self.unread if not segment.doomed), self.unread[0])

    def let_go(self) -> None:
        """Release the owners of whom nothing is left."""
        in_use = {segment.lock.owner for segment in list(self.journal.segments.values())}
        for owner in [owner for owner in self.held if owner not in in_use]:
            self.directory.release(self.held.pop(owner))

    def _adopt_from(self, owner: str) -> None:
        try:
            lock = self.held.get(owner) or self.directory.lock(owner)
        except OSError:
            self.left_alone.add(owner)
            return
        if lock is None:
            self.living += 1
            return
        try:
            found = [segment for name in self._strange(lock) if (segment := self._adopted(lock, name))]
        except BaseException:
            if owner not in self.held:
                os.close(lock.fd)  # else nobody could adopt it any more while we live, ourselves included
            raise
        if owner not in self.held:
            if not found:
                self.directory.release(lock)
                return
            self.held[owner] = lock
            self.adopted += 1
        for segment in sorted(found, key=lambda segment: segment.header.sequence):
            self.journal.segments[segment.number] = segment
            self.unread.append(segment)

    def _strange(self, lock: Lock) -> list[str]:
        """An owner's segments that we do not have yet: some may have failed to open the last time."""
        names = self.directory.segments_of(lock.owner)
        # In this order: the journal adds a segment to `retired` before it leaves `segments`.
        known = {segment.name for segment in list(self.journal.segments.values())}
        known |= {segment.name for segment in list(self.journal.retired)}
        return [name for name in names if name not in known]

    def _adopted(self, lock: Lock, name: str) -> Segment | None:
        try:
            return adopt_segment(self.directory, lock, name, number=next(self.numbers))
        except UnreadableSegmentError as error:
            if error.fault is HeaderFault.BLANK:
                self.directory.remove(name)  # a spare that never came to use
                return None
        except OSError:
            pass
        self.left_alone.add(name)
        return None


def pending_entry(frame: Frame) -> Entry | None:
    """The entry of a record that still counts."""
    return None if frame.settled else decode_entry(frame.body)
