"""The emulator as a process of its own, for tests that kill it or must not share an interpreter with it."""

import json
import os
import shlex
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_GRACE = 10.0  # seconds for a polite end


class EmulatorProcess:
    """One running `python -m moengage_personalize.emulator`; a context manager.

    Args:
        arguments: Further arguments of the command, such as `("--experiences", path)`.
        port: The port; 0 takes a free one.

    Raises:
        RuntimeError: It ended before it was ready; its own words are on stderr.
    """

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self._arguments = arguments
        self._process = self._start(port)
        self.environment: Mapping[str, str] = self._greeting()
        """The variables that lead a client here."""

    def _start(self, port: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "moengage_personalize.emulator", "--port", str(port), "--page-port", "0"]
        # the same import path: a package that is not installed must be found as well
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
        return subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            [*command, *self._arguments], stdout=subprocess.PIPE, text=True, env=environment
        )

    def _greeting(self) -> Mapping[str, str]:
        """Waits for the lines with which it says that it is ready."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        found: dict[str, str] = {}
        for line in self._process.stdout:
            words = shlex.split(line, comments=True)
            if words[:1] == ["export"]:
                name, _, value = words[1].partition("=")
                found[name] = value
            elif found:
                return found
        raise RuntimeError(f"the emulator ended with status {self._process.wait()}")

    def __repr__(self) -> str:
        return f"<EmulatorProcess {self.pid} {self.base_url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def base_url(self) -> str:
        """Where it serves."""
        return self.environment["MOENGAGE_PERSONALIZE_BASE_URL"]

    @property
    def ca_path(self) -> Path | None:
        """The authority's certificate; None without TLS."""
        path = self.environment.get("SSL_CERT_FILE")
        return None if path is None else Path(path)

    def ssl_context(self) -> ssl.SSLContext:
        """A client context that trusts it and nobody else."""
        return ssl.create_default_context(cafile=self.ca_path)

    def control(self, path: str, body: Mapping[str, Any] | None = None, *, method: str | None = None) -> Any:
        """Asks one of its own endpoints, such as `counts`; with a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own URL
            f"{self.base_url}/_emulator/{path}", data, {"content-type": "application/json"}, method=method
        )
        context = self.ssl_context() if self.ca_path else None
        with urllib.request.urlopen(request, timeout=30, context=context) as reply:  # noqa: S310
            return json.load(reply)

    def counts(self) -> dict[str, Any]:
        """The ledger's totals."""
        counts: dict[str, Any] = self.control("counts")
        return counts

    def ledger(self) -> dict[str, Any]:
        """The whole ledger."""
        ledger: dict[str, Any] = self.control("ledger")
        return ledger

    def trouble(self, **wish: Any) -> None:
        """Wishes for trouble: the fields of `Trouble`."""
        self.control("trouble", wish)

    def calm(self) -> None:
        """Ends all trouble."""
        self.control("trouble", method="DELETE")

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._process.kill()
        self._reap()

    def stop(self) -> None:
        """Ends it politely."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def restart(self) -> None:
        """Starts it again on its port, after `kill` or `stop`."""
        self._process = self._start(urlsplit(self.base_url).port or 0)
        self.environment = self._greeting()
