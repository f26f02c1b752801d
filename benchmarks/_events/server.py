"""A server that accepts everything at once, on HTTP/2 and HTTP/1.1 over TLS, and counts what it was given.

It is Granian (Rust), so that it is never the bottleneck; its own CPU time is in its statistics, as proof.
`target` is the application; `Server` is what a benchmark starts.
"""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCEPTED = b'{"status":"success","message":"Your request has been accepted and will be processed soon."}'
IDENTITY = {  # where each contender's events have the identity that its SDK gave them
    "/v1/experiences/events": re.compile(rb'"moe_event_uuid":"([^"]+)"'),
    "/v1/batch": re.compile(rb'"messageId": "([^"]+)"'),
    "/batch/": re.compile(rb'"uuid": "([^"]+)"'),
    "/2/httpapi": re.compile(rb'"insert_id": "([^"]+)"'),
    "/bulk": re.compile(rb'"metricValue":(\d+)'),
}
REPLY = {"/v1/experiences/events": ACCEPTED}
OTHERWISE = b'{"code":200,"status":"Ok","success":true}'
HEADERS = [("content-type", "application/json")]


class _Ledger:
    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.clear()

    def clear(self):
        self.seen = set()
        self.events = self.requests = self.body_bytes = 0
        self.spoken = {}
        self.cpu = time.process_time()

    def enter(self, scope, pattern, body):
        found = pattern.findall(body)
        self.seen.update(map(hash, found))
        self.events += len(found)
        self.requests += 1
        self.body_bytes += len(body)
        spoken = f"HTTP/{scope.http_version}"
        self.spoken[spoken] = self.spoken.get(spoken, 0) + 1

    def stats(self):
        return {
            "events": self.events,
            "unique": len(self.seen),
            "requests": self.requests,
            "body_bytes": self.body_bytes,
            "spoken": self.spoken,
            "cpu": time.process_time() - self.cpu,
        }


_ledger = None


async def target(scope, protocol):
    global _ledger
    if _ledger is None:
        _ledger = _Ledger()
    body = await protocol()
    if pattern := IDENTITY.get(scope.path):
        if not _ledger.gate.is_set():
            await _ledger.gate.wait()
        _ledger.enter(scope, pattern, body)
        protocol.response_bytes(200, HEADERS, REPLY.get(scope.path, OTHERWISE))
        return
    match scope.path:
        case "/-/stats":
            protocol.response_bytes(200, HEADERS, json.dumps(_ledger.stats()).encode())
        case "/-/clear":
            _ledger.clear()
            protocol.response_bytes(200, HEADERS, b"{}")
        case "/-/hold":
            _ledger.gate.clear()
            protocol.response_bytes(200, HEADERS, b"{}")
        case "/-/release":
            _ledger.gate.set()
            protocol.response_bytes(200, HEADERS, b"{}")
        case _:
            protocol.response_bytes(404, HEADERS, b"{}")


class Server:
    """The server, in a process of its own, with a certificate authority made on the spot."""

    def __enter__(self):
        import trustme

        self._directory = tempfile.TemporaryDirectory(prefix="bench-events-")
        directory = Path(self._directory.name)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.ca = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        certificate.private_key_pem.write_to_path(directory / "key.pem")
        for place, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(directory / "cert.pem", append=place > 0)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"https://localhost:{self.port}"
        self._context = ssl.create_default_context(cafile=self.ca)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "_events.server", str(self.port), str(directory)],
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        self._await()
        return self

    def _await(self):
        for _ in range(100):
            try:
                self.ask("stats")
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError("the server did not start")

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._directory.cleanup()

    def ask(self, what):
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=10, context=self._context)
        try:
            connection.request("GET", f"/-/{what}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def stats_after(self, events, patience=3.0):
        """The statistics, once that many events have arrived, or patience ends."""
        until = time.monotonic() + patience
        while (stats := self.ask("stats"))["events"] < events and time.monotonic() < until:
            time.sleep(0.05)
        return stats


def main():
    from granian import Granian
    from granian.constants import Interfaces

    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    Granian(
        "_events.server:target",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.RSGI,
        workers=1,
        log_enabled=False,
        websockets=False,
        ssl_cert=directory / "cert.pem",
        ssl_key=directory / "key.pem",
    ).serve()


if __name__ == "__main__":
    main()
