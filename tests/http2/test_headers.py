"""The memory of header blocks, held next to hpack's own coders."""

import hpack
import pytest
from hypothesis import given, settings, strategies as st

from moengage_personalize.http2._headers import (
    HeaderError,
    RememberingDecoder,
    RememberingEncoder,
    checked,
    literals,
    route,
)

SECRETS = [(b"authorization", b"Basic c2VjcmV0"), (b"moe-appkey", b"WORKSPACE")]
NAMES = st.sampled_from([b"accept", b"user-agent", b"x-one", b"x-two", b"content-type", b"authorization", b"cookie"])
VALUES = st.one_of(
    st.sampled_from([b"", b"a", b"application/json"]), st.binary(max_size=200).map(lambda value: value.hex().encode())
)
ROUTES = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(
    lambda headers: route(b"POST", b"https", b"example.com", b"/v1/fetch", headers)
)
VARYING = st.lists(st.tuples(st.sampled_from([b"content-length", b"traceparent", b"x-very-own"]), VALUES), max_size=3)
SIZES = st.sampled_from([0, 32, 100, 4096, 65_536])


def meaning(to, varying):
    return sorted(to.head + to.headers[len(to.head) - 4 :] + tuple(varying))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ROUTES, min_size=1, max_size=4),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 3), VARYING),  # a request of one of the routes
            st.lists(SIZES, min_size=1, max_size=3),  # the peer's table sizes since the last one
        ),
        max_size=30,
    ),
)
def test_whatever_was_remembered_hpack_reads_what_was_meant(routes, steps):
    """The differential test: any history of requests and table sizes, read by hpack's own decoder."""
    encoder, decoder = RememberingEncoder(), hpack.Decoder()
    for step in steps:
        if isinstance(step, list):
            for size in step:
                encoder.header_table_size = size
            decoder.max_allowed_table_size = step[-1]
        else:
            to, varying = routes[step[0] % len(routes)], step[1]
            block = encoder.block(to, literals(varying))
            decoded = decoder.decode(block, raw=True)
            assert sorted(decoded) == meaning(to, varying)
            assert tuple(decoder.header_table.dynamic_entries) == tuple(encoder.header_table.dynamic_entries)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=4), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, None, None, 0, 60, 4096])), max_size=30),
)
def test_a_remembered_response_means_what_hpack_says(blocks, steps):
    encoder, ours, theirs = hpack.Encoder(), RememberingDecoder(), hpack.Decoder()
    for at, size in steps:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode([(b":status", b"200"), *blocks[at % len(blocks)]])
        expected = tuple(tuple(header) for header in theirs.decode(block, raw=True))
        assert ours.head(block).headers == expected[1:]
        assert ours.header_table.dynamic_entries == theirs.header_table.dynamic_entries


def route_of(headers=()):
    return route(b"POST", b"https", b"example.com", b"/fetch", headers)


def count_encodings(encoder, monkeypatch):
    calls = []
    encode = hpack.Encoder.encode
    monkeypatch.setattr(
        hpack.Encoder, "encode", lambda self, *args, **kwargs: calls.append(1) or encode(self, *args, **kwargs)
    )
    return calls


def test_the_third_time_nothing_is_encoded(monkeypatch):
    encoder = RememberingEncoder()
    calls, to = count_encodings(encoder, monkeypatch), route_of([(b"user-agent", b"tests")])
    blocks = [encoder.block(to) for _ in range(5)]
    assert len(calls) == 2
    assert len(blocks[0]) > len(blocks[1])
    assert blocks[1:] == [blocks[1]] * 4


def test_a_change_of_the_table_empties_the_memory(monkeypatch):
    encoder = RememberingEncoder()
    calls, one, two = count_encodings(encoder, monkeypatch), route_of(), route_of([(b"x-new", b"1")])
    encoder.block(one), encoder.block(one), encoder.block(one)
    assert len(calls) == 2
    encoder.block(two)
    encoder.block(one)
    assert len(calls) == 4


