"""What a reply's headers tell of limits: the workspace's quota, and when to come again (api-facts.md, section 1.6).

Invariant: headers that are none of the documented forms tell nothing; none of them is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from ..breaker import Quota

Headers = Iterable[tuple[bytes, bytes]]
_TELLING = frozenset((b"retry-after", b"date", b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"))
_EPOCH = 1e6  # a reset beyond it is epoch seconds, and one below it a number of seconds: MoEngage documents both


def retry_after(headers: Headers, wall: float) -> float | None:
    """Returns the seconds that the server asks to wait, if it does.

    `Retry-After` wins, in seconds or as a date (measured against the server's own clock where it tells it). Then
    `x-ratelimit-reset`, when nothing remains.

    Args:
        headers: Of the reply.
        wall: Epoch seconds, now.
    """
    told = _told(headers)
    if text := told.get(b"retry-after", ""):
        if _whole(text) is not None:
            return float(text[:9])
        then = _epoch(text)
        return None if then is None else max(0.0, then - (_epoch(told.get(b"date", "")) or wall))
    if told.get(b"x-ratelimit-remaining", "0") == "0":
        return _until(_whole(told.get(b"x-ratelimit-reset")), wall)
    return None


def read_quota(headers: Headers, wall: float) -> Quota | None:
    """Returns what a reply tells of the quota, if it does.

    Args:
        headers: Of the reply.
        wall: Epoch seconds, now.
    """
    told = _told(headers)
    remaining = _whole(told.get(b"x-ratelimit-remaining"))
    limit = _whole(told.get(b"x-ratelimit-limit"))
    if remaining is None and limit is None:
        return None
    return Quota(limit, remaining, _until(_whole(told.get(b"x-ratelimit-reset")), wall))


def _told(headers: Headers) -> dict[bytes, str]:
    return {known: value.decode("latin-1").strip() for name, value in headers if (known := name.lower()) in _TELLING}


def _whole(text: str | None) -> int | None:
    return int(text[:12]) if text is not None and text.isascii() and text.isdigit() else None


def _until(reset: int | None, wall: float) -> float | None:
    return None if reset is None else max(0.0, reset - wall) if reset > _EPOCH else float(reset)


def _epoch(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
