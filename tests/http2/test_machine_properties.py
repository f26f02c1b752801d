"""Arbitrary moods of a server, a network and callers, against h2's server, which checks every byte."""

from itertools import pairwise

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from http2.wirelab import Lab, exchange
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moengage_personalize.http2._machine import Machine
from moengage_personalize.http2._stream import Failure, Lane, Phase, Response, Why
from moengage_personalize.http2._terms import Counters, Limits, State

LIMITS = Limits(resets=3, resets_per_second=2, connection_window=70_000, response_bytes=30_000, streams_at_first=4)


class Conversation(RuleBasedStateMachine):
    """Both directions are pipes that deliver what and when Hypothesis likes."""

    def __init__(self):
        super().__init__()
        self.lab = Lab(limits=LIMITS, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 4}, start=False)
        self.lab.credit = self.note_credit
        self.owed = []  # credit that the server has not given yet
        self.up, self.down = bytearray(), bytearray(self.lab.server.data_to_send())
        self.all = []
        self.sent = {}  # stream → what the server has sent of its body
        self.ended = set()  # streams on which the server has said all
        self.settings_sent = 1
        self.last_id = None

    def note_credit(self, event):
        if event.flow_controlled_length:
            self.owed.append((event.flow_controlled_length, event.stream_id))

    @property
    def is_server_up(self):
        return self.lab.server.state_machine.state.name != "CLOSED"

    def streams(self):
        return self.is_server_up and sorted(
            each for each, stream in self.lab.server.streams.items() if stream.open and each not in self.ended
        )

    # the callers

    @rule(
        size=st.sampled_from([0, 1, 300, 20_000, 50_000, 90_000]),
        lane=st.sampled_from(Lane),
        patience=st.sampled_from([0.1, 2, 1e9]),
    )
    def submit(self, size, lane, patience):
        one = exchange(b"%d," % len(self.all) * (size // 3), lane=lane, deadline=self.lab.now + patience)
        self.all.append(one)
        self.lab.machine.submit(one, self.lab.now)

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def abandon(self, data):
        self.lab.machine.abandon(data.draw(st.sampled_from(self.all)), self.lab.now)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 5.0]))
    def wait(self, seconds):
        self.lab.now += seconds
        self.lab.machine.tick(self.lab.now)

    # the network

    @precondition(lambda self: self.lab.machine.state is State.CONNECTING)
    @rule()
    def connect(self):
        self.lab.machine.start(self.lab.now)

    @rule()
    def flush(self):
        self.up += self.lab.machine.outgoing(self.lab.now)

    @precondition(lambda self: self.up)
    @rule(size=st.integers(1, 60_000))
    def carry_up(self, size):
        chunk, self.up = bytes(self.up[:size]), self.up[size:]
        self.lab.hear(chunk)
        self.down += self.lab.server.data_to_send()

    @precondition(lambda self: self.down and self.lab.machine.state is not State.CONNECTING)
    @rule(size=st.one_of(st.integers(1, 40), st.integers(1, 60_000)))
    def carry_down(self, size):
        chunk, self.down = bytes(self.down[:size]), self.down[size:]
        self.lab.machine.receive(chunk, self.lab.now)

    # the server

    @precondition(lambda self: self.streams())
    @rule(
        data=st.data(),
        size=st.sampled_from([0, 1, 5_000, 16_384]),
        pad=st.sampled_from([None, 0, 200]),
        end=st.booleans(),
    )
    def answer(self, data, size, pad, end):
        server, stream = self.lab.server, data.draw(st.sampled_from(self.streams()))
        if stream not in self.sent:
            marks = [(b":status", b"200"), (b"stream", b"%d" % stream)]
            server.send_headers(stream, marks)
            self.sent[stream] = b""
        size = min(size, server.local_flow_control_window(stream) - 201, 16_384 - 201)
        body = (b"%d;" % stream * size)[: max(size, 0)]
        if (body or end) and server.local_flow_control_window(stream) > 201:
            server.send_data(stream, body, end_stream=end, pad_length=pad)
            self.sent[stream] += body
            if end:
                self.ended.add(stream)
        self.down += server.data_to_send()

    @precondition(lambda self: self.streams())
    @rule(
        data=st.data(),
        code=st.sampled_from([ErrorCodes.REFUSED_STREAM, ErrorCodes.INTERNAL_ERROR, ErrorCodes.NO_ERROR]),
    )
    def reset(self, data, code):
        self.lab.server.reset_stream(data.draw(st.sampled_from(self.streams())), code)
        self.down += self.lab.server.data_to_send()

    @precondition(lambda self: self.is_server_up and self.lab.acknowledged == self.settings_sent)
    @rule(
        streams=st.sampled_from([0, 1, 2, 7]),
        window=st.sampled_from([0, 10, 65_535, 200_000]),
        table=st.sampled_from([0, 60, 4_096, 70_000]),
    )
    def change_settings(self, streams, window, table):
        # One at a time: h2's server takes the acknowledgement of one SETTINGS for that of a later one.
        self.settings_sent += 2
        # h2 counts new streams against a limit that the client cannot know yet; RFC 9113 (5.1.2) lets
        # the server refuse them instead, so the limit it enforces is taken out of the way.
        self.lab.server.update_settings(
            {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.HEADER_TABLE_SIZE: table}
        )
        self.down += self.lab.server.data_to_send()
        self.down += SettingsFrame(0, {SettingCodes.MAX_CONCURRENT_STREAMS: streams}).serialize()
        self.lab.server.local_settings._settings[SettingCodes.MAX_CONCURRENT_STREAMS].clear()
        self.lab.server.local_settings._settings[SettingCodes.MAX_CONCURRENT_STREAMS].append(1000)
        self.lab.server.local_settings._settings[SettingCodes.MAX_CONCURRENT_STREAMS].append(1000)

    @precondition(lambda self: self.is_server_up)
    @rule()
    def give_credit(self):
        while self.owed:
            size, stream = self.owed.pop()
            self.lab.server.increment_flow_control_window(size)
            if stream in self.lab.server.streams and self.lab.server.streams[stream].open:
                self.lab.server.increment_flow_control_window(size, stream)
        self.down += self.lab.server.data_to_send()

    @precondition(lambda self: self.is_server_up)
    @rule()
    def ping(self):
        self.lab.server.ping(b"12345678")
        self.down += self.lab.server.data_to_send()

    @precondition(lambda self: self.is_server_up)
    @rule(processed=st.integers(0, 3))
    def goaway(self, processed):
        last = max(0, self.lab.server.highest_inbound_stream_id - 2 * processed)
        self.last_id = last if self.last_id is None else min(last, self.last_id)
        self.down += GoAwayFrame(0, last_stream_id=self.last_id).serialize()

    # what must hold

    @invariant()
    def everyone_has_at_most_one_end(self):
        self.lab.settled += self.lab.machine.settled()
        assert len(self.lab.settled) == len(set(self.lab.settled))
        for one in self.all:
            assert (one.outcome is not None) == (one.phase in {Phase.ENDED, Phase.ABANDONED})
            assert (one in self.lab.settled) == (one.outcome is not None)

    @invariant()
    def responses_are_what_the_server_sent_on_that_stream(self):
        for one in self.lab.settled:
            if isinstance(one.outcome, Response):
                assert one.outcome.body == self.sent[one.stream_id]
                assert one.outcome.headers == ((b"stream", b"%d" % one.stream_id),)

    @invariant()
    def bodies_that_arrived_are_prefixes_of_what_was_submitted(self):
        bodies = {one.stream_id: one.body for one in self.all if one.stream_id}
        for stream, body in self.lab.bodies.items():
            assert bodies[stream].startswith(body)

    @invariant()
    def the_server_never_broke_a_rule_so_the_connection_lives_or_was_ended_by_silence_or_goaway(self):
        ending = self.lab.machine.ending
        assert ending is None or ending.why in {Why.CLOSED, Why.LOST}

    def teardown(self):
        """Everything is delivered, answered and credited; then all have met their end."""
        if self.lab.machine.state is State.CONNECTING:
            self.connect()
        for _ in range(200):
            self.flush()
            if not self.is_server_up or not (self.up or self.down or self.streams() or self.owed):
                break
            self.give_credit()
            self.carry_up(10**9)
            if not self.is_server_up:
                break
            for stream in self.streams():
                if stream not in self.sent:
                    self.lab.server.send_headers(stream, [(b":status", b"200"), (b"stream", b"%d" % stream)])
                    self.sent[stream] = b""
                self.lab.server.end_stream(stream)
                self.ended.add(stream)
            self.down += self.lab.server.data_to_send()
            self.carry_down(10**9)
        if self.lab.machine.state is State.SERVING and not self.lab.machine.queued:
            assert self.lab.machine.in_flight == 0
            # Left over is only what the server has answered, gives no credit for, and no budget can reset.
            assert all(one.answered and one.uploading for one in self.lab.machine._streams.open.values())
            assert self.lab.machine._credit.room == self.lab.server.outbound_flow_control_window
            assert self.lab.machine._streams.lanes.window == self.lab.server.inbound_flow_control_window
        self.lab.machine.lose(Failure(Why.LOST, "over"), self.lab.now)
        self.everyone_has_at_most_one_end()
        assert all(one.outcome is not None for one in self.all)
        assert not self.lab.machine._streams.deadlines._by_key


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

