"""What the real servers have in common: present or skipped with a reason, a free port, started, awaited, and
ended by id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

REQUIRED = "MOENGAGE_REQUIRE_CONFORMANCE"


def missing(what: str, remedy: str) -> None:
    """Skip the test, or fail it where the environment promises that everything is installed (CI does)."""
    reason = f"{what} is not installed ({remedy})"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 promises it")
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float = 15.0) -> None:
    """Until somebody listens; a process that died first is an error with its output."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port} after {seconds} s")


@contextlib.contextmanager
def running(command: Sequence[str | Path], port: int, *, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process in a group of its own, which is ended with its workers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=cwd, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            await_port(port, process)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
