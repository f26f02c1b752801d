"""Misspelled keys are found, and keys and classes are generated."""

import logging

import anyio
import attrs
import httpx
import pytest
from hypothesis import example, given, settings, strategies as st
from support.moengage import CONTEXT, MoEngage, error, make_client

from moengage_personalize import Effects, Experience, InvalidInputError, Reason, ServerError
from moengage_personalize._decode import fold
from moengage_personalize.cli import main
from moengage_personalize.cli.codegen import write

pytestmark = pytest.mark.anyio


def listing(*keys):
    entries = [{"experience_name": key, "experience_key": key, "status": "Active"} for key in keys]
    return httpx.Response(200, json={"metadata": {"count": len(keys), "experiences": entries}})


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_misspelled_key_is_told_once_with_the_nearest_that_exists(caplog):
    moengage = MoEngage(metadata=lambda body: listing("home-hero", "offers"))
    client = make_client(moengage)
    client.expect("home-hreo", "offers", "zzz")
    async with client:
        await anyio.sleep(0.1)
        assert warnings_in(caplog) == [
            "the experience key 'home-hreo' does not exist in this workspace: did you mean 'home-hero'?",
            "the experience key 'zzz' does not exist in this workspace",
        ]
        assert await client.unknown_keys() == {"home-hreo": "home-hero", "zzz": None}
        await anyio.sleep(3 * 86_400)
    assert len(warnings_in(caplog)) == 2
    assert moengage.count("metadata") == 2 + 3


async def test_a_key_whose_entry_may_be_the_unreadable_one_is_not_called_missing(caplog):
    broken = [{"experience_key": "a-key"}]
    moengage = MoEngage(metadata=lambda body: httpx.Response(200, json={"metadata": {"experiences": broken}}))
    async with make_client(moengage) as client:
        client.expect("a-key")
        await anyio.sleep(0.1)
        assert warnings_in(caplog) == ["1 of the workspace's experiences cannot be read, and are left out"]
        broken[:] = []
        await anyio.sleep(86_400 * 1.2)
    assert warnings_in(caplog)[1:] == ["the experience key 'a-key' does not exist in this workspace"]


async def test_a_key_that_vanishes_is_told_the_next_day(caplog):
    keys = ["a-key"]
    moengage = MoEngage(metadata=lambda body: listing(*keys))
    async with make_client(moengage) as client:
        client.expect("a-key")
        await anyio.sleep(0.1)
        assert warnings_in(caplog) == []
        keys.clear()
        await anyio.sleep(86_400 + 1)
        assert len(warnings_in(caplog)) == 1


async def test_the_list_is_not_asked_for_without_expectations():
    moengage = MoEngage()
    async with make_client(moengage):
        await anyio.sleep(3 * 86_400)
    assert moengage.count("metadata") == 0


async def test_trouble_with_the_list_is_tried_again_and_troubles_nobody(caplog):
    answers = [error(500), error(401), listing("other")]
    moengage = MoEngage(metadata=lambda body: answers.pop(0))
    async with make_client(moengage) as client:
        client.expect("a-key")
        await anyio.sleep(0.1)
        assert warnings_in(caplog) == []
        await anyio.sleep(600)
        assert len(warnings_in(caplog)) == 1
        assert answers == []


async def test_asking_now_raises_their_trouble():
    async with make_client(MoEngage(metadata=lambda body: error(500))) as client:
        client.expect("a-key")
        with pytest.raises(ServerError):
            await client.unknown_keys()
        with pytest.raises(InvalidInputError):
            client.expect("")


async def test_the_day_is_not_the_same_for_every_process():
    moengage = MoEngage()
    async with make_client(moengage, effects=Effects(jitter=lambda: 0.99)) as client:
        client.expect("a-key")
        await anyio.sleep(86_401)
    assert moengage.count("metadata") == 1


# ── codegen ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def sampled(key, **payload):
    return Experience(key=key, reason=Reason.MATCHED, source="network", payload=payload, context=CONTEXT)


def test_the_module_has_every_key_and_a_class_for_what_was_sampled():
    hero = sampled("home-hero", Title="Hi", Discount=20, On=True, Cta={"a": 1}, Offers=[], **{"CTA text": "x"})
    assert write(["offers", "home-hero"], {"home-hero": hero}) == (
        '"""The experiences of a MoEngage workspace. Written by `moengage-personalize codegen`: do not edit."""\n'
        "\nfrom typing import Any, Final, Literal\n\nimport attrs\n"
        '\nExperienceKey = Literal[\n    "home-hero",\n    "offers",\n]\n'
        '\nHOME_HERO: Final = "home-hero"\nOFFERS: Final = "offers"\n'
        '\n\n@attrs.frozen(kw_only=True)\nclass HomeHero:\n    """`HOME_HERO`."""\n\n'
        "    CTA_text: str\n    Cta: dict[str, Any]\n    Discount: float\n    Offers: list[Any]\n    On: bool\n    Title: str\n"
    )


NAMES = st.one_of(
    st.sampled_from(
        [
            "class",
            "None",
            "self",
            "str",
            "1st",
            "_x",
            "CTA text",
            "a-b",
            "a_b",
            "A",
            "",
            "é",
            "²",
            "x_1",
            "Any",
            "attrs",
            '"',
            "\\",
            "\n",
        ]
    ),
    st.text(max_size=8),
)


@settings(max_examples=100)
@given(
    st.dictionaries(NAMES, st.sampled_from(["x", 1, 1.5, True, None, [], {}]), max_size=8),
    st.lists(NAMES, min_size=1, max_size=6, unique=True),
)
@example(payload={"": "x", "X::": 1}, keys=["class"])
def test_whatever_things_are_called_the_module_runs_and_its_classes_decode_what_was_sampled(payload, keys):
    module = {"__name__": "generated"}
    exec(write(keys, {key: sampled(key, **payload) for key in keys}), module)
    classes = [each for each in module.values() if attrs.has(each) and isinstance(each, type)]
    assert len(classes) == len(keys)
    assert {value for name, value in module.items() if isinstance(value, str) and not name.startswith("_")} == set(keys)
    for kind in classes:
        built = sampled("k", **payload).decode(kind, default=None)
        assert built is not None
        for field in attrs.fields(kind):
            sources = [value for name, value in payload.items() if fold(name) == fold(field.name)]
            assert getattr(built, field.name) in sources


def test_trouble_is_one_line_and_a_status(capsys, monkeypatch):
    for name in ("WORKSPACE_ID", "PERSONALIZE_API_KEY", "DATA_CENTER", "PERSONALIZE_BASE_URL"):
        monkeypatch.delenv(f"MOENGAGE_{name}", raising=False)
    assert main(["codegen"]) == 2
    assert "moengage-personalize: workspace_id, api_key and data_center" in capsys.readouterr().err
