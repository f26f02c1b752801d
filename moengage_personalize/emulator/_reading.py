"""JSON in: request bodies to Python values, and for events the exact text of every action beside its value.

A client promises that a retry repeats its actions byte for byte, so the emulator must remember bytes, not
equal values. The readers below walk only the skeleton `{"elements": [{"actions": [...]}]}`; every leaf is
read by the standard library's C scanner, which also says where the leaf ended.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs

from moengage_personalize.emulator._messages import Refusal

_Reader = Callable[[str, int], tuple[Any, int]]


@attrs.frozen
class RawAction:
    """One entry of `actions`: its value, and the characters that it was sent as."""

    value: Any
    raw: str


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_leaf = json.JSONDecoder(parse_constant=_no_constants).raw_decode
_spaces = re.compile(r"[ \t\n\r]*").match


def _skip(text: str, at: int) -> int:
    found = _spaces(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, wanted: str) -> int:
    if text[at] != wanted:
        raise ValueError(f"expected {wanted!r} at character {at}")
    return at + 1


def _object(inner: Mapping[str, _Reader]) -> _Reader:
    """A reader of an object whose members named in `inner` have readers of their own."""

    def read(text: str, at: int) -> tuple[Any, int]:
        if text[at] != "{":
            return _leaf(text, at)
        members: dict[str, Any] = {}
        at = _skip(text, at + 1)
        while text[at] != "}":
            if members:
                at = _skip(text, _expect(text, at, ","))
            if text[at] != '"':
                raise ValueError(f"expected a member name at character {at}")
            name, at = _leaf(text, at)
            at = _skip(text, _expect(text, _skip(text, at), ":"))
            members[name], at = inner.get(name, _leaf)(text, at)
            at = _skip(text, at)
        return members, at + 1

    return read


def _array(item: _Reader) -> _Reader:
    """A reader of an array whose items are read by `item`."""

    def read(text: str, at: int) -> tuple[Any, int]:
        if text[at] != "[":
            return _leaf(text, at)
        items: list[Any] = []
        at = _skip(text, at + 1)
        while text[at] != "]":
            if items:
                at = _skip(text, _expect(text, at, ","))
            value, at = item(text, at)
            items.append(value)
            at = _skip(text, at)
        return items, at + 1

    return read


def _action(text: str, at: int) -> tuple[RawAction, int]:
    value, end = _leaf(text, at)
    return RawAction(value, text[at:end]), end


_events = _object({"elements": _array(_object({"actions": _array(_action)}))})


def read_object(body: bytes, *, events: bool = False) -> dict[str, Any]:
    """The JSON object in a request body; with `events`, its actions are `RawAction`.

    Raises:
        Refusal: 400, for an empty body, one that is no JSON, or JSON that is no object.
    """
    if not body.strip():
        raise Refusal(400, "Request Error", "Request body is empty")
    try:
        text = body.decode()
        value, at = (_events if events else _leaf)(text, _skip(text, 0))
        at = _skip(text, at)
    except (ValueError, IndexError, RecursionError) as error:
        raise Refusal.malformed("Request body is not valid JSON") from error
    if at != len(text):
        raise Refusal.malformed("Request body is not valid JSON")
    if not isinstance(value, dict):
        raise Refusal.invalid("Request body must be a JSON object")
    return value
