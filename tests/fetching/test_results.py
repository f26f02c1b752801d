"""What a page gets: reasons, types, the user's own classes, drift, and explanations."""

import logging
from dataclasses import dataclass
from typing import TypedDict

import attrs
import pytest
from hypothesis import given, strategies as st
from support.moengage import CONTEXT, MoEngage, error, make_client, served, serving

from moengage_personalize import AsyncPersonalizeClient, CachePolicy, Experience, FetchPolicy, Reason
from moengage_personalize._decode import WHOLE, Misfit, build
from moengage_personalize._drift import Drifts
from moengage_personalize._explain import _BECAUSE

pytestmark = pytest.mark.anyio

PAYLOAD = {"Title": "Hi", "Count": 3, "Ratio": 0.5, "On": True, "CTA url": "/x", "Cta": {"Text": "Go", "Url": None}}


def experience(**options):
    given = {"key": "hero", "reason": Reason.MATCHED, "source": "network", "payload": PAYLOAD, "context": CONTEXT}
    return Experience(**{**given, **options})


@attrs.frozen
class Attrs:
    title: str
    count: int
    cta_url: str = ""


@dataclass
class Data:
    title: str
    ratio: float


class Typed(TypedDict):
    Title: str
    On: bool


def test_decode_builds_what_the_caller_declared():
    hero = experience()
    assert hero.decode(Attrs, default=None) == Attrs("Hi", 3, "/x")
    assert hero.decode(Data, default=None) == Data("Hi", 0.5)
    assert hero.decode(Typed, default=None) == {"Title": "Hi", "On": True}


def test_decode_builds_pydantic_models():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", title=(str, ...), count=(int, ...))
    assert build(model, PAYLOAD).title == "Hi"
    assert build(pydantic.create_model("Model", cta=(dict[str, str], ...)), PAYLOAD) == Misfit("cta.Url")


@attrs.frozen
class Button:
    Text: str
    Url: str


@attrs.frozen
class Nested:
    cta: Button


@attrs.frozen
class Missing:
    subtitle: str


@attrs.frozen
class Wrong:
    title: int


class Hostile:
    pass


@pytest.mark.parametrize(
    ("kind", "path"), [(Nested, "cta.Url"), (Missing, "subtitle"), (Wrong, "title"), (Hostile, WHOLE)]
)
def test_a_mismatch_names_the_path_and_never_the_value(kind, path):
    assert build(kind, PAYLOAD) == Misfit(path)


def test_a_class_that_cannot_be_decoded_is_named_with_those_that_can(caplog):
    drifts = Drifts()
    drifts.saw("home-hero", WHOLE, "Hostile")
    drifts.saw("home-hero", "title", "int")
    whole, title = [record.message for record in caplog.records]
    kinds = "an attrs class, a dataclass, a TypedDict or a pydantic model?"
    assert whole == f"the experience home-hero does not fit Hostile ({kinds}): its default is used"
    assert title == "the variable home-hero.title does not fit int: its default is used"


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_decode_never_raises(payload):
    for kind in (Attrs, Data, Typed, Nested, Hostile):
        experience(payload=payload).decode(kind, default=None)


def test_get_returns_the_type_of_its_default():
    hero = experience()
    assert hero.get("Title", default="x") == "Hi"
    assert hero.get("Count", default=1.0) == 3.0
    assert type(hero.get("Count", default=1.0)) is float
    assert hero.get("Count", default="x") == "x"
    assert hero.get("On", default=0) == 0
    assert hero.get("Nothing", default="x") == "x"
    assert hero.get("Nothing") is None


async def test_drift_is_counted_by_path_and_logged_once(caplog):
    moengage = MoEngage(
        fetch=lambda body: serving(
            hero={
                "payload": {
                    "Title": {"value": "secret words", "data_type": "string"},
                    "Bad": {"value": "secret words", "data_type": "number"},
                },
                "experience_context": CONTEXT,
            }
        )
    )
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        for _ in range(3):
            hero = (await client.fetch("hero"))["hero"]
            assert hero.decode(Wrong, default=None) is None
            assert hero.get("Title", default=7) == 7
        stats = client.stats()
    assert stats.drifts == 7
    assert stats.drifts_by_path == {"hero.Bad": 1, "hero.title": 3, "hero.Title": 3}
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "the variable hero.Bad does not fit its data_type: its default is used",
        "the variable hero.title does not fit Wrong: its default is used",
        "the variable hero.Title does not fit int: its default is used",
    ]
    assert "secret words" not in caplog.text


async def test_an_entry_that_is_no_experience_is_a_decode_error_and_the_others_are_whole():
    moengage = MoEngage(fetch=lambda body: serving(a=served(), b=[1], c={"payload": 3, "experience_context": {}}))
    async with make_client(moengage) as client:
        page = await client.fetch("a", "b", "c")
    assert [entry.reason for entry in page.values()] == [Reason.MATCHED, Reason.DECODE_ERROR, Reason.DECODE_ERROR]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("USER_IN_CAMPAIGN_CONTROL_GROUP", Reason.CAMPAIGN_CONTROL_GROUP),
        ("USER_IN_GLOBAL_CONTROL_GROUP", Reason.GLOBAL_CONTROL_GROUP),
        ("USER_NOT_IN_SEGMENT", Reason.NOT_IN_SEGMENT),
        ("INVALID_EXPERIENCE_KEY", Reason.INVALID_KEY),
        ("EXPERIENCE_NOT_ACTIVE", Reason.NOT_ACTIVE),
        ("EXPERIENCE_EXPIRED", Reason.EXPIRED),
        ("MAX_LIMIT_BREACHED", Reason.LIMIT_BREACHED),
        ("SOMETHING_NEW", Reason.PERSONALIZATION_FAILED),
    ],
)
async def test_a_failure_that_moengage_names_is_the_reason(said, reason):
    import httpx

    reply = {"experiences": {}, "failures": [{"reason": said, "experienceKeys": ["hero"]}]}
    async with make_client(MoEngage(fetch=lambda body: httpx.Response(200, json=reply))) as client:
        page = await client.fetch("hero", "other")
        assert (page["hero"].reason, page["other"].reason) == (reason, Reason.NO_MATCH)
        assert page.error is None
        assert reason.value in page["hero"].explain()


def test_every_reason_is_explained():
    assert set(_BECAUSE) == set(Reason)


async def test_explain_says_why_and_shows_nothing_of_the_visitor():
    answers = [serving(hero=served(Title="secret words")), error(503)]
    moengage = MoEngage(fetch=lambda body: answers.pop(0))
    caching, fetching = CachePolicy(stale_if_error=60), FetchPolicy(attempts=1)
    async with make_client(moengage, caching=caching, fetching=fetching) as client:
        await client.fetch("hero", customer_id="john@example.com")
        page = await client.fetch("hero", customer_id="john@example.com")
    text = page.explain()
    assert text.splitlines() == [
        "hero: stale (from stale)",
        "  MoEngage served it earlier; it is out of date, and still better than a default.",
        "  Not asked or not answered now: unavailable. MoEngage could not be reached, or failed.",
        "  experience 'Server Side Experience', audience 'All Users', variation '2'; 1 variables.",
    ]


async def test_disabled_has_its_reason():
    async with AsyncPersonalizeClient(enabled=False) as client:
        page = await client.fetch("hero")
        assert page["hero"].reason is Reason.DISABLED
        assert await client.unknown_keys() == {}
