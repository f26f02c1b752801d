"""`kill -9`, again and again: what was accepted is delivered, by whoever comes next, and never as two events."""

import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from support import children

from moengage_personalize.emulator import Emulator, Trouble, serve

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]
CHILD = str(Path(__file__).with_name("child.py"))


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Victim:
    """A child, and the UUIDs that it said were accepted."""

    def __init__(self, server, directory, prefix, rate=2_000):
        self.accepted = []
        self.process = subprocess.Popen(
            [sys.executable, CHILD, server.base_url, str(server.ca_path), str(directory), prefix, str(rate)],
            stdout=subprocess.PIPE,
            text=True,
            env=children.environment(PYTHONUNBUFFERED="0"),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            if len(line) == 37:  # one that was cut off was not said
                self.accepted.append(line.strip())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        self.process.stdout.close()


async def spoken(*victims):
    with anyio.fail_after(30):
        while not all(victim.accepted for victim in victims):
            await anyio.sleep(0.02)


async def drained(server, directory):
    child = await anyio.run_process(
        [sys.executable, CHILD, server.base_url, str(server.ca_path), str(directory), "drain", "0"],
        env=children.environment(),
    )
    return child.stdout.decode()


def validate(emulator, accepted):
    """Reads the server's ledger; nothing else."""
    delivered = {event.uuid: event.raw for event in emulator.ledger.events}
    lost = [event_uuid for event_uuid in accepted if event_uuid not in delivered]
    assert lost == []
    assert emulator.ledger.counts.duplicates_different == 0
    assert all(json.loads(raw)["moe_event_uuid"] == event_uuid for event_uuid, raw in delivered.items())


@pytest.mark.parametrize("workers", [1, 3])
async def test_what_was_accepted_before_kill_9_is_delivered_by_whoever_comes_next(tmp_path, workers):
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    rnd = random.Random(workers)
    accepted = []
    async with serve(emulator) as server:
        for cycle in range(24 // workers):
            if cycle % 3 == 1:  # so that much is left behind
                emulator.troubles.add(
                    Trouble(endpoints=("events",), status=503, duration=0.5), now=emulator.effects.now()
                )
            victims = [Victim(server, tmp_path, f"{cycle}-{worker}") for worker in range(workers)]
            await spoken(*victims)
            await anyio.sleep(rnd.random() * 0.5)
            for victim in victims:
                await anyio.to_thread.run_sync(victim.kill)
                accepted += victim.accepted
        emulator.troubles.clear()
        said = await drained(server, tmp_path)
    assert len(accepted) > 1_000
    validate(emulator, accepted)
    assert " 0\n" in said, "nothing is pending"


async def test_several_living_processes_share_a_directory_and_adopt_the_dead(tmp_path):
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    async with serve(emulator) as server:
        emulator.troubles.add(Trouble(endpoints=("events",), status=503), now=emulator.effects.now())
        victims = [Victim(server, tmp_path, f"worker-{worker}", rate=100) for worker in range(3)]
        await spoken(*victims)
        await anyio.sleep(1)
        for victim in victims[:2]:
            await anyio.to_thread.run_sync(victim.kill)
        emulator.troubles.clear()
        wanted = set(victims[0].accepted + victims[1].accepted)
        assert wanted
        with anyio.fail_after(60):  # the survivor looks for the dead every ten seconds
            while not wanted <= {event.uuid for event in emulator.ledger.events}:
                await anyio.sleep(0.2)
        await anyio.to_thread.run_sync(victims[2].kill)
        await drained(server, tmp_path)
    validate(emulator, [event_uuid for victim in victims for event_uuid in victim.accepted])
