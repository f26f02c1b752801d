"""A TCP relay with toxics, in a thread: what the network does to a connection while both ends believe in it.

The toxics are attributes that may change while connections are open: `latency` (seconds, each way),
`bandwidth` (bytes a second, each way), `slice_bytes` (forward in pieces of this size), `frozen` (connections
opened before `freeze()` forward nothing any more, yet stay open: half-open; or only towards the client, so
that the server still hears and answers), and `reset()` (TCP reset on both sides). A connection made after
`freeze()` is healthy, unless `hole` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal, Self


class Relay:
    """`with Relay(port) as relay: ... relay.port`."""

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.target_port = target_port
        self.port = port
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.slice_bytes: int | None = None
        self.hole = False
        self.accepted = 0
        self.forwarded = 0
        self._frozen: set[asyncio.BaseTransport] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._near: set[asyncio.StreamWriter] = set()  # … of which towards the client
        self._loop = asyncio.SelectorEventLoop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def freeze(self, towards: Literal["both", "client"] = "both") -> None:
        """From now on, what is open forwards nothing (or nothing towards the client), and nobody is told."""
        writers = self._writers if towards == "both" else self._writers & self._near
        self._call(lambda: self._frozen.update(writer.transport for writer in writers))

    def reset(self) -> None:
        """A TCP reset towards both ends of every open connection."""
        self._call(self._reset)

    def _reset(self) -> None:
        for writer in self._writers:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def between_turns() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(between_turns)
        done.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        self._near.add(writer)
        with contextlib.suppress(asyncio.CancelledError):  # which is how the relay ends
            await self._forward(reader, writer)
        await self._close(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.hole:
            await asyncio.Event().wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers.add(far_writer)
        ways = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await self._close(far_writer)

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        self._near.discard(writer)
        self._frozen.discard(writer.transport)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.latency:
                    await asyncio.sleep(self.latency)
                size = self.slice_bytes or len(data)
                for start in range(0, len(data), size):
                    piece = data[start : start + size]
                    if self.bandwidth:
                        await asyncio.sleep(len(piece) / self.bandwidth)
                    if writer.transport in self._frozen:
                        await asyncio.Event().wait()
                    writer.write(piece)
                    self.forwarded += len(piece)
                    await writer.drain()
                    if self.slice_bytes:
                        await asyncio.sleep(0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
