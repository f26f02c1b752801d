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

from collections import OrderedDict
from enum import IntEnum
from itertools import islice
from math import inf
from typing import Final, assert_never

from attrs import define, frozen
from h2.errors import ErrorCodes

from . import _frames as wire
from ._budget import Budget
from ._control import UNLIMITED, ControlChannel, PeerSettings, Pong, SettingsTaken
from ._credit import Credit
from ._deadlines import Deadlines
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
from ._lanes import DEFAULT_WINDOW, Lanes
from ._liveness import Advice, Liveness
from ._response import complete, take_data, take_head
from ._stream import Exchange, Failure, Lane, Outcome, Phase, Why

_HIGHEST_STREAM_ID: Final = 2**31 - 1
_STUCK: Final = 0.5  # seconds after which a stream that nobody waits for is not just slow
_MANY_STREAMS: Final = 1000  # what counts as the limit where the peer has none


class State(IntEnum):
    """How far the connection is in its life."""

    CONNECTING = 0
    SERVING = 1
    DRAINING = 2  # opens no streams; those that are open may finish
    CLOSED = 3


@frozen(kw_only=True)
class Limits:
    """What we put up with, and what we ask of the peer."""

    response_bytes: int = 1_048_576  # one body, as it is on the wire
    connection_window: int = 16 * 1_048_576  # credit for 16 such bodies before any has to come back
    resets: float = 500  # at once: servers on nghttp2 end a connection at about 1,000 …
    resets_per_second: float = 15  # … or 33 a second
    oddities: float = 2_000  # frames at once that carry nothing for us: SETTINGS, PING, empty DATA, strays
    oddities_per_second: float = 200
    streams_at_first: int = 100  # what is opened before the peer's SETTINGS say how many may be


