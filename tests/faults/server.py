"""An HTTP/2 server that misbehaves on request, and counts what it sees.

It terminates TLS by itself, over memory BIOs, because the questions are about bytes: did a request's byte
arrive before the handshake was over, or at all? `Seen` answers on the server's side. HTTP/2 is `h2` in the
server's role, so a client that breaks the protocol is caught (`Seen.violations`); faults that `h2` would
refuse to commit (a GOAWAY followed by more work, malformed frames) go out as raw bytes behind its back. What
a path does is in `behaviours`.

`FaultServer` runs in a thread of the test's process: cheap, and its counts are plain attributes.
`FaultServerProcess` runs the same in a process of its own, for tests that measure time and must not share the
interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

import attrs
import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame

from faults.certificates import Certificates


@attrs.frozen(kw_only=True)
class ServerConfig:
    """How the server greets; what it does later is up to the path of each request."""

    certificates: str | None = None  # directory of PEM files; None is cleartext with prior knowledge
    certificate: str = "good"
    alpn: tuple[str, ...] = ("h2",)
    tls_maximum: Literal["TLSv1_1", "TLSv1_2", "TLSv1_3"] = "TLSv1_3"
    greeting: Literal["http2", "garbage", "http1", "silent", "stalled_handshake", "close"] = "http2"
    max_concurrent_streams: int = 100
    initial_window: int = 65_535
    header_table_size: int = 4_096
    credit: bool = True  # give flow-control credit back for what was received

    def ssl_context(self) -> ssl.SSLContext | None:
        if self.certificates is None:
            return None
        pems = Certificates(Path(self.certificates))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.tls_maximum == "TLSv1_1":
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # TLS 1.1 is what is asked for
            context.maximum_version = ssl.TLSVersion[self.tls_maximum]
        context.load_cert_chain(pems.chain(self.certificate), pems.key(self.certificate))
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


@attrs.define
class Seen:
    """What reached the server. All counts are totals since it started."""

    accepted: int = 0
    open: int = 0
    handshakes: int = 0
    failed_handshakes: int = 0
    raw_bytes: int = 0
    plaintext_bytes: int = 0  # decrypted, so after a finished handshake; in cleartext, every byte
    streams: int = 0
    resets: int = 0
    reset_codes: Counter[int] = attrs.field(factory=Counter)
    pings: int = 0
    goaways: int = 0
    body_bytes: int = 0
    concurrent: int = 0
    most_concurrent: int = 0
    requests: Counter[str] = attrs.field(factory=Counter)  # by `cell=`, else by path
    completed: Counter[str] = attrs.field(factory=Counter)  # requests whose body arrived whole
    http1_requests: int = 0
    violations: list[str] = attrs.field(factory=list)

    @classmethod
    def from_json(cls, text: str) -> Self:
        raw = json.loads(text)
        for name in ("requests", "completed"):
            raw[name] = Counter(raw[name])
        raw["reset_codes"] = Counter({int(code): count for code, count in raw["reset_codes"].items()})
        return cls(**raw)


class Exchange:
    """One request as a behaviour sees it, and the ways to answer it."""

    def __init__(self, connection: Http2Side, stream_id: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.headers = headers
        path, _, query = headers[":path"].partition("?")
        # A client that adds a path of its own wishes in the first segment: `/status~code.503/v1/experiences/events`.
        first, *parameters = path.split("/")[1].split("~")
        self.path = f"/{first}"
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        self.query.update(pair.partition(".")[::2] for pair in parameters)
        self.body = bytearray()
        self.whole = asyncio.Event()
        self.credit = connection.config.credit
        self.task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Under which this request is counted."""
        return self.query.get("cell", self.path)

    def number(self, key: str, default: int) -> int:
        return int(self.query.get(key, default))

    def seconds(self, key: str, default: int = 0) -> float:
        return self.number(key, default) / 1000

    def start(self, status: int = 200, *headers: tuple[str, str], end: bool = False) -> None:
        self.connection.send(
            lambda h2: h2.send_headers(self.stream_id, [(":status", str(status)), *headers], end_stream=end)
        )

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """DATA, as fast as the client's window allows."""
        view = memoryview(data)
        while True:
            room = await self.connection.room(self.stream_id, len(view))
            piece, view = view[:room], view[room:]
            self.connection.data(self.stream_id, bytes(piece), end=end and not view)
            if not view:
                return

    async def answer(self, status: int = 200, body: bytes = b"{}", *headers: tuple[str, str]) -> None:
        self.start(status, ("content-type", "application/json"), ("content-length", str(len(body))), *headers)
        await self.send(body, end=True)

    def reset(self, code: int) -> None:
        self.connection.send(lambda h2: h2.reset_stream(self.stream_id, code))


