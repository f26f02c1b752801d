"""A spool without its thread, a disk that loses power, and entries to put into them."""

import errno
import os
import stat
import uuid
from pathlib import Path

from moengage_personalize.spool import DiskSpool, Entry, Ticket, _segment

PAGE = 4096
SEGMENT = 2 * PAGE


def entry(number: int = 1, *, size: int = 100, customer: int = 0, at: float | None = None) -> Entry:
    """A different one for each number."""
    return Entry(
        event_uuid=str(uuid.UUID(int=number, version=4)),
        customer=b'"customer-%d"' % customer,
        impression=number % 2 == 0,
        payload=(b'{"number":%d}' % number).ljust(size, b"."),
        attributes=b'{"plan":"x"}' if number % 3 == 0 else b"",
        timezone_offset=-330 if number % 5 == 0 else None,
        accepted_at=float(number) if at is None else at,
    )


class Bench:
    """One process's journal and keeper, driven by hand: no thread, no clock."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT, max_bytes: int = 1 << 24, **options):
        self.spool = DiskSpool(directory, segment_bytes=segment_bytes, max_bytes=max_bytes, **options)
        self.spool._state = "open"
        self.journal, self.keeper = self.spool._journal, self.spool._keeper
        self.keeper.open()

    def append(self, *entries: Entry) -> list[Ticket]:
        tickets = [self.journal.append(*entry.fields()) for entry in entries]
        assert None not in tickets
        return tickets

    def cycle(self, now: float = 0.0) -> None:
        for chore in self.keeper.cycle(now):
            self.journal.do(chore)

    def sync(self) -> None:
        for chore in self.keeper.sync():
            self.journal.do(chore)

    def recover(self, page: int = 7) -> list[tuple[Ticket, Entry]]:
        self.keeper.adopt()
        taken = []
        while (found := self.keeper.inheritance.read_page(page)) is not None:
            taken += self.journal.take(found)
        return taken

    def entries(self) -> list[Entry]:
        return [entry for _, entry in self.recover()]

    def kill(self) -> None:
        """What the kernel does to a process that is killed."""
        journal, keeper = self.journal, self.keeper
        if keeper.directory.fd < 0:
            return
        for segment in {*journal.segments.values(), *journal.spares, *journal.retired}:
            segment.close()
        for lock in keeper.locks():
            os.close(lock.fd)
        keeper.directory.close()

    def close(self) -> None:
        self.keeper.close()


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


class Disk:
    """Knows what would survive a power cut, from the syncs that it has seen. Content by name, 4 KiB pages."""

    def __init__(self, directory: Path, monkeypatch) -> None:
        self.directory = directory
        self.content: dict[str, bytes] = {}
        self.names: set[str] = set()
        self.doubtful: dict[str, bytes] = {}
        self.failing = False
        self._fsync, self._fdatasync = os.fsync, _segment._sync
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(_segment, "_sync", self.fsync)

    def fsync(self, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if self.failing:
                raise OSError(errno.EIO, "Input/output error")
            self.names = set(os.listdir(fd))
            return
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        now = os.pread(fd, 1 << 24, 0)
        if self.failing:
            # The kernel calls the pages clean now; only what changes later will ever be written.
            self.doubtful[name] = now
            raise OSError(errno.EIO, "Input/output error")
        doubtful, before = self.doubtful.get(name), self.content.get(name, b"").ljust(len(now), b"\0")
        if doubtful is not None:
            now = b"".join(
                before[at : at + PAGE] if now[at : at + PAGE] == doubtful[at : at + PAGE] else now[at : at + PAGE]
                for at in range(0, len(now), PAGE)
            )
        self.content[name] = now

    def cut(self, target: Path, choose) -> None:
        """Write what a power cut leaves to `target`. `choose()` answers whether unsynced things made it."""
        target.mkdir(mode=0o700)
        present = {path.name for path in self.directory.iterdir()}
        for name in sorted(present | self.names):
            uncertain = (name in present) != (name in self.names)
            if uncertain and not choose():
                continue
            now = (self.directory / name).read_bytes() if name in present else self.content.get(name, b"")
            synced = self.content.get(name)
            if synced is None and not choose():
                now = b""  # not even the size
            old = (synced or b"").ljust(len(now), b"\0")
            pages = [
                now[at : at + PAGE] if now[at : at + PAGE] == old[at : at + PAGE] or choose() else old[at : at + PAGE]
                for at in range(0, len(now), PAGE)
            ]
            path = target / name
            path.write_bytes(b"".join(pages))
            path.chmod(0o600)

    def replaced_by(self, directory: Path) -> None:
        """After a power cut, what is there is durable."""
        self.directory, self.doubtful = directory, {}
        self.content = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.names = set(self.content)
