"""The pytest plugin: fixtures of `moengage_personalize.testing` and of the emulator.

Theory: pytest imports this in every run of everybody who has the package installed. So it stands beside the package,
not in it, and imports nothing of it before a fixture is used. All fixtures are synchronous, which is why they serve
plain tests, anyio's and pytest-asyncio's alike.

To be rid of it: `-p no:_moengage_personalize_pytest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moengage_personalize.emulator import Emulator, EmulatorProcess, Server
    from moengage_personalize.testing import FakePersonalize


@pytest.fixture
def personalize_fake() -> Iterator[FakePersonalize]:
    """A scripted MoEngage, and what was shown and clicked: `moengage_personalize.testing.FakePersonalize`."""
    from moengage_personalize.testing import FakePersonalize

    with FakePersonalize() as fake:
        yield fake


@pytest.fixture
def personalize_emulator_options() -> dict[str, Any]:
    """Keyword arguments of the emulator in this process; override this fixture to give some."""
    return {}


@pytest.fixture
def personalize_emulator(personalize_emulator_options: dict[str, Any]) -> Emulator:
    """A new emulator in this process, without a network: `httpx.ASGITransport(personalize_emulator.app)`."""
    from moengage_personalize.emulator import Emulator

    return Emulator(**personalize_emulator_options)


@pytest.fixture
def personalize_emulator_server(personalize_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The emulator of this test, on loopback; the environment leads clients to it."""
    from moengage_personalize.emulator import serve_in_thread

    with serve_in_thread(personalize_emulator) as server:
        for name, value in personalize_emulator.exports.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def personalize_emulator_arguments() -> tuple[str, ...]:
    """Arguments of the emulator's command; override this fixture to give some."""
    return ()


@pytest.fixture
def personalize_emulator_process(
    personalize_emulator_arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmulatorProcess]:
    """An emulator in a process of its own; the environment leads clients to it."""
    from moengage_personalize.emulator import EmulatorProcess

    with EmulatorProcess(*personalize_emulator_arguments) as process:
        for name, value in process.environment.items():
            monkeypatch.setenv(name, value)
        yield process
