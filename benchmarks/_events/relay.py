"""Passes bytes between a contender and the server, and counts them: TLS, HTTP and all, both ways."""

import asyncio
from threading import Thread


class Relay:
    """Listens on a port of its own, in a thread of its own. For counting, not for timing."""

    def __init__(self, port):
        self._port = port
        self._loop = asyncio.new_event_loop()
        self.up = self.down = 0

    def __enter__(self):
        Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(5)
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def take(self):
        """Bytes since the last call: up, down."""
        taken, self.up, self.down = (self.up, self.down), 0, 0
        return taken

    async def _accept(self, reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(self._pass(reader, back, "up"), self._pass(there, writer, "down"))
        except OSError:
            pass

    async def _pass(self, reader, writer, way):
        try:
            while data := await reader.read(65_536):
                setattr(self, way, getattr(self, way) + len(data))
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
