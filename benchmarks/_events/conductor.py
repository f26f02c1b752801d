"""Starts the contenders' processes, and lets one work at a time."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent.parent


class ContenderError(RuntimeError):
    """A contender could not do what it was told."""


class Process:
    """A contender's process.

    Args:
        label: What the report calls it.
        kind: Of `contenders.KINDS`.
        server: Where its events go.
        orjson: False hides orjson from it.
    """

    def __init__(self, label, kind, server, *, orjson=True):
        self.label, self.kind, self.orjson = label, kind, orjson
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HERE), str(HERE.parent))))
        environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"PYTHONPATH": path, "SSL_CERT_FILE": server.ca, "REQUESTS_CA_BUNDLE": server.ca}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "_events.worker", kind, server.url, server.ca]
            + ([] if orjson else ["--without-orjson"]),
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.version = self.tell("start")["version"]

    def tell(self, what, *, within=300.0, **arguments):
        """Gives an order, and returns what came of it.

        Raises:
            ContenderError: It failed, or took longer than `within` seconds.
        """
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], within)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise ContenderError(f"{self.label}: no answer to {what!r} within {within:g} s")
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(f"{self.label}: {what}: {answer['error']}")
        return answer

    def end(self):
        try:
            self.tell("stop", within=20)
            self._process.wait(5)
        except (ContenderError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


class Progress:
    """One line on a terminal, or a line for each step elsewhere."""

    def __init__(self, steps):
        self._steps, self._done = steps, 0
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()

    def step(self, text):
        self._done += 1
        line = f"[{self._done}/{self._steps}] {time.monotonic() - self._began:4.0f} s  {text}"
        print(
            f"\r\033[K{line[:110]}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True
        )

    def end(self):
        if self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
