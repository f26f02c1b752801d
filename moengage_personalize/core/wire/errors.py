"""Errors, in: what MoEngage says of one, with nothing in it that a request carried."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from ..codec import loads

_WORD = re.compile(r"[^\s\"'`:;,<>()\[\]{}=]+")
_PART = re.compile(r"\w+")
_VOCABULARY = frozenset(
    "elements actions action attributes customer_id identifiers user_identifiers experience_key user_attributes "
    "user_timezone_offset moe_event_uuid event_time platform experience_context experience cid moe_locale_id "
    "moe_variation_id audience_name audience_id type b_id DAY_OF_THE_WEEK TIME_OF_THE_DAY USER_IP_ADDRESS USER_AGENT "
    "MOE_PERSONALIZATION_MESSAGE_SHOWN MOE_PERSONALIZATION_MESSAGE_CLICKED workspace Workspace".split()
)


@attrs.frozen(kw_only=True)
class ErrorText:
    """What MoEngage says of an error, masked."""

    title: str | None = None
    description: str | None = None
    code: str | None = None


def read_error(body: bytes, sent: bytes, *, secrets: Iterable[str] = ()) -> ErrorText:
    """Reads an error body in its documented shape, or in one of the shapes of MoEngage's gateways; never raises.

    Args:
        body: The body, whatever it is.
        sent: The request's body. A word of the error of which the request carried a part is masked, since it may be
            somebody's: in another case, between other quotes, cut off or percent-encoded.
        secrets: Further texts to mask.
    """
    try:
        reply = loads(body)
    except (ValueError, RecursionError):
        return ErrorText()
    if not isinstance(reply, dict):
        return ErrorText()
    inner = reply.get("error")
    nested = inner if isinstance(inner, dict) else {}
    found = {
        "title": reply.get("title")
        or nested.get("type")
        or nested.get("target")
        or (inner if isinstance(inner, str) else None),
        "description": reply.get("description") or nested.get("message") or reply.get("message"),
        "code": reply.get("code") or nested.get("code"),
    }
    carried = f"{_carried(sent)}{' '.join(secrets).casefold()} "
    return ErrorText(**{name: _masked(text, carried) for name, text in found.items() if isinstance(text, str)})


def _carried(sent: bytes) -> str:
    """Returns every text and number that the request carried, but the API's own vocabulary."""
    words: list[str] = []
    left: list[Any] = [loads(sent)] if sent else []
    while left:
        match left.pop():
            case dict() as members:
                left += members.values()
                words += (name for name in members if name not in _VOCABULARY)
            case list() as items:
                left += items
            case leaf:
                words += [] if leaf in _VOCABULARY else [str(leaf)]
    return f" {' '.join(words).casefold()} "


def _masked(text: str, carried: str) -> str:
    def mask(found: re.Match[str]) -> str:
        return "***" if found[0] not in _VOCABULARY and _is_carried(found[0].casefold(), carried) else found[0]

    return _WORD.sub(mask, "".join(c if c.isprintable() else " " for c in text[:400]))


def _is_carried(word: str, carried: str) -> bool:
    """Whether a part of the word was in the request: a whole word there, or a piece of four characters or more."""
    parts = [word] if not word.isascii() else []
    parts += _PART.findall(word)
    return any(part in carried if len(part) > 3 else _has_word(part, carried) for part in parts)


def _has_word(part: str, carried: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", carried) is not None
