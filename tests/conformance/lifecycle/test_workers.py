"""Four uvicorn workers with one spool directory, killed at random under load and restarted: nothing accepted is lost."""

import contextlib
import os
import random
import signal
from pathlib import Path

import anyio
import pytest
from conformance.lifecycle.ledger import check
from conformance.lifecycle.processes import Load, uvicorn

from moengage_personalize.emulator import Trouble

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

KILLS = range(4, 11)  # at least, and at most
SECONDS = 20  # for them: a busy machine starts a worker in ten


async def workers(service, count):
    """The ids of the workers that are there."""
    with anyio.fail_after(60):
        while len(found := [pid for pid in service.others() if is_worker(pid)]) < count:
            await anyio.sleep(0.05)
    return found


def is_worker(pid):
    """multiprocessing starts a tracker too, which is none."""
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def start(directory, port=None):
    return uvicorn(
        "--workers", "4", "--timeout-worker-healthcheck", "20",
        directory=directory, port=port, SPOOL=str(directory / "spool"), LINGER="0.1", GRACE="3",
    )  # fmt: skip


async def test_four_workers_that_are_killed_and_restarted_lose_nothing_that_was_accepted(emulated, tmp_path):
    rnd = random.Random(4)
    killed = set()
    with start(tmp_path) as service:
        await service.ready()
        await workers(service, 4)
        async with Load(service, visitors=12) as load:
            until = anyio.current_time() + SECONDS
            while len(killed) < KILLS.start or (len(killed) < KILLS.stop and anyio.current_time() < until):
                if len(killed) % 3 == 1:  # so that much is left behind
                    emulated.troubles.add(Trouble(endpoints=("events",), status=503, duration=0.7), 0.0)
                await load.until(60)
                await anyio.sleep(rnd.random() * 0.2)
                victim = rnd.choice(await workers(service, 2))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                killed.add(victim)
            emulated.troubles.add(Trouble(endpoints=("events",), status=503), emulated.effects.now())
            await load.until(100)
            service.send_all(signal.SIGKILL)  # the whole machine, as it were
        left = len(set(load.accepted) - {event.uuid for event in emulated.ledger.events})
        first = load.accepted
    assert left >= 100
    emulated.troubles.clear()

    with start(tmp_path) as service:
        await service.ready()
        async with Load(service, visitors=4) as load:
            await load.until(100)
            with anyio.fail_after(30):  # who starts adopts at once, and everybody looks again every ten seconds
                while set(first) - {event.uuid for event in emulated.ledger.events}:
                    await anyio.sleep(0.1)
            service.send(signal.SIGTERM)
            status, _ = await service.ended(15)
        with anyio.fail_after(5):  # multiprocessing's tracker outlives its master by a moment
            while service.others():
                await anyio.sleep(0.05)
        assert (status, service.complaints) == (0, [])
    check(emulated, first + load.accepted)
    assert len(first) > KILLS.start * 60
