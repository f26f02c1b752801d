"""One request on its way to an outcome, over as many connections as that takes.

Theory: whoever asked is told by a plain call, so that a request costs a task only where its caller is one. What was
provably not processed is sent again here, in a later turn of the loop, since the news may come from the midst of a
connection's end.

Invariants: `ended` is called exactly once, unless `abandon` came before; then never. A request is sent again only after
`MOVED` (it never left), `UNPROCESSED` (at most `RESENDS` times) or `STALE` (once).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ._connection import Connection
from ._pool import Pool
from ._stream import Exchange, Failure, Outcome, Why
from ._terms import Counters

RESENDS: Final = 3
"""How often a request that was not processed is sent again."""

_MOVES: Final = 20  # how often a request that never left may move to another connection


class Sending:
    """See the module.

    Args:
        exchange: The request.
        pool: Who has connections.
        counters: Where to count.
        ended: Told the outcome.
    """

    __slots__ = ("_connection", "_counters", "_ended", "_exchange", "_left", "_pool")

    def __init__(self, exchange: Exchange, pool: Pool, counters: Counters, ended: Callable[[Outcome], None]) -> None:
        self._exchange = exchange
        self._pool = pool
        self._counters = counters
        self._ended: Callable[[Outcome], None] | None = ended
        self._left: dict[Why, int] | None = None
        self._connection: Connection | None = None

    def leave(self, *, at_once: bool = True) -> None:
        """Take a connection and submit; without `at_once` it leaves with the connection's next output, or `push`."""
        self._exchange.ended = self._settled
        self._connection = connection = self._pool.take()
        connection.submit(self._exchange, at_once=at_once)

    def abandon(self) -> None:
        """Nobody waits any more: give the stream back. Of what has ended: nothing."""
        self._ended = None
        if self._connection is not None:
            self._connection.abandon(self._exchange)

    def _settled(self, outcome: Outcome) -> None:
        if self._ended is None:
            return
        if isinstance(outcome, Failure) and self._may_leave_again(outcome.why):
            self._connection = None
            self._exchange = self._exchange.again()
            self._pool.runtime.soon(self._leave_again)
            return
        ended, self._ended = self._ended, None
        ended(outcome)

    def _may_leave_again(self, why: Why) -> bool:
        if self._left is None:
            self._left = {Why.MOVED: _MOVES, Why.UNPROCESSED: RESENDS, Why.STALE: 1}
        left = self._left.get(why, 0)
        self._left[why] = left - 1
        self._counters.retransmitted += left > 0 and why is not Why.MOVED
        return left > 0

    def _leave_again(self) -> None:
        if self._ended is not None:
            self.leave()
