"""One accepted transport: speaks what ALPN chose, and runs the application for each request.

Invariant: the ledger's count of open connections is the number of these objects between `connection_made` and
`connection_lost`.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from moengage_personalize.emulator._asgi import Message
from moengage_personalize.emulator._exchange import Exchange
from moengage_personalize.emulator._http1 import Http1
from moengage_personalize.emulator._http2 import Http2

if TYPE_CHECKING:
    from moengage_personalize.emulator._server import Server


class Connection(asyncio.Protocol):
    """One connection of a `Server`."""

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.ledger = server.emulator.ledger
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.writable = asyncio.Event()
        """Set while the client takes what is sent."""
        self.writable.set()
        self.kinds: set[bool] = set()
        """Whether its requests were for MoEngage's endpoints: `{False}` is a live page and nothing else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: a client is here, its handshake done."""
        self.transport = transport  # type: ignore[assignment]  # asyncio promises what TCP and TLS give
        self.client = transport.get_extra_info("peername")
        self.server = transport.get_extra_info("sockname")
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._wire: Http1 | Http2 = Http2(self, self._server.max_streams)
        else:
            self._wire = Http1(self, "http" if tls is None else "https")
        self._server.connections.add(self)
        self.ledger.connection_opened()

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes."""
        self._wire.received(data)

    def pause_writing(self) -> None:
        """Asyncio: the client does not read as fast as we write."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Asyncio: it has caught up."""
        self.writable.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """Asyncio: the client, or we, have left."""
        self._server.connections.discard(self)
        self.ledger.connection_closed()
        self.writable.set()
        self._wire.lost()

    def soon(self, call: Callable[[], None]) -> None:
        """Calls in the next turn of the loop."""
        self._loop.call_soon(call)

    def run(self, exchange: Exchange, scope: Message) -> None:
        """Runs the application for one request, unless an outage forbids it."""
        is_api = scope["path"].startswith("/v1/")
        self.kinds.add(is_api)
        if is_api and self._server.is_out:
            self.transport.abort()
            return
        task = self._loop.create_task(exchange.run(self._server.app, scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def close(self) -> None:
        """Ends it, once: to close a TLS transport twice breaks its `abort` in Python 3.11.0 to 3.11.2."""
        if not self.transport.is_closing():
            self.transport.close()

    def leave(self) -> None:
        """Ends politely."""
        self._wire.leave(2**31 - 1)
