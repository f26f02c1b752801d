"""The floor: `h2` driven bare on an asyncio protocol, as well as it can be written without doing anything
that a client must.

No deadlines, no cancellation, no resets, no GOAWAY, no limits, no liveness, no reconnecting: one connection,
streams up to the server's limit, one write for all requests of a turn of the loop, flow control as the
protocol demands it. What a transport costs beyond this is the price of what it does; what it costs less is
what it does better.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Self
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.settings import SettingCodes

Headers = list[tuple[str, str]]


class BareH2(asyncio.Protocol):
    """`await (await BareH2.connect(url, context)).post(headers, body)`: status and body."""

    def __init__(self) -> None:
        self._h2 = H2Connection(
            H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        )
        self._answers: dict[int, tuple[asyncio.Future[tuple[int, bytes]], bytearray]] = {}
        self._status: dict[int, int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._flushing = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._prefix: Headers = []

    @classmethod
    async def connect(cls, url: str, context: ssl.SSLContext) -> Self:
        parts = urlsplit(url)
        context.set_alpn_protocols(["h2"])
        _, protocol = await asyncio.get_running_loop().create_connection(
            cls, parts.hostname or "", parts.port or 443, ssl=context
        )
        protocol._prefix = [
            (":method", "POST"),
            (":authority", parts.netloc),
            (":scheme", "https"),
            (":path", parts.path),
        ]
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20, SettingCodes.ENABLE_PUSH: 0})
        self._h2.increment_flow_control_window(1 << 24)
        self._flush()

    async def post(self, headers: Headers, body: bytes) -> tuple[int, bytes]:
        while len(self._answers) >= self._h2.remote_settings.max_concurrent_streams:
            place: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(place)
            await place
        stream_id = self._h2.get_next_available_stream_id()
        answer: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._answers[stream_id] = answer, bytearray()
        self._h2.send_headers(stream_id, [*self._prefix, *headers, ("content-length", str(len(body)))])
        self._h2.send_data(stream_id, body, end_stream=True)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        self._flushing = False
        if data := self._h2.data_to_send():
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            match event:
                case ResponseReceived(stream_id=stream_id, headers=headers):
                    self._status[stream_id] = int(next(iter(headers))[1])
                case DataReceived(stream_id=stream_id, data=chunk, flow_controlled_length=length):
                    self._answers[stream_id][1].extend(chunk)
                    self._h2.acknowledge_received_data(length, stream_id)
                case StreamEnded(stream_id=stream_id):
                    answer, body = self._answers.pop(stream_id)
                    answer.set_result((self._status.pop(stream_id), bytes(body)))
                    if self._waiting:
                        self._waiting.popleft().set_result(None)
                case _:
                    pass
        self._flush()

    async def close(self) -> None:
        self._transport.close()
        await asyncio.sleep(0)
