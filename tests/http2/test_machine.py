"""What the machine does, one sentence a test, against h2's own server."""

from math import inf

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2.wirelab import HEAD, Lab, body_of, exchange, why
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from moengage_personalize.http2 import _frames as wire
from moengage_personalize.http2._machine import Machine
from moengage_personalize.http2._stream import Failure, Lane, Phase, Response, Why
from moengage_personalize.http2._terms import Limits, State

OK = b"\x88"  # :status 200
NO_ANSWER = Failure(Why.LOST, "gone")


def frames_of(data):
    data = bytes(data).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    return [(kind, flags, stream) for kind, flags, stream, _ in wire.FrameReader().feed(data)]


def raw(*frames):
    return b"".join(frame.serialize() for frame in frames)


# ── a request and its response ─────────────────────────────────────────────────────────────────────────


def test_a_request_reaches_the_server_and_its_response_comes_back():
    lab = Lab()
    one = lab.send(b"hello")
    lab.answer(1, b"world", headers=[(b"content-type", b"text/plain"), (b"content-length", b"5")])
    assert dict(lab.requests[1])[b":path"] == b"/fetch"
    assert dict(lab.requests[1])[b"authorization"] == b"Basic abc"
    assert lab.bodies[1] == b"hello"
    assert one.outcome == Response(200, ((b"content-type", b"text/plain"), (b"content-length", b"5")), b"world")
    assert lab.settled == [one]
    assert repr(lab.machine) == "<serving streams=0 queued=0 abandoned=0 limit=100 window=65530>"
    assert "ended" in repr(one)
    assert "hello" not in repr(one)


def test_what_is_submitted_while_connecting_leaves_when_connected():
    lab = Lab(start=False)
    one = lab.submit(b"early")
    assert lab.machine.outgoing(lab.now) == b""
    assert lab.machine.queued == 1
    lab.machine.start(lab.now)
    lab.turn()
    lab.answer(1)
    assert body_of(one) == b"ok"


def test_a_whole_turn_of_requests_is_one_write():
    lab = Lab()
    for _ in range(3):
        lab.submit(b"x")
    assert frames_of(lab.to_server()) == [
        (kind, flags, stream) for stream in (1, 3, 5) for kind, flags in ((wire.HEADERS, 4), (wire.DATA, 1))
    ]


def test_who_leaves_in_the_turn_in_which_he_came_costs_no_stream():
    lab = Lab()
    one = lab.submit(b"x")
    lab.machine.abandon(one, lab.now)
    lab.turn()
    assert why(one) is Why.CANCELLED
    assert not lab.requests
    lab.machine.abandon(one, lab.now)  # of one that has ended: nothing
    assert lab.settled == [one]


def test_informational_responses_and_trailers_are_ignored():
    lab = Lab()
    one = lab.send()
    lab.server.send_headers(1, [(b":status", b"103")])
    lab.server.send_headers(1, [(b":status", b"200")])
    lab.server.send_data(1, b"body")
    lab.server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    lab.turn()
    assert one.outcome == Response(200, (), b"body")


@pytest.mark.parametrize(("to", "status"), [(HEAD, b"200"), (None, b"304"), (None, b"204")])
def test_a_response_without_a_body_may_announce_a_length(to, status):
    lab = Lab()
    one = lab.send(**({"to": to} if to else {}))
    lab.to_client(
        raw(
            HeadersFrame(
                1, encode([(b":status", status), (b"content-length", b"9")]), flags=["END_HEADERS", "END_STREAM"]
            )
        )
    )
    assert isinstance(one.outcome, Response)


def encode(headers):
    import hpack

    return hpack.Encoder().encode(headers)


def test_an_early_final_response_is_a_response():
    lab = Lab()
    lab.credit = lambda event: None
    one = lab.send(b"x" * 200_000)
    other = lab.send(b"y")
    lab.answer(1, b"too large", status=b"413")
    assert one.outcome == Response(413, (), b"too large")
    assert lab.resets == [1]
    assert lab.machine.in_flight == 1
    lab.answer(3)
    assert body_of(other) == b"ok"


