"""The two back ends of the codec accept the same values and mean the same by them."""

import json
import math
from collections import OrderedDict, namedtuple
from enum import IntEnum, StrEnum

import pytest
from hypothesis import example, given, strategies as st

from moengage_personalize import InvalidInputError
from moengage_personalize.core import codec

REFUSED = (
    "thing must be JSON: dicts with text keys, lists, text, finite numbers, booleans and None,"
    " no deeper than 64 levels and without lone surrogates"
)
ENCODERS = [codec._orjson_dumps, codec._stdlib_dumps]
pytest.importorskip("orjson", reason="it compares the two back ends")
DECODERS = [codec.orjson.loads, codec._stdlib_loads]

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
HOSTILE = st.recursive(
    SCALARS
    | st.floats()
    | st.text()
    | st.binary(max_size=3)
    | st.sampled_from([object(), {1}, 1j, StrEnum("S", {"A": "a"}).A, IntEnum("I", {"A": 1}).A, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(params=ENCODERS, ids=["orjson", "stdlib"])
def dumps(request, monkeypatch):
    monkeypatch.setattr(codec, "_dumps", request.param)


def both(function, monkeypatch_context, value):
    outcomes = []
    for encoder in ENCODERS:
        with monkeypatch_context.context() as patch:
            patch.setattr(codec, "_dumps", encoder)
            try:
                outcomes.append(json.loads(function(value, "thing")))
            except InvalidInputError as error:
                outcomes.append(str(error))
    return outcomes


def same(one, other):
    """Equal, types included: 1 is not 1.0 and not True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(value=JSON)
@example(value=1 << 64)
@example(value=-(1 << 63) - 1)
@example(value=-0.0)
@example(value="\u2028\x7f\x00\U0001f600")
def test_both_back_ends_encode_json_to_the_same_meaning(value):
    for encoder in ENCODERS:
        assert same(json.loads(encoder(value)), value)
    assert codec.encode(value, "thing") == codec._dumps(value)


@given(value=HOSTILE)
def test_both_back_ends_accept_the_same_values(value):
    with pytest.MonkeyPatch.context() as patch:
        one, other = both(codec.encode, patch, value)
    assert same(one, other)
    if isinstance(one, str) and one.startswith("thing must"):
        assert one == REFUSED


@given(value=JSON)
def test_both_back_ends_read_what_either_wrote(value):
    for encoder in ENCODERS:
        one, other = (decoder(encoder(value)) for decoder in DECODERS)
        assert same(one, other)


def read(decoder, text):
    try:
        return decoder(text)
    except ValueError:
        return ValueError


def digits(length):
    return "1" + "0" * length


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" 1 ",
        b"01",
        b"+1",
        b"-0",
        b"-0.0",
        b"1.",
        b".5",
        b"1E5",
        b"1e-400",
        b"nul",
        b"[1,]",
        b"{}{}",
        b'{"a":1,"a":2}',
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"[1e400]",
        b'"\x01"',
        b'"\x7f"',
        b'"\\x"',
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\\uDFFF\\ud83d"',
        b'{"\\ud800":1}',
        b'"\\ud83d\\ude00"',
        b'"\\\\ud800"',
        b"\xef\xbb\xbf1",
        b'"\xff"',
        "1".encode("utf-16"),
        b"18446744073709551615",
        b"18446744073709551616",
        b"-9223372036854775808",
        b"-9223372036854775809",
        digits(25).encode(),
        digits(400).encode(),
        digits(5_000).encode(),
        '"é"',
        '["\\ud800"]',
    ],
)
def test_both_back_ends_read_the_same(text):
    one, other = (read(decoder, text) for decoder in DECODERS)
    assert same(one, other) if not isinstance(one, type) else one is other


@given(text=st.text(st.sampled_from('[]{}",:0123456789.eE+-\\ud8NaIfntrl ')))
def test_both_back_ends_read_any_text_the_same(text):
    one, other = (read(decoder, text.encode()) for decoder in DECODERS)
    assert same(one, other) if not isinstance(one, type) else one is other


@pytest.mark.usefixtures("dumps")
def test_an_integer_beyond_64_bits_leaves_as_it_is():
    assert codec.encode([1 << 64, -(1 << 63) - 1], "thing") == b"[18446744073709551616,-9223372036854775809]"


def test_an_integer_beyond_64_bits_arrives_as_a_float():
    assert [decoder(b"18446744073709551616") for decoder in DECODERS] == [float(1 << 64)] * 2


@pytest.mark.usefixtures("dumps")
@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        10**5_000,
        "\ud800",
        {"\ud800": 1},
        {1: 2},
        {None: 1},
        b"x",
        {1},
        object(),
        1j,
        StrEnum("S", {"A": "a"}).A,
        IntEnum("I", {"A": 1}).A,
        [object()],
        {"a": {"b": math.nan}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_no_word_for_is_refused(value):
    with pytest.raises(InvalidInputError) as caught:
        codec.encode(value, "thing")
    assert str(caught.value) == REFUSED
    assert caught.value.__context__ is None


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.usefixtures("dumps")
def test_64_levels_are_the_depth_that_is_accepted():
    assert codec.encode(nested(64), "thing") == b"[" * 64 + b"1" + b"]" * 64
    with pytest.raises(InvalidInputError):
        codec.encode(nested(65), "thing")
    circular = {}
    circular["self"] = circular
    with pytest.raises(InvalidInputError):
        codec.encode(circular, "thing")


@pytest.mark.usefixtures("dumps")
def test_tuples_and_subclasses_of_containers_are_what_they_look_like():
    point = namedtuple("Point", "x y")(1, 2)  # noqa: PYI024
    value = OrderedDict(a=(1, 2), b=point)
    assert codec.encode(value, "thing") == b'{"a":[1,2],"b":[1,2]}'


def test_the_standard_library_reads_text_as_well_as_bytes():
    assert codec._stdlib_loads('{"a":"é"}') == codec._stdlib_loads('{"a":"é"}'.encode()) == {"a": "é"}
