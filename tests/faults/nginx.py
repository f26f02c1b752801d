"""nginx over TLS and HTTP/2: the server of the interop tests and of the benchmarks. Its access log is the
count.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs

from faults.certificates import Certificates
from faults.external import free_port, missing, running

_CONFIGURATION = """
worker_processes 1;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format counted '$connection $connection_requests $status $server_protocol $ssl_session_reused $uri';
    access_log {log};
    default_type application/json;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=1024;
        server_name localhost;
        {directives}
        location / {{ return 200 '{answer}'; }}
        location /file {{ alias {directory}/file.json; }}
        location /upload {{ client_max_body_size 100k; proxy_pass http://127.0.0.1:{sink}/; }}
    }}
    server {{
        listen 127.0.0.1:{sink};
        client_max_body_size 10m;
        access_log off;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""

NOTHING_LOGGED = "off"


def answer_of(size: int) -> str:
    """A JSON document of exactly `size` bytes, shaped like an experience."""
    frame = '{"experiences": {"home": {"payload": {"text": ""}}}}'
    return frame.replace('""', '"' + "x" * (size - len(frame)) + '"')


@attrs.frozen
class Nginx:
    """A running nginx: where it is, and what it has logged."""

    port: int
    directory: Path
    pid: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def lines(self) -> list[list[str]]:
        """The log; nginx writes a line only after the answer has left, so wait until it grows no more."""
        log, size = self.directory / "access.log", -1
        while size != (size := log.stat().st_size):
            time.sleep(0.05)
        return [line.split() for line in log.read_text().splitlines()]

    def requests(self) -> int:
        return len(self.lines())

    def connections(self) -> Counter[str]:
        """Requests by connection; its length is the number of handshakes that led to a request."""
        return Counter(line[0] for line in self.lines())

    def protocols(self) -> set[str]:
        return {line[3] for line in self.lines()}


def executable() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing("nginx", "apt-get install nginx-light")
    assert found is not None
    return found


def version() -> str:
    printed = subprocess.run([executable(), "-v"], capture_output=True, text=True, check=True).stderr
    return printed.strip().rpartition("/")[2]


@contextlib.contextmanager
def nginx(
    certificates: Certificates, directory: Path, *, directives: str = "", answer_bytes: int = 1000, logged: bool = True
) -> Iterator[Nginx]:
    """Run one; `directives` go into the server block (`keepalive_requests 100;`)."""
    program = executable()
    port, sink = free_port(), free_port()
    answer = answer_of(answer_bytes)
    (directory / "file.json").write_text(answer)
    (directory / "nginx.conf").write_text(
        _CONFIGURATION.format(
            directory=directory, port=port, sink=sink, answer=answer, directives=directives,
            log=f"{directory}/access.log counted" if logged else NOTHING_LOGGED,
            chain=certificates.chain(), key=certificates.key(),
        )
    )  # fmt: skip
    command: list[str | Path] = [
        program,
        "-p",
        directory,
        "-c",
        directory / "nginx.conf",
        "-e",
        directory / "error.log",
    ]
    with running(command, port, cwd=directory, log=directory / "stdout.log") as process:
        yield Nginx(port, directory, process.pid)