# ── malformed and oversized responses cost one request ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([DataFrame(1, b"x")], Why.MALFORMED),
        ([HeadersFrame(1, OK, flags=["END_HEADERS"]), HeadersFrame(1, OK, flags=["END_HEADERS"])], Why.MALFORMED),
        ([HeadersFrame(1, encode([(b"a", b"b")]), flags=["END_HEADERS"])], Why.MALFORMED),
        ([HeadersFrame(1, encode([(b":status", b"101")]), flags=["END_HEADERS"])], Why.MALFORMED),
        ([HeadersFrame(1, encode([(b":status", b"100")]), flags=["END_HEADERS", "END_STREAM"])], Why.MALFORMED),
        ([HeadersFrame(1, encode([(b":status", b"2OO")]), flags=["END_HEADERS"])], Why.MALFORMED),
        ([HeadersFrame(1, encode([(b":status", b"200"), (b"A", b"b")]), flags=["END_HEADERS"])], Why.MALFORMED),
        (
            [HeadersFrame(1, encode([(b":status", b"200"), (b"connection", b"close")]), flags=["END_HEADERS"])],
            Why.MALFORMED,
        ),
        (
            [HeadersFrame(1, encode([(b":status", b"200"), (b"content-length", b"1, 2")]), flags=["END_HEADERS"])],
            Why.MALFORMED,
        ),
        (
            [
                HeadersFrame(1, encode([(b":status", b"200"), (b"content-length", b"1")]), flags=["END_HEADERS"]),
                DataFrame(1, b"xy"),
            ],
            Why.MALFORMED,
        ),
        (
            [
                HeadersFrame(1, encode([(b":status", b"200"), (b"content-length", b"3")]), flags=["END_HEADERS"]),
                DataFrame(1, b"xy", flags=["END_STREAM"]),
            ],
            Why.MALFORMED,
        ),
        (
            [HeadersFrame(1, encode([(b":status", b"200"), (b"content-length", b"2000")]), flags=["END_HEADERS"])],
            Why.TOO_LARGE,
        ),
        ([HeadersFrame(1, OK, flags=["END_HEADERS"]), DataFrame(1, b"x" * 1001)], Why.TOO_LARGE),
        ([HeadersFrame(1, OK, flags=["END_HEADERS"]), DataFrame(1, b"x" * 1001, flags=["END_STREAM"])], Why.TOO_LARGE),
        ([RstStreamFrame(1, error_code=ErrorCodes.INTERNAL_ERROR)], Why.RESET),
        ([RstStreamFrame(1, error_code=0xABCD)], Why.RESET),
        ([RstStreamFrame(1, error_code=ErrorCodes.REFUSED_STREAM)], Why.UNPROCESSED),
        (
            [HeadersFrame(1, OK, flags=["END_HEADERS"]), RstStreamFrame(1, error_code=ErrorCodes.REFUSED_STREAM)],
            Why.RESET,
        ),
        ([WindowUpdateFrame(1, window_increment=2**31 - 1)], Why.MALFORMED),
        ([b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x00"], Why.MALFORMED),
    ],
)
def test_what_is_wrong_with_one_response_is_that_ones_problem(frames, reason):
    lab = Lab(limits=Limits(response_bytes=1000))
    one, other = lab.send(b"x" * 20_000), lab.send()
    lab.to_client(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))
    assert why(one) is reason
    assert lab.machine.state is State.SERVING
    lab.hear(lab.machine.outgoing(lab.now))
    lab.answer(3)
    assert body_of(other) == b"ok"


def test_a_header_list_over_the_limit_is_one_requests_problem():
    lab = Lab()
    one, other = lab.send(), lab.send()
    block = encode([(b":status", b"200"), (b"big", b"\x01" * 70_000)])
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    lab.to_client(
        raw(
            HeadersFrame(1, pieces[0]),
            *(ContinuationFrame(1, each) for each in pieces[1:-1]),
            ContinuationFrame(1, pieces[-1], flags=["END_HEADERS"]),
        )
    )
    assert why(one) is Why.TOO_LARGE
    lab.turn()
    lab.to_client(raw(HeadersFrame(3, OK, flags=["END_HEADERS", "END_STREAM"])))
    assert body_of(other) == b""


def test_a_response_beyond_its_window_is_malformed():
    lab = Lab(limits=Limits(response_bytes=1000))
    one = lab.send()
    padded = DataFrame(1, b"", pad_length=255, flags=["PADDED"])
    one.room = 200
    lab.to_client(raw(HeadersFrame(1, OK, flags=["END_HEADERS"]), padded))
    assert why(one) is Why.MALFORMED


def test_padding_comes_back_as_credit_of_the_stream():
    lab = Lab()
    one = lab.send()
    room = one.room
    lab.to_client(raw(HeadersFrame(1, OK, flags=["END_HEADERS"]), DataFrame(1, b"abc", pad_length=9, flags=["PADDED"])))
    assert one.room == room - 3
    assert (wire.WINDOW_UPDATE, 0, 1) in frames_of(lab.machine.outgoing(lab.now))


