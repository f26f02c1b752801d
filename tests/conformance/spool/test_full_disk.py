"""A real file system that fills up while segments are mapped, and one system call counter."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import child  # noqa: E402

pytestmark = pytest.mark.conformance

FILL = """
import asyncio, sys
sys.path[:0] = {path!r}
import uuid
from child import made_for
from moengage_personalize.spool import DiskSpool

async def main():
    spool = DiskSpool({directory!r}, segment_bytes=65536, max_bytes=1 << 30, sync_interval=0.002)
    await spool.open()
    number, refused = 0, 0
    while refused < 2000:
        number += 1
        made = made_for(uuid.UUID(int=number, version=4))
        if spool.append(made) is None:
            refused += 1
        else:
            print(made.event_uuid, flush=False)
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    print("state", spool.stats().state, flush=True)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("may not mount")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_disk_that_fills_up_under_mapped_segments_is_no_signal_and_loses_nothing(small_disk):
    directory = small_disk / "spool"
    code = FILL.format(path=[str(HERE), *sys.path], directory=str(directory))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    *acknowledged, state = ran.stdout.splitlines()
    assert ran.returncode == -9, ran.stderr  # its own, and no SIGBUS
    assert state in ("state failing", "state full")
    assert len(acknowledged) > 1000

    async def inherit():
        spool = child.DiskSpool(directory, segment_bytes=65536, max_bytes=1 << 30)
        await spool.open()  # on a disk that is still full
        found = set()
        async for page in spool.recover():
            for ticket, entry in page:
                assert entry == child.made_for(child.uuid.UUID(entry.event_uuid))
                found.add(entry.event_uuid)
                spool.settle([ticket])
        await spool.aclose()
        return found

    assert asyncio.run(inherit()) == set(acknowledged)
    assert list(directory.iterdir()) == []


COUNT = """
import asyncio, os, sys
sys.path[:0] = {path!r}
import uuid
from child import made_for
from moengage_personalize.spool import DiskSpool

async def main():
    spool = DiskSpool({directory!r}, sync_interval=60)
    await spool.open()
    made = [made_for(uuid.UUID(int=number, version=4)) for number in range(2000)]
    spool.append(made[0])
    await spool.sync()
    await asyncio.sleep(0.3)  # until the spool's thread waits for its next hour
    os.write(1, b"begin")
    tickets = [spool.append(one) for one in made]
    spool.settle(tickets)
    os.write(1, b"end")
    assert None not in tickets
    await spool.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_two_thousand_appends_and_settlements_make_no_system_call(tmp_path):
    code = COUNT.format(path=[str(HERE), *sys.path], directory=str(tmp_path / "spool"))
    log = tmp_path / "strace"
    traced = ["strace", "-o", str(log), sys.executable, "-c", code]  # the first thread only: no -f
    subprocess.run(traced, check=True, capture_output=True, timeout=60)
    lines = log.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if '"begin"' in line)
    end = next(number for number, line in enumerate(lines) if '"end"' in line)
    # The allocator may ask for memory: the list of tickets grows.
    calls = [line for line in lines[begin + 1 : end] if not line.startswith(("brk(", "mmap(NULL", "munmap("))]
    assert calls == []
