"""Node's own HTTP/2 server, which is nghttp2: the one that ends a connection over too many resets. It counts
in `node_server.mjs`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from faults.certificates import Certificates
from faults.external import missing


@attrs.frozen
class Node:
    """A running server; `seen` asks it for its counts."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def seen(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        counts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return counts


def version() -> str:
    program = shutil.which("node")
    return subprocess.check_output([program, "--version"], text=True).strip() if program else "none"


@contextlib.contextmanager
def node(certificates: Certificates, *, max_concurrent_streams: int = 128) -> Iterator[Node]:
    program = shutil.which("node")
    if program is None:
        missing("node", "apt-get install nodejs")
        return
    settings = json.dumps({"maxConcurrentStreams": max_concurrent_streams})
    script = Path(__file__).with_name("node_server.mjs")
    with subprocess.Popen(
        [program, script, certificates.chain(), certificates.key(), settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Node(int(process.stdout.readline()), process)
        process.communicate(timeout=10)
