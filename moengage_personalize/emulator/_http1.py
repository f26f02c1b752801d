"""One HTTP/1.1 connection of the emulator's server: `h11` to ASGI and back, one request at a time."""

from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from moengage_personalize.emulator._asgi import MAX_READ
from moengage_personalize.emulator._exchange import Exchange, Headers, scope_of

if TYPE_CHECKING:
    from moengage_personalize.emulator._connection import Connection

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}  # h2load needs one


class Http1:
    """The HTTP/1.1 side of a `Connection`."""

    def __init__(self, connection: "Connection", scheme: str) -> None:
        self._connection = connection
        self._scheme = scheme
        self._h11 = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._exchange: Exchange | None = None
        self._closing = False

    # In ------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._h11.receive_data(data)
        self._advance()

    def _advance(self) -> None:
        try:
            while self._exchange is None:
                event = self._h11.next_event()
                match event:
                    case h11.Request():
                        self._request = event
                        self._body.clear()
                    case h11.Data() if len(self._body) <= MAX_READ:
                        self._body.extend(event.data)
                    case h11.EndOfMessage():
                        self._begin()
                    case h11.NEED_DATA:
                        if self._h11.they_are_waiting_for_100_continue:
                            self._write(h11.InformationalResponse(status_code=100, headers=[]))
                        return
                    case h11.ConnectionClosed() | h11.PAUSED:
                        self._connection.close()
                        return
                    case _:
                        pass
        except h11.RemoteProtocolError as error:
            if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._write(h11.Response(status_code=error.error_status_hint, headers=[("connection", "close")]))
            self._connection.close()

    def _begin(self) -> None:
        request = self._request
        if request is None:
            return
        headers: Headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        scope = scope_of(
            request.http_version.decode(),
            request.method.decode(),
            bytes(request.target),
            headers,
            self._scheme,
            self._connection.client,
            self._connection.server,
        )
        self._exchange = Exchange(self, 0, bytes(self._body))
        self._connection.run(self._exchange, scope)

    def lost(self) -> None:
        """The transport is gone."""
        if self._exchange is not None:
            self._exchange.close()

    # Out -----------------------------------------------------------------------------------------------

    def start(self, stream: int, status: int, headers: Headers, body: bytes, *, end: bool) -> None:
        """The head of an answer, and the first of its body."""
        if self._closing:
            headers = [*headers, (b"connection", b"close")]
        self._write(h11.Response(status_code=status, headers=headers, reason=_PHRASES.get(status, b"Unknown")))
        self.more(stream, body, end=end)

    def more(self, _stream: int, body: bytes, *, end: bool) -> None:
        """More of its body."""
        if body:
            self._write(h11.Data(data=body))
        if end:
            self._write(h11.EndOfMessage())
            self._done()

    async def ready(self, _stream: int) -> None:
        """Waits until the client has taken what was sent."""
        await self._connection.writable.wait()

    def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._connection.transport.write(data)

    def _done(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        if self._h11.our_state is h11.MUST_CLOSE or self._h11.our_state is h11.CLOSED:
            self._connection.close()
            return
        self._h11.start_next_cycle()
        self._connection.soon(self._advance)

    # Misdeeds ------------------------------------------------------------------------------------------

    def misbehave(self, _stream: int, outcome: str) -> None:
        """HTTP/1.1 knows two: a polite `Connection: close`, and cutting the connection."""
        if outcome == "drain":
            self._closing = True
        else:
            self._connection.transport.abort()

    def leave(self, _last: int) -> None:
        """Closes after the answer under way."""
        self._closing = True
        if self._exchange is None:
            self._connection.close()
