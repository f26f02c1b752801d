"""Pytest fixtures: `pytest_plugins = ["moengage_personalize.emulator.fixtures"]` in a `conftest.py`.

- `emulator`: a new emulator for each test, without a network; override `emulator_options` to shape it.
- `emulator_server`: the same emulator, served over TLS from a thread of this process.
- `emulator_process`: an emulator in a process of its own; override `emulator_arguments` to shape it.

None of them needs a plugin for asynchronous tests, and all of them serve such tests.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from moengage_personalize.emulator._emulator import Emulator
from moengage_personalize.emulator._process import EmulatorProcess
from moengage_personalize.emulator._server import Server
from moengage_personalize.emulator._thread import serve_in_thread


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    """Keyword arguments of `Emulator`; override this fixture to give some."""
    return {}


@pytest.fixture
def emulator(emulator_options: dict[str, Any]) -> Emulator:
    """A new emulator."""
    return Emulator(**emulator_options)


@pytest.fixture
def emulator_server(emulator: Emulator) -> Iterator[Server]:
    """The emulator of this test, on the network."""
    with serve_in_thread(emulator) as server:
        yield server


@pytest.fixture
def emulator_arguments() -> tuple[str, ...]:
    """Arguments of the command; override this fixture to give some."""
    return ()


@pytest.fixture
def emulator_process(emulator_arguments: tuple[str, ...]) -> Iterator[EmulatorProcess]:
    """An emulator in a process of its own."""
    with EmulatorProcess(*emulator_arguments) as process:
        yield process
