"""`Experience.decode`: an object of the caller's class, or the caller's default; never an exception."""

import dataclasses
from enum import IntEnum, StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import attrs
import pytest
from hypothesis import given, strategies as st

from moengage_personalize import Experience, Reason


def served(**payload):
    return Experience(key="hero", reason=Reason.MATCHED, source="network", payload=payload, context={"cid": "1"})


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 2


@attrs.frozen
class Banner:
    title: str
    count: int = 0
    ratio: float = 0.5


@dataclasses.dataclass
class Data:
    title: str
    count: int = 0


class Typed(TypedDict):
    title: str
    count: NotRequired[int]


class Field:
    def __init__(self, alias=None):
        self.alias = alias


class Model:
    """As much of pydantic as is used."""

    model_fields = {"title": Field(), "total": Field("count")}  # noqa: RUF012

    @classmethod
    def model_validate(cls, values):
        if set(values) != {"title", "count"}:
            raise LookupError
        model = cls()
        model.values = values
        return model


@attrs.frozen
class Offer:
    name: str
    tags: list[str] = attrs.field(factory=list)


def test_an_attrs_class_takes_its_variables_in_any_case_and_ignores_others():
    assert served(Title="Hi", COUNT=3, other=1).decode(Banner, default=Banner("x")) == Banner("Hi", 3)


def test_a_name_in_its_own_case_wins():
    assert served(Title="no", title="yes", TITLE="no").decode(Banner, default=Banner("x")) == Banner("yes")


def test_a_dataclass_and_a_typed_dict_and_a_model_are_built_too():
    experience = served(Title="Hi", Count=3)
    assert experience.decode(Data, default=Data("x")) == Data("Hi", 3)
    assert experience.decode(Typed, default=Typed(title="x")) == {"title": "Hi", "count": 3}
    assert served(Title="Hi").decode(Typed, default=Typed(title="x")) == {"title": "Hi"}
    model = experience.decode(Model, default=Model())
    assert model.values == {"title": "Hi", "count": 3}


@pytest.mark.parametrize(
    "payload", [{}, {"title": 5}, {"title": None}, {"title": "x", "count": "3"}, {"title": "x", "count": True}]
)
@pytest.mark.parametrize("kind", [Banner, Data, Typed, Model])
def test_what_does_not_fit_is_the_default(kind, payload):
    default = object()
    found = served(**payload).decode(kind, default=default)
    assert found is default or (kind is Model and "count" in payload)  # types are pydantic's business


@pytest.mark.parametrize("kind", [int, dict, object(), None, "Banner"])
def test_what_is_no_class_of_fields_is_the_default_too(kind):
    assert served(title="x").decode(kind, default="default") == "default"


def test_an_experience_that_was_not_served_is_the_default():
    unserved = Experience(key="hero", reason=Reason.NO_MATCH, source="network", payload={"title": "x"})
    assert unserved.decode(Banner, default="default") == "default"


@pytest.mark.parametrize(
    ("annotation", "value", "built"),
    [
        (Color, "red", Color.RED),
        (Color, "blue", None),
        (Size, 2, Size.BIG),
        (str | int, "a", "a"),
        (str | int, 1, 1),
        (str | int, 1.5, None),
        (int | float, 1.5, 1.5),
        (int | None, None, None),
        (int | None, 1, 1),
        (int | None, "1", None),
        (float, 1, 1.0),
        (float, "1", None),
        (float, True, None),
        (bool, True, True),
        (bool, 1, None),
        (int, 1.0, None),
        (list[str], ["a"], ["a"]),
        (list[str], "ab", None),
        (list[str], {"a": 1}, None),
        (list[int], ["1"], None),
        (tuple[str, ...], ["a"], ("a",)),
        (tuple[str, ...], "ab", None),
        (set[int], [1, 1], {1}),
        (frozenset[int], [1], frozenset({1})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, Any], {"a": 1}, {"a": 1}),
        (dict[str, int], {"a": "1"}, None),
        (Literal["a", "b"], "a", "a"),
        (Literal["a"], "c", None),
        (Any, {"a": [1]}, {"a": [1]}),
        (Offer, {"name": "x"}, Offer("x")),
        (list[Offer], [{"name": "x", "tags": ["t"]}], [Offer("x", ["t"])]),
        (list[Offer], [{"name": "x", "tags": "tag"}], None),
    ],
)
def test_a_field_takes_values_of_its_type_only(annotation, value, built):
    kind = attrs.make_class("Kind", {"it": attrs.field(type=annotation)})
    found = served(It=value).decode(kind, default=None)
    assert (found and found.it) == built
    assert type(found and found.it) is type(built)


def test_a_private_attribute_goes_by_its_alias():
    kind = attrs.make_class("Kind", {"_title": attrs.field(type=str)})
    assert served(Title="Hi").decode(kind, default=None)._title == "Hi"


@given(
    payload=st.dictionaries(
        st.sampled_from(["title", "Count", "RATIO"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner),
        ),
    )
)
def test_whatever_was_served_decoding_never_raises(payload):
    default = Banner("default")
    for kind in (Banner, Data, Typed, Model):
        served(**payload).decode(kind, default=default)
    banner = served(**payload).decode(Banner, default=default)
    assert (type(banner.title), type(banner.count), type(banner.ratio)) == (str, int, float)