# ── what ends the connection ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([HeadersFrame(1, b"\xff\xff\xff\xff", flags=["END_HEADERS"])], ErrorCodes.COMPRESSION_ERROR),
        ([HeadersFrame(1, OK), DataFrame(1, b"x")], ErrorCodes.PROTOCOL_ERROR),
        ([ContinuationFrame(1, OK, flags=["END_HEADERS"])], ErrorCodes.PROTOCOL_ERROR),
        ([HeadersFrame(1, OK), ContinuationFrame(3, OK)], ErrorCodes.PROTOCOL_ERROR),
        ([HeadersFrame(1, OK)] + [ContinuationFrame(1, b"")] * 65, ErrorCodes.ENHANCE_YOUR_CALM),
        ([HeadersFrame(1, OK)] + [ContinuationFrame(1, b"x" * 16_000)] * 17, ErrorCodes.ENHANCE_YOUR_CALM),
        ([HeadersFrame(9, OK, flags=["END_HEADERS"])], ErrorCodes.PROTOCOL_ERROR),
        ([DataFrame(2, b"x")], ErrorCodes.PROTOCOL_ERROR),
        ([PushPromiseFrame(1, 2, OK, flags=["END_HEADERS"])], ErrorCodes.PROTOCOL_ERROR),
        ([WindowUpdateFrame(0, window_increment=2**31 - 1)], ErrorCodes.FLOW_CONTROL_ERROR),
        ([b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"], ErrorCodes.FLOW_CONTROL_ERROR),
        ([b"\x00\x00\x03\x08\x00\x00\x00\x00\x00\x00\x00\x01"], ErrorCodes.FRAME_SIZE_ERROR),
        ([b"\x00\x00\x03\x03\x00\x00\x00\x00\x01\x00\x00\x01"], ErrorCodes.FRAME_SIZE_ERROR),
        ([b"\x00\x00\x01\x07\x00\x00\x00\x00\x00\x00"], ErrorCodes.PROTOCOL_ERROR),
        ([b"\x00\x00\x01\x00\x08\x00\x00\x00\x01\x05"], ErrorCodes.PROTOCOL_ERROR),
        ([b"\x00\x00\x00\x00\x08\x00\x00\x00\x01"], ErrorCodes.PROTOCOL_ERROR),
        ([b"\x00\x00\x01\x01\x0c\x00\x00\x00\x01\x05"], ErrorCodes.PROTOCOL_ERROR),
        ([b"\x00\x00\x02\x01\x24\x00\x00\x00\x01\x00\x00"], ErrorCodes.PROTOCOL_ERROR),
        ([b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"], ErrorCodes.FRAME_SIZE_ERROR),
        ([SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 2**31})], ErrorCodes.FLOW_CONTROL_ERROR),
        (
            [
                WindowUpdateFrame(1, window_increment=2**30),
                SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}),
            ],
            ErrorCodes.FLOW_CONTROL_ERROR,
        ),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection_with_its_code(frames, code):
    lab = Lab()
    one = lab.send(b"x" * 100_000)
    lab.to_client(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))
    assert lab.machine.state is State.CLOSED
    assert why(one) is Why.MALFORMED
    *_, (kind, _, _, payload) = wire.FrameReader().feed(lab.machine.outgoing(lab.now))
    assert kind == wire.GOAWAY
    assert wire.error_code(payload, 4) == code
    assert lab.machine.wake_at == inf
    lab.machine.tick(lab.now + 1000)
    lab.machine.receive(b"whatever", lab.now)  # nothing of it matters any more


def test_a_server_begins_with_settings():
    lab = Lab(start=False)
    lab.machine.start(lab.now)
    lab.to_client(raw(PingFrame(0, b"x" * 8)))
    assert lab.machine.state is State.CLOSED
    assert "SETTINGS" in lab.machine.ending.detail


def test_priorities_and_extensions_mean_nothing():
    lab = Lab()
    one = lab.send()
    grease = b"\x00\x00\x06\xbe\x00\x00\x00\x00\x01grease"
    lab.to_client(
        grease
        + raw(
            PriorityFrame(1),
            HeadersFrame(1, OK, flags=["END_HEADERS", "END_STREAM", "PRIORITY", "PADDED"], pad_length=3),
        )
    )
    assert body_of(one) == b""


