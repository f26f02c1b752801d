"""What can go wrong with a spool, by what the operator can do about it.

    SpoolError
    ├── SpoolDirectoryError   the directory cannot be used: permissions, read-only, a file in its place
    ├── SpoolFullError        no room: disk, quota, or file size limit
    ├── SpoolSyncError        the disk refused to make something durable; it is still in the page cache
    ├── SpoolFormatError      written by a newer version of this library, so it is left alone
    ├── SpoolBusyError        another process has held a shared file for too long
    └── SpoolClosedError      not open: before `open`, after `aclose`, or in a forked child

Invariant: `append` and `settle` raise none of these. No message holds an id or a payload.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolError(Exception):
    """Root of this tree."""


class SpoolDirectoryError(SpoolError):
    """The directory, or a file of ours in it, cannot be opened, created or locked."""


class SpoolFullError(SpoolError):
    """The disk, the quota or the process's file size limit leaves no room."""


class SpoolSyncError(SpoolError):
    """A sync failed: what was appended survives a crash of the process, but maybe not a power cut."""


class SpoolFormatError(SpoolError):
    """A file has a newer format than this version reads."""


class SpoolBusyError(SpoolError):
    """Another process did not let go of a shared file in time."""


class SpoolClosedError(SpoolError):
    """The spool is not open in this process."""


def explain(error: OSError) -> str:
    """The system's words without the path."""
    return error.strerror or type(error).__name__


@contextmanager
def speaking_of(task: str) -> Iterator[None]:
    """Turn an `OSError` into ours: `SpoolFullError` for want of room, else `SpoolDirectoryError`."""
    try:
        yield
    except OSError as error:
        kind = SpoolFullError if error.errno in _NO_ROOM else SpoolDirectoryError
        raise kind(f"spool: cannot {task}: {explain(error)}") from error
