"""A client's machine and h2's own server in one process, with a clock that is set by hand."""

from math import inf

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from hyperframe.frame import GoAwayFrame

from moengage_personalize.http2._headers import literals, route
from moengage_personalize.http2._machine import Machine
from moengage_personalize.http2._stream import Exchange, Failure, Lane, Patience, Response
from moengage_personalize.http2._terms import Counters, Limits

ROUTE = route(
    b"POST", b"https", b"example.com", b"/fetch", [(b"accept", b"application/json"), (b"authorization", b"Basic abc")]
)
HEAD = route(b"HEAD", b"https", b"example.com", b"/fetch", [])


def exchange(body=b"", *, to=ROUTE, lane=Lane.INTERACTIVE, deadline=inf, patience=None):
    varying = literals([(b"content-length", b"%d" % len(body))]) if body else b""
    more = {} if patience is None else {"patience": Patience(**patience)}
    return Exchange(route=to, varying=varying, body=body, lane=lane, deadline=deadline, **more)


class Lab:
    """`turn()` carries bytes both ways until nobody has anything to say."""

    def __init__(self, *, settings=None, limits=None, start=True):
        self.now = 100.0
        self.counters = Counters()
        self.machine = Machine(self.now, limits or Limits(), self.counters)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        if settings:
            self.server.local_settings.update(settings)
            self.server.local_settings.acknowledge()
        self.server.initiate_connection()
        self.requests = {}  # stream → its headers
        self.bodies = {}
        self.complete = []
        self.resets = []
        self.acknowledged = 0
        self.settled = []
        self.wire = bytearray()  # all that the client ever sent
        if start:
            self.machine.start(self.now)
            self.turn()

    def submit(self, *args, **kwargs):
        one = exchange(*args, **kwargs)
        self.machine.submit(one, self.now)
        return one

    def send(self, body=b"", **kwargs):
        one = self.submit(body, **kwargs)
        self.turn()
        return one

    def to_server(self):
        data = self.machine.outgoing(self.now)
        self.hear(data)
        return data

    def hear(self, data):
        self.wire += data
        for event in self.server.receive_data(data):
            self.on_event(event)

    def on_event(self, event):
        if isinstance(event, RequestReceived):
            self.requests[event.stream_id] = event.headers
            self.bodies[event.stream_id] = b""
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] += event.data
            self.credit(event)
        elif isinstance(event, StreamEnded):
            self.complete.append(event.stream_id)
        elif isinstance(event, StreamReset):
            self.resets.append(event.stream_id)
        elif isinstance(event, SettingsAcknowledged):
            self.acknowledged += 1

    def credit(self, event):
        self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def to_client(self, data=None):
        data = self.server.data_to_send() if data is None else data
        self.machine.receive(data, self.now)
        self.settled += self.machine.settled()
        return data

    def turn(self):
        while self.to_server() or self.to_client():
            pass
        self.settled += self.machine.settled()

    def after(self, seconds):
        """Let time pass, with every timer that falls into it."""
        end = self.now + seconds
        while self.machine.wake_at <= end:
            self.now = max(self.now, self.machine.wake_at)
            self.machine.tick(self.now)
            self.turn_if_heard()
        self.now = end
        self.machine.tick(self.now)
        self.turn_if_heard()

    silent = False  # a server that hears, and never answers

    def turn_if_heard(self):
        if self.silent:
            self.machine.outgoing(self.now)
            self.settled += self.machine.settled()
        else:
            self.turn()

    def answer(self, stream_id, body=b"ok", *, status=b"200", headers=(), end=True):
        self.server.send_headers(stream_id, [(b":status", status), *headers], end_stream=end and not body)
        if body:
            self.server.send_data(stream_id, body, end_stream=end)
        self.turn()

    def goaway(self, last, code=0):
        self.to_client(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())
        self.turn()


def body_of(one):
    assert isinstance(one.outcome, Response), one.outcome
    return one.outcome.body


def why(one):
    assert isinstance(one.outcome, Failure), one.outcome
    return one.outcome.why
