"""Processes of the tests: each in a group of its own, which is gone when its context is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import httpx
from faults.external import await_port, free_port
from support import children

HERE = Path(__file__).parent
TROUBLE = ("Traceback", "ResourceWarning", "was never", "Task was destroyed", "this is a bug", "Fatal Python error")


def _with_the_usual_ctrl_c():
    """A shell starts what is in its background with SIGINT ignored, and that is inherited: CI may well be such a job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Group:
    """One process and all that it starts.

    Args:
        command: What to run.
        directory: For its output.
        environment: More variables.
    """

    def __init__(self, *command, directory, **environment):
        self._files = [(directory / f"{name}-{time.monotonic_ns()}").open("w+") for name in ("stdout", "stderr")]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            env=children.environment(PYTHONUNBUFFERED="1", **environment),
            start_new_session=True,
            preexec_fn=_with_the_usual_ctrl_c,  # noqa: PLW1509 - no thread of this process holds what it needs
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for file in self._files:
            file.close()

    @property
    def stdout(self):
        return Path(self._files[0].name).read_text()

    @property
    def stderr(self):
        return Path(self._files[1].name).read_text()

    @property
    def complaints(self):
        """What nobody wants to read in a log."""
        return [line for line in self.stderr.splitlines() if any(word in line for word in TROUBLE)]

    def send(self, number):
        self.process.send_signal(number)

    def send_all(self, number):
        os.killpg(self.process.pid, number)

    async def ended(self, seconds):
        """Its exit status, and the seconds until then."""
        began = time.monotonic()
        with anyio.fail_after(seconds):
            while self.process.poll() is None:
                await anyio.sleep(0.01)
        return self.process.returncode, time.monotonic() - began

    def others(self):
        """Ids of the processes of its group, but for itself."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                if pid != self.process.pid and os.getpgid(pid) == self.process.pid and _is_alive(pid):
                    found.append(pid)
        return found


def _is_alive(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class Script(Group):
    """A scenario of `scenarios.py`."""

    def __init__(self, *arguments, directory, **environment):
        super().__init__(
            sys.executable, "-W", "always::ResourceWarning", HERE / "scenarios.py", *arguments,
            directory=directory, **environment,
        )  # fmt: skip


class Service(Group):
    """The application of `service.py` under a server."""

    def __init__(self, *command, directory, port=None, **environment):
        self.port = port or free_port()
        super().__init__(
            *(str(word).replace("PORT", str(self.port)) for word in command), directory=directory, **environment
        )
        self.url = f"http://127.0.0.1:{self.port}"

    async def ready(self, seconds=30.0):
        await anyio.to_thread.run_sync(await_port, self.port, self.process, seconds)
        return self


def uvicorn(*options, **settings):
    return Service(
        sys.executable, "-m", "uvicorn", "--app-dir", HERE, "--port", "PORT", "--log-level", "warning", *options,
        "service:app", **settings,
    )  # fmt: skip


def gunicorn(*options, **settings):
    return Service(
        sys.executable, "-m", "gunicorn", "--pythonpath", HERE, "--bind", "127.0.0.1:PORT", "--workers", "2",
        "--worker-class", "uvicorn.workers.UvicornWorker", "--graceful-timeout", "10", *options, "service:app",
        **settings,
    )  # fmt: skip


class Load:
    """Visitors who click without a pause, and note each UUID that the service says it accepted.

    `async with Load(service, visitors=8) as load: ...`; leaving it ends them.
    """

    def __init__(self, service, visitors=4):
        self.accepted = []
        self.refused = 0
        self.failed = 0
        self._service, self._visitors = service, visitors

    async def __aenter__(self):
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        for number in range(self._visitors):
            self._tasks.start_soon(self._visit, number)
        return self

    async def __aexit__(self, *error):
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*error)

    async def until(self, count):
        """Returns when so many more were accepted."""
        wanted = len(self.accepted) + count
        with anyio.fail_after(60):
            while len(self.accepted) < wanted:
                await anyio.sleep(0.01)

    async def _visit(self, number):
        async with httpx.AsyncClient(base_url=self._service.url, trust_env=False, timeout=10) as http:
            while True:
                try:
                    answer = (await http.post(f"/click/{number}")).json()
                except httpx.TransportError:
                    self.failed += 1
                    await anyio.sleep(0.05)
                    continue
                if answer["admission"] == "accepted":
                    self.accepted.append(answer["uuid"])
                else:
                    self.refused += 1
