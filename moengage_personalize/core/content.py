"""A reply's content coding, undone within bounds.

Invariants: one coding at most, and at most `limit` bytes, whatever the coding promises. It raises nothing, so that no
traceback ever holds what a reply said.
"""

from __future__ import annotations

import zlib
from typing import Final

_AUTOMATIC: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, whichever the first bytes say


def codings_of(header: str) -> list[str]:
    """Returns what `Content-Encoding` names, but for what changes nothing. Several such headers are one, by commas."""
    return [coding for coding in header.lower().replace(" ", "").split(",") if coding not in {"", "identity"}]


def undone(codings: list[str], body: bytes, limit: int) -> tuple[bytes, str | None]:
    """Returns the body as it was meant, or what is wrong: an unknown coding, several, broken data, or too much of it.

    Args:
        codings: From `codings_of`.
        body: As it came.
        limit: The most bytes that it may have.
    """
    if len(codings) > 1:
        return b"", "the reply has more than one content coding"
    if codings and codings[0] not in {"gzip", "x-gzip", "deflate"}:
        return b"", "the reply has a content coding that was not asked for"
    return _inflated(body, limit) if codings and body else (body, None)


def _inflated(data: bytes, limit: int) -> tuple[bytes, str | None]:
    """Undoes zlib, gzip, or the bare deflate that some servers call "deflate"."""
    bare = data[0] & 0x0F != zlib.DEFLATED and data[:2] != b"\x1f\x8b"
    machine = zlib.decompressobj(-zlib.MAX_WBITS if bare else _AUTOMATIC)
    try:
        body = machine.decompress(data, limit + 1)
    except zlib.error:
        return b"", "the reply's content coding is broken"
    if len(body) > limit:
        return b"", f"the reply is larger than {limit} bytes"
    return (body, None) if machine.eof else (b"", "the reply's content coding is cut short")
