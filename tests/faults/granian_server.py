"""Granian (hyper's HTTP/2, in Rust) serving a tiny ASGI application: `/echo` digests the body, anything else
is 200 after `ms`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import attrs

from faults.certificates import Certificates
from faults.external import free_port, missing, running


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    digest, length = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    query = parse_qs(scope["query_string"].decode())
    await asyncio.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    answer = {"length": length, "sha256": digest.hexdigest(), "http": scope["http_version"]}
    body = json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@attrs.frozen
class Granian:
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@contextlib.contextmanager
def granian(certificates: Certificates, directory: Path) -> Iterator[Granian]:
    if importlib.util.find_spec("granian") is None:
        missing("granian", "pip install granian")
    port = free_port()
    command: list[str | Path] = [
        sys.executable, "-m", "granian", "--interface", "asgi", "--http", "2",
        "--host", "127.0.0.1", "--port", str(port), "--no-ws",
        "--ssl-certificate", certificates.chain(), "--ssl-keyfile", certificates.key(),
        "faults.granian_server:application",
    ]  # fmt: skip
    with running(command, port, cwd=Path(__file__).parent.parent, log=directory / "granian.log"):
        yield Granian(port)
