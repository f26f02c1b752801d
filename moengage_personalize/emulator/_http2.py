"""One HTTP/2 connection of the emulator's server: frames to ASGI and back, and every way to misbehave.

Theory: `h2` keeps the protocol; this file keeps what `h2` leaves to its user: bodies until their end,
answers that must wait for window, and one write per turn of the loop however many answers were ready in
it.
"""

import asyncio
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from moengage_personalize.emulator._asgi import MAX_READ
from moengage_personalize.emulator._exchange import Exchange, Headers, scope_of

if TYPE_CHECKING:
    from moengage_personalize.emulator._connection import Connection

_CONFIGURATION = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_WINDOW = 1_048_576  # bytes that a client may send ahead, per stream and per connection


class Http2:
    """The HTTP/2 side of a `Connection`."""

    def __init__(self, connection: "Connection", max_streams: int) -> None:
        self._connection = connection
        self._h2 = H2Connection(_CONFIGURATION)
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            },
        )
        self._requests: dict[int, tuple[list[tuple[bytes, bytes]], bytearray]] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._waiting: dict[int, tuple[bytearray, bool]] = {}
        self._poured = asyncio.Event()
        self._flushing = False
        self._leaving: int | None = None
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW - 65_535)
        self._flush()

    # In ------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._flush()  # a GOAWAY in `data` makes h2 forget what it has not sent
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()  # the GOAWAY that h2 has prepared
            self.lost()
            self._connection.close()
            return
        for event in events:
            self._event(event)
        self._soon()

    def _event(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream), headers=list(headers)):
                self._requests[stream] = (headers, bytearray())
            case DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(size)):
                self._h2.acknowledge_received_data(size, stream)
                request = self._requests.get(stream)
                if request is not None and len(request[1]) <= MAX_READ:
                    request[1].extend(data)
            case StreamEnded(stream_id=int(stream)):
                request = self._requests.pop(stream, None)
                if request is not None:
                    self._begin(stream, *request)
            case StreamReset(stream_id=int(stream)):
                self._connection.ledger.counts.streams_reset += 1
                self._requests.pop(stream, None)
                self._done(stream)
            case WindowUpdated(stream_id=int(stream)):
                for waiting in (stream,) if stream else tuple(self._waiting):
                    self._pour(waiting)
            case ConnectionTerminated(error_code=code):
                self._left(polite=code == ErrorCodes.NO_ERROR)
            case _:
                pass

    def _begin(self, stream: int, headers: list[tuple[bytes, bytes]], body: bytearray) -> None:
        if self._leaving is not None and stream > self._leaving:
            return  # said GOAWAY before it came: the client knows that it was not processed
        fields: Headers = []
        method, target = "GET", b"/"
        for name, value in headers:
            if name == b":method":
                method = value.decode("latin-1")
            elif name == b":path":
                target = value
            elif name == b":authority":
                fields.append((b"host", value))
            elif name[:1] != b":":
                fields.append((name, value))
        scope = scope_of("2", method, target, fields, "https", self._connection.client, self._connection.server)
        exchange = self._exchanges[stream] = Exchange(self, stream, bytes(body))
        self._connection.run(exchange, scope)

    def _left(self, *, polite: bool) -> None:
        """The client said GOAWAY: one that says it politely still gets what it is waiting for."""
        if polite and self._exchanges:
            self._h2.state_machine.state = ConnectionState.SERVER_OPEN  # h2 holds that nothing can follow
            self._leaving = max(self._exchanges)
        else:
            self.lost()
            self._connection.close()

    def lost(self) -> None:
        """The transport is gone."""
        self._waiting.clear()
        self._poured.set()
        for exchange in self._exchanges.values():
            exchange.close()

    # Out -----------------------------------------------------------------------------------------------

    def start(self, stream: int, status: int, headers: Headers, body: bytes, *, end: bool) -> None:
        """The head of an answer, and the first of its body."""
        self._h2.send_headers(stream, [(b":status", b"%d" % status), *headers], end_stream=end and not body)
        if body:
            self.more(stream, body, end=end)
        else:
            self._sent(stream, end=end)

    def more(self, stream: int, body: bytes, *, end: bool) -> None:
        """More of its body."""
        waiting = self._waiting.get(stream)
        if waiting is None and len(body) <= self._room(stream):
            self._h2.send_data(stream, body, end_stream=end)
            self._sent(stream, end=end)
            return
        self._waiting[stream] = ((waiting[0] if waiting else bytearray()) + body, end)
        self._pour(stream)

    def _room(self, stream: int) -> int:
        return min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)

    def _pour(self, stream: int) -> None:
        """Sends as much of what waits as the window takes."""
        while stream in self._waiting:
            pending, end = self._waiting[stream]
            piece = bytes(pending[: self._room(stream)])
            if pending and not piece:
                return
            del pending[: len(piece)]
            if not pending:
                del self._waiting[stream]
            self._poured.set()
            self._h2.send_data(stream, piece, end_stream=end and not pending)
            self._sent(stream, end=end and not pending)

    async def ready(self, stream: int) -> None:
        """Waits until the client has taken what was sent."""
        await self._connection.writable.wait()
        while stream in self._waiting:
            self._poured.clear()
            await self._poured.wait()

    def _sent(self, stream: int, *, end: bool) -> None:
        if end:
            self._done(stream)
        self._soon()

    def _done(self, stream: int) -> None:
        self._waiting.pop(stream, None)
        self._poured.set()
        exchange = self._exchanges.pop(stream, None)
        if exchange is not None:
            exchange.close()
        if self._leaving is not None and not self._exchanges:
            self._flush()
            self._connection.close()

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._h2.data_to_send()
        if data:
            self._connection.transport.write(data)

    # Misdeeds ------------------------------------------------------------------------------------------

    def misbehave(self, stream: int, outcome: str) -> None:
        """Does to this stream, or to the connection, what was asked for."""
        match outcome:
            case "reset" | "lose":
                self._reset(stream, ErrorCodes.INTERNAL_ERROR)
            case "refuse":
                self._reset(stream, ErrorCodes.REFUSED_STREAM)
            case "drain":
                self.leave(max((stream, *self._exchanges)))
            case "goaway":
                self.leave(max(0, stream - 2))
            case _:
                self._connection.transport.abort()

    def _reset(self, stream: int, code: ErrorCodes) -> None:
        self._h2.reset_stream(stream, code)
        self._sent(stream, end=True)

    def leave(self, last: int) -> None:
        """Says GOAWAY: streams up to `last` will be finished, younger ones were not processed."""
        if self._leaving is not None:
            return
        self._leaving = last
        self._flush()
        # h2 would end every stream with it; a frame of our own lets the older ones finish
        self._connection.transport.write(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())
        for stream in [stream for stream in self._exchanges if stream > last]:
            self._exchanges.pop(stream).close()
        if not self._exchanges:
            self._connection.close()
