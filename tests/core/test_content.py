import gzip
import zlib

import pytest
from hypothesis import given, strategies as st

from moengage_personalize.core.content import codings_of, undone

TEXT = b"text " * 1000
BARE = zlib.compress(TEXT, wbits=-15)


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("", []),
        ("identity", []),
        ("X-GZIP", ["x-gzip"]),
        ("gzip, identity", ["gzip"]),
        ("gzip ,, deflate", ["gzip", "deflate"]),
    ],
)
def test_a_header_names_codings(header, codings):
    assert codings_of(header) == codings


@pytest.mark.parametrize(
    ("codings", "body"),
    [
        ([], TEXT),
        (["gzip"], gzip.compress(TEXT)),
        (["x-gzip"], gzip.compress(TEXT)),
        (["deflate"], zlib.compress(TEXT)),
        (["deflate"], BARE),
    ],
)
def test_one_coding_is_undone(codings, body):
    assert undone(codings, body, len(TEXT)) == (TEXT, None)


def test_nothing_is_nothing_in_any_coding():
    assert undone(["gzip"], b"", 10) == (b"", None)


@pytest.mark.parametrize(
    ("codings", "body", "problem"),
    [
        (["gzip"], gzip.compress(TEXT + b"!"), "the reply is larger than 5000 bytes"),
        (["gzip"], gzip.compress(bytes(10**8)), "the reply is larger than 5000 bytes"),
        (["gzip"], gzip.compress(TEXT)[:-20], "the reply's content coding is cut short"),
        (["gzip"], b"\x1f\x8bnonsense", "the reply's content coding is broken"),
        (["gzip", "gzip"], gzip.compress(gzip.compress(TEXT)), "the reply has more than one content coding"),
        (["br"], TEXT, "the reply has a content coding that was not asked for"),
    ],
)
def test_more_than_one_coding_or_too_much_or_nonsense_is_a_problem(codings, body, problem):
    assert undone(codings, body, len(TEXT)) == (b"", problem)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=100), st.integers(0, 50))
def test_whatever_comes_it_raises_nothing_and_keeps_the_bound(coding, body, limit):
    undone_body, problem = undone([coding], body, limit)
    assert problem is not None or len(undone_body) <= limit
