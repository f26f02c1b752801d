"""The small parts: deadlines, budget, frames, errors, content codings."""

import gzip
from math import inf

import httpx
import pytest
from http2.wirelab import exchange
from hypothesis import given, strategies as st

from moengage_personalize.http2 import _frames as wire
from moengage_personalize.http2._budget import Budget
from moengage_personalize.http2._content import decoded
from moengage_personalize.http2._deadlines import Deadlines
from moengage_personalize.http2._errors import exception
from moengage_personalize.http2._stream import Failure, Response, Why


def test_deadlines_come_due_in_order_and_may_move():
    deadlines = Deadlines()
    one, two, three, never = (exchange() for _ in range(4))
    deadlines.set(one, 3.0)
    deadlines.set(two, 2.0)
    deadlines.set(three, 1.0)
    deadlines.set(never, inf)
    deadlines.set(three, 5.0)
    deadlines.set(one, 1.5)
    assert deadlines.due(0.5) == []
    assert deadlines.due(2.5) == [one, two]
    assert deadlines.next_at <= 5.0
    deadlines.set(three, inf)
    assert deadlines.due(10.0) == []
    deadlines.discard(three)
    deadlines.discard(three)
    assert deadlines.next_at == inf


def test_what_has_ended_is_not_kept_by_a_deadline_ahead():
    deadlines = Deadlines()
    for _ in range(1000):
        one = exchange()
        deadlines.set(one, 1e9)
        deadlines.discard(one)
    assert len(deadlines._heap) < 100
    assert deadlines.due(2e9) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1.0, 2.0, 3.0, 4.0, inf])), max_size=60))
def test_deadlines_agree_with_a_dictionary(moves):
    deadlines, model, many = Deadlines(), {}, [exchange() for _ in range(10)]
    for at, when in moves:
        deadlines.set(many[at], when)
        model[at] = when
    for now in (0.5, 1.5, 2.5, 3.5, 4.5):
        assert deadlines.next_at >= now or deadlines.next_at <= min([*model.values(), inf])
        due = {many.index(one) for one in deadlines.due(now)}
        assert due == {at for at, when in model.items() if when <= now}
        model = {at: when for at, when in model.items() if when > now}


def test_a_budget_is_spent_and_comes_back():
    budget = Budget(2, 1, updated=0.0)
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    assert not budget.is_half_full(0.5)
    assert budget.is_half_full(1.0)
    assert budget.take(1.0)
    budget.give(100)
    assert budget.tokens == 2


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=50))),
    st.data(),
)
def test_frames_survive_any_split(frames, data):
    stream = b"".join(wire.frame(*each) for each in frames)
    reader, out = wire.FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += reader.feed(stream[:size])
        stream = stream[size:]
    assert out == frames


def test_a_large_block_is_continued():
    block = bytes(40_000)
    frames = list(wire.FrameReader().feed(wire.headers(5, block, end_stream=True)))
    assert [(kind, flags) for kind, flags, _, _ in frames] == [
        (wire.HEADERS, 1),
        (wire.CONTINUATION, 0),
        (wire.CONTINUATION, 4),
    ]
    assert b"".join(payload for *_, payload in frames) == block


def test_a_frame_that_is_too_large_is_noticed_before_it_has_come():
    with pytest.raises(wire.FrameTooLargeError):
        list(wire.FrameReader().feed(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"))


@pytest.mark.parametrize("why", Why)
def test_every_failure_is_an_exception_of_httpx(why):
    cause = OSError("refused")
    error = exception(Failure(why, "detail", cause))
    assert isinstance(error, httpx.TransportError)
    assert error.__cause__ is cause
    assert str(error) == "detail"
    assert ("TIMEOUT" in why.name) == isinstance(error, httpx.TimeoutException)


def coded(body, *codings):
    return Response(
        200, (*((b"content-encoding", each) for each in codings), (b"content-length", b"9"), (b"a", b"b")), body
    )


TEXT = b"text " * 1000


@pytest.mark.parametrize("coding", [b"gzip", b"X-GZIP", b"gzip, identity"])
def test_one_coding_is_undone_and_its_headers_go(coding):
    assert decoded(coded(gzip.compress(TEXT), coding), len(TEXT)) == Response(200, ((b"a", b"b"),), TEXT)


def test_an_uncoded_response_is_left_as_it_is():
    for plain in (coded(TEXT), coded(TEXT, b"identity")):
        assert decoded(plain, 10**6) is plain
    assert decoded(coded(b"", b"gzip"), 10).body == b""


@pytest.mark.parametrize("codings", [[b"gzip, gzip"], [b"gzip", b"gzip"], [b"br"]])
def test_more_than_one_coding_or_too_much_or_an_unknown_one_is_an_error(codings):
    with pytest.raises(httpx.DecodingError):
        decoded(coded(gzip.compress(TEXT), *codings), len(TEXT))
    with pytest.raises(httpx.DecodingError):
        decoded(coded(gzip.compress(TEXT), b"gzip"), len(TEXT) - 1)
