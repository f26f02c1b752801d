"""A payload, as an object of the caller's own class.

Invariant: never an exception into a page, and never a value of a type that the class did not name: text is not read as
a number here, that is `data_type`'s business. What does not fit is a `Misfit`, which names the path to the value that
is to blame, and never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache, partial
from typing import Any, Final, TypeVar, get_args, get_origin, is_typeddict
from unicodedata import normalize

import attrs
import cattrs
from cattrs.strategies import configure_union_passthrough

T = TypeVar("T")
WHOLE: Final = "(class)"
"""The path where no variable is to blame: no class of the four, or one that raises."""


@attrs.frozen
class Misfit:
    """Where a payload does not fit: variable names and list positions, joined by dots."""

    path: str


def build(kind: type[T], payload: Mapping[str, Any]) -> T | Misfit:
    """Returns an instance of `kind` made of the payload, or where it does not fit."""
    try:
        if hasattr(kind, "model_validate"):  # pydantic, without importing it
            return _pydantic(kind, payload)  # type: ignore[no-any-return]
        fields = _renamed(_names(kind), payload)
    except Exception:  # a class that is none of the four
        return Misfit(WHOLE)
    try:
        return _converter().structure(fields, kind)
    except Exception:  # whatever a class of the caller's raises on values that do not fit
        return Misfit(_blamed(fields, kind))


def _names(kind: Any) -> Iterable[str]:
    if attrs.has(kind):
        return [field.alias for field in attrs.fields(kind)]
    return list(kind.__annotations__ if is_typeddict(kind) else kind.__dataclass_fields__)


def _renamed(names: Iterable[str], payload: Mapping[str, Any]) -> dict[str, Any]:
    folded = {fold(name): value for name, value in sorted(payload.items(), reverse=True)}  # the first of them wins
    wanted = ((name, fold(name)) for name in names)
    return {name: payload.get(name, folded[key]) for name, key in wanted if key in folded}


@lru_cache(maxsize=4_096)
def fold(name: str) -> str:
    """Returns what two names must have in common: letters and digits, in any case.

    What separates words does not count, nor what makes a Python name of one that is none (`class_`, `x_1st`).
    """
    plain = re.sub(r"\W", "_", normalize("NFKC", normalize("NFKC", name).casefold()))
    return re.sub(r"^x_(?=[\d_])", "", plain).rstrip("_")


def _pydantic(kind: Any, payload: Mapping[str, Any]) -> Any:
    names = [field.alias or name for name, field in kind.model_fields.items()]
    try:
        return kind.model_validate(_renamed(names, payload))
    except Exception as error:
        errors = getattr(error, "errors", None)
        found = errors(include_url=False, include_input=False, include_context=False) if errors else []
        return Misfit(".".join(map(str, found[0]["loc"])) if found else WHOLE)


@cache
def _converter() -> cattrs.Converter:
    return _strict(cattrs.Converter(detailed_validation=False, use_alias=True))


@cache
def _witness() -> cattrs.Converter:
    return _strict(cattrs.Converter(detailed_validation=True, use_alias=True))


def _strict(converter: cattrs.Converter) -> cattrs.Converter:
    for scalar in (str, int, float, bool):
        converter.register_structure_hook(scalar, partial(_scalar, scalar))
    converter.register_structure_hook_func(_is_list, partial(_list, converter))
    configure_union_passthrough(str | int | float | bool | None, converter)
    return converter


def _scalar(scalar: type, value: Any, kind: Any) -> Any:
    """A value of the scalar itself, or of a subclass such as an enum."""
    if type(value) is not scalar and not (scalar is float and type(value) is int):
        raise TypeError
    return kind(value)


def _is_list(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    return origin in (list, set, frozenset) or (origin is tuple and arguments[-1:] == (...,))


def _list(converter: cattrs.Converter, value: Any, kind: Any) -> Any:
    """A text is no list of its letters."""
    if not isinstance(value, list):
        raise TypeError
    return get_origin(kind)(converter.structure(item, get_args(kind)[0]) for item in value)


def _blamed(fields: Mapping[str, Any], kind: Any) -> str:
    """Does it again, slowly, to learn where."""
    try:
        _witness().structure(fields, kind)
    except Exception as error:
        found = cattrs.transform_error(error, format_exception=lambda _, __: "")
        if isinstance(error, cattrs.BaseValidationError) and found:
            path = found[0].partition(" @ ")[2].removeprefix("$")
            return path.replace("[", ".").replace("]", "").strip(".") or WHOLE
    return WHOLE
