"""The spool's directory: names, locks, and files that are certainly ours.

Several processes share it. Each *owner* (a random name; one per opened spool) has files `<owner>-<n>.seg` and
holds a lock on `<owner>.lock` for as long as it lives. The kernel frees the lock of the dead, whichever way
they died, and whoever gets it then owns their files where they lie: nothing is copied, so nothing can be half
copied. A lock counts only if its file still has its name afterwards, since the last owner removes it.

All names are relative to one open directory, no link is followed, and a file is used only if it is a regular
file of this user with one name. So a planted link or a planted file is left alone, and a directory that is
swapped under us is noticed (`is_intact`) and never written through.

Everything here may block: the journal's thread calls it, except for `create` when no spare was ready.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import define, field, frozen

from ._errors import SpoolDirectoryError, speaking_of

_OURS = re.compile(r"([0-9a-f]{16})(?:\.lock|-[0-9a-f]{8}\.seg)")
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # NONBLOCK: opening a planted FIFO returns


class ForeignFileError(OSError):
    """A file under one of our names is not ours: another user's, a link, a device."""


@frozen
class Lock:
    """Proof of owning an owner's files."""

    owner: str
    fd: int

    @property
    def name(self) -> str:
        """The lock file's."""
        return f"{self.owner}.lock"


@define(eq=False)
class Directory:
    """One open directory. `open` first."""

    path: str
    fd: int = field(init=False, default=-1)

    def open(self) -> None:
        """Create the directory if it is not there (mode 0700), and open it. Raises `SpoolError`."""
        with speaking_of(f"use its directory {self.path}"):
            _create_durably(self.path)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def sync(self) -> None:
        """Make names durable: files created, renamed, removed."""
        os.fsync(self.fd)

    def is_intact(self, lock: Lock) -> bool:
        """Whether path, directory and lock still belong together, so that others can find what we write."""
        try:
            same_place = os.path.samestat(os.stat(self.path), os.fstat(self.fd))
            return same_place and self._still_named(lock.name, lock.fd)
        except OSError:
            return False

    def create(self, name: str) -> int:
        """A new file of mode 0600 under a name that was free."""
        return os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.fd)

    def open_file(self, name: str, *, create: bool = False) -> int:
        """Open a file of ours. Raises `OSError`; `ForeignFileError` if it is not ours."""
        flags = _FLAGS | os.O_CREAT if create else _FLAGS
        fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            os.close(fd)
            raise ForeignFileError("not a file of this user's spool")
        return fd

    def remove(self, name: str) -> None:
        """Remove a name, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`."""
        os.replace(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def stat(self, name: str) -> os.stat_result:
        """What is there under a name, links not followed."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def claim(self) -> Lock:
        """Become a new owner. Raises `SpoolError`."""
        with speaking_of("lock a file in its directory"):
            while True:
                lock = self.lock(secrets.token_hex(8))
                if lock is not None:  # else somebody took the newborn for dead, before it was locked
                    return lock

    def lock(self, owner: str) -> Lock | None:
        """The lock of an owner, or `None` if it lives."""
        name = f"{owner}.lock"
        fd = self.open_file(name, create=True)
        try:
            if self._flock(fd) and self._still_named(name, fd):
                return Lock(owner, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def release(self, lock: Lock) -> None:
        """Let go of an owner; its lock file leaves with its last segment. Raises `OSError`."""
        try:
            if not self.segments_of(lock.owner):
                self.remove(lock.name)
        finally:
            os.close(lock.fd)

    @contextmanager
    def exclusively(self, name: str, attempts: Iterator[None]) -> Iterator[int]:
        """Open a file that all processes share, under its lock, creating it if need be.

        Args:
            name: The file's.
            attempts: Paces the attempts (it sleeps, or counts); `SpoolBusyError` is its to raise.
        """
        for _ in attempts:
            fd = self.open_file(name, create=True)
            try:
                if self._flock(fd) and self._still_named(name, fd):
                    yield fd
                    return
            finally:
                os.close(fd)

    def owners(self) -> list[str]:
        """Everybody who has files here, ourselves included."""
        with self._entries() as entries:
            found = [_OURS.fullmatch(entry.name) for entry in entries]
        return sorted({match[1] for match in found if match})

    def segments_of(self, owner: str) -> list[str]:
        """Names of an owner's segments."""
        with self._entries() as entries:
            return sorted(
                entry.name for entry in entries if entry.name.startswith(f"{owner}-") and _OURS.fullmatch(entry.name)
            )

    def bytes_of_segments(self) -> int:
        """Size of all segments of all processes."""
        total = 0
        with self._entries() as entries:
            for entry in entries:
                if entry.name.endswith(".seg") and _OURS.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    @contextmanager
    def _entries(self) -> Iterator[Iterator["os.DirEntry[str]"]]:
        """What is there, read through a descriptor of its own.

        Whoever shares one shares its place in the listing, and would see files twice, or miss some, while another
        thread looks, too.
        """
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)

    def _flock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _still_named(self, name: str, fd: int) -> bool:
        try:
            return os.path.samestat(self.stat(name), os.fstat(fd))
        except FileNotFoundError:
            return False


def directory_at(path: str | os.PathLike[str]) -> Directory:
    """The directory of a spool, not opened. Raises `SpoolDirectoryError` for an empty path."""
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise SpoolDirectoryError("spool: the directory must be a path in text")
    return Directory(os.path.abspath(text))


def _create_durably(path: str) -> None:
    """Like `os.makedirs(mode=0o700)`, and the new names survive a power cut."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _create_durably(parent)
    with suppress(FileExistsError):
        os.mkdir(path, mode=0o700)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
