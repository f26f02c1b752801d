"""One request on its way through an ASGI application, seen from the connection that carries it.

Theory: a connection hands a whole request over and gets ASGI messages back; `Wire` is all that an
exchange needs to know of HTTP. A stream that is gone takes no more messages: what the application still
says is dropped.
"""

import asyncio
import logging
from typing import Any, Protocol

from moengage_personalize.emulator._asgi import EXTENSION, Message

logger = logging.getLogger("moengage_personalize.emulator")

Headers = list[tuple[bytes, bytes]]


class Wire(Protocol):
    """What a connection does for one of its streams."""

    def start(self, stream: int, status: int, headers: Headers, body: bytes, *, end: bool) -> None: ...
    def more(self, stream: int, body: bytes, *, end: bool) -> None: ...
    async def ready(self, stream: int) -> None: ...
    def misbehave(self, stream: int, outcome: str) -> None: ...


class Exchange:
    """One request and its answer."""

    __slots__ = ("_body", "_gone", "_head", "_wire", "closed", "stream")

    def __init__(self, wire: Wire, stream: int, body: bytes) -> None:
        self._wire = wire
        self._body: bytes | None = body
        self._head: Message | None = None
        self._gone: asyncio.Event | None = None
        self.stream = stream
        self.closed = False

    def close(self) -> None:
        """The stream is gone."""
        self.closed = True
        if self._gone is not None:
            self._gone.set()

    async def receive(self) -> Message:
        """ASGI: the whole body at once, then nothing until the client leaves."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.closed:
            self._gone = asyncio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI: a piece of the answer, or a misdeed."""
        if self.closed:
            return
        kind = message["type"]
        if kind == "http.response.start":
            self._head = message
        elif kind == "http.response.body":
            body, end = message.get("body", b""), not message.get("more_body", False)
            if self._head is not None:
                head, self._head = self._head, None
                self._wire.start(self.stream, head["status"], head["headers"], body, end=end)
            else:
                self._wire.more(self.stream, body, end=end)
            if not end:
                await self._wire.ready(self.stream)
        else:
            self._wire.misbehave(self.stream, kind.removeprefix("emulator."))

    async def run(self, app: Any, scope: Message) -> None:
        """Runs the application; an error of its own resets the stream and is logged."""
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            logger.exception("the application failed")
            if not self.closed:
                self._wire.misbehave(self.stream, "reset")


def scope_of(
    version: str, method: str, target: bytes, headers: Headers, scheme: str, client: Any, server: Any
) -> Message:
    """The ASGI scope of one request."""
    path, _, query = target.partition(b"?")
    text = path.decode("latin-1")
    if "%" in text:
        from urllib.parse import unquote

        text = unquote(text)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": version,
        "method": method,
        "scheme": scheme,
        "path": text,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
        "extensions": {EXTENSION: {}},
    }