@pytest.mark.parametrize(
    "flood",
    [
        raw(SettingsFrame(0)),
        raw(PingFrame(0, b"x" * 8)),
        raw(DataFrame(3, b"")),
        raw(RstStreamFrame(1)),
        raw(PriorityFrame(1)),
        raw(HeadersFrame(3, encode([(b":status", b"103")]), flags=["END_HEADERS"])),
    ],
)
def test_a_flood_ends_the_connection_and_a_trickle_does_not(flood):
    lab = Lab(limits=Limits(oddities=50, oddities_per_second=10))
    lab.send()
    lab.answer(1)
    lab.send()
    if flood == raw(DataFrame(3, b"")):
        lab.to_client(raw(HeadersFrame(3, OK, flags=["END_HEADERS"])))
    for _ in range(100):
        lab.now += 0.2
        lab.to_client(flood)
    assert lab.machine.state is State.SERVING
    lab.machine.outgoing(lab.now)
    lab.to_client(flood * 60)
    assert lab.machine.state is State.CLOSED
    assert "flood" in lab.machine.ending.detail


# ── leaving ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_caller_resets_its_own_stream():
    lab = Lab()
    one, other = lab.send(b"a"), lab.send(b"b")
    lab.machine.abandon(one, lab.now)
    lab.turn()
    assert lab.resets == [1]
    assert lab.machine.in_flight == 1
    lab.answer(3)
    assert body_of(other) == b"ok"
    assert lab.counters.resets_sent == 1


def test_what_comes_on_an_abandoned_stream_is_credited_and_dropped():
    lab = Lab(limits=Limits(connection_window=100_000))
    one, other = lab.send(), lab.send()
    lab.server.send_headers(1, [(b":status", b"200")])
    lab.server.send_data(1, b"x" * 16_384)
    late = lab.server.data_to_send()
    lab.machine.abandon(one, lab.now)
    before = lab.server.local_flow_control_window(3)
    lab.to_client(late)
    for _ in range(3):
        lab.server.send_data(1, b"x" * 16_384)
        lab.to_client()
    lab.turn()
    assert lab.server.outbound_flow_control_window >= 50_000
    assert before < 100_000
    assert lab.counters.resets_sent == 1  # and not one more for each frame that was under way
    lab.answer(3)
    assert body_of(other) == b"ok"


def test_beyond_the_budget_abandoned_streams_are_left_to_finish():
    lab = Lab(limits=Limits(resets=2, resets_per_second=1))
    many = [lab.send(b"x") for _ in range(4)]
    for one in many:
        lab.machine.abandon(one, lab.now)
    lab.turn()
    assert [why(one) for one in many] == [Why.CANCELLED] * 4
    assert [one.phase for one in many] == [Phase.ENDED] * 2 + [Phase.ABANDONED] * 2
    assert lab.resets == [1, 3]
    lab.answer(5)
    lab.server.send_headers(7, [(b":status", b"200")])
    lab.turn()
    assert [one.phase for one in many] == [Phase.ENDED] * 3 + [Phase.ABANDONED]
    assert len(lab.settled) == 4
    lab.after(5)  # the budget recovers
    assert lab.resets == [1, 3, 7]


def test_an_abandoned_upload_goes_on_and_ends_when_the_server_has_answered():
    lab = Lab(limits=Limits(resets=0))
    one = lab.send(b"x" * 30_000)
    lab.machine.abandon(one, lab.now)
    lab.turn()
    assert lab.complete == [1]
    lab.answer(1, b"")
    assert one.phase is Phase.ENDED

    lab.credit = lambda event: None
    two = lab.send(b"x" * 100_000)
    lab.machine.abandon(two, lab.now)
    lab.answer(3)
    assert two.phase is Phase.ABANDONED
    lab.server.increment_flow_control_window(200_000)
    lab.server.increment_flow_control_window(200_000, 3)
    lab.turn()
    assert two.phase is Phase.ENDED
    assert lab.complete == [1, 3]
    assert lab.resets == []


def test_an_upload_that_nobody_waits_for_may_still_move():
    lab = Lab(limits=Limits(resets=0))
    lab.credit = lambda event: None
    one = lab.send(b"x" * 100_000)
    lab.machine.abandon(one, lab.now)
    lab.to_client(raw(WindowUpdateFrame(1, window_increment=100_000), WindowUpdateFrame(0, window_increment=20_000)))
    assert one.sent == 65_535
    lab.machine.outgoing(lab.now)
    assert one.sent == 65_535  # nobody waits: half of the window is others'
    lab.to_client(raw(WindowUpdateFrame(0, window_increment=30_000)))
    lab.machine.outgoing(lab.now)
    assert one.sent == 65_535 + 17_232


