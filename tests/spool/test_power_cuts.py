"""The spool against a model, through crashes, power cuts and syncs that fail."""

import shutil
import tempfile
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from moengage_personalize.spool import SpoolSyncError
from moengage_personalize.spool._keeper import STRAGGLING_AFTER

from spool.helpers import Bench, Disk, entry


class PowerCuts(RuleBasedStateMachine):
    """`pending` is everything that must not be lost by a kill; `journaled` not even by a power cut."""

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr("moengage_personalize.spool._keeper._BREATH", 0)
        names = count()  # the same in every run, or Hypothesis cannot shrink
        self.patches.setattr("secrets.token_hex", lambda size: f"{next(names):016x}")
        self.generation, self.number, self.now = 0, 0, 0.0
        self.ever, self.pending, self.tickets = {}, {}, {}
        self.journaled = set()
        self.directory = self.root / "0"
        self.directory.mkdir(mode=0o700)
        self.disk = Disk(self.directory, self.patches)
        self.bench = Bench(self.directory)

    def teardown(self):
        if hasattr(self, "root"):
            self.bench.kill()
            self.patches.undo()
            shutil.rmtree(self.root)

    def new_entry(self, size):
        self.number += 1
        made = entry(self.number, size=size)
        self.ever[made.event_uuid] = self.pending[made.event_uuid] = made
        return made

    @rule(count=st.integers(1, 12), size=st.integers(20, 1500))
    def append(self, count, size):
        for _ in range(count):
            made = self.new_entry(size)
            ticket = self.bench.journal.append(made)
            if ticket is None:  # no home, or no room: nothing was promised
                del self.ever[made.event_uuid], self.pending[made.event_uuid]
            else:
                self.tickets[made.event_uuid] = ticket

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), keep=st.integers(0, 3))
    def settle(self, data, keep):
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.tickets)), unique=True)) if keep else sorted(self.tickets)
        self.bench.journal.settle([self.tickets.pop(uuid) for uuid in chosen])
        for uuid in chosen:
            del self.pending[uuid]
        self.journaled.difference_update(chosen)

    @rule()
    def sync(self):
        try:
            self.bench.sync()
        except SpoolSyncError:
            return
        self.journaled |= set(self.tickets)

    @rule(seconds=st.sampled_from([0.0, 1.0, STRAGGLING_AFTER]))
    def housekeeping(self, seconds):
        self.now += seconds
        self.bench.cycle(self.now)

    @rule()
    def the_disk_changes_its_mind(self):
        self.disk.failing = not self.disk.failing

    @rule(count=st.integers(1, 12), size=st.integers(20, 1500), clean=st.booleans())
    def another_process_comes_and_goes(self, count, size, clean):
        other = Bench(self.directory)
        other.append(*(self.new_entry(size) for _ in range(count)))
        if clean:
            other.close()
        else:
            other.kill()

    def hand_out(self, page=7):
        """Recover, as the buffer does: a second copy of an event is a duplicate, and settled."""
        for ticket, found in self.bench.recover(page):
            assert found == self.ever[found.event_uuid]
            if found.event_uuid in self.tickets:
                self.bench.journal.settle([ticket])
            else:
                self.tickets[found.event_uuid] = ticket

    @rule(page=st.integers(1, 9))
    def recover(self, page):
        self.hand_out(page)
        assert set(self.tickets) == set(self.pending)

    @rule()
    def kill(self):
        self.bench.kill()
        moved = self.bench.journal.carried
        self.bench, self.tickets = Bench(self.directory), {}
        self.hand_out()
        assert set(self.pending) <= set(self.tickets)
        # What was settled after it had moved may come back once; nothing else may.
        assert moved or set(self.pending) == set(self.tickets)
        self.pending = {uuid: self.ever[uuid] for uuid in self.tickets}

    @rule(data=st.data())
    def power_cut(self, data):
        self.bench.kill()
        self.generation += 1
        after = self.root / str(self.generation)
        random = Random(data.draw(st.integers(0, 2**32)))  # noqa: S311
        bias = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
        self.disk.cut(after, lambda: random.random() < bias)
        self.disk.failing = False
        self.directory = after
        self.disk.replaced_by(after)
        self.bench, self.tickets = Bench(after), {}
        self.hand_out()
        assert self.journaled <= set(self.tickets)
        self.pending = {uuid: self.ever[uuid] for uuid in self.tickets}
        self.journaled = set(self.tickets)

    @rule()
    def the_books_balance(self):
        assert self.bench.journal.pending() == len(self.tickets)


PowerCuts.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_what_was_journaled_survives_every_power_cut_and_what_was_appended_every_kill = PowerCuts.TestCase