def test_nothing_comes_from_the_memory_while_a_size_is_to_be_announced():
    encoder, decoder, to = RememberingEncoder(), hpack.Decoder(), route_of([(b"user-agent", b"tests")])
    for _ in range(3):
        decoder.decode(encoder.block(to))
    encoder.header_table_size = 0
    decoder.max_allowed_table_size = 0
    block = encoder.block(to)
    assert block[0] & 0xE0 == 0x20  # a size update stands first
    decoder.decode(block)
    assert encoder.block(to)[0] & 0xE0 != 0x20


def test_a_peer_that_allows_a_huge_table_gets_a_small_one():
    encoder = RememberingEncoder()
    encoder.header_table_size = 2**32 - 1
    assert encoder.header_table_size == 4096


def test_secrets_never_enter_the_table_and_are_marked():
    encoder, decoder = RememberingEncoder(), hpack.Decoder()
    block = encoder.block(route_of(SECRETS))
    never = [header for header in decoder.decode(block, raw=True) if not header.indexable]
    assert sorted(map(tuple, never)) == sorted(SECRETS)
    assert not {name for name, _ in encoder.header_table.dynamic_entries} & {name for name, _ in SECRETS}
    assert "secret" not in repr(route_of(SECRETS)).lower()
    assert "WORKSPACE" not in repr(route_of(SECRETS))


def test_hpacks_debug_log_sees_no_secret(caplog):
    caplog.set_level("DEBUG")
    RememberingEncoder().block(route_of(SECRETS), literals([(b"traceparent", b"00-canary")]))
    assert "Encoding" in caplog.text or "Adding" in caplog.text
    assert not any(word in caplog.text for word in ("WORKSPACE", "c2VjcmV0", "canary"))


def test_the_memory_is_bounded():
    encoder, decoder = RememberingEncoder(), RememberingDecoder()
    encoder.header_table_size = decoder.header_table_size = 0
    for at in range(600):
        block = encoder.block(route_of([(b"x-at", b"%d" % at)]))
        decoder.head(b"\x88" + literals([(b"x-at", b"%d" % at)]))
        assert block
    assert len(encoder._memory) <= 256
    assert len(decoder._memory) <= 256


def test_a_long_block_is_not_worth_remembering():
    decoder = RememberingDecoder()
    decoder.head(b"\x88" + literals([(b"x-long", b"x" * 2000)]))
    assert not decoder._memory


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"a\r\nx-evil: 1"),
        (b"x-a", b"\x00"),
        (b"x a", b"b"),
        (b"", b"b"),
        (b"x-a:", b"b"),
        (b"x-a", b"x" * 20_000),
    ],
)
def test_what_could_split_a_request_is_never_sent(header):
    with pytest.raises(HeaderError) as caught:
        checked([header])
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("part", [b"", b"/a b", b"/a\r\nb", b"x" * 20_000])
def test_pseudo_headers_are_checked_too(part):
    with pytest.raises(HeaderError):
        route(b"GET", b"https", b"example.com", part, [])
    with pytest.raises(HeaderError):
        route(part, b"https", b"example.com", b"/", [])


def test_the_headers_of_http1s_framing_are_left_out():
    to = route_of([(b"Host", b"example.com"), (b"Connection", b"close"), (b"TE", b"trailers"), (b"X-Kept", b" 1 ")])
    assert to.headers == ((b"x-kept", b"1"),)
    assert to.url == "https://example.com/fetch"


@pytest.mark.parametrize("size", [0, 14, 15, 16, 126, 127, 128, 300, 16_000])
def test_literals_of_any_length_are_read_back(size):
    header = (b"x-" + b"n" * size, b"v" * size)
    assert [tuple(each) for each in hpack.Decoder().decode(literals([header]), raw=True)] == [header]