FRAMES = st.one_of(
    st.builds(
        lambda s, d, e: DataFrame(s, d, flags=["END_STREAM"] * e).serialize(),
        st.sampled_from([1, 3, 5, 8]),
        st.binary(max_size=20),
        st.booleans(),
    ),
    st.builds(
        lambda s, b, e, h: HeadersFrame(s, b, flags=["END_STREAM"] * e + ["END_HEADERS"] * h).serialize(),
        st.sampled_from([1, 3, 5]),
        st.sampled_from([b"\x88", b"\x8d\xbe", b"\x08\x03103", b"\xff"]),
        st.booleans(),
        st.sampled_from([True, True, False]),
    ),
    st.builds(lambda s, c: RstStreamFrame(s, error_code=c).serialize(), st.sampled_from([1, 3, 9]), st.integers(0, 20)),
    st.builds(
        lambda k, v: SettingsFrame(0, {k: v}).serialize(),
        st.integers(1, 6),
        st.sampled_from([0, 1, 100, 20_000, 2**31]),
    ),
    st.builds(lambda d: PingFrame(0, d).serialize(), st.binary(min_size=8, max_size=8)),
    st.builds(lambda i: GoAwayFrame(0, last_stream_id=i).serialize(), st.sampled_from([0, 1, 3, 2**31 - 1])),
    st.builds(
        lambda k, f, s, p: len(p).to_bytes(3, "big") + bytes([k, f]) + s.to_bytes(4, "big") + p,
        st.integers(0, 12),
        st.integers(0, 255),
        st.sampled_from([0, 1, 3, 2**32 - 1]),
        st.binary(max_size=12),
    ),
    st.binary(max_size=30),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=15), st.data())
