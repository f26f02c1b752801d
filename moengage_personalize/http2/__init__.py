"""An httpx transport that multiplexes every exchange over one HTTP/2 connection, and survives deadlines.

From the inside out. `_machine` is one connection's logic, without I/O and clock: it stands on `_inbound`
(what the peer says), `_streams` (who has one) with its `_line`, `_response`, `_lanes` and `_credit` (flow control),
`_headers` (the memory of header blocks), `_deadlines`, `_liveness`, `_budget`, `_frames`, and on h2 for the
`_control` channel. `_connection` is the shell around it, on `_tls`, `_dial`, `_resolver`, `_worker` and a
`_runtime` (asyncio's or trio's). `_seat` and `_pool` choose the connection, `_sending` sends again what was
not processed, `_transport` is what callers see, `_fallback` is httpx's HTTP/1.1.
"""

from ._headers import Route
from ._sending import Sending
from ._stream import Lane, Patience, Response
from ._transport import Http2Transport, TransportStats

__all__ = ["Http2Transport", "Lane", "Patience", "Response", "Route", "Sending", "TransportStats"]
