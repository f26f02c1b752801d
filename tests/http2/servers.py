"""A scriptable HTTP/2 server in a thread of its own, so that clients on any event loop can talk to it."""

import asyncio
import ssl
import threading
from contextlib import contextmanager
from functools import partial

import anyio.to_thread
import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1")


def client_context(authority=AUTHORITY):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def server_context(alpn=("h2",), certificate=CERTIFICATE):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(list(alpn))
    return context


class Server:
    """Paths: `/hang`, `/refuse`, `/refuse-once` and then hang, `/goaway`, `/close`, `/early`, `/echo`; else "ok"."""

    def __init__(self, *, streams=100):
        self.streams = streams
        self.connections = []
        self.paths = []
        self.resets = 0
        self.goodbyes = 0
        self.bytes = 0
        self.origin = ""
        self.tell = threading.Condition()

    def call(self, function, *args):
        """Run something in the server's loop."""
        self.loop.call_soon_threadsafe(function, *args)

    def wait_for(self, condition):
        with self.tell:
            assert self.tell.wait_for(condition, timeout=10), vars(self)

    async def comes(self, condition):
        """Returns when the server has seen what makes the condition true."""
        await anyio.to_thread.run_sync(self.wait_for, condition)

    async def settles(self):
        """Returns when the server's loop has gone round a few times: what had been sent to it by now, it has read."""

        async def turns():
            for _ in range(5):
                await asyncio.sleep(0)

        await anyio.to_thread.run_sync(asyncio.run_coroutine_threadsafe(turns(), self.loop).result)


class Peer(asyncio.Protocol):
    def __init__(self, server):
        self.server = server
        self.paths, self.bodies = {}, {}

    def connection_made(self, transport):
        self.transport = transport
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self.server.streams
        self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        with self.server.tell:
            self.server.connections.append(self)
            self.server.tell.notify_all()
        self.flush()

    def connection_lost(self, error):
        with self.server.tell:
            self.server.connections.remove(self)
            self.server.tell.notify_all()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        server = self.server
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            events = []
        with server.tell:
            server.bytes += len(data)
            for event in events:
                match event:
                    case RequestReceived():
                        self.paths[event.stream_id] = dict(event.headers)[b":path"].decode()
                        self.bodies[event.stream_id] = b""
                        server.paths.append(self.paths[event.stream_id])
                        if self.paths[event.stream_id] == "/early":
                            self.respond(event.stream_id, b"early", status=b"413")
                    case DataReceived():
                        self.bodies[event.stream_id] += event.data
                        if self.paths[event.stream_id] != "/early":
                            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case StreamReset():
                        server.resets += 1
                        self.paths.pop(event.stream_id, None)
                    case ConnectionTerminated():
                        server.goodbyes += 1
                    case StreamEnded():
                        self.act(event.stream_id)
            server.tell.notify_all()
        self.flush()

    def act(self, stream):
        match self.paths.get(stream, "/hang"):
            case "/hang" | "/early":
                pass
            case "/refuse-once" if self.server.paths.count("/refuse-once") > 1:
                pass
            case "/refuse" | "/refuse-once":
                self.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            case "/goaway":
                self.goaway(stream - 2 if stream > 1 else 0)
            case "/close":
                self.transport.abort()
            case "/echo":
                self.respond(stream, self.bodies[stream])
            case _:
                self.respond(stream, b"ok")

    def respond(self, stream, body, status=b"200"):
        self.h2.send_headers(stream, [(b":status", status), (b"content-type", b"text/plain")])
        for at in range(0, len(body), 16_384):
            self.h2.send_data(stream, body[at : at + 16_384])
        self.h2.end_stream(stream)

    def goaway(self, last):
        """By hand: h2's server would say nothing afterwards."""
        self.flush()
        self.transport.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + bytes(4))


@contextmanager
def serving(protocol=None, *, context=None, cleartext=False, **options):
    """A server on loopback; `protocol` makes what speaks, instead of HTTP/2."""
    server = Server(**options)
    started = threading.Event()

    async def main():
        server.loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server.stop = partial(server.loop.call_soon_threadsafe, stop.set)
        tls = None if cleartext else context or server_context()
        made = []

        def make():
            made.append(protocol() if protocol else Peer(server))
            return made[-1]

        listening = await server.loop.create_server(make, "127.0.0.1", 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        server.port = port
        server.origin = f"http://127.0.0.1:{port}" if cleartext else f"https://localhost:{port}"
        started.set()
        await stop.wait()
        for sock in listening.sockets:
            server.loop.remove_reader(sock.fileno())
        for _ in range(3):  # what was accepted just now comes to its transport, which a closed server would refuse
            await asyncio.sleep(0)
        listening.close()
        for each in made:
            if hasattr(each, "transport"):  # its handshake was completed
                each.transport.abort()
        turns = 0  # of the loop, each of which looks at the sockets: a handshake under way ends as its client has gone
        while still_open(listening) and (turns := turns + 1) < 100_000:
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(5)
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)


def still_open(listening):
    """How many connections a server of asyncio's has; from Python 3.13 on it keeps them, where it counted before."""
    return len(listening._clients) if hasattr(listening, "_clients") else listening._active_count


class Silent(asyncio.Protocol):
    """Accepts, and says nothing."""

    def connection_made(self, transport):
        self.transport = transport


class Http1(asyncio.Protocol):
    """As much of HTTP/1.1 as a test needs."""

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        head, separator, body = self.data.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(dict(line.lower().split(b": ") for line in head.split(b"\r\n")[1:]).get(b"content-length", 0))
        if len(body) < length:
            return
        path = head.split()[1]
        self.data = b""
        if path == b"/hang":
            return
        answer = b"x" * 5000 if path == b"/large" else b"one"
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
