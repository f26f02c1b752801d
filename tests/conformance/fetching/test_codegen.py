"""`moengage-personalize codegen`, against the emulator: what it writes passes mypy --strict, and decodes what is served."""

import asyncio
import os
import ssl
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from moengage_personalize import AsyncPersonalizeClient
from moengage_personalize.emulator import Emulator, serve

pytestmark = pytest.mark.conformance

EXPERIENCES = {
    "home-hero": {
        "Title": "Hi",
        "Discount": 20,
        "On": True,
        "CTA text": "Go",
        "class": "x",
        "1st": {"a": [1]},
        "str": "x",
    },
    "home-offers": {"Offers": [{"a": 1}], "self": 0.5, "dict": "x", "é": "x"},
    "class": {},
}


async def run(arguments, server):
    environment = {
        **os.environ,
        "MOENGAGE_WORKSPACE_ID": "DEMO_WORKSPACE",
        "MOENGAGE_PERSONALIZE_API_KEY": "demo-key",
        "MOENGAGE_PERSONALIZE_BASE_URL": server.base_url,
        "SSL_CERT_FILE": str(server.ca_path),
    }
    command = [sys.executable, "-m", "moengage_personalize.cli", "codegen"]
    process = await asyncio.create_subprocess_exec(*command, *arguments, env=environment)
    return await asyncio.wait_for(process.wait(), 30)


async def use(path):
    spec = spec_from_file_location("experiences", path)
    module = sys.modules["experiences"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    async with serve(Emulator(experiences=EXPERIENCES)) as server:
        context = ssl.create_default_context(cafile=server.ca_path)
        given = {"base_url": server.base_url, "ssl_context": context}
        async with AsyncPersonalizeClient("DEMO_WORKSPACE", "demo-key", **given) as client:
            page = await client.fetch(module.HOME_HERO, module.HOME_OFFERS, deadline=5.0)
            hero = page[module.HOME_HERO].decode(module.HomeHero, default=None)
            offers = page[module.HOME_OFFERS].decode(module.HomeOffers, default=None)
            assert client.stats().drifts == 0
    assert (hero.Title, hero.CTA_text, hero.x_1st, hero.class_) == ("Hi", "Go", {"a": [1]}, "x")
    assert (offers.Offers, offers.self_, offers.dict_) == ([{"a": 1}], 0.5, "x")


def test_what_it_writes_passes_mypy_strict_and_decodes_what_is_served(tmp_path):
    module = tmp_path / "experiences.py"

    async def write():
        async with serve(Emulator(experiences=EXPERIENCES)) as server:
            return await run(["--output", str(module), "--customer-id", "john@example.com"], server)

    assert asyncio.run(write()) == 0
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(module)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "Success" in checked.stdout, checked.stdout + checked.stderr
    asyncio.run(use(module))


def test_refused_credentials_are_two_lines_and_a_status(tmp_path, capfd):
    async def write():
        async with serve(Emulator(api_key="another-key")) as server:
            return await run([], server)

    assert asyncio.run(write()) == 2
    _, remedy = capfd.readouterr().err.splitlines()
    assert "moengage-personalize doctor" in remedy
