"""Servers that a client may have to leave, and a stopwatch that knows what the machine itself lost."""

import asyncio
import contextlib
import socket
import ssl
import threading

import attrs
from faults.server import FaultServer, ServerConfig, black_hole, refused_port
from support.context import CONTEXT

from moengage_personalize import AsyncPersonalizeClient, BatchPolicy

STUCK = "stuck.invalid"


class Stopwatch:
    """Seconds on the wall, less those in which the event loop could not run.

    `async with Stopwatch() as watch: ...`, then `watch.took`.
    """

    async def __aenter__(self):
        self._clock = asyncio.get_running_loop().time
        self.lost = 0.0
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        self._began = self._clock()
        return self

    async def __aexit__(self, *_):
        self.wall = self._clock() - self._began
        self.took = self.wall - self.lost
        self._task.cancel()

    async def _watch(self):
        while True:
            before = self._clock()
            await asyncio.sleep(0.005)
            late = self._clock() - before - 0.005
            self.lost += late if late > 0.01 else 0


class Network:
    """What is on the other side; `serving` yields its URL."""

    async def prepare(self, client):
        """Does to an open client what makes the matter worse."""


@attrs.frozen
class Behaviour(Network):
    """A way to misbehave: how the server greets, and what it does to each request."""

    path: str = ""
    greeting: str = "http2"
    alpn: tuple[str, ...] = ("h2",)

    @contextlib.contextmanager
    def serving(self, certificates):
        config = ServerConfig(certificates=str(certificates.directory), greeting=self.greeting, alpn=self.alpn)
        with FaultServer(config) as server:
            yield server.url + self.path


class Refusing(Network):
    @contextlib.contextmanager
    def serving(self, certificates):
        yield f"https://localhost:{refused_port()}"


class NeverAccepting(Network):
    @contextlib.contextmanager
    def serving(self, certificates):
        with black_hole() as port:
            yield f"https://127.0.0.1:{port}"


class SilentHttp1(Network):
    """Takes connections in cleartext, where HTTP/1.1 is spoken, and never says a word."""

    @contextlib.contextmanager
    def serving(self, certificates):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()  # the kernel accepts
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class StuckResolver(Network):
    @contextlib.contextmanager
    def serving(self, certificates):
        yield f"https://{STUCK}"


class NeverReading(Network):
    """HTTP/2 with windows for gigabytes and a socket that nobody reads."""

    @contextlib.contextmanager
    def serving(self, certificates):
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.settings import SettingCodes

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.chain(), certificates.key())
        context.set_alpn_protocols(["h2"])
        over = threading.Event()

        greeting = H2Connection(H2Configuration(client_side=False))
        greeting.initiate_connection()
        greeting.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        greeting.increment_flow_control_window(2**30)
        hello = greeting.data_to_send()

        def serve(listener):
            with contextlib.ExitStack() as stack:
                for _ in range(2):
                    with contextlib.suppress(OSError):
                        sock = stack.enter_context(context.wrap_socket(listener.accept()[0], server_side=True))
                        sock.sendall(hello)
                over.wait()

        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.settimeout(10)
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            try:
                yield f"https://localhost:{listener.getsockname()[1]}"
            finally:
                over.set()
                thread.join()

    async def prepare(self, client):
        """Loopback takes megabytes from whoever sends; a real network does not."""
        await client.warm_up()
        for connection in client._transport._pool._open:
            connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


BEHAVIOURS = {
    "refuses connections": Refusing(),
    "never accepts": NeverAccepting(),
    "hangs in TLS": Behaviour(greeting="stalled_handshake"),
    "hangs after TLS": Behaviour(greeting="silent"),
    "hangs after a request": Behaviour("/hang"),
    "hangs in HTTP/1.1": SilentHttp1(),
    "never reads": NeverReading(),
    "gives no credit": Behaviour("/withhold"),
    "answers 503 for ever": Behaviour("/status~code.503"),
    "answers 503, come back in a minute": Behaviour("/status~code.503~retry.60"),
    "answers 401 for ever": Behaviour("/status~code.401"),
    "answers 400 for ever": Behaviour("/status~code.400"),
    "drips a body": Behaviour("/drip-body~n.1000000~ms.20"),
    "drips headers": Behaviour("/drip-headers~ms.50"),
    "says GOAWAY to every request": Behaviour("/goaway~times.1000000~last.zero"),
    "says GOAWAY and answers nothing": Behaviour("/goaway~times.1000000~last.this~ms.3600000"),
    "refuses every stream": Behaviour("/refuse~times.1000000"),
    "closes under every request": Behaviour("/close"),
    "greets with garbage": Behaviour(greeting="garbage"),
    "closes at once": Behaviour(greeting="close"),
    "resolver that never answers": StuckResolver(),
}


@contextlib.contextmanager
def resolver_stuck_for(host, monkeypatch):
    """`getaddrinfo` of this host returns only when the context is left."""
    released, resolve = threading.Event(), socket.getaddrinfo

    def stuck(name, *rest, **options):
        if name in (host, host.encode()):
            released.wait(20)
            raise socket.gaierror
        return resolve(name, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    try:
        yield
    finally:
        released.set()


def client_of(base_url, certificates, **options):
    options.setdefault("batching", BatchPolicy(linger=0.01, max_bytes=16_384))
    return AsyncPersonalizeClient(
        "DEMO_WORKSPACE", "demo-key", base_url=base_url, ssl_context=certificates.client_context(), **options
    )


def track(client, count, prefix="customer"):
    """Reports events; all must be accepted."""
    for number in range(count):
        assert client.track_click(CONTEXT, customer_id=f"{prefix}-{number}", b_id=str(number)) == "accepted"
