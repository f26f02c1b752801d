"""A server of our own for the emulator, over TLS, with HTTP/2 and HTTP/1.1 chosen by ALPN.

Theory: no kept ASGI server lets a test say GOAWAY, reset one stream or refuse connections for ten
seconds, and those are the failures that a client has to be shown. `h2` and `h11` do the protocols,
asyncio (or uvloop) the rest.

Invariant: leaving `serve` leaves nothing behind: no socket, no task, no file.
"""

import asyncio
import contextlib
import functools
import math
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from moengage_personalize.emulator._connection import Connection
from moengage_personalize.emulator._tls import Authority

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator

_RETRY = 0.05  # seconds between two tries to get the port back


class Server:
    """A running emulator; made by `serve`.

    Attributes:
        emulator: What it serves.
        base_url: Where, for `MOENGAGE_PERSONALIZE_BASE_URL`.
        ca_path: The authority's certificate, for `SSL_CERT_FILE`; None without TLS.
        page_url: Where a browser finds the live page.
    """

    def __init__(self, emulator: "Emulator", host: str, authority: Authority | None, max_streams: int) -> None:
        self.emulator = emulator
        self.app = emulator.app
        self.host = host
        self.max_streams = max_streams
        self.base_url = ""
        self.page_url = ""
        self.ca_path: Path | None = None
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_out = False
        self._authority = authority
        self._tls = None if authority is None else authority.server_context()
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._page: asyncio.Server | None = None
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Server {self.base_url} {len(self.connections)} connections{' OUT' if self.is_out else ''}>"

    def ssl_context(self) -> ssl.SSLContext:
        """A new client context that trusts this server and nobody else."""
        if self._authority is None:
            raise RuntimeError("this server speaks plain HTTP")
        return self._authority.client_context()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), self.host, self._port, ssl=self._tls, reuse_address=True
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - not bound
        shown = f"[{shown}]" if ":" in shown else shown
        self.base_url = f"{'http' if self._tls is None else 'https'}://{shown}:{self._port}"
        self.page_url = self.page_url or f"{self.base_url}/"

    async def _listen_for_page(self, port: int) -> None:
        """A second door without TLS, so that a browser need not trust the authority to see the live page."""
        self._page = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", port)
        self.page_url = f"http://127.0.0.1:{self._page.sockets[0].getsockname()[1]}/"

    async def _watch(self) -> None:
        """Closes and opens the door as outages begin and end."""
        troubles, effects = self.emulator.troubles, self.emulator.effects
        while True:
            now = effects.now()
            out = troubles.outage(now)
            if out and not self.is_out:
                self._go_out()
            elif self.is_out and not out:
                await self._come_back()
            pause = troubles.next_change(effects.now())
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if pause == math.inf else pause + 0.001)

    def _go_out(self) -> None:
        self.is_out = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self.connections):
            if connection.kinds != {False}:  # the live page stays connected, to show what is going on
                connection.transport.abort()

    async def _come_back(self) -> None:
        while True:
            try:
                await self._listen()
            except OSError:
                await asyncio.sleep(_RETRY)
            else:
                self.is_out = False
                return

    def _exports(self) -> dict[str, str]:
        exports = {
            "MOENGAGE_WORKSPACE_ID": self.emulator.workspace_id,
            "MOENGAGE_PERSONALIZE_API_KEY": self.emulator.api_key,
            "MOENGAGE_PERSONALIZE_BASE_URL": self.base_url,
        }
        return exports if self.ca_path is None else {**exports, "SSL_CERT_FILE": str(self.ca_path)}

    @contextlib.asynccontextmanager
    async def _running(self, port: int, page_port: int | None) -> AsyncIterator["Server"]:
        self._port = port
        await self._listen()
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch())
        # a test may ask for trouble from another thread
        self.emulator.troubles.changed = functools.partial(_wake, loop, self._changed)
        try:
            if page_port is not None:
                await self._listen_for_page(page_port)
            self.emulator.exports = self._exports()
            yield self
        finally:
            self.emulator.exports = {}
            self.emulator.troubles.changed = lambda: None
            await self._stop(watch)

    async def _stop(self, watch: asyncio.Task[None]) -> None:
        for listener in (self._listener, self._page):
            if listener is not None:
                listener.close()
        tasks = (watch, *self.tasks)
        for task in tasks:
            task.cancel()
        for connection in tuple(self.connections):
            connection.leave()
        await asyncio.sleep(0)  # one turn, for the GOAWAY to go out
        for connection in tuple(self.connections):
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self.connections:  # noqa: ASYNC110 - connection_lost comes in one of the next turns
            await asyncio.sleep(0)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


@contextlib.asynccontextmanager
async def serve(
    emulator: "Emulator",
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: bool = True,
    page_port: int | None = None,
    ca_path: "str | os.PathLike[str] | None" = None,
    max_streams: int = 250,
) -> AsyncIterator[Server]:
    """Serves an emulator for as long as the context is open, in the running loop (asyncio or uvloop).

    Args:
        emulator: What to serve.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        tls: TLS with an authority made on the spot, HTTP/2 and HTTP/1.1; otherwise plain HTTP/1.1.
        page_port: Also serve without TLS on this port of loopback, for browsers; 0 takes a free one.
        ca_path: Where the authority's certificate is kept, its key beside it, for the next start to use
            again; by default a temporary file without the key.
        max_streams: Concurrent streams that a connection allows.

    Yields:
        The running server.
    """
    kept = None if ca_path is None else Path(ca_path)
    authority = await asyncio.to_thread(Authority.make, host, kept=kept) if tls else None
    server = Server(emulator, host, authority, max_streams)
    with _certificate_file(authority, kept) as path:
        server.ca_path = path
        async with server._running(port, page_port):  # noqa: SLF001 - the other half of this function
            yield server


@contextlib.contextmanager
def _certificate_file(authority: Authority | None, kept: Path | None) -> Iterator[Path | None]:
    """The file that holds the authority's certificate: the caller's, which stays, or a temporary one."""
    if authority is None or kept is not None:
        yield kept if authority is not None else None
        return
    with tempfile.TemporaryDirectory(prefix="moengage-emulator-") as directory:
        path = Path(directory, "ca.pem")
        path.write_bytes(authority.pem)
        yield path
