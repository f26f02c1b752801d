"""docs/fetching.md says what is true: its examples run, and it names every reason and every knob."""

import ast
import inspect
import re
from pathlib import Path

import attrs
import pytest
from support.moengage import MoEngage, make_client, served, serving

from moengage_personalize import CachePolicy, Reason

pytestmark = pytest.mark.anyio
TEXT = (Path(__file__).parents[2] / "docs" / "fetching.md").read_text(encoding="utf-8")


async def test_the_examples_run():
    known = ["home-hero", "home-offers"]
    moengage = MoEngage(
        fetch=lambda body: serving(
            **{key: served(Title=f"for {key}", **{"CTA text": "Go"}) for key in body["experience_key"] if key in known}
        )
    )
    async with make_client(moengage) as client:
        names = {"client": client, "page_hero": (await client.fetch("home-hero"))["home-hero"]}
        for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
            code = compile(block, "docs/fetching.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
    assert names["title"] == "for home-hero"
    assert (names["hero"].title, names["hero"].cta_text) == ("for home-hero", "Go")


def test_every_reason_is_in_the_table():
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in TEXT] == []


def test_every_knob_of_the_cache_is_explained():
    unexplained = {"max_entries", "max_bytes"}
    assert {field.name for field in attrs.fields(CachePolicy) if field.name not in TEXT} == unexplained
