"""What may be sent when: the peer's windows, and whose DATA goes first.

The invariants: no stream and not the connection ever exceeds the window that the peer gave. Interactive
bodies go before bulk ones. Bulk bodies leave at least half of the connection's window to the others (of the
largest that it ever was; of a huge one 1 MiB, since peers that grant gigabytes top them up late), so that a
peer which withholds credit cannot let a batch of events hold up a fetch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from ._frames import DATA, END_STREAM, MAX_FRAME_SIZE, data_header, frame
from ._stream import Exchange, Lane

LARGEST_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
RESERVE: Final = 1_048_576


class Lanes:
    """Bodies that are not sent yet, by lane; one blocked by its own stream's window is set aside."""

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW  # of the connection
        self.initial_window = DEFAULT_WINDOW  # of a new stream
        self._largest = DEFAULT_WINDOW
        self._lined_up: tuple[OrderedDict[Exchange, None], ...] = tuple(OrderedDict() for _ in Lane)

    def enter(self, exchange: Exchange, out: list[bytes | memoryview]) -> None:
        """Take up a body whose HEADERS are the end of `out`; a small one goes at once if nobody waits."""
        exchange.window = self.initial_window
        size = len(exchange.body)
        if (
            exchange.lane is Lane.INTERACTIVE
            and size <= MAX_FRAME_SIZE
            and size <= exchange.window
            and size <= self.window
            and not self._lined_up[0]
        ):
            exchange.sent = size
            exchange.window -= size
            self.window -= size
            out.append(frame(DATA, END_STREAM, exchange.stream_id, exchange.body))
        else:
            self._lined_up[exchange.lane][exchange] = None

    def leave(self, exchange: Exchange) -> None:
        """Send no more of it."""
        self._lined_up[exchange.lane].pop(exchange, None)

    def demote(self, exchange: Exchange) -> None:
        """Nobody waits for it: the rest of its body goes last."""
        self.leave(exchange)
        exchange.lane = Lane.BULK
        if exchange.uploading:
            self._lined_up[Lane.BULK][exchange] = None

    def fill(self, out: list[bytes | memoryview]) -> list[Exchange]:
        """Write all DATA that may be sent now; returns those that made progress."""
        moved: dict[Exchange, None] = {}
        for lane, waiting in zip(Lane, self._lined_up, strict=True):
            reserve = self._reserve if lane is Lane.BULK else 0
            while waiting and self.window > reserve:
                exchange, _ = waiting.popitem(last=False)
                size = min(len(exchange.body) - exchange.sent, exchange.window, self.window - reserve, MAX_FRAME_SIZE)
                if size <= 0:
                    continue  # `credit_stream` or `resize` brings it back
                self._write(exchange, size, out)
                moved[exchange] = None
                if exchange.uploading:
                    waiting[exchange] = None
        return list(moved)

    @property
    def is_ready(self) -> bool:
        """Whether `fill` could send something."""
        interactive, bulk = self._lined_up
        return bool(interactive and self.window > 0) or bool(bulk and self.window > self._reserve)

    @property
    def _reserve(self) -> int:
        return min(-(-self._largest // 2), RESERVE)

    def _write(self, exchange: Exchange, size: int, out: list[bytes | memoryview]) -> None:
        chunk = memoryview(exchange.body)[exchange.sent : exchange.sent + size]
        exchange.sent += size
        exchange.window -= size
        self.window -= size
        out.append(data_header(0 if exchange.uploading else END_STREAM, exchange.stream_id, size))
        out.append(chunk)

    def credit(self, increment: int) -> bool:
        """The connection's window grew. False: beyond what the protocol allows."""
        self.window += increment
        self._largest = max(self._largest, self.window)
        return self.window <= LARGEST_WINDOW

    def credit_stream(self, exchange: Exchange, increment: int) -> bool:
        """One stream's window grew, or shrank. False: beyond what the protocol allows."""
        exchange.window += increment
        if exchange.uploading and exchange.window > 0:
            self._lined_up[exchange.lane][exchange] = None
        return exchange.window <= LARGEST_WINDOW

    def resize(self, initial_window: int, streams: Iterable[Exchange]) -> bool:
        """The peer changed the window of new streams, and with it that of the open ones (RFC 9113, 6.9.2)."""
        change = initial_window - self.initial_window
        self.initial_window = initial_window
        fits = [self.credit_stream(exchange, change) for exchange in streams]
        return all(fits)
