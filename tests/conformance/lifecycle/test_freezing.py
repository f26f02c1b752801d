"""A process that is suspended: a container that is paused, a laptop that is closed, a function between two calls."""

import asyncio
import json
import signal

import anyio
import pytest
from conformance.lifecycle.processes import Script
from faults.relay import Relay
from support.clock import JumpingLoop
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client

from moengage_personalize import BatchPolicy, Effects
from moengage_personalize.emulator import Trouble

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

FROZEN = 3.0  # seconds: longer than the linger, than a PING's patience, and than the server's


class Kept:
    """The connection is as it was."""

    connections = 1

    def meanwhile(self, emulator, relay):
        pass


class Closed(Kept):
    """The server has closed the connection, and is there again."""

    connections = 2

    def meanwhile(self, emulator, relay):
        emulator.troubles.add(Trouble(outage=True, duration=0.5), emulator.effects.now())


class Forgotten(Kept):
    """What is between has forgotten the connection: nothing passes, and nobody says so."""

    connections = 2

    def meanwhile(self, emulator, relay):
        relay.freeze()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("fate", [Kept(), Closed(), Forgotten()], ids=lambda fate: type(fate).__name__)
async def test_after_a_thaw_the_first_fetch_is_answered_in_time_and_what_waited_leaves_at_once(
    fate, loop, emulated, tmp_path, monkeypatch
):
    port = int(emulated.exports["MOENGAGE_PERSONALIZE_BASE_URL"].rpartition(":")[2])
    with Relay(port) as relay:
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", f"https://127.0.0.1:{relay.port}")
        with Script("frozen", loop, directory=tmp_path) as script:
            with anyio.fail_after(15):
                while "ready" not in script.stdout:
                    await anyio.sleep(0.01)
            script.send(signal.SIGSTOP)
            fate.meanwhile(emulated, relay)
            await anyio.sleep(FROZEN)
            assert emulated.ledger.counts.accepted == 0
            script.send(signal.SIGCONT)
            status, _ = await script.ended(15)
            assert (status, script.complaints) == (0, [])
            said = json.loads(script.stdout.splitlines()[-1])
    assert said["matched"]
    assert said["took"] < 1.0
    assert said["flushed"] < 1.5
    assert said["connections"] == fate.connections
    assert emulated.ledger.counts.accepted == emulated.ledger.counts.received == 50


class TestMinutesOfVirtualTime:
    """On a clock that jumps while nothing of ours runs."""

    MINUTES = 600.0

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio", {"loop_factory": JumpingLoop}

    @staticmethod
    def stand_still(seconds):
        asyncio.get_running_loop()._jumping.jumped += seconds

    async def test_what_lingered_leaves_at_once(self):
        wall = [1_764_000_000.0]
        moengage = MoEngage()
        effects = Effects(wall=lambda: wall[0], jitter=lambda: 0.5)
        async with make_client(moengage, effects=effects, batching=BatchPolicy(linger=60.0)) as client:
            for number in range(50):
                client.track_impression(CONTEXT, customer_id=f"customer-{number}")
            await anyio.sleep(1.0)
            assert moengage.requests == []
            self.stand_still(self.MINUTES)
            wall[0] += self.MINUTES
            thawed = anyio.current_time()
            await client.fetch("home-hero")
            while client.stats().delivered < 50:
                await anyio.sleep(0)
            assert anyio.current_time() == thawed
        assert client.last_report.dropped == 0

    async def test_what_waited_for_the_server_to_recover_leaves_at_once(self):
        recovered = False
        moengage = MoEngage(events=lambda body: accepted() if recovered else error(503, retry_after="300"))
        async with make_client(moengage, batching=BatchPolicy(linger=0.0)) as client:
            client.track_impression(CONTEXT, customer_id="john")
            await anyio.sleep(1.0)
            assert moengage.count("events") == 1
            recovered = True
            self.stand_still(self.MINUTES)
            thawed = anyio.current_time()
            while not client.stats().delivered:
                await anyio.sleep(0)
            assert anyio.current_time() == thawed
        assert moengage.count("events") == 2