def test_whatever_comes_everyone_meets_one_end_and_nothing_is_raised(frames, data):
    machine = Machine(0.0, Limits(), Counters())
    machine.start(0.0)
    many = [exchange(b"x" * 100), exchange(), exchange(b"y" * 70_000)]
    for one in many:
        machine.submit(one, 0.0)
    machine.outgoing(0.0)
    stream = SettingsFrame(0).serialize() + b"".join(frames)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        machine.receive(stream[:size], 1.0)
        machine.outgoing(1.0)
        stream = stream[size:]
    machine.tick(2.0)
    machine.lose(Failure(Why.LOST, "over"), 0.0)
    assert sorted(map(id, machine.settled())) == sorted(map(id, many))


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, max_size=15), st.data())
def test_splits_change_nothing(frames, data):
    whole, pieces = (Machine(0.0, Limits(), Counters()) for _ in range(2))
    stream = SettingsFrame(0).serialize() + b"".join(frames)
    ends = []
    for machine, cuts in ((whole, []), (pieces, data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))):
        machine.start(0.0)
        many = [exchange(b"x" * 100), exchange()]
        for one in many:
            machine.submit(one, 0.0)
        machine.outgoing(0.0)
        edges = [0, *sorted(cuts), len(stream)]
        for start, stop in pairwise(edges):
            machine.receive(stream[start:stop], 0.0)
        ends.append([(repr(one.outcome), one.phase) for one in many] + [machine.state, machine.outgoing(0.0)])
    assert ends[0] == ends[1]


BODY = st.binary(max_size=3000)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(BODY, BODY, st.sampled_from(["end", "reset", "trailers"]), st.booleans()), min_size=1, max_size=6
    ),
    st.permutations(range(6)),
    st.data(),
)
def test_a_legal_server_is_understood_as_by_h2s_own_client(scripts, order, data):
    """The differential test: the same bytes of a server, to this machine and to h2's client."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    other = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    lab = Lab(start=False)
    lab.server = server
    lab.server.initiate_connection()
    lab.machine.start(lab.now)
    other.initiate_connection()
    many = [lab.submit() for _ in scripts]
    lab.hear(lab.machine.outgoing(lab.now))
    for at in range(len(scripts)):
        other.send_headers(
            2 * at + 1,
            [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https"), (b":authority", b"a")],
            end_stream=True,
        )
    other.clear_outbound_data_buffer()
    for at in order:
        if at >= len(scripts):
            continue
        first, second, end, informational = scripts[at]
        stream = 2 * at + 1
        if informational:
            server.send_headers(stream, [(b":status", b"103"), (b"link", b"</x>")])
        server.send_headers(
            stream, [(b":status", b"200"), (b"x-stream", b"%d" % stream), (b"vary", first[:20].hex().encode())]
        )
        server.send_data(stream, first, pad_length=data.draw(st.sampled_from([None, 0, 7])))
        if end == "reset":
            server.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
            continue
        server.send_data(stream, second, end_stream=end == "end")
        if end == "trailers":
            server.send_headers(stream, [(b"x-checksum", b"1")], end_stream=True)
    wire = server.data_to_send()
    theirs = {}
    for event in other.receive_data(wire):
        match event:
            case ResponseReceived():
                theirs[event.stream_id] = [tuple(map(tuple, event.headers[1:])), b""]
            case DataReceived():
                theirs[event.stream_id][1] += event.data
            case StreamEnded():
                theirs[event.stream_id].append("ended")
            case StreamReset():
                theirs[event.stream_id] = "reset"
    edges = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))
    for start, stop in zip([0, *edges], [*edges, len(wire)], strict=True):
        lab.machine.receive(wire[start:stop], lab.now)
    for one in many:
        ours = [one.outcome.headers, one.outcome.body, "ended"] if isinstance(one.outcome, Response) else "reset"
        assert ours == theirs[one.stream_id]


def test_hpack_is_the_one_this_was_written_against():
    """The memory relies on these two attributes of hpack's; a release without them must be noticed."""
    encoder = hpack.Encoder()
    assert encoder.table_size_changes == []
    assert tuple(encoder.header_table.dynamic_entries) == ()
