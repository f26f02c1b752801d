"""What the conformance tests of the transport share: certificates, servers, loops, and the account of what
was left behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import pytest
from faults.accounts import nothing_left_behind
from faults.certificates import Certificates
from faults.server import FaultServer, FaultServerProcess, ServerConfig
from faults.subject import make_transport

_NUMBERS: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line of numbers at the end of the run: some claims are about counts that one wants to see."""

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
    """`async with transport() as it`: a transport that trusts the test's authority, closed at the end, with
    nothing left behind.

    Arguments: a context manager to enter first (a relay, say), so that it is gone too when the account is
    made; options.
    """

    @asynccontextmanager
    async def opened(first: AbstractContextManager[Any] | None = None, **options: Any) -> AsyncIterator[Any]:
        async with nothing_left_behind():
            with first or nullcontext():
                it = make_transport(certificates.client_context(), **options)
                try:
                    yield it
                finally:
                    await it.aclose()

    return opened
