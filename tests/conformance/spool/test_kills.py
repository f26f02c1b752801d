"""SIGKILL in every phase: what `append` acknowledged is on the disk, byte for byte, and nothing else is."""

import asyncio
import collections
import os
import random
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from moengage_personalize.spool import DiskSpool

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import child  # noqa: E402
import validator  # noqa: E402

pytestmark = pytest.mark.conformance

# phase, kills, and how many lines to let pass at most before stopping in it
CAMPAIGN = [("append", 25, 600), ("rotation", 30, 300), ("settling", 30, 900), ("adoption", 35, 300)]
CAMPAIGN += [("carrying", 15, 120), ("wild", 25, 0)]


class Victim:
    """A child process, what it has said, and its end."""

    def __init__(self, directory, seed, phase, stop):
        arguments = [sys.executable, str(HERE / "child.py"), str(directory), str(seed), phase, str(stop)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self.said = b""

    def listen(self, until: bytes, seconds: float) -> bool:
        """Wait for a line; false if it did not come."""
        deadline = time.monotonic() + seconds
        while until not in self.said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return False
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                return False
            self.said += chunk
        return True

    def kill(self) -> list[list[str]]:
        """SIGKILL; answers everything it had said, whole lines only."""
        self.process.send_signal(signal.SIGKILL)
        rest, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == -signal.SIGKILL, errors.decode()
        lines = (self.said + rest).split(b"\n")
        return [line.decode().split() for line in lines[:-1]]


def test_nothing_acknowledged_is_lost_by_a_kill_in_any_phase(tmp_path):
    directory = tmp_path / "spool"
    rng = random.Random(20261123)
    acknowledged, intended = set(), set()
    kills, where, resent = collections.Counter(), set(), 0

    def hear(lines):
        for kind, *rest in lines:
            if kind == "A":
                acknowledged.add(rest[0])
            elif kind == "s":
                intended.add(rest[0])
            elif kind == "P":
                where.add(rest[1])

    def validate():
        found = validator.pending(directory)
        missing = acknowledged - intended - set(found)
        assert not missing, f"{len(missing)} of {len(acknowledged)} lost"
        for name, records in found.items():
            expected = validator.record_of(child.made_for(uuid.UUID(name)))
            assert all(record == expected for record in records), "foreign bytes"
        return len(set(found) & intended)

    plan = [(phase, most) for phase, count, most in CAMPAIGN for _ in range(count)]
    rng.shuffle(plan)
    for number, (phase, most) in enumerate(plan):
        victim = Victim(directory, rng.getrandbits(32), phase, rng.randint(1, max(most, 1)))
        neighbour = Victim(directory, rng.getrandbits(32), "wild", 0) if number % 4 == 0 else None
        if phase == "wild":
            victim.listen(b"A ", 20)
            time.sleep(rng.random() * 0.1)
            kills[phase] += 1
        elif victim.listen(b"P ", 20):
            kills[phase] += 1
        hear(victim.kill())
        if neighbour is not None:
            hear(neighbour.kill())
        resent += validate()
        if number % 10 == 9:
            drain(directory, acknowledged - intended)
            intended |= acknowledged

    drain(directory, acknowledged - intended)
    print(
        f"\n{sum(kills.values())} kills {dict(kills)} at {len(where)} places; "
        f"{len(acknowledged)} acknowledged, 0 lost, {resent} would be sent again"
    )
    assert sum(kills.values()) >= 100
    assert all(kills[phase] >= 20 for phase in ("append", "rotation", "settling", "adoption")), kills


def drain(directory, expected):
    """The next start, through the public API: everything comes back, and then nothing is left."""

    async def restart():
        spool = DiskSpool(directory, segment_bytes=8192, max_bytes=1 << 26)
        await spool.open()
        recovered = {}
        async for page in spool.recover():
            for ticket, entry in page:
                assert entry == child.made_for(uuid.UUID(entry.event_uuid))
                recovered.setdefault(entry.event_uuid, entry)
                spool.settle([ticket])
        stats = spool.stats()
        await spool.aclose()
        return recovered, stats

    recovered, stats = asyncio.run(restart())
    assert expected <= set(recovered)
    assert stats.left_alone == 0
    assert list(directory.iterdir()) == []
