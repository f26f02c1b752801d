"""Experiences and scenarios from TOML, and single troubles from JSON: from text to checked values.

Theory: cattrs builds the values and names the path of whatever does not fit; `_places` turns a path back into
a line. Every complaint is one `ValueError`, one line of text per mistake, each beginning with file and line.
"""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import cattrs
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.json import make_converter

from moengage_personalize.emulator._catalogue import Audience, Catalogue, Experience, Value, as_text
from moengage_personalize.emulator._trouble import Trouble


@functools.cache
def _converter() -> Converter:
    """The one converter: strict about names, generous about "one or several"."""
    converter = make_converter(forbid_extra_keys=True)
    converter.register_structure_hook(Value, _value)
    converter.register_structure_hook_func(lambda noun: noun == tuple[str, ...], _texts)
    for noun, renamed in _RENAMED.items():
        fields: Any = {name: override(rename=key) for name, key in renamed.items()}
        converter.register_structure_hook(
            noun, make_dict_structure_fn(noun, converter, _cattrs_forbid_extra_keys=True, **fields)
        )
    return converter


_RENAMED: dict[type, dict[str, str]] = {
    Audience: {"variations": "variation"},
    Experience: {"audiences": "audience"},
    Catalogue: {"experiences": "experience", "networks": "network", "profiles": "profile"},
}


def _texts(value: Any, _type: object) -> tuple[str, ...]:
    return tuple(as_text(one) for one in (value if isinstance(value, list) else [value]))


def _value(value: Any, _type: object) -> Value:
    """`"text"`, `5`, `{...}`; or `{value = ..., data_type = "..."}`; or `{offerings = [...]}`."""
    match value:
        case {"offerings": list(offers), **rest} if not rest:
            return Value.offerings(offers)
        case {"value": held, "data_type": str(data_type), **rest} if not rest:
            if data_type not in ("string", "number", "boolean", "json", "float"):
                raise ValueError(f"data_type {data_type!r} is none of string, number, boolean, json, float")
            return Value(held, data_type)  # type: ignore[arg-type]
        case _:
            return Value.of(value)


def catalogue_of(text: str, name: str = "experiences") -> Catalogue:
    """A catalogue from TOML text; `name` is how complaints call it.

    Raises:
        ValueError: With one line for each mistake.
    """
    try:
        return _converter().structure(tomllib.loads(text), Catalogue)
    except cattrs.BaseValidationError as error:
        raise ValueError("\n".join(f"{name}: {message}" for message in transform_error(error))) from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def load_catalogue(path: "str | Path") -> Catalogue:
    """A catalogue from a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It says something that makes no sense; one line for each mistake.
    """
    return catalogue_of(Path(path).read_text("utf-8"), str(path))


def demo_catalogue() -> Catalogue:
    """The experiences that an emulator shows when it was given none."""
    return catalogue_of(resources.files(__package__).joinpath("demo.toml").read_text("utf-8"), "demo.toml")


def trouble_of(wish: Mapping[str, Any]) -> Trouble:
    """A trouble from a JSON object.

    Raises:
        ValueError: With one line for each mistake.
    """
    try:
        return _converter().structure(wish, Trouble)
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(transform_error(error))) from error