def test_room_is_made_by_resetting_the_oldest_stream_that_nobody_wants():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 5}, limits=Limits(resets=1, resets_per_second=1))
    many = [lab.send() for _ in range(5)]
    for one in many[:2]:
        lab.machine.abandon(one, lab.now)
    lab.turn()
    lab.send()
    waiting = lab.send()
    assert waiting.phase is Phase.QUEUED
    assert lab.machine.is_accepting(lab.now)
    lab.now += 1
    assert lab.machine.has_output
    lab.turn()
    assert waiting.phase is Phase.OPEN
    assert lab.resets == [1, 3]


def test_a_connection_half_full_of_stuck_streams_hands_its_queue_back():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 4}, limits=Limits(resets=0, resets_per_second=0))
    many = [lab.send() for _ in range(4)]
    late = lab.send()
    for one in many[:2]:
        lab.machine.abandon(one, lab.now)
    assert lab.machine.is_accepting(lab.now)  # they may be just slow
    lab.after(0.6)
    assert not lab.machine.is_accepting(lab.now)
    assert why(late) is Why.MOVED
    assert lab.machine.state is State.DRAINING
    lab.answer(5)
    lab.answer(7)
    assert body_of(many[2]) == body_of(many[3]) == b"ok"
    assert lab.machine.state is State.CLOSED


# ── waiting for a stream ───────────────────────────────────────────────────────────────────────────────


def test_requests_beyond_the_limit_wait_in_order():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    many = [lab.send(b"%d" % at) for at in range(5)]
    assert sorted(lab.requests) == [1, 3]
    lab.machine.abandon(many[3], lab.now)
    for stream in (1, 3, 5, 7):
        lab.answer(stream)
    assert [lab.bodies[stream] for stream in (1, 3, 5, 7)] == [b"0", b"1", b"2", b"4"]


def test_who_comes_back_from_another_connection_goes_before_newcomers():
    former = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 3})
    sent = [former.send(b"%d" % at) for at in range(5)]
    former.goaway(1)
    settled = [each for each in former.settled if each is not sent[0]]
    assert [each.body for each in settled] == [b"1", b"2", b"3", b"4"]  # the unprocessed, then who never left
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    lab.send(b"busy")
    newcomers = [lab.submit(b"new %d" % at) for at in range(2)]
    back = [each.again() for each in settled]
    for each in back:
        lab.machine.submit(each, lab.now)
    lab.machine.abandon(back[1], lab.now)
    lab.machine.abandon(newcomers[0], lab.now)
    assert lab.machine.queued == 4
    lab.turn()
    for stream in (1, 3, 5, 7, 9):
        lab.answer(stream)
    assert [lab.bodies[stream] for stream in (1, 3, 5, 7, 9)] == [b"busy", b"1", b"3", b"4", b"new 1"]


def test_each_waits_within_its_own_deadline():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    first = lab.send()
    short = lab.send(deadline=lab.now + 0.2)
    pooled = lab.send(patience={"pool": 0.3})
    longer = lab.send(deadline=lab.now + 9)
    lab.after(0.25)
    assert why(short) is Why.POOL_TIMEOUT
    lab.after(0.1)
    assert why(pooled) is Why.POOL_TIMEOUT
    lab.answer(1)
    assert isinstance(first.outcome, Response)
    lab.answer(3)
    assert body_of(longer) == b"ok"


def test_the_limit_may_fall_while_they_wait():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    many = [lab.send() for _ in range(4)]
    lab.server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    lab.turn()
    lab.answer(1)
    assert [one.phase for one in many] == [Phase.ENDED, Phase.OPEN, Phase.QUEUED, Phase.QUEUED]
    lab.answer(3)
    assert [one.phase for one in many] == [Phase.ENDED, Phase.ENDED, Phase.OPEN, Phase.QUEUED]


def test_a_server_that_names_no_limit_has_none():
    lab = Lab(start=False)
    lab.machine.start(lab.now)
    lab.to_client(raw(SettingsFrame(0)))
    for _ in range(150):
        lab.submit()
    lab.machine.outgoing(lab.now)
    assert lab.machine.in_flight == 150
    lab.to_client(raw(SettingsFrame(0)))
    assert "limit=2147483648" in repr(lab.machine)


def test_the_last_stream_id_is_the_last():
    lab = Lab()
    lab.machine._streams.next_id = 2**31 - 1
    lab.submit()
    late = lab.submit()
    lab.machine.outgoing(lab.now)
    assert lab.machine.in_flight == 1
    assert [each for each in lab.machine.settled() if why(each) is Why.MOVED] == [late]
    assert lab.machine.state is State.DRAINING


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────


