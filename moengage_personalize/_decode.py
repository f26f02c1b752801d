"""A payload, as an object of the caller's own class.

Invariant: never an exception into a page, and never a value of a type that the class did not name: text is not read as
a number here, that is `data_type`'s business. What does not fit is the caller's default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, is_typeddict

import attrs
import cattrs

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
        names = [field.name for field in attrs.fields(kind)]
    else:
        names = list(kind.__annotations__ if is_typeddict(kind) else kind.__dataclass_fields__)
    return _converter().structure(_renamed(names, payload), kind)


def _renamed(names: Iterable[str], payload: Mapping[str, Any]) -> dict[str, Any]:
    folded = {name.casefold(): value for name, value in payload.items()}
    return {name: payload.get(name, folded[name.casefold()]) for name in names if name.casefold() in folded}


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    for scalar in (str, int, bool):
        converter.register_structure_hook(scalar, _exactly)
    converter.register_structure_hook(float, lambda value, _: float(_exactly(value, int | float)))
    return converter


def _exactly(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    return value
