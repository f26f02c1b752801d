import json
from types import SimpleNamespace

import pytest

from moengage_personalize.cli import main
from moengage_personalize.emulator import Emulator, serve_in_thread

VARIABLES = (
    "MOENGAGE_WORKSPACE_ID MOENGAGE_PERSONALIZE_API_KEY MOENGAGE_DATA_CENTER MOENGAGE_PERSONALIZE_BASE_URL"
    " MOENGAGE_PERSONALIZE_DISABLED SSL_CERT_FILE SSL_CERT_DIR"
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emulator():
    return Emulator("DEMO_WORKSPACE", "demo-key")


@pytest.fixture
def server(emulator, monkeypatch):
    """The emulator over TLS, and the environment that leads to it."""
    with serve_in_thread(emulator) as server:
        for name, value in emulator.exports.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def run(capsys):
    """Runs a command; returns its status, and what it said."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        said = capsys.readouterr()

        def documents():
            return [json.loads(line) for line in said.out.splitlines()]

        return SimpleNamespace(
            status=status, out=said.out, err=said.err, json=lambda: documents()[0], documents=documents
        )

    return run
