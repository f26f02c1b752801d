"""What the spool does about files that are damaged, foreign, linked, gone, or cannot be made."""

import errno
import fcntl
import os
import subprocess
import sys

import attrs
import pytest
from spool.helpers import SEGMENT, Bench, entry, segments
from spool.test_format import newer

from moengage_personalize.spool import (
    DeadLetter,
    DiskSpool,
    SpoolBusyError,
    SpoolDirectoryError,
    SpoolFormatError,
    SpoolFullError,
    SpoolSyncError,
    _format as f,
    _segment,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr("moengage_personalize.spool._chores._BREATH", 0)
    return tmp_path / "spool"


@pytest.fixture
def dead(root):
    """What a killed process left: three entries in one segment."""
    bench = Bench(root)
    bench.append(entry(1), entry(2), entry(3))
    bench.kill()
    (segment,) = [path for path in segments(root) if path.read_bytes().strip(b"\0")]
    return segment


def heir_of(root, **options):
    bench = Bench(root, **options)
    found = bench.entries()
    return bench, found


# -- dying in the middle -------------------------------------------------------


def test_at_no_line_of_an_append_is_there_a_marker_before_its_record(root):
    bench = Bench(root)
    bench.append(entry(1))
    segment = bench.journal.active
    at, states = segment.tail, set()

    def look(*_: object):
        marked = os.pread(segment.fd, len(segment.marker), at) == segment.marker
        states.add((marked, len(segment.page(f.RECORDS_AT, limit=9).frames)))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        bench.journal.append(*entry(2).fields())
    finally:
        sys.settrace(before)
    assert states == {(False, 1), (True, 2)}
    bench.close()


# -- damage -------------------------------------------------------------------


def test_a_killed_process_leaves_everything(root, dead):
    heir, found = heir_of(root)
    assert found == [entry(1), entry(2), entry(3)]
    assert heir.spool.stats().adopted_processes == 1
    heir.close()


def test_a_file_torn_at_any_byte_of_its_last_record_gives_the_others(root, dead):
    data = dead.read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in range(end - len(f.encode_entry(entry(3))) - f.FRAME_SIZE, end + 1, 5):
        dead.write_bytes(data[:length])
        bench, found = heir_of(root)
        assert found in ([entry(1), entry(2)], [entry(1), entry(2), entry(3)])
        assert length < end or len(found) == 3
        bench.kill()


def test_a_file_too_short_for_a_record_is_removed(root, dead):
    data = dead.read_bytes()
    for length in (0, 1, 63, 64, 128, 191, 192, 255, 256):
        dead.write_bytes(data[:length])
        bench, found = heir_of(root)
        assert found == []
        assert not dead.exists()
        bench.kill()


def test_a_corrupted_record_is_skipped_and_counted(root, dead):
    data = bytearray(dead.read_bytes())
    data[data.index(b'{"number":2}')] ^= 1
    dead.write_bytes(data)
    heir, found = heir_of(root)
    assert found == [entry(1), entry(3)]
    assert heir.spool.stats().skipped == 1
    heir.close()


def test_a_file_of_nothing_but_damage_leaves_when_it_has_been_read(root, dead):
    data = dead.read_bytes()
    dead.write_bytes(data[: f.RECORDS_AT] + b"\xff" * (len(data) - f.RECORDS_AT))
    heir, found = heir_of(root)
    heir.cycle()
    assert found == []
    assert not dead.exists()
    heir.close()


def test_valid_records_survive_a_restart_after_a_complete_corrupt_record(root, dead):
    data = bytearray(dead.read_bytes())
    data[data.index(b'{"number":1}')] ^= 1
    dead.write_bytes(data)
    for _ in range(3):
        heir, found = heir_of(root)
        assert found == [entry(2), entry(3)]
        heir.kill()


def test_an_empty_file_is_removed(root, dead):
    dead.write_bytes(b"")
    heir, found = heir_of(root)
    assert found == []
    assert not dead.exists()
    heir.close()
    assert list(root.iterdir()) == []


def test_a_spare_that_never_came_to_use_is_removed(root):
    Bench(root).kill()
    assert len(segments(root)) == 1
    heir, _ = heir_of(root)
    heir.close()
    assert list(root.iterdir()) == []


def test_a_newer_format_is_left_alone(root, dead):
    data = newer(dead.read_bytes()[: f.RECORDS_AT]) + dead.read_bytes()[f.RECORDS_AT :]
    dead.write_bytes(data)
    heir, found = heir_of(root)
    assert found == []
    assert heir.spool.stats().left_alone == 1
    heir.close()
    assert dead.read_bytes() == data


def test_one_files_trouble_is_not_its_neighbours(root, dead):
    other = Bench(root)
    other.append(entry(9))
    other.kill()
    dead.write_bytes(b"not a segment at all" * 100)
    heir, found = heir_of(root)
    assert found == [entry(9)]
    heir.close()


def test_a_bad_sector_is_left_for_a_process_with_better_luck(root, dead, monkeypatch):
    heir = Bench(root)
    heir.keeper.adopt()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", raising(errno.EIO))
        assert heir.keeper.inheritance.read_page(10) is None
    assert heir.spool.stats().left_alone == 1
    heir.close()
    heir, found = heir_of(root)
    assert len(found) == 3
    heir.close()


def test_segments_larger_than_the_reading_window_are_read_to_their_end(root):
    bench = Bench(root, segment_bytes=1 << 20)
    everything = [entry(number, size=3000 + number % 7) for number in range(250)]
    bench.append(*everything)
    bench.kill()
    heir, found = heir_of(root)
    assert found == everything
    heir.close()


def test_a_record_larger_than_the_reading_window_is_read(root):
    bench = Bench(root, segment_bytes=1 << 20)
    everything = [entry(1), entry(2, size=700_000), entry(3)]
    bench.append(*everything)
    bench.kill()
    heir, found = heir_of(root)
    assert found == everything
    heir.close()


# -- who owns what --------------------------------------------------------------


def test_the_files_of_the_living_are_not_adopted(root):
    first, second = Bench(root), Bench(root)
    first.append(entry(1))
    assert second.entries() == []
    assert second.keeper.inheritance.living == 1
    first.kill()
    assert second.entries() == [entry(1)]
    second.close()


def test_only_one_heir_gets_the_inheritance(root, dead):
    heirs = [Bench(root) for _ in range(3)]
    assert sorted(len(heir.entries()) for heir in heirs) == [0, 0, 3]
    for heir in heirs:
        heir.kill()


def test_a_killed_heir_leaves_the_inheritance_to_the_next(root, dead):
    for _ in range(3):
        heir, found = heir_of(root)
        assert found == [entry(1), entry(2), entry(3)]
        heir.kill()


def test_what_was_settled_is_not_inherited(root):
    bench = Bench(root)
    tickets = bench.append(entry(1), entry(2))
    bench.journal.settle(tickets[:1])
    bench.kill()
    heir, found = heir_of(root)
    assert found == [entry(2)]
    heir.close()


def test_segments_whose_lock_file_is_gone_are_adopted(root, dead):
    for lock in root.glob("*.lock"):
        lock.unlink()
    heir, found = heir_of(root)
    assert len(found) == 3
    heir.close()


def test_segments_come_back_in_the_order_in_which_they_were_written(root):
    bench = Bench(root)
    everything = [entry(number, size=1000) for number in range(60)]
    bench.append(*everything)
    bench.kill()
    heir, found = heir_of(root)
    assert found == everything
    heir.close()


def test_a_clean_end_leaves_nothing_behind(root):
    bench = Bench(root)
    bench.journal.settle(bench.append(*(entry(number, size=1000) for number in range(60))))
    bench.close()
    assert list(root.iterdir()) == []


def test_settled_segments_leave_while_running(root):
    bench = Bench(root)
    tickets = bench.append(*(entry(number, size=1000) for number in range(60)))
    many = len(segments(root))
    bench.journal.settle(tickets)
    bench.cycle()
    assert many > 8
    assert len(segments(root)) <= 2
    bench.close()


def test_a_lock_whose_file_has_lost_its_name_meanwhile_is_none(root, monkeypatch):
    """The last heir removed it between our opening and our locking: another may hold a new one under that name."""
    bench, owner = Bench(root), "0" * 16
    flock = type(bench.keeper.directory)._flock

    def after_the_last_heir(directory, fd):
        (root / f"{owner}.lock").unlink()
        return flock(directory, fd)

    with monkeypatch.context() as racing:
        racing.setattr(type(bench.keeper.directory), "_flock", after_the_last_heir)
        assert bench.keeper.directory.lock(owner) is None
    lock = bench.keeper.directory.lock(owner)
    assert lock is not None
    bench.keeper.directory.release(lock)
    bench.close()


def test_a_file_with_holes_is_filled_before_it_is_mapped(root, dead):
    """A copied or truncated file may have some, and a store to one on a full disk would be a SIGBUS."""
    os.truncate(dead, 4_096)
    os.truncate(dead, 1 << 20)
    assert dead.stat().st_blocks * 512 < 1 << 20
    heir, found = heir_of(root)
    assert found == [entry(1), entry(2), entry(3)]
    assert dead.stat().st_blocks * 512 >= 1 << 20
    heir.kill()


def test_a_file_whose_holes_cannot_be_filled_is_left_alone_until_they_can(root, dead, monkeypatch):
    os.truncate(dead, 1 << 20)
    heir = Bench(root)
    with monkeypatch.context() as full:

        def no_room(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(os, "posix_fallocate", no_room)
        assert heir.entries() == []
    assert heir.entries() == [entry(1), entry(2), entry(3)]
    heir.kill()


def test_an_owner_that_was_taken_for_dead_at_birth_takes_another_name(root, monkeypatch):
    names = iter(["a" * 16, "b" * 16])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(names))
    root.mkdir()
    fd = os.open(root / f"{'a' * 16}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    bench = Bench(root)
    assert bench.keeper.lock.owner == "b" * 16
    bench.close()
    os.close(fd)


# -- what is not ours -------------------------------------------------------------


def test_foreign_files_are_left_alone(root, dead):
    (root / "README").write_text("mine")
    (root / "notes.seg").write_text("mine")
    (root / "sub").mkdir()
    heir, found = heir_of(root)
    assert len(found) == 3
    heir.close()
    assert {"README", "notes.seg", "sub"} <= {path.name for path in root.iterdir()}


def test_a_linked_segment_is_not_followed(root, dead, tmp_path):
    secret = tmp_path / "elsewhere"
    dead.rename(secret)
    dead.symlink_to(secret)
    before = secret.read_bytes()
    heir, found = heir_of(root)
    assert found == []
    heir.close()
    assert secret.read_bytes() == before


def test_a_linked_lock_is_not_followed(root, dead, tmp_path):
    target = tmp_path / "target"
    (lock,) = root.glob("*.lock")
    lock.unlink()
    lock.symlink_to(target)
    heir, found = heir_of(root)
    assert found == []
    assert not target.exists()
    heir.close()


def test_a_hard_link_to_a_segment_is_not_adopted(root, dead, tmp_path):
    os.link(dead, tmp_path / "other-name")
    heir, found = heir_of(root)
    assert found == []
    assert heir.spool.stats().left_alone == 1
    heir.close()


def test_a_fifo_in_a_segments_place_does_not_hang(root, dead):
    dead.unlink()
    os.mkfifo(dead)
    heir, found = heir_of(root)
    assert found == []
    heir.close()


@pytest.mark.parametrize("name", ["tombstones", "dead-letters"])
def test_a_linked_shared_file_is_an_error(root, tmp_path, name):
    bench = Bench(root)
    (root / name).symlink_to(tmp_path / "target")
    with pytest.raises(SpoolDirectoryError):
        bench.keeper.forget(b"x", 1.0)
    assert not (tmp_path / "target").exists()
    bench.kill()


def test_files_are_readable_by_their_owner_only(root):
    bench = Bench(root)
    bench.append(entry(1))
    bench.keeper.forget(b"x", 1.0)
    assert {path.stat().st_mode & 0o777 for path in root.iterdir()} == {0o600}
    assert root.stat().st_mode & 0o777 == 0o700
    bench.close()


# -- no room ------------------------------------------------------------------------


def raising(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_on_a_full_disk_the_spool_opens_and_answers_none_until_there_is_room(root, monkeypatch, number):
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", raising(number))
        bench = Bench(root)
        assert bench.journal.append(*entry(1).fields()) is None
        bench.cycle()
        assert bench.spool.stats().state == "failing"
        assert segments(root) == []
    bench.cycle()
    assert bench.journal.append(*entry(1).fields()) is not None
    assert bench.spool.stats().state == "open"
    bench.close()


def test_a_disk_that_fills_up_costs_no_entry_that_has_a_ticket(root, monkeypatch):
    bench = Bench(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", raising(errno.ENOSPC))
        made = [entry(number, size=1000) for number in range(30)]
        kept = [one for one in made if bench.journal.append(*one.fields()) is not None]
        assert 0 < len(kept) < len(made)
    assert bench.spool.stats().refused == len(made) - len(kept)
    bench.kill()
    heir, found = heir_of(root)
    assert found == kept
    heir.close()


def test_a_failed_append_does_not_try_the_disk_again_until_the_next_cycle(root, monkeypatch):
    bench = Bench(root)
    calls = []
    monkeypatch.setattr(os, "posix_fallocate", lambda *args: calls.append(args) or raising(errno.ENOSPC)())
    for number in range(100):
        bench.journal.append(*entry(number, size=1000).fields())
    assert len(calls) == 1
    bench.kill()


def test_the_bound_in_bytes_holds_and_room_comes_back(root):
    bench = Bench(root, max_bytes=4 * SEGMENT)
    tickets = []
    while (ticket := bench.journal.append(*entry(len(tickets), size=1000).fields())) is not None:
        tickets.append(ticket)
        bench.cycle()
    assert bench.keeper.directory.bytes_of_segments() == 4 * SEGMENT
    assert bench.spool.stats().state == "full"
    bench.journal.settle(tickets)
    bench.cycle()
    assert bench.journal.append(*entry(1).fields()) is not None
    bench.close()


def test_the_bound_counts_the_files_of_all_processes(root):
    first, second = Bench(root, max_bytes=3 * SEGMENT), Bench(root, max_bytes=3 * SEGMENT)
    first.append(entry(1))
    second.append(entry(2))
    first.cycle()
    second.cycle()
    assert first.keeper.directory.bytes_of_segments() == 3 * SEGMENT
    first.kill()
    second.kill()


def test_an_entry_larger_than_a_segment_is_refused_and_costs_no_segment(root):
    bench = Bench(root)
    assert bench.journal.append(*entry(1, size=SEGMENT).fields()) is None
    assert bench.journal.append(*entry(2).fields()) is not None
    assert bench.spool.stats().refused == 1
    assert len(bench.journal.segments) == 1
    bench.close()


def test_an_entry_that_cannot_be_represented_is_refused(root):
    bench = Bench(root)
    made = entry(5)
    for change in ({"event_uuid": "ü" * 36}, {"timezone_offset": 1 << 40}):
        assert bench.journal.append(*attrs.evolve(made, **change).fields()) is None
    bench.close()


def test_a_file_size_limit_is_a_full_disk_and_no_signal(root):
    code = f"""
import resource, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from spool.helpers import Bench, entry
bench = Bench(Path({str(root)!r}))
assert bench.journal.append(*entry(1).fields()) is None
bench.cycle()
print(bench.spool.stats().last_error)
bench.close()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "create a segment: File too large"), ran.stderr


def test_dead_letters_on_a_full_disk_raise_and_leave_the_file_whole(root, monkeypatch):
    bench = Bench(root)
    letter = DeadLetter(entry=entry(1), reason="r", status=400, buried_at=1.0)
    bench.keeper.bury([letter])
    before = (root / "dead-letters").read_bytes()
    real = os.pwrite

    def half(fd, data, at):
        if len(data) > 50:
            return real(fd, data[:50], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(SpoolFullError):
            bench.keeper.bury([letter])
    assert (root / "dead-letters").read_bytes() == before
    bench.close()


# -- no directory -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_directory_that_cannot_be_written_is_an_error_at_open(root, monkeypatch, number):
    root.mkdir()
    real = os.open

    def denied(path, flags, *args, **options):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(SpoolDirectoryError, match=os.strerror(number)):
        Bench(root)


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolDirectoryError) as caught:
        Bench(tmp_path / "file" / "spool")
    assert str(caught.value) == f"spool: cannot use its directory {tmp_path}/file/spool: Not a directory"


def test_a_read_only_directory_is_an_error_at_open(root):
    root.mkdir(mode=0o500)
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from moengage_personalize.spool import SpoolDirectoryError
from spool.helpers import Bench
if os.geteuid() == 0:
    os.chmod({str(root.parent)!r}, 0o755)
    os.setuid(65534)
try:
    Bench(Path({str(root)!r}))
except SpoolDirectoryError as error:
    print("refused")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout.strip() == "refused", ran.stderr


def test_a_file_in_the_directorys_place_is_an_error(root):
    root.write_text("")
    with pytest.raises(SpoolDirectoryError):
        Bench(root)


def test_a_path_through_a_file_is_an_error(root):
    root.write_text("")
    with pytest.raises(SpoolDirectoryError):
        Bench(root / "below")


def test_a_missing_directory_is_created_with_its_parents(root):
    bench = Bench(root / "a" / "b")
    bench.append(entry(1))
    bench.close()
    assert (root / "a").stat().st_mode & 0o777 == 0o700


def test_a_directory_deleted_at_run_time_is_made_again_and_everything_pending_moves(root):
    bench = Bench(root)
    everything = [entry(number, size=1000) for number in range(30)]
    tickets = bench.append(*everything)
    remove(root)
    with pytest.raises(SpoolSyncError):
        bench.sync()
    for _ in range(4):
        bench.cycle()
    bench.sync()
    bench.journal.settle(tickets[:10])
    bench.append(entry(100))
    bench.kill()
    heir, found = heir_of(root)
    assert {one.event_uuid: one for one in found} == {one.event_uuid: one for one in [*everything[10:], entry(100)]}
    heir.close()


def test_a_directory_that_is_renamed_at_run_time_is_made_again_under_its_path(root, tmp_path):
    bench = Bench(root)
    bench.append(entry(1))
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(SpoolSyncError):
        bench.sync()
    bench.cycle()
    bench.sync()
    bench.kill()
    heir, found = heir_of(root)
    assert found == [entry(1)]
    heir.close()


def test_a_directory_that_cannot_be_made_again_stops_tickets_until_it_can(root):
    bench = Bench(root)
    bench.append(entry(1))
    remove(root)
    root.write_text("in the way")
    bench.cycle()
    assert bench.journal.append(*entry(2).fields()) is None
    assert bench.spool.stats().state == "failing"
    root.unlink()
    for _ in range(3):
        bench.cycle()
    assert bench.journal.append(*entry(3).fields()) is not None
    bench.kill()
    heir, found = heir_of(root)
    assert {one.event_uuid for one in found} == {entry(1).event_uuid, entry(3).event_uuid}
    heir.close()


def test_a_segment_deleted_at_run_time_is_written_anew(root):
    bench = Bench(root)
    bench.append(entry(1))
    for path in segments(root):
        path.unlink()
    with pytest.raises(SpoolSyncError):
        bench.sync()
    bench.cycle()
    bench.sync()
    bench.kill()
    heir, found = heir_of(root)
    assert entry(1) in found
    heir.close()


def remove(directory):
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


# -- shared files ---------------------------------------------------------------------


def test_a_shared_file_that_stays_locked_is_an_error_and_no_hang(root, monkeypatch):
    bench = Bench(root)
    bench.keeper.forget(b"x", 1.0)
    fd = os.open(root / "tombstones", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    clock = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SpoolBusyError):
        bench.keeper.forget(b"y", 1.0)
    os.close(fd)
    bench.kill()


def test_a_shared_file_of_a_newer_version_is_an_error(root):
    bench = Bench(root)
    bench.keeper.forget(b"x", 1.0)
    path = root / "dead-letters"
    path.write_bytes(newer(path.read_bytes()))
    with pytest.raises(SpoolFormatError):
        bench.keeper.dead_letters()
    bench.kill()


def test_a_shared_file_with_a_damaged_header_is_an_error(root):
    bench = Bench(root)
    bench.keeper.forget(b"x", 1.0)
    (root / "dead-letters").write_bytes(b"?" * 300)
    with pytest.raises(SpoolDirectoryError):
        bench.keeper.dead_letters()
    bench.kill()


@pytest.mark.parametrize(
    "options",
    [
        {"segment_bytes": 1000},
        {"segment_bytes": 5000},
        {"segment_bytes": 2 << 30},
        {"max_bytes": 1 << 20},
        {"sync_interval": 0},
        {"max_dead_letters": -1},
    ],
)
def test_bounds_that_cannot_work_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="must"):
        DiskSpool(tmp_path, **options)


def test_the_first_sync_of_a_segment_is_of_the_file_and_of_its_name(root, monkeypatch):
    bench = Bench(root)
    synced = []
    monkeypatch.setattr(_segment, "_sync", lambda fd: synced.append("file"))
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append("directory"))
    bench.append(entry(1))
    bench.sync()
    bench.append(entry(2))
    bench.sync()
    bench.sync()
    assert synced == ["file", "directory", "file"]
    bench.kill()


def test_an_adopted_segment_stays_until_it_is_read_to_its_end_whatever_is_settled_meanwhile(root, dead):
    heir = Bench(root)
    heir.keeper.adopt()
    found = heir.keeper.inheritance.read_page(1)
    ((ticket, first),) = heir.journal.take(found)
    heir.journal.settle([ticket])
    heir.cycle()
    assert dead.exists()
    assert [first, *(one for _, one in heir.recover())] == [entry(1), entry(2), entry(3)]
    heir.kill()
