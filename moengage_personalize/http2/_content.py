"""A response as it was meant, without its content coding."""

from __future__ import annotations

from typing import Final

import httpx

from ..core.content import codings_of, undone
from ._headers import Headers
from ._stream import Response

_DROPPED: Final = frozenset((b"content-encoding", b"content-length"))


def decoded(response: Response, limit: int) -> Response:
    """The response with its body as it was meant, and without the headers of the coded one.

    Args:
        response: As it came.
        limit: The most bytes that the body may have.

    Raises:
        httpx.DecodingError: an unknown coding, more than one, broken data, or a body beyond the limit.
    """
    found = [value for name, value in response.headers if name == b"content-encoding"]
    if not found or not (codings := codings_of(b",".join(found).decode("latin-1"))):
        return response
    body, problem = undone(codings, response.body, limit)
    if problem is not None:
        raise httpx.DecodingError(problem)
    headers: Headers = tuple(header for header in response.headers if header[0] not in _DROPPED)
    return Response(response.status, headers, body)