class Http2Side:
    """One HTTP/2 connection in the server's role."""

    def __init__(self, config: ServerConfig, seen: Seen, write: Callable[[bytes], None], link: Link) -> None:
        self.config = config
        self.seen = seen
        self.link = link
        self.exchanges: dict[int, Exchange] = {}
        self.highest_seen = 0
        self.ignore_above: int | None = None  # a GOAWAY's last id: later streams are not even looked at
        self._write = write
        self._held: list[bytes] | None = None
        self._window = asyncio.Event()
        self.settled = asyncio.Event()  # the client has acknowledged our latest SETTINGS
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: config.max_concurrent_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: config.initial_window,
                SettingCodes.HEADER_TABLE_SIZE: config.header_table_size,
            },
        )
        self.send(lambda h2: h2.initiate_connection())

    def send(self, command: Callable[[H2Connection], object]) -> None:
        """Run one `h2` command and write its bytes; a stream that the client has given up is not an error
        here.
        """
        with contextlib.suppress(ProtocolError):
            command(self.h2)
        self.flush()

    def data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        self.send(lambda h2: h2.send_data(stream_id, data, end_stream=end))

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.raw(data)

    def raw(self, data: bytes) -> None:
        """Bytes behind the back of `h2`."""
        if self._held is not None:
            self._held.append(data)
        else:
            self._write(data)

    def frame(self, frame: Frame) -> None:
        self.raw(frame.serialize())

    async def drip(self, data: bytes, pause: float) -> None:
        """One byte at a time; everything else on this connection waits behind it, as on a slow line."""
        self._held = []
        for byte in data:
            self._write(bytes([byte]))
            await asyncio.sleep(pause)
        held, self._held = self._held, None
        for waiting in held:
            self._write(waiting)

    async def room(self, stream_id: int, wanted: int) -> int:
        while True:
            window = self.h2.local_flow_control_window(stream_id)
            if window > 0 or not wanted:
                return min(window, wanted, self.h2.max_outbound_frame_size)
            self._window.clear()
            await self._window.wait()

    def receive(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except H2Error as error:
            self.seen.violations.append(repr(error))
            self.flush()
            self.link.close()
            return
        for event in events:
            self._on(event)
        self.flush()

    def _on(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream_id)):
                self._begin(stream_id, {str(name): str(value) for name, value in event.headers})
            case DataReceived(stream_id=int(stream_id)):
                self._data(stream_id, event.data or b"", event.flow_controlled_length or 0)
            case StreamEnded(stream_id=int(stream_id)):
                if exchange := self.exchanges.get(stream_id):
                    self.seen.completed[exchange.name] += 1
                    exchange.whole.set()
            case StreamReset(stream_id=int(stream_id)):
                self.seen.resets += 1
                self.seen.reset_codes[int(event.error_code or 0)] += 1
                exchange = self.exchanges.get(stream_id)
                if exchange is not None and exchange.task is not None:
                    exchange.task.cancel()
            case PingReceived():
                self.seen.pings += 1
            case ConnectionTerminated():
                self.seen.goaways += 1
            case SettingsAcknowledged():
                self.settled.set()
            case _:
                self._window.set()  # WINDOW_UPDATE and SETTINGS may have widened it

    def _begin(self, stream_id: int, headers: dict[str, str]) -> None:
        from faults.behaviours import behave

        if self.ignore_above is not None and stream_id > self.ignore_above:
            return
        self.highest_seen = stream_id
        exchange = self.exchanges[stream_id] = Exchange(self, stream_id, headers)
        self.seen.streams += 1
        self.seen.requests[exchange.name] += 1
        self.seen.concurrent += 1
        self.seen.most_concurrent = max(self.seen.most_concurrent, self.seen.concurrent)
        exchange.task = asyncio.get_running_loop().create_task(behave(exchange))
        exchange.task.add_done_callback(lambda task: self._finish(stream_id, task))

    def _finish(self, stream_id: int, task: asyncio.Task[None]) -> None:
        self.exchanges.pop(stream_id, None)
        self.seen.concurrent -= 1
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, H2Error):
            self.seen.violations.append(f"the server itself failed: {error!r}")

    def _data(self, stream_id: int, data: bytes, flow_controlled: int) -> None:
        self.seen.body_bytes += len(data)
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            exchange.body += data
        if flow_controlled and (exchange.credit if exchange is not None else self.config.credit):
            with contextlib.suppress(ProtocolError):
                self.h2.acknowledge_received_data(flow_controlled, stream_id)

    def lost(self) -> None:
        for exchange in list(self.exchanges.values()):
            if exchange.task is not None:
                exchange.task.cancel()


