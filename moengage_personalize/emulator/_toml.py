"""Experiences and scenarios from TOML, and single troubles from JSON: from text to checked values.

Theory: cattrs builds the values and names the path of whatever does not fit; `_places` turns a path into
a line. Every complaint is a `ValueError` with one line of text per mistake: file, line, path, and what is
wrong.
"""

import functools
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from moengage_personalize.emulator import _places
from moengage_personalize.emulator._catalogue import Catalogue
from moengage_personalize.emulator._experiences import Audience, Experience, Network, Value, as_text
from moengage_personalize.emulator._trouble import Trouble

_RENAMED: dict[type, dict[str, str]] = {
    Audience: {"variations": "variation"},
    Experience: {"audiences": "audience"},
    Catalogue: {"experiences": "experience", "networks": "network", "profiles": "profile"},
}
T = TypeVar("T")

_DATA_TYPES = ("string", "number", "boolean", "json", "float")
_step = re.compile(r"\.(\w+)|\[(\d+)\]|\['(.*?)'\]").finditer


@attrs.frozen
class Scenario:
    """A timeline of trouble: `after` of each step counts from the moment that it is played."""

    step: tuple[Trouble, ...] = ()


# From data to values -----------------------------------------------------------------------------------


@functools.cache
def _converter() -> Converter:
    """The one converter: strict about names and types, generous about "one or several"."""
    converter = Converter(forbid_extra_keys=True)
    for plain in (str, bool, int, float):
        converter.register_structure_hook(plain, _plain)
    converter.register_structure_hook(Value, _value)
    converter.register_structure_hook_func(lambda noun: str(noun) == "tuple[str, ...]", _texts)
    converter.register_structure_hook_func(_is_choice, _choice)
    for noun, renamed in _RENAMED.items():
        names: Any = {name: override(rename=key) for name, key in renamed.items()}
        structure: Any = make_dict_structure_fn(noun, converter, _cattrs_forbid_extra_keys=True, **names)
        converter.register_structure_hook(noun, structure)
    network = make_dict_structure_fn(Network, converter, _cattrs_forbid_extra_keys=True, addresses=override(omit=True))
    converter.register_structure_hook(Network, network)
    return converter


def _plain(value: Any, wanted: type) -> Any:
    """A scalar of the type that is wanted; the only conversion is from a whole number to a float."""
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        names = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
        raise ValueError(f"must be {names[wanted]}, is {value!r}")
    return value


def _is_choice(noun: Any) -> bool:
    origin: Any = get_origin(noun)
    return origin is Literal


def _choice(value: Any, wanted: object) -> Any:
    if value not in get_args(wanted):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(wanted))}")
    return value


def _texts(value: Any, _type: object) -> tuple[str, ...]:
    return tuple(as_text(one) for one in (value if isinstance(value, list) else [value]))


def _value(value: Any, _type: object) -> Value:
    """`"text"`, `5`, `{...}`; or `{value = ..., data_type = "..."}`; or `{offerings = [...]}`."""
    match value:
        case {"offerings": list(offers), **rest} if not rest:
            return Value.offerings(offers)
        case {"value": held, "data_type": data_type, **rest} if not rest:
            if data_type not in _DATA_TYPES:
                raise ValueError(f"data_type {data_type!r} is none of {', '.join(_DATA_TYPES)}")
            return Value(held, data_type)
        case _:
            return Value.of(value)


# From mistakes to complaints ---------------------------------------------------------------------------


def _message(error: BaseException, _type: object) -> str:
    """What is wrong, in a reader's words."""
    match error:
        case cattrs.ForbiddenExtraKeysError(extra_fields=names):
            return "\n".join(f"{name}: there is no such setting" for name in sorted(names))
        case KeyError():
            return "is missing"
        case ValueError():
            return str(error)
        case cattrs.errors.StructureHandlerNotFoundError() | TypeError() | AttributeError():
            return "is of the wrong type"
        case _:
            return str(error)


def _mistakes(error: BaseException) -> Iterator[tuple[_places.Path, str]]:
    """Each mistake with its path, in TOML's names."""
    renamed = {name: key for names in _RENAMED.values() for name, key in names.items()}
    for text in (
        transform_error(error, format_exception=_message)
        if isinstance(error, cattrs.BaseValidationError)
        else [f"{error} @ $"]
    ):
        messages, _, where = text.rpartition(" @ ")
        path = _path(where.removeprefix("$."), renamed)
        for message in messages.split("\n"):
            field, colon, rest = message.partition(": ")
            if colon and re.fullmatch(r"[\w\[\].-]+", field):
                yield path + _path(field, renamed), rest
            else:
                yield path, message


def _path(text: str, renamed: Mapping[str, str]) -> _places.Path:
    """`experiences[0].when` as steps, in TOML's names."""
    steps = (step.groups() for step in _step(f".{text}"))
    return tuple(int(index) if index else key or renamed.get(name, name) for name, index, key in steps)


def _shown(path: _places.Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _complain(error: BaseException, text: str, name: str) -> ValueError:
    lines = _places.places(text)
    found = sorted(
        (_places.line_of(path, lines), f"{_shown(path)}: " if path else "", message)
        for path, message in _mistakes(error)
    )
    return ValueError("\n".join(f"{name}:{line}: {where}{message}" for line, where, message in found))


def _structure(text: str, noun: type[T], name: str) -> T:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = found.group(1) if found else text.count("\n") + 1  # "end of document"
        raise ValueError(f"{name}:{line}: {message}") from error
    try:
        return _converter().structure(data, noun)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise _complain(error, text, name) from error


# What is read ------------------------------------------------------------------------------------------


def catalogue_of(text: str, name: str = "experiences") -> Catalogue:
    """A catalogue from TOML text; `name` is how complaints call it.

    Raises:
        ValueError: It says something that makes no sense; one line for each mistake.
    """
    return _structure(text, Catalogue, name)


def scenario_of(text: str, name: str = "scenario") -> tuple[Trouble, ...]:
    """A timeline of trouble from TOML text: `[[step]]` tables with the fields of `Trouble`.

    Raises:
        ValueError: It says something that makes no sense; one line for each mistake.
    """
    return _structure(text, Scenario, name).step


def load_catalogue(path: "str | os.PathLike[str]") -> Catalogue:
    """A catalogue from a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It says something that makes no sense; one line for each mistake.
    """
    return _load(path, catalogue_of)


def load_scenario(path: "str | os.PathLike[str]") -> tuple[Trouble, ...]:
    """A timeline of trouble from a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It says something that makes no sense; one line for each mistake.
    """
    return _load(path, scenario_of)


def _load(path: "str | os.PathLike[str]", read: Callable[[str, str], T]) -> T:
    return read(Path(path).read_text("utf-8"), str(path))


def demo_catalogue() -> Catalogue:
    """The experiences that an emulator shows when it was given none."""
    return catalogue_of(resources.files(__package__).joinpath("demo.toml").read_text("utf-8"), "demo.toml")


def trouble_of(wish: Mapping[str, Any]) -> Trouble:
    """A trouble from a JSON object.

    Raises:
        ValueError: It says something that makes no sense.
    """
    try:
        return _converter().structure(wish, Trouble)
    except (cattrs.BaseValidationError, ValueError) as error:
        mistakes = [f"{_shown(path)}: {message}" if path else message for path, message in _mistakes(error)]
        raise ValueError("; ".join(mistakes)) from error
