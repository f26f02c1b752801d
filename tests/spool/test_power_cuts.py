"""The spool against a model, through crashes, power cuts and syncs that fail."""

import shutil
import tempfile
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from spool.helpers import Bench, Disk, entry

from moengage_personalize.spool import SpoolSyncError
from moengage_personalize.spool._chores import STRAGGLING_AFTER


class PowerCuts(RuleBasedStateMachine):
    """`pending` is everything that must not be lost by a kill; `journaled` not even by a power cut."""

    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr("moengage_personalize.spool._chores._BREATH", 0)
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
            ticket = self.bench.journal.append(*made.fields())
            if ticket is None:  # no home, or no room: nothing was promised
                del self.ever[made.event_uuid], self.pending[made.event_uuid]
            else:
                self.tickets[made.event_uuid] = ticket

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), keep=st.integers(0, 3))
    def settle(self, data, keep):
        chosen = (
            data.draw(st.lists(st.sampled_from(sorted(self.tickets)), unique=True)) if keep else sorted(self.tickets)
        )
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
        random = Random(data.draw(st.integers(0, 2**32)))
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
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_what_was_journaled_survives_every_power_cut_and_what_was_appended_every_kill = PowerCuts.TestCase


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def disk(root, monkeypatch):
    monkeypatch.setattr("moengage_personalize.spool._chores._BREATH", 0)
    return Disk(root, monkeypatch)


def after_a_cut(disk, tmp_path, *, kept=lambda: False):
    """What the next start finds; by default the kernel had written nothing of its own accord."""
    disk.cut(tmp_path / "after", kept)
    bench = Bench(tmp_path / "after")
    found = bench.entries()
    bench.kill()
    return found


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(root, disk, tmp_path):
    bench = Bench(root)
    bench.append(entry(1))
    bench.sync()
    bench.append(entry(2))
    bench.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1)]


def test_entries_of_many_segments_are_covered_by_one_sync(root, disk, tmp_path):
    bench = Bench(root)
    everything = [entry(number, size=1000) for number in range(40)]
    bench.append(*everything)
    bench.sync()
    bench.kill()
    assert after_a_cut(disk, tmp_path) == everything


def test_a_mark_that_was_not_synced_sends_again_the_same_bytes(root, disk, tmp_path):
    bench = Bench(root)
    tickets = bench.append(entry(1), entry(2))
    bench.sync()
    bench.journal.settle(tickets)
    bench.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1), entry(2)]


def stragglers(bench):
    """Segments that are settled but for one entry each; the entries and their tickets."""
    entries = [entry(number, size=1000) for number in range(24)]
    tickets = bench.append(*entries)
    bench.sync()
    bench.journal.settle([ticket for number, ticket in enumerate(tickets) if number % 7])
    return entries[::7], tickets[::7]


def test_stragglers_are_carried_and_the_old_segments_leave_after_a_sync(root, disk, tmp_path):
    bench = Bench(root)
    kept, _ = stragglers(bench)
    before = len(bench.journal.segments)
    bench.cycle(0.0)
    bench.cycle(STRAGGLING_AFTER)
    assert bench.journal.carried > 0
    assert len(bench.journal.segments) >= before  # not yet: the copies are not durable
    bench.sync()
    bench.cycle(STRAGGLING_AFTER)
    assert len(bench.journal.segments) < before
    assert bench.journal.pending() == len(kept)
    bench.kill()
    assert {found.event_uuid for found in after_a_cut(disk, tmp_path)} >= {made.event_uuid for made in kept}


@pytest.mark.parametrize("kept", [lambda: False, lambda: True], ids=["nothing-written", "all-written"])
def test_a_cut_between_carrying_and_syncing_loses_no_straggler(root, disk, tmp_path, kept):
    bench = Bench(root)
    stranded, _ = stragglers(bench)
    # The old pages reach the disk of their own accord, the copies do not.
    bench.cycle(0.0)
    for chore in bench.keeper.cycle(STRAGGLING_AFTER):
        bench.journal.do(chore)
    for segment in bench.journal.segments.values():
        if segment.carried:
            disk.fsync(segment.fd)
    assert bench.journal.carried > 0
    bench.kill()
    found = after_a_cut(disk, tmp_path, kept=kept)
    assert {made.event_uuid for made in stranded} <= {made.event_uuid for made in found}