class Http1Side:
    """The least HTTP/1.1 that a fallback needs: every request is answered with 200."""

    def __init__(self, seen: Seen, write: Callable[[bytes], None]) -> None:
        self._seen = seen
        self._write = write
        self._h11 = h11.Connection(h11.SERVER)

    def receive(self, data: bytes) -> None:
        self._h11.receive_data(data)
        while (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            match event:
                case h11.Request():
                    self._seen.http1_requests += 1
                    self._seen.requests[event.target.decode().partition("?")[0]] += 1
                case h11.EndOfMessage():
                    head = h11.Response(status_code=200, headers=[("content-length", "2")])
                    self._write(self._h11.send(head) or b"")
                    self._write(self._h11.send(h11.Data(data=b"{}")) or b"")
                    self._write(self._h11.send(h11.EndOfMessage()) or b"")
                    self._h11.start_next_cycle()
                case h11.ConnectionClosed():
                    return

    def lost(self) -> None: ...


class Link(asyncio.Protocol):
    """One TCP connection: TLS, then whoever speaks above it."""

    def __init__(self, server: _Engine) -> None:
        self.server = server
        self._config = server.config
        self._seen = server.seen
        self._shaken = server.context is None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if server.context is not None:
            self._tls = server.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.side: Http2Side | Http1Side | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._seen.accepted += 1
        self._seen.open += 1
        self.server.links.add(self)
        if self._shaken:
            self._start(None)

    def connection_lost(self, _: Exception | None) -> None:
        self._seen.open -= 1
        self._seen.failed_handshakes += not self._shaken
        self.server.links.discard(self)
        if self.side is not None:
            self.side.lost()

    def data_received(self, raw: bytes) -> None:
        self._seen.raw_bytes += len(raw)
        if self._config.greeting == "stalled_handshake":
            return
        plain = raw if self._tls is None else self._decrypt(self._tls, raw)
        self._seen.plaintext_bytes += len(plain)
        if plain and self.side is not None and not self.transport.is_closing():
            self.side.receive(plain)

    def _decrypt(self, tls: ssl.SSLObject, raw: bytes) -> bytes:
        self._incoming.write(raw)
        plain = bytearray()
        try:
            if not self._shaken:
                tls.do_handshake()
                self._shaken = True
                self._seen.handshakes += 1
                self._start(tls.selected_alpn_protocol())
            while chunk := tls.read(65_536):
                plain += chunk
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError:
            self._drain()
            self.transport.close()
        self._drain()
        return bytes(plain)

    def _drain(self) -> None:
        if data := self._outgoing.read():
            self.transport.write(data)

    def write(self, plain: bytes) -> None:
        if self.transport.is_closing() or not plain:
            return
        if self._tls is None:
            self.transport.write(plain)
            return
        self._tls.write(plain)
        self._drain()

    def _start(self, alpn: str | None) -> None:
        match self._config.greeting:
            case "garbage":
                self.write(b"\x00\xff" * 600)
            case "http1":
                self.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            case "close":
                self.close()
            case "silent" | "stalled_handshake":
                pass
            case "http2" if self._tls is not None and alpn != "h2":
                self.side = Http1Side(self._seen, self.write)
            case "http2":
                self.side = Http2Side(self._config, self._seen, self.write, self)

    def close(self) -> None:
        """End the connection with a FIN (and a close_notify before it)."""
        if self._tls is not None and self._shaken:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._drain()
        self.transport.close()

    def abort(self) -> None:
        """End it with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class _Engine:
    """The accepting side, bound to one event loop."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.context = config.ssl_context()
        self.seen = Seen()
        self.links: set[Link] = set()
        self.keys: Counter[str] = Counter()  # memory of behaviours that count their visits
        self._listener: asyncio.Server | None = None

    async def listen(self, port: int = 0) -> int:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Link(self), "127.0.0.1", port, backlog=1024)
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        self.stop_listening()
        for link in list(self.links):
            link.transport.abort()
        while self.links:
            await asyncio.sleep(0.001)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class FaultServer:
    """The server in a thread of this process: `with FaultServer(config) as server: ... server.url,
    server.seen`.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.engine = _Engine(config)
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.SelectorEventLoop(selectors.DefaultSelector())
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.port = self._loop.run_until_complete(self.engine.listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self.engine.close())
        self._loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def seen(self) -> Seen:
        return self.engine.seen

    @property
    def url(self) -> str:
        return f"{'http' if self.config.certificates is None else 'https'}://localhost:{self.port}"

    def close_connections(self) -> None:
        """End every connection between two turns of the server, and wait until that is done."""
        done = threading.Event()

        def close() -> None:
            for link in list(self.engine.links):
                link.close()
            done.set()

        self._loop.call_soon_threadsafe(close)
        done.wait()


class FaultServerProcess:
    """The same server in a process of its own; `seen` is a snapshot, asked for over a pipe."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        tests = Path(__file__).parent.parent  # put on its path: `make` runs us with PYTHONSAFEPATH, where -m does not
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults", json.dumps(attrs.asdict(self.config))],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tests), os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.port = int(self._ask(None))
        except BaseException:
            self.__exit__()  # its pipes would be another test's warning
            raise
        return self

    def _ask(self, command: str | None) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        if command is not None:
            process.stdin.write(command + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the server's process died"
        return answer

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def seen(self) -> Seen:
        return Seen.from_json(self._ask("seen"))

    @property
    def url(self) -> str:
        return f"{'http' if self.config.certificates is None else 'https'}://localhost:{self.port}"

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        process.communicate(timeout=10)  # the end of its input is the end of it


def serve(config: ServerConfig) -> None:
    """What `python -m faults` runs: print the port, then answer every line with the counts."""

    async def main() -> None:
        engine = _Engine(config)

        def say(line: str) -> None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

        say(str(await engine.listen()))
        for_lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(for_lines), sys.stdin)
        while await for_lines.readline():
            say(json.dumps(attrs.asdict(engine.seen)))
        await engine.close()

    asyncio.run(main())


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose SYNs are swallowed: a listener that never accepts, with its backlog already full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def refused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
