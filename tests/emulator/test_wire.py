"""The server's two protocols, in memory: bytes in, bytes out, no socket and no clock."""

import asyncio
import json
import re
from types import SimpleNamespace

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from emulator.kit import authorization, emulator, events

from moengage_personalize.emulator._connection import Connection

PATH = "/v1/experiences/"
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"  # the head of such a frame; `h2` reads no further than one


class Transport:
    """A transport that keeps what is written."""

    def __init__(self, protocol):
        self.writes, self.closed = [], None
        tls = None if protocol is None else SimpleNamespace(selected_alpn_protocol=lambda: protocol)
        self._extra = {"ssl_object": tls, "peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)}

    def get_extra_info(self, name):
        return self._extra[name]

    def write(self, data):
        if self.closed is None:
            self.writes.append(bytes(data))

    def is_closing(self):
        return self.closed is not None

    def close(self):
        self.closed = self.closed or "closed"

    def abort(self):
        self.closed = self.closed or "aborted"


class Peer:
    """One connection to a server without a network."""

    def __init__(self, emu, protocol="h2", *, app=None, max_streams=250):
        self.emulator = emu
        self.server = SimpleNamespace(
            emulator=emu, app=app or emu.app, max_streams=max_streams, connections=set(), tasks=set(), is_out=False
        )
        self.transport = Transport(protocol)
        self.connection = Connection(self.server)
        self.connection.connection_made(self.transport)
        self.errors = []

    async def settle(self):
        """Lets the loop turn until nothing happens any more."""
        for _ in range(12):
            await asyncio.sleep(0)

    def take(self):
        taken, self.transport.writes = self.transport.writes, []
        return taken

    async def end(self):
        self.connection.connection_lost(None)
        for task in self.server.tasks:
            task.cancel()
        await asyncio.gather(*self.server.tasks, return_exceptions=True)
        assert self.emulator.ledger.counts.connections_open == 0


class H2(Peer):
    """...that speaks HTTP/2."""

    def __init__(self, emu, *, window=None, **options):
        super().__init__(emu, **options)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        if window is not None:
            settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.h2.initiate_connection()
        self.bodies, self.statuses, self.resets, self.goaway, self.settings = {}, {}, {}, None, {}

    def ask(self, path, body=None, *, method="POST"):
        stream = self.h2.get_next_available_stream_id()
        headers = [(b":method", method), (b":path", path), (b":scheme", "https"), (b":authority", "x")]
        headers += [*authorization().items(), (b"content-type", b"application/json")]
        self.h2.send_headers(stream, headers, end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, json.dumps(body).encode(), end_stream=True)
        return stream

    async def go(self):
        """Carries bytes both ways until all is said."""
        data = self.h2.data_to_send()
        if data:
            self.connection.data_received(data)
        await self.settle()
        for write in self.take():
            for event in self.h2.receive_data(write):
                self.hear(event)
        if self.h2.outbound_flow_control_window and (more := self.h2.data_to_send()):
            self.connection.data_received(more)
            await self.settle()

    def hear(self, event):
        match event:
            case h2.events.ResponseReceived():
                self.statuses[event.stream_id] = int(dict(event.headers)[":status"])
            case h2.events.DataReceived():
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            case h2.events.StreamReset():
                self.resets[event.stream_id] = event.error_code.name
            case h2.events.ConnectionTerminated():
                self.goaway = (event.error_code.name, event.last_stream_id)
            case h2.events.RemoteSettingsChanged():
                self.settings = {change.setting.name: change.new_value for change in event.changed_settings.values()}


def run(body):
    asyncio.run(asyncio.wait_for(body(), 10))


def test_answers_that_are_ready_in_one_turn_leave_in_one_write():
    async def body():
        peer = H2(emulator())
        await peer.go()
        streams = [peer.ask(PATH + "fetch", {}) for _ in range(50)]
        peer.connection.data_received(peer.h2.data_to_send())
        await peer.settle()
        (write,) = peer.take()
        for event in peer.h2.receive_data(write):
            peer.hear(event)
        assert peer.statuses == dict.fromkeys(streams, 200)
        await peer.end()

    run(body)


def test_the_limits_are_announced():
    async def body():
        peer = H2(emulator(), max_streams=7)
        await peer.go()
        assert peer.settings["MAX_CONCURRENT_STREAMS"] == 7
        assert peer.settings["INITIAL_WINDOW_SIZE"] == 1_048_576
        assert peer.h2.outbound_flow_control_window == 1_048_576
        await peer.end()

    run(body)


def test_a_body_waits_for_the_client_s_window_and_arrives_whole():
    async def body():
        peer = H2(emulator({"a-lot-of": {"Text": "x" * 5000}}), window=1000)
        stream = peer.ask(PATH + "fetch", {})
        await peer.go()
        assert len(peer.bodies[stream]) == 1000
        while not peer.bodies[stream].endswith(b"}"):
            peer.h2.increment_flow_control_window(1000, stream)
            await peer.go()
        assert len(json.loads(peer.bodies[stream])["experiences"]["a-lot-of"]["payload"]["Text"]["value"]) == 5000
        await peer.end()

    run(body)


@pytest.mark.parametrize(
    ("outcome", "code", "accepted"),
    [("reset", "INTERNAL_ERROR", 0), ("refuse", "REFUSED_STREAM", 0), ("lose", "INTERNAL_ERROR", 1)],
)
def test_a_stream_is_reset_and_its_neighbours_are_not(outcome, code, accepted):
    async def body():
        peer = H2(emulator())
        peer.emulator.trouble(outcome=outcome, endpoints=("events",))
        bad, good = peer.ask(PATH + "events", events()), peer.ask(PATH + "fetch", {})
        await peer.go()
        assert peer.resets == {bad: code}
        assert peer.statuses == {good: 200}
        assert peer.transport.closed is None
        assert peer.emulator.ledger.counts.accepted == accepted
        await peer.end()

    run(body)


def slow(emu, gate):
    """An application that holds fetches back until the gate opens."""

    async def app(scope, receive, send):
        if scope["path"].endswith("fetch"):
            await gate.wait()
        await emu.app(scope, receive, send)

    return app


def test_goaway_leaves_its_own_stream_unprocessed_and_lets_the_older_finish():
    async def body():
        emu, gate = emulator(), asyncio.Event()
        peer = H2(emu, app=slow(emu, gate))
        emu.trouble(outcome="goaway", endpoints=("events",))
        old, young = peer.ask(PATH + "fetch", {}), peer.ask(PATH + "events", events())
        peer.connection.data_received(peer.h2.data_to_send())
        await peer.settle()
        assert peer.transport.closed is None
        gate.set()
        await peer.settle()
        late = peer.ask(PATH + "fetch", {})
        before = b"".join(peer.take())
        assert peer.transport.closed == "closed"
        head, frame = before.split(GOAWAY, 1)
        assert int.from_bytes(frame[:4]) == old < young < late
        for event in (*peer.h2.receive_data(head), *peer.h2.receive_data(frame[8:])):
            peer.hear(event)
        assert peer.statuses == {old: 200}
        assert emu.ledger.counts.accepted == 0
        await peer.end()

    run(body)


def test_a_drained_connection_answers_what_it_has_taken_and_closes():
    async def body():
        peer = H2(emulator())
        peer.emulator.trouble(outcome="drain")
        stream = peer.ask(PATH + "fetch", {})
        peer.connection.data_received(peer.h2.data_to_send())
        await peer.settle()
        said = b"".join(peer.take())
        head, answer = said.split(GOAWAY + stream.to_bytes(4) + b"\x00\x00\x00\x00")
        for event in (*peer.h2.receive_data(head), *peer.h2.receive_data(answer)):
            peer.hear(event)
        assert peer.statuses == {stream: 200}
        assert peer.transport.closed == "closed"
        await peer.end()

    run(body)


def test_a_client_that_resets_a_stream_frees_it():
    async def body():
        peer = H2(emulator())
        peer.emulator.trouble(outcome="hang", endpoints=("events",))
        stream = peer.ask(PATH + "events", events())
        await peer.go()
        assert len(peer.server.tasks) == 1
        peer.h2.reset_stream(stream)
        await peer.go()
        assert not peer.server.tasks
        assert peer.emulator.ledger.counts.streams_reset == 1
        good = peer.ask(PATH + "fetch", {})
        await peer.go()
        assert peer.statuses == {good: 200}
        await peer.end()

    run(body)


def test_an_answer_to_a_stream_that_is_gone_is_dropped():
    async def body():
        emu, gate = emulator(), asyncio.Event()
        peer = H2(emu, app=slow(emu, gate))
        stream = peer.ask(PATH + "fetch", {})
        await peer.go()
        peer.h2.reset_stream(stream)
        await peer.go()
        gate.set()
        await peer.go()
        assert peer.statuses == {}
        assert emu.ledger.counts.fetch_requests == 1
        await peer.end()

    run(body)


def test_nonsense_is_answered_with_goaway():
    async def body():
        peer = H2(emulator())
        await peer.go()
        peer.connection.data_received(b"\x00\x00\x01\x00\x00\x00\x00\x00\x09x")
        await peer.settle()
        for write in peer.take():
            for event in peer.h2.receive_data(write):
                peer.hear(event)
        assert peer.goaway[0] == "PROTOCOL_ERROR"
        assert peer.transport.closed == "closed"
        await peer.end()

    run(body)


def test_a_client_that_says_goodbye_is_let_go():
    async def body():
        peer = H2(emulator())
        await peer.go()
        peer.h2.close_connection()
        await peer.go()
        assert peer.transport.closed == "closed"
        await peer.end()

    run(body)


def test_a_client_that_says_goodbye_still_gets_what_it_waits_for():
    async def body():
        emu, gate = emulator(), asyncio.Event()
        peer = H2(emu, app=slow(emu, gate))
        stream = peer.ask(PATH + "fetch", {})
        await peer.go()
        peer.connection.data_received(b"\x00\x00\x08\x07" + bytes(13))  # GOAWAY, NO_ERROR
        await peer.settle()
        assert peer.transport.closed is None
        gate.set()
        await peer.go()
        assert peer.statuses == {stream: 200}
        assert peer.transport.closed == "closed"
        await peer.end()

    run(body)


def test_answers_after_a_protocol_error_are_dropped(caplog):
    async def body():
        emu, gate = emulator(), asyncio.Event()
        peer = H2(emu, app=slow(emu, gate))
        peer.ask(PATH + "fetch", {})
        await peer.go()
        peer.connection.data_received(b"\x00\x00\x01\x00\x00\x00\x00\x00\x09x")
        gate.set()
        await peer.settle()
        assert peer.transport.closed == "closed"
        await peer.end()

    run(body)
    assert caplog.text == ""


@pytest.mark.parametrize("protocol", ["h2", None])
def test_an_application_that_fails_costs_its_own_request_only(protocol, caplog):
    async def app(scope, receive, send):
        raise RuntimeError("boom")

    async def body():
        if protocol == "h2":
            peer = H2(emulator(), app=app)
            stream = peer.ask(PATH + "fetch", {})
            await peer.go()
            assert peer.resets == {stream: "INTERNAL_ERROR"}
        else:
            peer = Peer(emulator(), protocol, app=app)
            peer.connection.data_received(get("metadata"))
            await peer.settle()
            assert peer.transport.closed == "aborted"
        await peer.end()

    run(body)
    assert "the application failed" in caplog.text


def test_a_connection_is_cut_when_told_to():
    async def body():
        for peer in (H2(emulator()), Peer(emulator(), None)):
            peer.emulator.trouble(outcome="disconnect")
            if isinstance(peer, H2):
                peer.ask(PATH + "fetch", {})
                await peer.go()
            else:
                peer.connection.data_received(get("metadata"))
                await peer.settle()
            assert peer.transport.closed == "aborted"
            await peer.end()

    run(body)


# HTTP/1.1 ------------------------------------------------------------------------------


def get(path, *more, version="1.1"):
    lines = [f"GET {PATH}{path} HTTP/{version}", "Host: x", *more]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in authorization().items()]
    return "\r\n".join([*lines, "", ""]).encode()


