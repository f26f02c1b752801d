"""One HTTP/2 connection of a client, sans-IO: bytes and commands in, outcomes and bytes out.

**What is h2's and what is ours.** h2 keeps the connection's control channel (`_control`): the preface,
SETTINGS with their rules and acknowledgements, PING, our GOAWAY, and the sizes of the HPACK tables.
Streams, DATA, flow control and what the peer's GOAWAY means are here, and those frames never reach h2, for
reasons measured or read in 4.4.1:

- On GOAWAY it closes its state machine (python-hyper/h2 issue 1181), discards output that was not sent yet,
  and raises on frames that follow in the same read, although streams up to the last id go on.
- It ends the connection over one malformed or oversized response, or one that breaks its content-length.
  RFC 9113 (8.1.1) makes these errors of one stream, and that stream has neighbours.
- It answers every frame still under way on a stream that we reset with one more RST_STREAM; servers on
  nghttp2 count those against us. Here such frames are dropped, and counted as oddities (a flood ends the
  connection).
- Its streams and frames cost about 75 µs a request beside HPACK, two thirds of what a whole request may
  cost.

This is safe because a client needs little of a stream's life cycle: it opens, it half-closes, and the peer
sends HEADERS, DATA and at most one more HEADERS. The tests play this machine against h2's server, which
checks every byte of ours, and beside h2's client over the same bytes.

**Invariants.**

1. Every exchange submitted meets exactly one end, a `Response` or a `Failure`, and `settled` hands it out
   once.
2. A stream's id is taken, its headers are compressed and its HEADERS are appended to the output in one
   step: ids ascend on the wire, and blocks stand there in the order of their compression.
3. Flow control is conserved (`_lanes`, `_credit`). What we receive comes back as credit of the
   connection, whatever became of its stream, once half of the window is used.
4. What happens to one stream (a reset, a deadline, a malformed response) changes no other stream's bytes.
5. Resets stay within their budget. Beyond it a stream that nobody wants is left to finish: its exchange has
   its outcome and is ABANDONED.
6. The life goes CONNECTING → SERVING → DRAINING → CLOSED, never back. Only SERVING opens streams; what is
   still queued when it ends is handed back as MOVED.
"""

from __future__ import annotations

from math import inf
from typing import Final, assert_never

from h2.errors import ErrorCodes

from . import _frames as wire
from ._budget import Budget
from ._control import UNLIMITED, ControlChannel, PeerSettings, Pong, SettingsTaken
from ._credit import Credit
from ._inbound import (
    ControlCame,
    CreditCame,
    DataCame,
    Event,
    Goodbye,
    HeadersCame,
    Inbound,
    Oddity,
    StreamReset,
    ViolationError,
)
from ._lanes import DEFAULT_WINDOW
from ._liveness import Advice, Liveness
from ._response import complete, take_data, take_head
from ._stream import Exchange, Failure, Lane, Phase, Why
from ._streams import Streams
from ._terms import Counters, Limits, State

UNDER_WAY: Final = 0.1
"""Seconds: an end of the connection that comes later was not yet under way when the requests left."""


