"""The emulator over real TLS and HTTP/2, and an environment that points to it: fixtures to import in a conftest."""

import pytest

from moengage_personalize.emulator import Emulator, serve


@pytest.fixture
def emulator():
    return Emulator("DEMO_WORKSPACE", "demo-key")


@pytest.fixture
async def emulated(emulator, anyio_backend, monkeypatch):
    async with serve(emulator) as server:
        monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", emulator.workspace_id)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", emulator.api_key)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", server.base_url)
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_path))
        yield emulator