def test_connecting_has_its_own_timeout():
    lab = Lab(start=False)
    one = lab.submit(patience={"connect": 0.5})
    two = lab.submit(deadline=lab.now + 0.7)
    lab.machine.tick(lab.now + 0.6)
    lab.machine.tick(lab.now + 0.8)
    assert (why(one), why(two)) == (Why.CONNECT_TIMEOUT, Why.CONNECT_TIMEOUT)


def test_a_deadline_resets_the_stream():
    lab = Lab()
    one = lab.send(deadline=lab.now + 0.2)
    lab.after(0.3)
    assert why(one) is Why.READ_TIMEOUT
    assert lab.resets == [1]


def test_a_read_timeout_counts_from_the_last_progress():
    lab = Lab()
    one = lab.send(patience={"read": 0.2})
    for _ in range(5):
        lab.after(0.15)
        if one.status:
            lab.server.send_data(1, b"x")
        else:
            lab.server.send_headers(1, [(b":status", b"200")])
        lab.turn()
    assert one.phase is Phase.OPEN
    lab.after(0.25)
    assert why(one) is Why.READ_TIMEOUT


def test_a_write_timeout_counts_from_the_last_progress():
    lab = Lab()
    lab.credit = lambda event: None
    one = lab.send(b"x" * 100_000, patience={"write": 0.2, "read": 5})
    lab.after(0.15)
    lab.to_client(raw(WindowUpdateFrame(1, window_increment=10_000), WindowUpdateFrame(0, window_increment=10_000)))
    lab.machine.outgoing(lab.now)
    lab.after(0.15)
    assert one.phase is Phase.OPEN
    lab.after(0.1)
    assert why(one) is Why.WRITE_TIMEOUT


# ── windows and lanes ──────────────────────────────────────────────────────────────────────────────────


def test_a_fetch_leaves_beside_two_batches_though_the_server_withholds_credit():
    lab = Lab()
    lab.credit = lambda event: None
    batches = [lab.send(b"e" * 49_152, lane=Lane.BULK) for _ in range(2)]
    assert sum(one.sent for one in batches) == 32_767
    fetch = lab.send(b"f" * 20_000)
    assert not fetch.uploading
    lab.answer(5)
    assert body_of(fetch) == b"ok"


def test_bulk_bodies_share_their_half():
    lab = Lab()
    lab.credit = lambda event: None
    one, two = lab.submit(b"e" * 40_000, lane=Lane.BULK), lab.submit(b"e" * 40_000, lane=Lane.BULK)
    lab.turn()
    assert abs(one.sent - two.sent) <= 16_384
    assert one.sent + two.sent == 32_767


def test_interactive_data_goes_first():
    lab = Lab()
    lab.submit(b"b" * 1000, lane=Lane.BULK)
    lab.submit(b"i" * 1000)
    data = [stream for kind, _, stream in frames_of(lab.to_server()) if kind == wire.DATA]
    assert data == [3, 1]


def test_a_body_larger_than_every_window_arrives_whole():
    lab = Lab()
    body = bytes(range(256)) * 2000
    lab.send(body)
    lab.send(body, lane=Lane.BULK)
    assert lab.bodies == {1: body, 3: body}
    assert lab.complete == [1, 3]


def test_a_window_of_nothing_holds_a_body_until_it_opens():
    lab = Lab(settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
    lab.credit = lambda event: None
    one = lab.send(b"hello")
    assert one.uploading
    lab.server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 3})
    lab.turn()
    assert one.sent == 3
    lab.server.increment_flow_control_window(10, 1)
    lab.turn()
    assert lab.bodies[1] == b"hello"
    lab.server.increment_flow_control_window(10, 1)
    lab.turn()


def test_a_connection_that_took_too_little_of_a_bulk_body_in_its_time_is_replaced():
    lab = Lab()
    lab.credit = lambda event: None
    fetch, batch = lab.send(), lab.send(b"e" * 49_152, lane=Lane.BULK, deadline=lab.now + 2)
    lab.after(3)
    assert why(batch) is Why.WRITE_TIMEOUT
    assert lab.machine.state is State.DRAINING
    lab.answer(1)
    assert body_of(fetch) == b"ok"


