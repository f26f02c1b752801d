"""The streams of one connection: who waits for one, who has one, and which ones nobody wants any more.

The invariants (of those that `_machine` lists, 1, 2, 4 and 5 are kept here): an exchange gets its outcome
in one place, `end`, and once; a stream's id, the compression of its headers and its HEADERS are one step,
`open_next`; whatever ends a stream touches that stream alone; a RST_STREAM leaves only within the budget,
and the streams that this leaves behind are ABANDONED, known by age, and reset when the budget has recovered
or their room is needed.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import Final

from h2.errors import ErrorCodes

from . import _frames as wire
from ._budget import Budget
from ._deadlines import Deadlines
from ._headers import RememberingEncoder
from ._lanes import DEFAULT_WINDOW, Lanes
from ._line import Line
from ._stream import Exchange, Failure, Outcome, Phase, Why
from ._terms import Counters, Limits

_HIGHEST_ID: Final = 2**31 - 1
_STUCK: Final = 0.5  # seconds after which a stream that nobody waits for is not just slow
_MANY: Final = 1000  # what counts as the limit where the peer has none


class Streams:
    """See the module.

    Args:
        now: The time, in seconds.
        limits: What we put up with.
        counters: Where to count.
        encoder: Compresses request headers.
        out: Where frames are appended.
    """

    def __init__(
        self, now: float, limits: Limits, counters: Counters, encoder: RememberingEncoder, out: list[bytes | memoryview]
    ) -> None:
        self.queue = Line()
        self.open: dict[int, Exchange] = {}  # OPEN and ABANDONED, by stream id
        self.abandoned: dict[int, Exchange] = {}  # the oldest first
        self.limit = limits.streams_at_first
        self.window = limits.response_bytes + DEFAULT_WINDOW  # a body within the limit needs no more credit
        self.next_id = 1
        self.lanes = Lanes()
        self.deadlines = Deadlines()
        self._settled: list[Exchange] = []
        self._resets = Budget(limits.resets, limits.resets_per_second, now)
        self._counters = counters
        self._encoder = encoder
        self._out = out

    @property
    def in_flight(self) -> int:
        """Open streams that somebody waits for."""
        return len(self.open) - len(self.abandoned)

    @property
    def has_room(self) -> bool:
        """Whether a stream may be opened, perhaps after resetting one that nobody wants."""
        return len(self.open) < self.limit or bool(self.abandoned)

    @property
    def clogged_at(self) -> float:
        """When half of the streams are, or were, stuck: nobody waits for them, and no budget resets them."""
        half = max(1, (min(self.limit, _MANY) + 1) // 2)
        if len(self.abandoned) < half:
            return inf
        return next(islice(self.abandoned.values(), half - 1, None)).abandoned_at + _STUCK

    def settled(self) -> list[Exchange]:
        """Those that met their end since the last call."""
        result, self._settled = self._settled, []
        return result

    def enqueue(self, exchange: Exchange, patience: float, now: float) -> None:
        """Wait for a stream, for as long as `patience`, in seconds, and the deadline allow."""
        self.deadlines.set(exchange, min(exchange.deadline, now + patience))
        self.queue.join(exchange)

    def is_ready(self, now: float) -> bool:
        """Whether somebody waits and may have a stream; makes room if it can."""
        if not self.queue:
            return False
        while len(self.open) >= self.limit and self.make_room(now):
            pass
        return len(self.open) < self.limit

    @property
    def is_exhausted(self) -> bool:
        """Whether there are no more ids."""
        return self.next_id > _HIGHEST_ID

    def open_next(self, now: float) -> None:
        """Open a stream for the one that is next."""
        exchange = self.queue.next()
        exchange.stream_id = self.next_id
        self.next_id += 2
        exchange.phase, exchange.room = Phase.OPEN, self.window
        self.open[exchange.stream_id] = exchange
        self._counters.streams_opened += 1
        block = self._encoder.block(exchange.route, exchange.varying)
        self._out.append(wire.headers(exchange.stream_id, block, end_stream=not exchange.body))
        if exchange.body:
            self.lanes.enter(exchange, self._out)
        self.progressed(exchange, now)

    def send_bodies(self, now: float) -> None:
        """Append all DATA that may be sent now."""
        for exchange in self.lanes.fill(self._out):
            self.progressed(exchange, now)

    def progressed(self, exchange: Exchange, now: float) -> None:
        """Its patience starts anew; or, sent to its end after the answer came, it is done with."""
        if exchange.answered and not exchange.uploading:
            self._forget(exchange)
        elif exchange.phase is Phase.OPEN:
            wait = exchange.patience.write if exchange.uploading else exchange.patience.read
            self.deadlines.set(exchange, min(exchange.deadline, now + wait))

    def move_queue(self, detail: str) -> None:
        """Nobody of those who wait will get a stream here."""
        for exchange in list(self.queue):
            self.end(exchange, Failure(Why.MOVED, detail))

    def spare(self, now: float) -> None:
        """Reset what nobody wants, as far as the budget has recovered by half."""
        while self.abandoned and self._resets.is_half_full(now) and self.make_room(now):
            pass

    def make_room(self, now: float) -> bool:
        """Reset the oldest stream that nobody wants, if there is one and the budget has recovered."""
        if not self.abandoned or not self._resets.take(now):
            return False
        self._reset(next(iter(self.abandoned.values())), ErrorCodes.CANCEL)
        return True

    def drop(self, exchange: Exchange, outcome: Outcome, now: float, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End an exchange before its stream: reset that within the budget, or leave it to finish."""
        phase = exchange.phase
        if phase in {Phase.OPEN, Phase.QUEUED}:
            self.end(exchange, outcome)
        if phase is Phase.OPEN:
            self._abandon(exchange, code, now)

    def finish(self, exchange: Exchange, now: float) -> None:
        """The peer has ended its side. After an early answer, such as 413, so do we (RFC 9113, 8.1)."""
        exchange.answered = True
        if not exchange.uploading:
            self._forget(exchange)
        elif exchange.phase is not Phase.ABANDONED:
            self._abandon(exchange, ErrorCodes.NO_ERROR, now)

    def ended_by_peer(self, exchange: Exchange, outcome: Outcome) -> None:
        """The peer has ended the stream, both sides."""
        if exchange.phase is Phase.OPEN:
            self.end(exchange, outcome)
        self._forget(exchange)

    def end(self, exchange: Exchange, outcome: Outcome) -> None:
        """The one place where an exchange gets its outcome."""
        self.queue.leave(exchange)
        self.deadlines.discard(exchange)
        exchange.outcome, exchange.phase, exchange.chunks = outcome, Phase.ENDED, []
        self._settled.append(exchange)

    def _abandon(self, exchange: Exchange, code: ErrorCodes, now: float) -> None:
        """Its stream is of no use any more."""
        exchange.phase, exchange.abandoned_at = Phase.ABANDONED, now
        self.abandoned[exchange.stream_id] = exchange
        if self._resets.take(now):
            self._reset(exchange, code)
        else:
            self.lanes.demote(exchange)

    def _reset(self, exchange: Exchange, code: ErrorCodes) -> None:
        self._out.append(wire.rst_stream(exchange.stream_id, code))
        self._counters.resets_sent += 1
        self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """Its stream is closed on the wire."""
        del self.open[exchange.stream_id]
        self.abandoned.pop(exchange.stream_id, None)
        self.lanes.leave(exchange)
        exchange.phase = Phase.ENDED
