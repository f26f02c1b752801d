"""What a forked child must know: that it is one, and that its parent's sockets are not its own.

The hook runs in the child alone, right after the fork. It points the inherited descriptors at the null
device: the child then holds no end of its parent's connections, no TLS alert can leave on them, and the
descriptors' numbers stay taken, so that whoever closes them later closes nothing of somebody else's.
"""

from __future__ import annotations

import os
import socket
from weakref import WeakSet

_generation = 0
_sockets: WeakSet[socket.socket] = WeakSet()


def generation() -> int:
    """How many forks lie between this process and the one that imported this module."""
    return _generation


def guard(sock: socket.socket) -> None:
    """Take this socket away from children."""
    _sockets.add(sock)


def _in_child() -> None:
    global _generation
    _generation += 1
    null = os.open(os.devnull, os.O_RDWR)
    for sock in list(_sockets):
        if sock.fileno() >= 0:
            os.dup2(null, sock.fileno(), inheritable=False)
    os.close(null)
    _sockets.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_in_child)
