"""JSON, by orjson where it is installed and by the standard library elsewhere, with one outcome.

Invariant: both accept the same values and mean the same by them, in both directions (a test compares them). Text must
be encodable as UTF-8, numbers must be finite (as a double, which is what a reader makes of them), and what JSON has no
word for is refused rather than guessed. An integer beyond 64 bits leaves as it is and arrives as a float. Errors are
fresh: theirs would quote the payload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

from .._errors import InvalidInputError

try:
    import orjson
except ImportError:  # pragma: no cover - one of the two test runs
    orjson = None  # type: ignore[assignment]

_plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_SCALARS = frozenset({bool, type(None)})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def encode(value: Any, what: str) -> bytes:
    """Encodes a JSON value compactly.

    Args:
        value: Built of dict (with str keys), list, tuple, str, int, float, bool and None.
        what: What it is, for the message of the error.

    Raises:
        InvalidInputError: It is not JSON.
    """
    if type(value) is str and value.isascii():  # customer ids, on the hot path
        return b"".join((_dumps(value), b""))  # as `_exactly` does
    if not _is_json(value, 0):
        raise InvalidInputError(
            f"{what} must be JSON: dicts with text keys, lists, text, finite numbers, booleans and None,"
            " no deeper than 64 levels and without lone surrogates"
        )
    return _exactly(_dumps(value))


def _exactly(data: bytes) -> bytes:
    """Returns a copy of the exact size: what orjson returns holds 4 KiB, however short it is, and we keep many."""
    return b"".join((data, b""))


def encode_decoded(value: Any) -> str:
    """Returns as text what `loads` returned, and nothing else: it is JSON already, so it is not looked through again.

    Raises:
        ValueError: It is not, after all.
    """
    try:
        return _dumps(value).decode()
    except (TypeError, RecursionError):
        raise ValueError("not JSON") from None


def _is_json(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() or _encodable(value)
    if kind in _SCALARS:
        return True
    if kind is int:
        return bool(value.bit_length() < 1_024)
    if kind is float:
        return isfinite(value)
    if depth == 64:
        return False
    if isinstance(value, dict):
        return all(type(key) is str and _is_json(key, 0) and _is_json(item, depth + 1) for key, item in value.items())
    return isinstance(value, list | tuple) and all(_is_json(item, depth + 1) for item in value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stdlib_dumps(value: Any) -> bytes:
    return _plain(value).encode()


def _orjson_dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits
        return _stdlib_dumps(value)


def _stdlib_loads(data: bytes | str) -> Any:
    text = data.decode() if isinstance(data, bytes) else data
    value = _decoder.decode(text)
    if _SURROGATE.search(text):
        _plain(value).encode()  # raises if one of them is alone
    return value


def _float(digits: str) -> float:
    if not isfinite(number := float(digits)):
        raise ValueError("not finite")
    return number


def _int(digits: str) -> int | float:
    number = int(digits)
    return number if -(1 << 63) <= number < 1 << 64 else _float(digits)


def _refuse(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_decoder = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_refuse)
_dumps: Callable[[Any], bytes] = _stdlib_dumps if orjson is None else _orjson_dumps
loads: Callable[[bytes | str], Any] = _stdlib_loads if orjson is None else orjson.loads
"""Decodes JSON; raises ValueError (and, for absurd depth, RecursionError)."""