def test_a_huge_window_keeps_a_mebibyte_from_the_bulk_lane():
    lab = Lab(settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    lab.to_client(raw(WindowUpdateFrame(0, window_increment=2_000_000)))
    lab.machine.submit(one := exchange(b"e" * 2_065_535, lane=Lane.BULK), lab.now)
    lab.machine.outgoing(lab.now)
    assert one.sent == 2_065_535 - 2_065_535 // 2 - 1
    lab.to_client(raw(WindowUpdateFrame(0, window_increment=8_000_000)))
    lab.machine.outgoing(lab.now)
    assert not one.uploading


def test_a_peer_that_exceeds_the_connections_window_loses_it():
    lab = Lab(limits=Limits(connection_window=70_000))
    lab.send()
    lab.machine._credit.used = 69_990
    lab.to_client(raw(HeadersFrame(1, OK, flags=["END_HEADERS"]), DataFrame(1, b"x" * 11)))
    assert lab.machine.state is State.CLOSED


# ── GOAWAY and the end ─────────────────────────────────────────────────────────────────────────────────


def test_goaway_hands_back_what_the_server_will_not_process_and_lets_the_rest_finish():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 3})
    one, two, three = (lab.send(b"x") for _ in range(3))
    queued = lab.send()
    lab.goaway(3)
    assert (why(three), why(queued)) == (Why.UNPROCESSED, Why.MOVED)
    assert lab.machine.state is State.DRAINING
    assert not lab.machine.is_accepting(lab.now)
    assert why(lab.send()) is Why.MOVED
    lab.answer(1)
    assert body_of(one) == b"ok"
    lab.answer(3, b"even with a body")
    assert body_of(two) == b"even with a body"
    assert lab.machine.state is State.CLOSED
    assert lab.counters.goaways == 1


def test_frames_that_follow_a_goaway_in_the_same_read_count():
    lab = Lab()
    one, two = lab.send(b"x"), lab.send(b"x")
    lab.submit(b"unsent")
    lab.to_client(
        raw(
            GoAwayFrame(0, last_stream_id=2**31 - 1),
            HeadersFrame(1, OK, flags=["END_HEADERS", "END_STREAM"]),
            GoAwayFrame(0, last_stream_id=1, error_code=77),
        )
    )
    assert body_of(one) == b""
    assert why(two) is Why.UNPROCESSED
    assert lab.machine.state is State.CLOSED


def test_output_that_was_not_sent_yet_survives_a_goaway():
    lab = Lab()
    one = lab.send(b"x" * 60_000)
    lab.to_client(raw(WindowUpdateFrame(1, window_increment=1000)))
    lab.machine._out.append(wire.frame(wire.PRIORITY, 0, 1, b"\0" * 5))
    lab.to_client(raw(GoAwayFrame(0, last_stream_id=1)))
    assert frames_of(lab.machine.outgoing(lab.now))[0] == (wire.PRIORITY, 0, 1)
    lab.answer(1)
    assert body_of(one) == b"ok"


def test_draining_ends_with_a_goodbye_when_the_last_has_finished():
    lab = Lab()
    one = lab.send()
    lab.machine.drain(lab.now)
    lab.machine.drain(lab.now)
    assert lab.machine.state is State.DRAINING
    lab.answer(1)
    assert body_of(one) == b"ok"
    assert lab.machine.state is State.CLOSED
    assert frames_of(lab.wire)[-1] == (wire.GOAWAY, 0, 0)


def test_draining_an_idle_connection_closes_it_and_one_that_connects_too():
    lab = Lab()
    lab.machine.drain(lab.now)
    assert lab.machine.state is State.CLOSED
    young = Lab(start=False)
    one = young.submit()
    young.machine.close()
    young.machine.close()
    assert why(one) is Why.CLOSED
    assert young.machine.outgoing(young.now) == b""


def test_draining_does_not_wait_for_streams_that_nobody_wants():
    lab = Lab(limits=Limits(resets=0))
    one = lab.send()
    lab.machine.abandon(one, lab.now)
    assert lab.machine.in_flight == 0
    lab.machine.drain(lab.now)
    assert lab.machine.state is State.CLOSED


def test_closing_fails_what_is_in_flight():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    one, queued = lab.send(), lab.send()
    lab.machine.close()
    assert (why(one), why(queued)) == (Why.CLOSED, Why.CLOSED)


