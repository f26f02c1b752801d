"""What the conformance tests of the transport share: certificates, servers, loops, and the account of what was left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from faults.certificates import Certificates
from faults.server import FaultServer, FaultServerProcess, ServerConfig
from faults.subject import make_transport


_NUMBERS: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line of numbers at the end of the run: some claims are about counts that a reader wants to see."""

    def add(line: str) -> None:
        request.config.stash.setdefault(_NUMBERS, []).append(f"{request.node.name}: {line}")

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_NUMBERS, []):
        terminalreporter.section("numbers, as the servers counted")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Plain asyncio; a test that must hold on uvloop too is parametrised with `faults.loops.LOOPS`."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates: Certificates) -> Iterator[FaultServer]:
    """A fault server in a thread, over TLS."""
    with FaultServer(ServerConfig(certificates=str(certificates.directory))) as running:
        yield running
    assert running.seen.violations == []


@pytest.fixture
def server_process(certificates: Certificates) -> Iterator[FaultServerProcess]:
    """The same in a process of its own, for tests of time."""
    with FaultServerProcess(ServerConfig(certificates=str(certificates.directory))) as running:
        yield running
        assert running.seen.violations == []


@pytest.fixture
def transport(certificates: Certificates) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """`async with transport() as it`: a transport that trusts the test's authority, closed at the end, with nothing left behind."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Any]:
        async with nothing_left_behind():
            it = make_transport(certificates.client_context(), **options)
            try:
                yield it
            finally:
                await it.aclose()

    return opened


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Tasks and file descriptors are back to what they were, at most a second after the end (servers in threads close late)."""
    tasks_before, descriptors_before = _tasks(), _sockets()
    yield
    give_up = time.monotonic() + 1.0
    while (_tasks() > tasks_before or _sockets() > descriptors_before) and time.monotonic() < give_up:
        gc.collect()
        await anyio.sleep(0.01)
    assert _tasks() <= tasks_before, [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert _sockets() <= descriptors_before, f"{_sockets() - descriptors_before} sockets are still open"


def _tasks() -> int:
    return len(asyncio.all_tasks())


def _sockets() -> int:
    """Open sockets of this process. (Other descriptors come and go with the loops of servers in threads.)"""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count