def test_what_is_carried_during_a_sync_waits_for_the_next_one(root, disk, tmp_path, monkeypatch):
    bench = Bench(root)
    stragglers(bench)
    bench.cycle(0.0)
    chores = bench.keeper.cycle(STRAGGLING_AFTER)
    bench.append(entry(100))

    def meanwhile(fd):
        disk.fsync(fd)
        while chores:
            bench.journal.do(chores.pop(0))

    monkeypatch.setattr("moengage_personalize.spool._segment._sync", meanwhile)
    assert bench.keeper.sync() == []
    assert bench.journal.carried > 0
    monkeypatch.setattr("moengage_personalize.spool._segment._sync", disk.fsync)
    assert len(bench.keeper.sync()) > 0
    bench.kill()


def test_settling_a_straggler_by_its_old_ticket_settles_the_copy(root, disk):
    bench = Bench(root)
    _, tickets = stragglers(bench)
    bench.cycle(0.0)
    bench.cycle(STRAGGLING_AFTER)
    bench.journal.settle(tickets)
    assert bench.journal.pending() == 0
    assert bench.journal.moved == {}
    bench.kill()
    heir = Bench(root)
    assert heir.entries() == []
    heir.kill()


def test_after_a_failed_sync_no_sync_succeeds_until_all_is_written_anew(root, disk, tmp_path):
    bench = Bench(root)
    bench.append(entry(1))
    disk.failing = True
    with pytest.raises(SpoolSyncError):
        bench.sync()
    disk.failing = False
    with pytest.raises(SpoolSyncError):  # the kernel says yes now, and means nothing by it
        bench.sync()
    bench.cycle()
    bench.sync()
    bench.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1)]


def test_an_heir_does_not_trust_what_failed_to_sync(root, disk, tmp_path):
    bench = Bench(root)
    bench.append(entry(1))
    disk.failing = True
    with pytest.raises(SpoolSyncError):
        bench.sync()
    bench.kill()
    disk.failing = False
    heir = Bench(root)
    heir.recover()
    with pytest.raises(SpoolSyncError):
        heir.sync()
    heir.cycle()
    heir.sync()
    heir.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1)]


def test_an_heir_syncs_what_the_dead_did_not(root, disk, tmp_path):
    bench = Bench(root)
    bench.append(entry(1))
    bench.kill()
    heir = Bench(root)
    heir.recover()
    heir.sync()
    heir.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1)]


def test_of_two_copies_the_one_that_is_handed_out_first_is_durable(root, disk, tmp_path, monkeypatch):
    names = iter(f"{number:016x}" for number in range(9, 0, -1))  # the heir's files come before the dead's
    monkeypatch.setattr("secrets.token_hex", lambda size: next(names))
    dead = Bench(root)
    stragglers(dead)
    dead.kill()
    heir = Bench(root)
    stranded = {found.event_uuid for found in heir.entries()}
    heir.cycle(0.0)
    heir.cycle(STRAGGLING_AFTER)
    assert heir.journal.carried > 0
    heir.kill()  # with the copies not yet synced, and the originals not yet gone
    last = Bench(root)
    seen = set()
    for ticket, found in last.recover():
        if found.event_uuid in seen:
            last.journal.settle([ticket])
        seen.add(found.event_uuid)
    for segment in last.journal.retired:
        disk.fsync(segment.fd)  # the marks reach the disk of their own accord
    assert last.journal.retired
    last.kill()
    assert stranded <= {one.event_uuid for one in after_a_cut(disk, tmp_path)}


def test_of_two_copies_one_of_them_in_doubt_the_other_is_handed_out_first(root, disk, tmp_path):
    dead = Bench(root)
    dead.append(entry(1))
    disk.failing = True
    with pytest.raises(SpoolSyncError):
        dead.sync()
    disk.failing = False
    dead.cycle()  # writes it anew
    assert dead.journal.carried == 1
    dead.keeper._sync_all()
    dead.kill()  # with the copy durable, and the original not yet gone
    heir = Bench(root)
    (kept, found), (twin, again) = heir.recover()
    assert found == again == entry(1)
    heir.journal.settle([twin])
    assert not heir.journal.located(kept)[0].doomed
    for segment in [*heir.journal.segments.values(), *heir.journal.retired]:
        disk.fsync(segment.fd)  # the marks reach the disk of their own accord
    heir.kill()
    assert after_a_cut(disk, tmp_path) == [entry(1)]
