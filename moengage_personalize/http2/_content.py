"""A response's content coding, undone within bounds: one coding at most, and a limit of bytes."""

from __future__ import annotations

import zlib
from typing import Final

import httpx

from ._headers import Headers
from ._stream import Response

_AUTOMATIC: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, whichever the first bytes say
_DROPPED: Final = frozenset((b"content-encoding", b"content-length"))


def decoded(response: Response, limit: int) -> Response:
    """The response with its body as it was meant, and without the headers of the coded one.

    Args:
        response: As it came.
        limit: The most bytes that the body may have.

    Raises:
        httpx.DecodingError: an unknown coding, more than one, broken data, or a body beyond the limit.
    """
    codings = [
        coding
        for name, value in response.headers
        if name == b"content-encoding"
        for coding in value.lower().replace(b" ", b"").split(b",")
        if coding not in {b"", b"identity"}
    ]
    if not codings:
        return response
    if len(codings) > 1:
        raise httpx.DecodingError("the response has more than one content coding")
    if codings[0] not in {b"gzip", b"x-gzip", b"deflate"}:
        raise httpx.DecodingError("the response has a content coding that was not asked for")
    headers: Headers = tuple(header for header in response.headers if header[0] not in _DROPPED)
    body, problem = _inflate(response.body, limit) if response.body else (b"", None)
    if problem is not None:
        raise httpx.DecodingError(problem)
    return Response(response.status, headers, body)


def _inflate(data: bytes, limit: int) -> tuple[bytes, str | None]:
    """Undo zlib, gzip, or the bare deflate that some servers call "deflate"; or say what is wrong.

    It raises nothing, so that no traceback ever holds what a response said.
    """
    bare = data[0] & 0x0F != zlib.DEFLATED and data[:2] != b"\x1f\x8b"
    machine = zlib.decompressobj(-zlib.MAX_WBITS if bare else _AUTOMATIC)
    try:
        body = machine.decompress(data, limit + 1)
    except zlib.error:
        return b"", "the response's content coding is broken"
    if len(body) > limit:
        return b"", f"the decoded response is larger than {limit} bytes"
    return body, None if machine.eof else "the response's content coding is cut short"
