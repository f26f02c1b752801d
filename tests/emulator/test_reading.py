"""The reader of events bodies: as strict as the standard library's, and faithful to every character."""

import json

import pytest
from emulator.kit import action, element
from hypothesis import given, strategies as st

from moengage_personalize.emulator._messages import Refusal
from moengage_personalize.emulator._reading import RawAction, read_object

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
ELEMENTS = st.fixed_dictionaries({"actions": st.lists(JSON, max_size=3) | JSON}, optional={"customer_id": JSON})
BODIES = st.fixed_dictionaries({"elements": st.lists(ELEMENTS | JSON, max_size=3) | JSON}, optional={"other": JSON})


def plain(value):
    """The same without `RawAction`."""
    match value:
        case RawAction():
            assert json.loads(value.raw) == value.value
            return value.value
        case list():
            return [plain(item) for item in value]
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case _:
            return value


@given(BODIES, st.sampled_from([None, 1]), st.booleans())
def test_it_reads_what_the_standard_library_reads(body, indent, ascii_only):
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert plain(read_object(data, events=True)) == json.loads(text)


@given(
    st.sampled_from(
        [json.dumps({"elements": [element(action(moe_event_uuid="x")), {}], "a": [1, {"b": 2.5}]}, indent=1)]
    ),
    st.integers(0, 600),
    st.integers(0, 3),
    st.text(alphabet='{}[],:"1 n\\', max_size=2),
)
def test_it_refuses_what_the_standard_library_refuses(text, at, cut, put):
    spoilt = text[:at] + put + text[at + cut :]
    try:
        expected = json.loads(spoilt)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert plain(read_object(spoilt.encode(), events=True)) == expected
    else:
        with pytest.raises(Refusal):
            read_object(spoilt.encode(), events=True)


@given(st.lists(st.text(alphabet=" \n\t\r", max_size=3), min_size=3, max_size=3))
def test_the_text_of_an_action_is_kept_to_the_character(spaces):
    text = '{%s"moe_event_uuid"%s:%s"x", "b": "\\u00e9\\n\\/"}' % tuple(spaces)  # noqa: UP031
    body = f'{{"elements":[{{"actions":[ {text} ,{text}]}}]}}'
    actions = read_object(body.encode(), events=True)["elements"][0]["actions"]
    assert [found.raw for found in actions] == [text, text]