class Machine:
    """See the module.

    Args:
        now: The time, in seconds, on the clock of all later arguments.
        limits: What we put up with.
        counters: Where to count; shared between the machines of one transport.
    """

    def __init__(self, now: float, limits: Limits, counters: Counters) -> None:
        self.state = State.CONNECTING
        self.ending: Failure | None = None  # what ended it, if it did not just drain
        self.liveness = Liveness(heard_at=now)
        self._limits = limits
        self._counters = counters
        self._out: list[bytes | memoryview] = []
        self._control = ControlChannel(limits.response_bytes + DEFAULT_WINDOW)
        self._streams = Streams(now, limits, counters, self._control.encoder, self._out)
        self._inbound = Inbound(self._control, self._control.decoder)
        self._introduced = False  # the peer's SETTINGS came
        self._started_at = now
        self._reused = False  # what is in flight was sent after a rest …
        self._woken_at = 0.0
        self._heard = False  # … and this is whether anything came since
        self._credit = Credit(limits.connection_window)
        self._oddities = Budget(limits.oddities, limits.oddities_per_second, now)
        self._ping = 0

    # ── what is asked of it ───────────────────────────────────────────────────────────────────────────────

    def is_accepting(self, now: float) -> bool:
        """Whether a new exchange is better off here than on a new connection."""
        return self.state <= State.SERVING and now < self._streams.clogged_at

    @property
    def in_flight(self) -> int:
        """Open streams that somebody waits for."""
        return self._streams.in_flight

    @property
    def queued(self) -> int:
        """Exchanges that wait for a stream."""
        return len(self._streams.queue)

    @property
    def wake_at(self) -> float:
        """When to call `tick`, at the latest; `inf`: never."""
        if self.state is State.CLOSED:
            return inf
        return min(
            self._streams.deadlines.next_at,
            self.liveness.wake_at,
            self._streams.clogged_at if self._streams.queue else inf,
        )

    def settled(self) -> list[Exchange]:
        """Those that met their end since the last call."""
        return self._streams.settled()

    def outgoing(self, now: float) -> bytes:
        """All bytes that may be sent now. They must be sent, in order, or the connection be given up."""
        if self.state is State.SERVING:
            self._admit(now)
        if self.state in {State.SERVING, State.DRAINING}:
            self._streams.send_bodies(now)
        data = b"".join(self._out)
        self._out.clear()
        return data

    @property
    def has_output(self) -> bool:
        """Whether `outgoing` may have something to say."""
        streams = self._streams
        return bool(self._out or (streams.queue and streams.has_room) or streams.lanes.is_ready)

    def __repr__(self) -> str:
        return (
            f"<{self.state.name.lower()} streams={self.in_flight} queued={self.queued}"
            f" abandoned={len(self._streams.abandoned)} limit={self._streams.limit}"
            f" window={self._streams.lanes.window}>"
        )

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self, now: float) -> None:
        """The transport below is ready: introduce ourselves, and open what waits."""
        self.state = State.SERVING
        self._started_at = now
        self._out.append(self._control.preface())
        self._out.append(wire.window_update(0, self._limits.connection_window - DEFAULT_WINDOW))
        for exchange in self._streams.queue:
            self._streams.deadlines.set(exchange, min(exchange.deadline, now + exchange.patience.pool))

    def submit(self, exchange: Exchange, now: float) -> None:
        """Take an exchange on: at once if there is a stream for it, otherwise when its turn comes."""
        if self.state >= State.DRAINING:
            self._streams.end(exchange, Failure(Why.MOVED, "the connection takes no new requests"))
        else:
            is_early = self.state is State.CONNECTING
            wait = exchange.patience.connect if is_early else exchange.patience.pool
            self._streams.enqueue(exchange, wait, now)

    def abandon(self, exchange: Exchange, now: float) -> None:
        """Its caller has gone: give back its stream, its credit and its place."""
        self._streams.drop(exchange, Failure(Why.CANCELLED, "the caller left"), now)
        self._settle_down(now)

    def drain(self, now: float) -> None:
        """Take nothing new; close when the last open stream has ended."""
        if self.state < State.DRAINING:
            self.state = State.DRAINING
            self._streams.move_queue("the connection takes no new requests")
            self._settle_down(now)

    def close(self) -> None:
        """Give everything up, politely."""
        self._close(Failure(Why.CLOSED, "the transport was closed"), ErrorCodes.NO_ERROR)

    def lose(self, failure: Failure, now: float) -> None:
        """The transport below is gone, or was never there: nothing can be sent or received any more."""
        if now - self._woken_at > max(UNDER_WAY, 2 * self.liveness.round_trip):
            self._heard = True  # it was there for so long that it may have read what was sent
        self._close(failure, None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.state is State.CLOSED:
            return
        for exchange in self._streams.deadlines.due(now):
            if exchange.phase is Phase.OPEN and exchange.uploading and exchange.lane is Lane.BULK:
                self.drain(now)  # the peer withholds credit for good, it seems: a new connection has some
            self._streams.drop(exchange, self._out_of_time(exchange), now)
        self._streams.spare(now)
        if now >= self._streams.clogged_at:
            self.drain(now)
        advice = self.liveness.advise(now)
        if advice is Advice.PING:
            self._send_ping(now)
        elif advice is Advice.SUSPECT:
            self.drain(now)
        elif advice is Advice.LOST:
            silence = Failure(Why.LOST, "the server fell silent and did not answer a PING")
            self._close(silence, ErrorCodes.NO_ERROR)
        self._settle_down(now)

    def receive(self, data: bytes, now: float) -> None:
        """Take what came from the peer. Errors are outcomes, and bytes to send; nothing is raised."""
        if self.state not in {State.SERVING, State.DRAINING}:
            return
        self._heard = True
        self.liveness.heard(now)
        try:
            for event in self._inbound.feed(data):
                self._on_event(event, now)
                if self.state is State.DRAINING and not self.in_flight:
                    break  # that was the last thing worth hearing
        except ViolationError as error:
            self._close(Failure(Why.MALFORMED, f"the server broke the protocol: {error}"), error.code)
        self._settle_down(now)

    def _admit(self, now: float) -> None:
        """Open streams for those that wait, in order, as far as there is room.

        Only just before output, so that whoever leaves in the same turn of the loop has cost no stream.
        """
        while self._streams.is_ready(now):
            if self._streams.is_exhausted:
                self.drain(now)
                return
            if not self._streams.in_flight:
                self._reused, self._heard = self._introduced and self.liveness.has_rested(now), False
                self._woken_at = now
            if self.liveness.asked(now):
                self._send_ping(now)
            self._oddities.give(4)
            self._streams.open_next(now)

    def _settle_down(self, now: float) -> None:
        """After any change: notice that nothing is in flight, and finish draining."""
        if not self.in_flight and self.state in {State.SERVING, State.DRAINING}:
            if self.liveness.busy:
                self.liveness.rested(now)
            if self.state is State.DRAINING:
                self._close(Failure(Why.CLOSED, "drained"), ErrorCodes.NO_ERROR)

    def _close(self, failure: Failure, code: ErrorCodes | None) -> None:
        if self.state is State.CLOSED:
            return
        was, self.state, self.ending = self.state, State.CLOSED, failure
        if code is None:
            self._out.clear()
        elif was is not State.CONNECTING:
            self._out.append(self._control.goodbye(code))
        for exchange in list(self._streams.queue):
            moved = was is not State.CONNECTING and failure.why is not Why.CLOSED
            self._streams.end(exchange, Failure(Why.MOVED, "never sent") if moved else failure)
        # Closed under the first requests after a rest, and at once: the end was under way when they left.
        # Silence is not that, nor is an end in the midst of traffic: then the server may have acted on them.
        stale = code is None and failure.why is Why.LOST and self._reused and not self._heard
        for exchange in list(self._streams.open.values()):
            self._streams.ended_by_peer(
                exchange, Failure(Why.STALE, failure.detail, failure.cause) if stale else failure
            )

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────

    def _out_of_time(self, exchange: Exchange) -> Failure:
        if exchange.phase is Phase.QUEUED:
            if self.state is State.CONNECTING:
                return Failure(Why.CONNECT_TIMEOUT, "no connection in time")
            return Failure(Why.POOL_TIMEOUT, "no stream became free in time")
        if exchange.uploading:
            return Failure(Why.WRITE_TIMEOUT, "the request could not be sent in time")
        return Failure(Why.READ_TIMEOUT, "no response in time")

    def _send_ping(self, now: float) -> None:
        self._ping += 1
        self._out.append(self._control.ping(self._ping.to_bytes(8, "big")))
        self._counters.pings += 1
        self.liveness.pinged(now)

    def _odd(self, now: float) -> None:
        """A frame that carries nothing for us: fine now and then."""
        if not self._oddities.take(now):
            raise ViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "a flood of frames that carry nothing")

    # ── what the peer says ────────────────────────────────────────────────────────────────────────────────

    def _on_event(self, event: Event, now: float) -> None:
        match event:
            case DataCame():
                self._on_data(event, now)
            case HeadersCame():
                self._on_headers(event, now)
            case CreditCame(stream_id=0, increment=increment):
                if not increment or not self._streams.lanes.credit(increment):
                    raise ViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "a window opened by nothing, or too far")
            case CreditCame():
                self._on_credit(event, now)
            case StreamReset():
                self._on_reset(event, now)
            case ControlCame(news=news, answer=answer):
                self._odd(now)
                self._out.append(answer)
                for item in news:
                    self._on_news(item, now)
            case Goodbye():
                self._on_goodbye(event)
            case Oddity():
                self._odd(now)
            case _:
                assert_never(event)

    def _stream(self, stream_id: int, now: float) -> Exchange | None:
        """Whose frame this is; None: of a stream that has ended here."""
        exchange = self._streams.open.get(stream_id)
        if exchange is None:
            if not stream_id & 1 or stream_id >= self._streams.next_id:
                raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "a frame of a stream that was never opened")
            self._odd(now)
        return exchange

    def _on_data(self, event: DataCame, now: float) -> None:
        back = self._credit.use(event.size)
        if self._credit.room < 0:
            raise ViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "it exceeded the connection's window")
        if back:
            self._out.append(wire.window_update(0, back))
        exchange = self._stream(event.stream_id, now)
        if exchange is None or self._is_unheard(exchange, event, now):
            return
        problem = take_data(exchange, event, self._limits.response_bytes)
        self._took(exchange, problem, ended=event.ended, now=now)
        padding = event.size - len(event.data)
        if padding and not event.ended and problem is None:
            self._out.append(wire.window_update(event.stream_id, padding))
            exchange.room += padding
        if not event.data and not event.ended:
            self._odd(now)

    def _is_unheard(self, exchange: Exchange, event: DataCame | HeadersCame, now: float) -> bool:
        """Whether nobody waits for this stream; if it has ended, that is the end of it."""
        if exchange.phase is not Phase.ABANDONED:
            return False
        if event.ended:
            self._streams.finish(exchange, now)
        return True

    def _on_headers(self, event: HeadersCame, now: float) -> None:
        exchange = self._stream(event.stream_id, now)
        if exchange is None or self._is_unheard(exchange, event, now):
            return
        problem = take_head(exchange, event, self._limits.response_bytes)
        self._took(exchange, problem, ended=event.ended, now=now)
        if not exchange.status:
            self._odd(now)

    def _took(self, exchange: Exchange, problem: Failure | None, *, ended: bool, now: float) -> None:
        """A piece of a response came, and is fine or not; perhaps it was the last."""
        if ended:
            self._streams.end(exchange, problem or complete(exchange))
            self._streams.finish(exchange, now)
        elif problem is not None:
            self._streams.drop(exchange, problem, now)
        else:
            self._streams.progressed(exchange, now)

    def _on_credit(self, event: CreditCame, now: float) -> None:
        exchange = self._stream(event.stream_id, now)
        if exchange is None or (event.increment and self._streams.lanes.credit_stream(exchange, event.increment)):
            return
        failure = Failure(Why.MALFORMED, "the stream's window was opened by nothing, or too far")
        self._streams.drop(exchange, failure, now, ErrorCodes.FLOW_CONTROL_ERROR)

    def _on_reset(self, event: StreamReset, now: float) -> None:
        exchange = self._stream(event.stream_id, now)
        if exchange is None:
            return
        refused = event.code == ErrorCodes.REFUSED_STREAM and not exchange.status
        why = Why.UNPROCESSED if refused else Why.RESET
        self._streams.ended_by_peer(exchange, Failure(why, f"the server reset the stream ({_name(event.code)})"))

    def _on_goodbye(self, event: Goodbye) -> None:
        self._counters.goaways += 1
        self.state = State.DRAINING
        detail = f"the server said goodbye ({_name(event.code)})"
        for exchange in [each for key, each in self._streams.open.items() if key > event.last_id]:
            self._streams.ended_by_peer(exchange, Failure(Why.UNPROCESSED, detail))
        self._streams.move_queue(detail)  # behind those, who have waited for longer

    def _on_news(self, news: PeerSettings | SettingsTaken | Pong, now: float) -> None:
        match news:
            case PeerSettings(streams=streams, initial_window=window):
                if streams is not None:
                    self._streams.limit = streams
                elif not self._introduced:
                    self._streams.limit = UNLIMITED
                self._introduced = True
                if window is not None and not self._streams.lanes.resize(window, self._streams.open.values()):
                    raise ViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "a window was opened too far")
            case SettingsTaken():
                self.liveness.measured(now - self._started_at)
            case Pong(payload=payload):
                if payload == self._ping.to_bytes(8, "big"):
                    self.liveness.answered(now)
            case _:
                assert_never(news)


def _name(code: int) -> str:
    """An error code for people."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code:#x}"
