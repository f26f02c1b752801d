"""An httpx transport that multiplexes every exchange over one HTTP/2 connection, and survives deadlines.

From the inside out: `_machine` is the connection's logic without I/O, over `_headers`, `_lanes`,
`_deadlines`, `_liveness`, `_budget`, `_frames` and h2's `_control` channel; `_connection` is the shell
around it, on `_tls`, `_dial`, `_resolver`, `_worker` and a `_runtime` (asyncio's or trio's); `_seat` and
`_transport` choose the connection and send again what was not processed; `_fallback` is httpx's HTTP/1.1.
"""

from ._headers import Route
from ._stream import Lane, Patience, Response
from ._transport import Http2Transport, TransportStats

__all__ = ["Http2Transport", "Lane", "Patience", "Response", "Route", "TransportStats"]
