"""Failures become httpx's exceptions here, and nowhere else."""

from __future__ import annotations

from typing import Final

import httpx

from ._stream import Failure, Why

_EXCEPTIONS: Final[dict[Why, type[httpx.TransportError]]] = {
    Why.NOT_CONNECTED: httpx.ConnectError,
    Why.NOT_HTTP2: httpx.ConnectError,
    Why.CONNECT_TIMEOUT: httpx.ConnectTimeout,
    Why.POOL_TIMEOUT: httpx.PoolTimeout,
    Why.WRITE_TIMEOUT: httpx.WriteTimeout,
    Why.READ_TIMEOUT: httpx.ReadTimeout,
    Why.MOVED: httpx.RemoteProtocolError,
    Why.UNPROCESSED: httpx.RemoteProtocolError,
    Why.STALE: httpx.ReadError,
    Why.LOST: httpx.ReadError,
    Why.RESET: httpx.RemoteProtocolError,
    Why.MALFORMED: httpx.RemoteProtocolError,
    Why.TOO_LARGE: httpx.RemoteProtocolError,
    Why.CANCELLED: httpx.ReadError,
    Why.CLOSED: httpx.ReadError,
}


def exception(failure: Failure) -> httpx.TransportError:
    """What the caller sees; `failure.cause` as its cause."""
    error = _EXCEPTIONS[failure.why](failure.detail)
    error.__cause__ = failure.cause
    return error
