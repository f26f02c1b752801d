"""Happy eyeballs (RFC 8305): the first address that answers, tried 250 ms apart, families in turn.

The invariant: whatever happens, cancellation included, at most one socket is left open, the one returned.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Final

import anyio

from ._resolver import Address
from ._runtime import Runtime

STAGGER: Final = 0.25
"""Seconds between two attempts, unless the earlier one has failed by then (RFC 8305, section 5)."""


async def dial(addresses: Sequence[Address], runtime: Runtime) -> socket.socket:
    """A connected, non-blocking socket.

    Raises:
        OSError: the last address's reason.
    """
    connected: list[socket.socket] = []
    errors: list[OSError] = [OSError("no address")]

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            sock = await _connect(address, runtime)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        connected.append(sock)
        attempts.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as attempts:
            for address in in_turn(addresses):
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(STAGGER):
                    await failed.wait()
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    if not connected:
        raise errors[-1]
    for sock in connected[1:]:
        sock.close()
    return connected[0]


async def _connect(address: Address, runtime: Runtime) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await runtime.connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """The same addresses, families alternating, the first one's family first."""
    first = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each is not None]
