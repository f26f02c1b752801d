"""`moengage-personalize codegen`: a module of the workspace's keys and a class per experience.

Theory: the keys come from the metadata. What variables an experience has is not in there, so a sample is fetched, and
the types of its values are the types of the fields; an experience that the sample's customer does not get has a key and
no class. Names are Python's, and `Experience.decode` finds the variables by them.

Invariant: the module passes `mypy --strict`, whatever keys and variables are called. The same workspace gives the same
module. It contains names and types, and no value.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import click

from ._ending import OK, complain, run
from ._options import client_settings, connecting, pair

if TYPE_CHECKING:
    from moengage_personalize import Experiences

_HEAD = '''"""The experiences of a MoEngage workspace. Written by `moengage-personalize codegen`: do not edit."""

from typing import Any, Final, Literal

import attrs
'''


@click.command("codegen", short_help="Write a typed module of the workspace's experiences.")
@click.option("--customer-id", help="Whose sample; by default nobody's: what all users get.")
@click.option("--attribute", type=pair, multiple=True, metavar="NAME=VALUE", help="In-session attribute; repeatable.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; by default it is printed.")
@connecting
def codegen_command(*, customer_id: str | None, attribute: tuple[tuple[str, str], ...], output: Path | None) -> None:
    """Write a Python module with the workspace's experience keys as literals, and an attrs class per experience.

    The fields of a class are those of a sample that is fetched.

    0: it is written, though an experience that was not served has a key and no class.
    """
    run(_codegen(customer_id, dict(attribute), output))


async def _codegen(customer_id: str | None, attributes: Mapping[str, str], output: Path | None) -> int:
    from asyncio import to_thread

    from moengage_personalize import AsyncPersonalizeClient

    async with AsyncPersonalizeClient(**client_settings()) as client:
        metadata = await client.metadata()
        sample: Mapping[str, Any] = {}
        if metadata:
            sample = await client.fetch(
                *sorted(metadata), customer_id=customer_id, attributes=attributes, deadline=10.0, on_error="raise"
            )
    module = write(metadata, sample)
    if output is None:
        click.echo(module, nl=False)
    else:
        await to_thread(output.write_text, module, encoding="utf-8")
    if without := [key for key in sorted(metadata) if not sample[key].matched]:
        complain(f"no class for {', '.join(without)}: the visitor of the sample is not served them (--customer-id)")
    return OK


def write(keys: Iterable[str], sample: Experiences | Mapping[str, Any]) -> str:
    """Returns the module's text.

    Args:
        keys: The workspace's keys.
        sample: Experiences by key, of which those count that were served.
    """
    keys = sorted(keys)
    named = _Names()
    constants = {key: named(_constant_name(key)) for key in keys}
    literals = "".join(f"    {_quoted(key)},\n" for key in keys)
    parts = [
        _HEAD,
        f"\nExperienceKey = Literal[\n{literals}]\n" if keys else "\nExperienceKey = str\n",
        "\n" if keys else "",
        *(f"{constants[key]}: Final = {_quoted(key)}\n" for key in keys),
        *(
            _class(named(_class_name(key)), constants[key], sample[key].payload)
            for key in keys
            if key in sample and sample[key].matched
        ),
    ]
    return "".join(parts)


def _class(name: str, constant: str, payload: Mapping[str, Any]) -> str:
    from moengage_personalize._decode import fold  # what is generated must be what is found

    alike: dict[str, list[str]] = {}
    for variable in sorted(payload):
        alike.setdefault(fold(variable), []).append(variable)
    fields = []
    for variables in alike.values():
        # As `decode` chooses: the variable of exactly that name, or the first of them, be there a name for it or not.
        found = [(field != variable, field) for variable in variables if (field := _field_name(variable))]
        if found:
            _, field = min(found)
            fields.append(f"    {field}: {_type(payload.get(field, payload[variables[0]]))}\n")
    lines = "".join(sorted(fields))
    return f'\n\n@attrs.frozen(kw_only=True)\nclass {name}:\n    """`{constant}`."""\n' + (lines and f"\n{lines}")


def _type(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():  # 20 today is 19.5 tomorrow
            return "float"
        case str():
            return "str"
        case list():
            return "list[Any]"
        case dict():
            return "dict[str, Any]"
        case _:
            return "Any"


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text)


def _class_name(key: str) -> str:
    return _safe("".join(word[:1].upper() + word[1:] for word in _words(key)), "Experience")


def _constant_name(key: str) -> str:
    return _safe("_".join(_words(key)).upper(), "KEY_")


def _field_name(variable: str) -> str | None:
    """The variable's name, as far as Python lets it be; `Experience.decode` finds it again. None: there is no way."""
    name = re.sub(r"\W", "_", normalize("NFKC", variable))
    return _safe(name, "x_") if name.strip("_") and f"x_{name}".isidentifier() else None


def _safe(name: str, prefix: str) -> str:
    name = name if name[:1].isalpha() else f"{prefix}{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN else name


_TAKEN = frozenset("Any Final Literal ExperienceKey attrs str float bool list dict self".split())


class _Names:
    """Names on one level, none like another."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _quoted(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
