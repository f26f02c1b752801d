"""A spool: with one, an accepted event outlives the process.

`DiskSpool(directory)` keeps a journal in memory-mapped files. What `append` answered with a ticket survives
`kill -9`; what `sync` covered survives a power cut; the next process that opens the directory hands out again
what was not settled, with the same UUIDs, byte for byte. `Spool` is the protocol that it fulfils, for others.
`inspect_spool(directory)` looks at one from outside.

It must be on a local disk of a POSIX system. A file system that copies on write (Btrfs, ZFS) may still run
out of room under a preallocated mapping; put the spool on one that overwrites in place, or leave it room.
"""

from ._disk import DiskSpool
from ._errors import (
    SpoolBusyError,
    SpoolClosedError,
    SpoolDirectoryError,
    SpoolError,
    SpoolFormatError,
    SpoolFullError,
    SpoolSyncError,
)
from ._inspection import SpoolFile, SpoolInspection, inspect_spool
from ._nouns import DeadLetter, Entry, ForgetReceipt, Spool, SpoolStats, Ticket

__all__ = [
    "DeadLetter",
    "DiskSpool",
    "Entry",
    "ForgetReceipt",
    "Spool",
    "SpoolBusyError",
    "SpoolClosedError",
    "SpoolDirectoryError",
    "SpoolError",
    "SpoolFile",
    "SpoolFormatError",
    "SpoolFullError",
    "SpoolInspection",
    "SpoolStats",
    "SpoolSyncError",
    "Ticket",
    "inspect_spool",
]