def heads(data):
    return re.findall(rb"HTTP/1\.1 \d+ [^\r]*", data)


def exchange(*pieces, emu=None, settle_between=True):
    """What comes back for some bytes, and how the transport ended."""
    outcome = []

    async def body():
        peer = Peer(emu or emulator(), None)
        for piece in pieces:
            peer.connection.data_received(piece)
            if settle_between:
                await peer.settle()
        await peer.settle()
        outcome.extend([b"".join(peer.take()), peer.transport.closed])
        await peer.end()

    run(body)
    return outcome


def test_a_connection_is_kept_for_the_next_request():
    said, closed = exchange(get("metadata"), get("metadata"))
    assert heads(said) == [b"HTTP/1.1 200 OK"] * 2
    assert closed is None


def test_pipelined_requests_are_answered_in_order():
    said, _ = exchange(get("metadata") + get("nowhere"), settle_between=False)
    assert heads(said) == [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found"]


def test_a_request_in_many_pieces_is_one_request():
    said, _ = exchange(*(bytes([byte]) for byte in get("metadata")), settle_between=False)
    assert heads(said) == [b"HTTP/1.1 200 OK"]


def test_a_client_that_waits_for_100_continue_gets_it():
    head = get("fetch", "Expect: 100-continue", "Content-Length: 2").replace(b"GET", b"POST")
    said, _ = exchange(head, b"{}")
    assert heads(said)[:2] == [b"HTTP/1.1 100 ", b"HTTP/1.1 200 OK"]


def test_a_body_in_many_pieces_is_one_body():
    body = json.dumps(events()).encode()
    head = get("events", f"Content-Length: {len(body)}").replace(b"GET", b"POST")
    emu = emulator()
    said, _ = exchange(head, body[:10], body[10:50], body[50:], emu=emu)
    assert heads(said) == [b"HTTP/1.1 200 OK"]
    assert emu.ledger.counts.accepted == 1


def test_connection_close_and_http_1_0_close():
    for asked in (get("metadata", "Connection: close"), get("metadata", version="1.0")):
        said, closed = exchange(asked)
        assert heads(said) == [b"HTTP/1.1 200 OK"]
        assert closed == "closed"


def test_nonsense_is_answered_400():
    said, closed = exchange(b"what is this\r\n\r\n")
    assert heads(said)[0].startswith(b"HTTP/1.1 400")
    assert closed == "closed"


def test_drain_is_connection_close():
    emu = emulator()
    emu.trouble(outcome="drain")
    said, closed = exchange(get("metadata"), emu=emu)
    assert b"connection: close" in said.lower()
    assert closed == "closed"


def test_a_client_that_leaves_ends_its_hanging_request():
    async def body():
        peer = Peer(emulator(), None)
        peer.emulator.trouble(outcome="hang")
        peer.connection.data_received(get("metadata"))
        await peer.settle()
        assert len(peer.server.tasks) == 1
        peer.connection.connection_lost(None)
        await peer.settle()
        assert not peer.server.tasks

    run(body)


def test_escaped_paths_are_understood():
    said, _ = exchange(get("%6detadata"))
    assert heads(said) == [b"HTTP/1.1 200 OK"]
