"""A payload, as an object of the caller's own class.

Invariant: never an exception into a page, and never a value of a type that the class did not name: text is not read as
a number here, that is `data_type`'s business. What does not fit is the caller's default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any, TypeVar, get_args, get_origin, is_typeddict

import attrs
import cattrs
from cattrs.strategies import configure_union_passthrough

T = TypeVar("T")


def build(kind: type[T], payload: Mapping[str, Any], default: T) -> T:
    """Returns an instance of `kind` made of the payload, or `default` where it does not fit."""
    try:
        return _structure(kind, payload)  # type: ignore[no-any-return]
    except Exception:  # whatever a class of the caller's raises on values that do not fit
        return default


def _structure(kind: Any, payload: Mapping[str, Any]) -> Any:
    if hasattr(kind, "model_validate"):  # pydantic, without importing it
        return kind.model_validate(
            _renamed([field.alias or name for name, field in kind.model_fields.items()], payload)
        )
    if attrs.has(kind):
        names = [field.alias for field in attrs.fields(kind)]
    else:
        names = list(kind.__annotations__ if is_typeddict(kind) else kind.__dataclass_fields__)
    return _converter().structure(_renamed(names, payload), kind)


def _renamed(names: Iterable[str], payload: Mapping[str, Any]) -> dict[str, Any]:
    folded = {name.casefold(): value for name, value in payload.items()}
    return {name: payload.get(name, folded[name.casefold()]) for name in names if name.casefold() in folded}


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False, use_alias=True)
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
