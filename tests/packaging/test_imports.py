"""What importing the package, making a client and opening one load, and what they leave for those who need it."""

import subprocess
import sys

import pytest

# h2 is for the first connection, cattrs for `decode`, the spool for those who have one; the rest is for a client's life.
HEAVY = {"anyio", "h2", "hpack", "hyperframe", "cattrs", "certifi", "difflib", "ipaddress", "trio", "uvloop", "sqlite3"}
OURS = {
    "http2", "spool", "emulator", "cli", "_engine", "_fetcher", "_flying", "_tower", "_kept", "_pump", "_exchange",
    "_decode", "_explain", "core.cache", "core.delivery", "core.wire.metadata", "core.wire.answers",
}  # fmt: skip
CLIENT = "client = moengage_personalize.AsyncPersonalizeClient('WORKSPACE', 'key', '01'{})"
OPEN = """
import asyncio, httpx
async def main():
    async with moengage_personalize.AsyncPersonalizeClient('WORKSPACE', 'key', '01', transport=httpx.MockTransport(print)):
        pass
asyncio.run(main())
"""


def loaded_by(code):
    """The names of the modules that are there after `code`, beyond those of httpx."""
    listing = f"import sys, httpx\nbefore = set(sys.modules)\nimport moengage_personalize\n{code}\n"
    listing += "print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("code", ["", CLIENT.format("")], ids=["imported", "made"])
def test_a_client_is_made_without_what_only_an_open_one_needs(code):
    loaded = loaded_by(code)
    assert not loaded & HEAVY
    assert not loaded & {f"moengage_personalize.{name}" for name in OURS}
    ours = {name for name in loaded if name.startswith("moengage_personalize")}
    assert len(ours) <= 24, sorted(ours)
    assert len(loaded) <= 105, sorted(loaded - ours)


def test_a_client_that_was_given_a_transport_never_loads_http2():
    loaded = loaded_by(OPEN)
    assert "moengage_personalize._engine" in loaded
    assert not loaded & {"h2", "hpack", "moengage_personalize.http2", "moengage_personalize.spool", "cattrs"}
    assert "moengage_personalize.core.cache" not in loaded


def test_every_public_name_is_there():
    loaded_by("for name in moengage_personalize.__all__: getattr(moengage_personalize, name)")
