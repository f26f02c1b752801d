"""`kill -9`, again and again, in every phase of the spool: what was accepted is delivered by whoever comes next, and
never as two events.

Clients with a spool report to a server in a process of its own; `validator` settles up with that server's ledger.
"""

import collections
import itertools
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conformance.durability import validator
from support import children

pytestmark = pytest.mark.conformance
HERE = Path(__file__).parent
PHASES = ("append", "rotation", "settling", "adoption")
# A round of kills: the phase, and whether MoEngage is out meanwhile. Only who comes after an outage has much to adopt.
ROUND = [("append", "outage"), ("adoption", "outage"), ("rotation", "outage"), ("adoption", "unsteady")]
ROUND += [("settling", "unsteady"), ("append", "unsteady"), ("rotation", "unsteady"), ("settling", "unsteady")]
ROUND += [(None, "unsteady")]  # anywhere
DIRECTORIES, ROUNDS = 8, 2


class Script:
    """A process that answers lines with lines; it ends with its input."""

    def __init__(self, name, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / name), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=children.environment(),
        )  # fmt: skip
        self._said = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._said.put(line.split())

    def say(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self, seconds=30.0):
        """The next line's words; `queue.Empty` if it does not come."""
        return self._said.get(timeout=seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join()
        self._process.stdout.close()


class Server(Script):
    """The server, and its ledger."""

    def __init__(self, directory):
        self.ledger = directory / "ledger"
        super().__init__("server.py", self.ledger)
        self.base_url, self.ca_path = self.hear()

    def be(self, mood):
        self.say(mood)
        assert self.hear() == [mood]


class Nursery(Script):
    """Where processes are born, one at a time."""

    serial = itertools.count()

    def __init__(self, server, directory):
        super().__init__("victim.py")
        self._common = {"base_url": server.base_url, "ca_path": server.ca_path, "directory": str(directory / "spool")}
        self._notes = directory
        self._pid = None

    def bear(self, **life):
        number = next(self.serial)
        self.notes = self._notes / f"notes-{number}"
        self.say(json.dumps({**self._common, "notes": str(self.notes), "seed": number, **life}))
        self._pid = int(self.hear()[1])

    def has_stopped(self):
        """Whether it came to its phase; it may have had nothing to do there."""
        try:
            word = self.hear(4)
        except queue.Empty:
            return False
        assert word == ["stopped"]
        return True

    def accepted(self, count):
        """Returns when it was told `ACCEPTED` so often."""
        deadline = time.monotonic() + 30
        while not self.notes.exists() or self.notes.read_bytes().count(b'{"accepted"') < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self):
        os.kill(self._pid, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def ended(self, seconds=60.0):
        word, code = self.hear(seconds)
        self._pid = None
        assert word == "ended"
        return int(code)

    def survive(self):
        """Deliver what all the dead have left."""
        self.bear(events=0)
        try:
            assert self.ended() == 0
        except queue.Empty:
            pytest.fail("a survivor is not done with what the dead have left")

    def __exit__(self, *error):
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
        super().__exit__(*error)


def settled_up(server, *directories):
    """The account, with nothing wrong."""
    notes = [validator.lines(path) for directory in directories for path in directory.glob("notes-*")]
    account = validator.account(validator.lines(server.ledger), notes)
    kinds = collections.Counter(problem.partition(":")[0] for problem in account.problems)
    assert not kinds, f"{dict(kinds)}, the first: {account.problems[0]}"
    for directory in directories:
        # A kill in the middle of a header leaves a file that is nobody's; no record was ever in it.
        left = [path.read_bytes() for path in (directory / "spool").glob("*.seg")]
        assert not any(any(data[256:]) for data in left), "no record is left"
    return account, notes


def test_what_was_accepted_before_kill_9_in_any_phase_is_delivered_by_whoever_comes_next(tmp_path, capsys):
    planned, hit = collections.Counter(), collections.Counter()
    directories = [tmp_path / str(number) for number in range(DIRECTORIES)]
    chance, began = random.Random(20261124), time.monotonic()
    with Server(tmp_path) as server:
        for directory in directories:
            directory.mkdir()
            with Nursery(server, directory) as nursery:
                for phase, mood in ROUND * ROUNDS:
                    server.be(mood)
                    nursery.bear(phase=phase, turn=planned[phase])
                    planned[phase] += 1
                    if phase is None:
                        nursery.accepted(chance.randint(1, 300))
                    elif nursery.has_stopped():
                        hit[phase] += 1
                    nursery.kill()
                server.be("unsteady")
                nursery.survive()
    account, notes = settled_up(server, *directories)
    stops = validator.stops(notes)
    with capsys.disabled():
        print(
            f"\n{planned.total()} kills in {time.monotonic() - began:.0f} s, {hit.total()} of them within a phase: "
            f"{dict(hit)}, at {len(stops)} places. {len(account.accepted)} events accepted, all of them delivered; "
            f"{account.duplicates} delivered again, byte-identical"
        )
    assert stops.total() == hit.total() >= 100
    assert all(hit[phase] >= 20 for phase in PHASES)
    assert len(stops) == 16, "every place was hit"


def test_several_living_processes_share_a_directory_and_adopt_the_dead(tmp_path):
    with Server(tmp_path) as server, Nursery(server, tmp_path) as one, Nursery(server, tmp_path) as another:
        with Nursery(server, tmp_path) as heir:
            server.be("outage")
            for nursery in (one, another, heir):
                nursery.bear(adopt_every=10.0, max_pending=5_000)  # as it is in production
            for nursery in (one, another, heir):
                nursery.accepted(300)
            for nursery in (one, another):
                nursery.kill()
            server.be("unsteady")
            wanted = {
                line["accepted"]
                for nursery in (one, another)
                for line in validator.lines(nursery.notes)
                if "accepted" in line
            }
            deadline = time.monotonic() + 60  # the heir looks for the dead every ten seconds
            while not wanted <= validator.delivered(server.ledger):
                assert time.monotonic() < deadline
                time.sleep(0.3)
            heir.kill()
            heir.survive()
    account, _ = settled_up(server, tmp_path)
    assert len(account.accepted) >= 900
