"""Who waits for a stream, and who is next.

The invariant: whoever was here before goes first. A request that is to be sent again has waited on another connection,
so it stands before all newcomers, behind those who came back before it; otherwise a server that ends its connections
after so many requests would turn the same ones away until their resends are spent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from ._stream import Exchange


class Line:
    """Exchanges that wait, in order."""

    def __init__(self) -> None:
        self._back: OrderedDict[Exchange, None] = OrderedDict()
        self._new: OrderedDict[Exchange, None] = OrderedDict()

    def join(self, exchange: Exchange) -> None:
        """Stand where it is one's due."""
        (self._back if exchange.is_back else self._new)[exchange] = None

    def leave(self, exchange: Exchange) -> None:
        """Wait no more. Of one who does not: nothing."""
        (self._back if exchange.is_back else self._new).pop(exchange, None)

    def next(self) -> Exchange:
        """Take the first out; there is one."""
        return (self._back or self._new).popitem(last=False)[0]

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def __iter__(self) -> Iterator[Exchange]:
        yield from self._back
        yield from self._new
