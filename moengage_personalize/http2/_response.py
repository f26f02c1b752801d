"""What a response is made of (RFC 9113, 8.1), and what may be wrong with it.

Each function takes one thing that came for an exchange and notes it there, or says why the response cannot
be taken; the error is that request's alone. Interim responses and trailers are recognised, and not kept.
"""

from __future__ import annotations

from typing import Final

from ._inbound import DataCame, HeadersCame
from ._stream import Exchange, Failure, Outcome, Response, Why

_NO_BODY: Final = frozenset((204, 304))


def take_head(exchange: Exchange, event: HeadersCame, limit: int) -> Failure | None:
    """Note the status and headers, if this block has them; `limit` is the most bytes of a body."""
    head = event.head
    if head.problem is not None:
        why = Why.TOO_LARGE if head.too_large else Why.MALFORMED
        return Failure(why, f"the response is malformed: {head.problem}")
    if exchange.status:  # trailers, which nobody asked for
        fine = event.ended and not head.status
        return None if fine else Failure(Why.MALFORMED, "the response has a second header block")
    if head.status < 200:  # an interim response; 0: no status at all
        fine = not event.ended and head.status not in {0, 101}
        return None if fine else Failure(Why.MALFORMED, "the response has no final status")
    exchange.status, exchange.headers = head.status, head.headers
    is_bare = exchange.route.method == b"HEAD" or head.status in _NO_BODY
    exchange.expected = 0 if is_bare else head.content_length
    return _too_large(limit) if (exchange.expected or 0) > limit else None


def take_data(exchange: Exchange, event: DataCame, limit: int) -> Failure | None:
    """Keep a piece of the body."""
    exchange.room -= event.size
    exchange.received += len(event.data)
    if not exchange.status:
        return Failure(Why.MALFORMED, "the response's body came before its headers")
    if exchange.received > limit:
        return _too_large(limit)
    if exchange.expected is not None and exchange.received > exchange.expected:
        return Failure(Why.MALFORMED, "the response is longer than its content-length")
    if exchange.room < 0:
        return Failure(Why.MALFORMED, "the response exceeds its flow-control window")
    exchange.chunks.append(event.data)
    return None


def complete(exchange: Exchange) -> Outcome:
    """What came, now that there is no more."""
    if exchange.expected is not None and exchange.received != exchange.expected:
        return Failure(Why.MALFORMED, "the response is shorter than its content-length")
    chunks = exchange.chunks
    return Response(exchange.status, exchange.headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def _too_large(limit: int) -> Failure:
    return Failure(Why.TOO_LARGE, f"the response is larger than {limit} bytes")