@define(kw_only=True)
class Counters:
    """What happened, over all connections that share it."""

    connections_opened: int = 0
    handshakes: int = 0
    streams_opened: int = 0
    resets_sent: int = 0
    retransmitted: int = 0
    goaways: int = 0
    pings: int = 0


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
        self._stream_window = limits.response_bytes + DEFAULT_WINDOW  # a body within the limit needs no more
        self._control = ControlChannel(self._stream_window)
        self._encoder = self._control.encoder
        self._inbound = Inbound(self._control, self._control.decoder)
        self._lanes = Lanes()
        self._deadlines = Deadlines()
        self._out: list[bytes] = []
        self._settled: list[Exchange] = []
        self._queue: OrderedDict[Exchange, None] = OrderedDict()
        self._streams: dict[int, Exchange] = {}  # OPEN and ABANDONED
        self._abandoned: dict[int, Exchange] = {}
        self._next_id = 1
        self._last_id = _HIGHEST_STREAM_ID  # the last that the peer will process
        self._stream_limit = limits.streams_at_first
        self._introduced = False  # the peer's SETTINGS came
        self._started_at = now
        self._reused = False  # what is in flight was sent after a rest …
        self._heard = False  # … and this is whether anything came since
        self._credit = Credit(limits.connection_window)
        self._resets = Budget(limits.resets, limits.resets_per_second, now)
        self._oddities = Budget(limits.oddities, limits.oddities_per_second, now)
        self._ping = 0

    # ── what is asked of it ───────────────────────────────────────────────────────────────────────────────

    def is_accepting(self, now: float) -> bool:
        """Whether a new exchange is better off here than on a new connection."""
        return self.state <= State.SERVING and now < self._clogged_at

    @property
    def _clogged_at(self) -> float:
        """When half of the streams are, or were, stuck: nobody waits for them, and no budget resets them."""
        half = max(1, (min(self._stream_limit, _MANY_STREAMS) + 1) // 2)
        if len(self._abandoned) < half:
            return inf
        return next(islice(self._abandoned.values(), half - 1, None)).abandoned_at + _STUCK

    @property
    def in_flight(self) -> int:
        """Open streams that somebody waits for."""
        return len(self._streams) - len(self._abandoned)

    @property
    def queued(self) -> int:
        """Exchanges that wait for a stream."""
        return len(self._queue)

    @property
    def wake_at(self) -> float:
        """When to call `tick`, at the latest; `inf`: never."""
        if self.state is State.CLOSED:
            return inf
        return min(self._deadlines.next_at, self.liveness.wake_at, self._clogged_at if self._queue else inf)

    def settled(self) -> list[Exchange]:
        """Those that met their end since the last call."""
        result, self._settled = self._settled, []
        return result

    def outgoing(self, now: float) -> bytes:
        """All bytes that may be sent now. They must be sent, in order, or the connection be given up."""
        if self._queue and self.state is State.SERVING:
            self._admit(now)
        if self.state in {State.SERVING, State.DRAINING}:
            for exchange in self._lanes.fill(self._out):
                self._progressed(exchange, now)
        data = b"".join(self._out)
        self._out.clear()
        return data

    @property
    def has_output(self) -> bool:
        """Whether `outgoing` may have something to say."""
        has_room = self._abandoned or len(self._streams) < self._stream_limit
        return bool(self._out or (self._queue and has_room) or self._lanes.is_ready)

    def __repr__(self) -> str:
        return (
            f"<{self.state.name.lower()} streams={self.in_flight} queued={self.queued}"
            f" abandoned={len(self._abandoned)} limit={self._stream_limit} window={self._lanes.window}>"
        )

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self, now: float) -> None:
        """The transport below is ready: introduce ourselves, and open what waits."""
        self.state = State.SERVING
        self._started_at = now
        self._out.append(self._control.preface())
        self._out.append(wire.window_update(0, self._limits.connection_window - DEFAULT_WINDOW))
        for exchange in self._queue:
            self._deadlines.set(exchange, min(exchange.deadline, now + exchange.patience.pool))

    def submit(self, exchange: Exchange, now: float) -> None:
        """Take an exchange on: at once if there is a stream for it, otherwise when its turn comes."""
        if self.state >= State.DRAINING:
            self._end(exchange, Failure(Why.MOVED, "the connection takes no new requests"))
        else:
            patience = exchange.patience
            wait = patience.connect if self.state is State.CONNECTING else patience.pool
            self._deadlines.set(exchange, min(exchange.deadline, now + wait))
            self._queue[exchange] = None

    def abandon(self, exchange: Exchange, now: float) -> None:
        """Its caller has gone: give back its stream, its credit and its place."""
        self._drop(exchange, Failure(Why.CANCELLED, "the caller left"), ErrorCodes.CANCEL, now)
        self._settle_down(now)

    def drain(self, now: float) -> None:
        """Take nothing new; close when the last open stream has ended."""
        if self.state < State.DRAINING:
            self.state = State.DRAINING
            self._move_queue("the connection takes no new requests")
            self._settle_down(now)

    def close(self) -> None:
        """Give everything up, politely."""
        self._close(Failure(Why.CLOSED, "the transport was closed"), ErrorCodes.NO_ERROR)

    def lose(self, failure: Failure) -> None:
        """The transport below is gone, or was never there: nothing can be sent or received any more."""
        self._close(failure, None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.state is State.CLOSED:
            return
        for exchange in self._deadlines.due(now):
            if exchange.phase is Phase.OPEN and exchange.uploading and exchange.lane is Lane.BULK:
                self.drain(now)  # the peer withholds credit for good, it seems: a new connection has some
            self._drop(exchange, self._out_of_time(exchange), ErrorCodes.CANCEL, now)
        while self._abandoned and self._resets.is_half_full(now) and self._make_room(now):
            pass  # the budget has recovered: spare the peer what nobody wants
        if now >= self._clogged_at:
            self.drain(now)
        match self.liveness.advise(now):
            case Advice.PING:
                self._send_ping(now)
            case Advice.SUSPECT:
                self.drain(now)
            case Advice.LOST:
                silence = Failure(Why.LOST, "the server fell silent and did not answer a PING")
                self._close(silence, ErrorCodes.NO_ERROR)
            case Advice.WAIT:
                pass
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

    # ── streams ───────────────────────────────────────────────────────────────────────────────────────────

    def _open(self, exchange: Exchange, now: float) -> None:
        if not self.in_flight:
            self._reused, self._heard = self._introduced, False
        if self.liveness.asked(now):
            self._send_ping(now)
        stream_id = exchange.stream_id = self._next_id
        self._next_id += 2
        exchange.phase = Phase.OPEN
        exchange.room = self._stream_window
        self._streams[stream_id] = exchange
        self._counters.streams_opened += 1
        self._oddities.give(4)
        block = self._encoder.block(exchange.route, exchange.varying)
        self._out.append(wire.headers(stream_id, block, end_stream=not exchange.body))
        if exchange.body:
            self._lanes.enter(exchange, self._out)
        wait = exchange.patience.write if exchange.uploading else exchange.patience.read
        self._deadlines.set(exchange, min(exchange.deadline, now + wait))

    def _admit(self, now: float) -> None:
        """Open streams for those that wait, in order, as far as there is room.

        Only just before output, so that whoever leaves in the same turn of the loop has cost no stream.
        """
        while self._queue and self.state is State.SERVING:
            while len(self._streams) >= self._stream_limit and self._make_room(now):
                pass
            if len(self._streams) >= self._stream_limit:
                return
            if self._next_id > _HIGHEST_STREAM_ID:
                self.drain(now)
                return
            exchange, _ = self._queue.popitem(last=False)
            self._open(exchange, now)

    def _make_room(self, now: float) -> bool:
        """Reset the oldest stream that nobody wants, if there is one and the budget has recovered."""
        if not self._abandoned or not self._resets.take(now):
            return False
        self._reset(next(iter(self._abandoned.values())), ErrorCodes.CANCEL)
        return True

    def _drop(self, exchange: Exchange, outcome: Outcome, code: ErrorCodes, now: float) -> None:
        """End an exchange before its stream: reset that within the budget, or leave it to finish."""
        phase = exchange.phase
        if phase in {Phase.OPEN, Phase.QUEUED}:
            self._end(exchange, outcome)
        if phase is Phase.OPEN:
            self._abandon(exchange, code, now)

    def _abandon(self, exchange: Exchange, code: ErrorCodes, now: float) -> None:
        """Its stream is of no use any more."""
        exchange.phase, exchange.abandoned_at = Phase.ABANDONED, now
        self._abandoned[exchange.stream_id] = exchange
        if self._resets.take(now):
            self._reset(exchange, code)
        else:
            self._lanes.demote(exchange)

    def _reset(self, exchange: Exchange, code: ErrorCodes) -> None:
        self._out.append(wire.rst_stream(exchange.stream_id, code))
        self._counters.resets_sent += 1
        self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """Its stream is closed on the wire."""
        del self._streams[exchange.stream_id]
        self._abandoned.pop(exchange.stream_id, None)
        self._lanes.leave(exchange)
        exchange.phase = Phase.ENDED

    def _end(self, exchange: Exchange, outcome: Outcome) -> None:
        """The one place where an exchange gets its outcome."""
        self._queue.pop(exchange, None)
        self._deadlines.discard(exchange)
        exchange.outcome, exchange.phase, exchange.chunks = outcome, Phase.ENDED, []
        self._settled.append(exchange)

    def _ended_by_peer(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.phase is Phase.OPEN:
            self._end(exchange, outcome)
        self._forget(exchange)

    def _settle_down(self, now: float) -> None:
        """After any change: notice that nothing is in flight, and finish draining."""
        if not self.in_flight and self.state in {State.SERVING, State.DRAINING}:
            if self.liveness.busy:
                self.liveness.rested(now)
            if self.state is State.DRAINING:
                self._close(Failure(Why.CLOSED, "drained"), ErrorCodes.NO_ERROR)

    def _move_queue(self, detail: str) -> None:
        for exchange in list(self._queue):
            self._end(exchange, Failure(Why.MOVED, detail))

    def _close(self, failure: Failure, code: ErrorCodes | None) -> None:
        if self.state is State.CLOSED:
            return
        was, self.state, self.ending = self.state, State.CLOSED, failure
        if code is None:
            self._out.clear()
        elif was is not State.CONNECTING:
            self._out.append(self._control.goodbye(code))
        for exchange in list(self._queue):
            moved = was is not State.CONNECTING and failure.why is not Why.CLOSED
            self._end(exchange, Failure(Why.MOVED, "never sent") if moved else failure)
        stale = failure.why is Why.LOST and self._reused and not self._heard
        for exchange in list(self._streams.values()):
            self._ended_by_peer(
                exchange, Failure(Why.STALE, failure.detail, failure.cause) if stale else failure
            )

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────

    def _progressed(self, exchange: Exchange, now: float) -> None:
        """Its patience starts anew; or, sent to its end after the answer came, it is done with."""
        if exchange.answered and not exchange.uploading:
            self._forget(exchange)
        elif exchange.phase is Phase.OPEN:
            wait = exchange.patience.write if exchange.uploading else exchange.patience.read
            self._deadlines.set(exchange, min(exchange.deadline, now + wait))

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
                if not increment or not self._lanes.credit(increment):
                    raise ViolationError(
                        ErrorCodes.FLOW_CONTROL_ERROR, "a window opened by nothing, or too far"
                    )
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
        exchange = self._streams.get(stream_id)
        if exchange is None:
            if not stream_id & 1 or stream_id >= self._next_id:
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
            self._finish(exchange, now)
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
            self._end(exchange, problem or complete(exchange))
            self._finish(exchange, now)
        elif problem is not None:
            self._drop(exchange, problem, ErrorCodes.CANCEL, now)
        else:
            self._progressed(exchange, now)

    def _finish(self, exchange: Exchange, now: float) -> None:
        """The peer has ended its side. After an early answer, such as 413, so do we (RFC 9113, 8.1)."""
        exchange.answered = True
        if not exchange.uploading:
            self._forget(exchange)
        elif exchange.phase is not Phase.ABANDONED:
            self._abandon(exchange, ErrorCodes.NO_ERROR, now)

    def _on_credit(self, event: CreditCame, now: float) -> None:
        exchange = self._stream(event.stream_id, now)
        if exchange is None or (event.increment and self._lanes.credit_stream(exchange, event.increment)):
            return
        failure = Failure(Why.MALFORMED, "the stream's window was opened by nothing, or too far")
        self._drop(exchange, failure, ErrorCodes.FLOW_CONTROL_ERROR, now)

    def _on_reset(self, event: StreamReset, now: float) -> None:
        exchange = self._stream(event.stream_id, now)
        if exchange is None:
            return
        refused = event.code == ErrorCodes.REFUSED_STREAM and not exchange.status
        why = Why.UNPROCESSED if refused else Why.RESET
        self._ended_by_peer(exchange, Failure(why, f"the server reset the stream ({_name(event.code)})"))

    def _on_goodbye(self, event: Goodbye) -> None:
        self._counters.goaways += 1
        self._last_id = min(self._last_id, event.last_id)
        self.state = State.DRAINING
        detail = f"the server said goodbye ({_name(event.code)})"
        self._move_queue(detail)
        for exchange in [each for key, each in self._streams.items() if key > self._last_id]:
            self._ended_by_peer(exchange, Failure(Why.UNPROCESSED, detail))

    def _on_news(self, news: PeerSettings | SettingsTaken | Pong, now: float) -> None:
        match news:
            case PeerSettings(streams=streams, initial_window=window):
                if streams is not None:
                    self._stream_limit = streams
                elif not self._introduced:
                    self._stream_limit = UNLIMITED
                self._introduced = True
                if window is not None and not self._lanes.resize(window, self._streams.values()):
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