def test_a_lost_connection_fails_what_was_sent_and_hands_back_what_was_not():
    lab = Lab(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    one, queued = lab.send(), lab.send()
    lab.to_client(raw(PingFrame(0, b"12345678")))
    lab.machine.lose(NO_ANSWER, lab.now)
    lab.machine.lose(NO_ANSWER, lab.now)
    assert (why(one), why(queued)) == (Why.LOST, Why.MOVED)
    assert lab.machine.outgoing(lab.now) == b""


def test_what_never_connected_fails_those_who_waited():
    lab = Lab(start=False)
    one = lab.submit()
    lab.machine.lose(Failure(Why.NOT_CONNECTED, "refused"), lab.now)
    assert why(one) is Why.NOT_CONNECTED


def test_a_request_on_a_reused_idle_connection_that_was_closed_is_stale():
    lab = Lab()
    first = lab.send()
    lab.answer(1)
    assert body_of(first) == b"ok"
    lab.after(0.03)
    one = lab.submit()
    lab.machine.outgoing(lab.now)
    lab.machine.lose(NO_ANSWER, lab.now + 0.05)
    assert why(one) is Why.STALE


def test_a_request_on_a_reused_connection_that_ended_later_is_lost_since_the_server_may_have_read_it():
    lab = Lab()
    lab.send()
    lab.answer(1)
    lab.after(0.03)
    one = lab.submit()
    lab.machine.outgoing(lab.now)
    lab.machine.lose(NO_ANSWER, lab.now + 0.2)
    assert why(one) is Why.LOST


def test_a_request_in_the_midst_of_traffic_is_lost_since_the_server_may_have_read_it():
    lab = Lab()
    lab.send()
    lab.answer(1)
    lab.after(0.02)
    one = lab.submit()
    lab.machine.outgoing(lab.now)
    lab.machine.lose(NO_ANSWER, lab.now)
    assert why(one) is Why.LOST


def test_a_request_on_a_fresh_connection_is_lost_with_it():
    lab = Lab(start=False)
    lab.machine.start(lab.now)
    one = lab.submit()
    lab.machine.outgoing(lab.now)
    lab.machine.lose(NO_ANSWER, lab.now)
    assert why(one) is Why.LOST


# ── liveness ───────────────────────────────────────────────────────────────────────────────────────────


def pings(lab):
    return lab.counters.pings


def test_silence_is_asked_about_and_a_slow_answer_is_no_death():
    lab = Lab()
    one = lab.send()
    lab.after(0.3)
    assert pings(lab) == 1
    lab.after(60)
    assert lab.machine.state is State.SERVING
    assert pings(lab) < 25
    lab.answer(1)
    assert body_of(one) == b"ok"


def test_an_unanswered_ping_sends_new_callers_elsewhere_and_fails_the_others_a_little_later():
    lab = Lab()
    one = lab.send()
    lab.silent = True
    lab.after(0.49)
    assert lab.machine.state is State.SERVING
    lab.after(0.02)
    assert lab.machine.state is State.DRAINING
    assert one.outcome is None
    lab.after(0.25)
    assert why(one) is Why.LOST
    assert lab.machine.state is State.CLOSED
    assert pings(lab) == 1


def test_callers_that_give_up_early_do_not_hide_a_dead_connection():
    lab = Lab()
    lab.send()
    lab.answer(1)
    lab.silent = True
    for _ in range(30):
        one = lab.submit(deadline=lab.now + 0.02)
        lab.machine.outgoing(lab.now)
        lab.after(0.03)
        assert one.outcome is not None
    assert lab.machine.state is State.CLOSED


def test_after_idleness_a_ping_travels_ahead():
    lab = Lab()
    lab.send()
    lab.answer(1)
    lab.after(30)
    assert pings(lab) == 0
    lab.submit()
    assert [kind for kind, _, _ in frames_of(lab.to_server())] == [wire.PING, wire.HEADERS]
    lab.turn()
    lab.answer(3)
    lab.send()
    assert pings(lab) == 1


def test_any_byte_is_a_sign_of_life():
    lab = Lab()
    one = lab.send()
    lab.silent = True
    lab.after(0.3)
    lab.to_client(raw(WindowUpdateFrame(0, window_increment=1)))
    lab.after(0.3)
    assert lab.machine.state is State.SERVING
    assert pings(lab) == 2
    lab.to_client(raw(PingFrame(0, (1).to_bytes(8, "big"), flags=["ACK"])))  # an old one: of no use
    assert lab.machine.liveness.pinged_at < 1000
    assert one.outcome is None


def test_the_round_trip_stretches_patience():
    lab = Lab()
    lab.machine.liveness.round_trip = 1.0
    lab.send()
    lab.silent = True
    lab.after(3.9)
    assert pings(lab) == 0
    lab.after(4.2)
    assert lab.machine.state is State.DRAINING or pings(lab) == 1


def test_time_in_which_our_own_loop_stood_still_is_nobodys_silence():
    lab = Lab()
    lab.send()
    lab.silent = True
    lab.after(0.26)
    lab.now += 30
    lab.machine.tick(lab.now)
    assert lab.machine.state is not State.CLOSED


def test_a_machine_needs_no_clock_until_something_happens():
    assert Machine(0.0, Limits(), Lab().counters).wake_at == inf
