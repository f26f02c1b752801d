"""The arq worker with a real Redis: told to stop, or killed, it loses no job and reports none twice."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import arq_worker
import pytest
from arq.connections import RedisSettings, create_pool
from emulator.kit import CONTEXT
from faults.external import free_port, missing, running

from moengage_personalize.emulator import Emulator, Trouble, serve_in_thread

pytestmark = pytest.mark.conformance
JOBS = 300


@pytest.fixture
def redis(tmp_path):
    if shutil.which("redis-server") is None:
        missing("redis-server", "apt-get install redis-server")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running(command, port, cwd=tmp_path, log=tmp_path / "redis.log"):
        yield RedisSettings(port=port)


@pytest.fixture
def emulator(monkeypatch):
    emulator = Emulator("DEMO_WORKSPACE", "demo-key")
    with serve_in_thread(emulator) as server:
        monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", emulator.workspace_id)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", emulator.api_key)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", server.base_url)
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_path))
        yield emulator


async def enqueue(redis):
    pool = await create_pool(redis)
    for number in range(JOBS):
        await pool.enqueue_job("report", "click", f"customer-{number % 17}", CONTEXT, b_id=f"{number}")
    await pool.aclose()


async def forget_the_dead(redis):
    """What happens by itself when `job_timeout` is over: the jobs of a killed worker are anybody's."""
    pool = await create_pool(redis)
    if keys := await pool.keys("arq:in-progress:*"):
        await pool.delete(*keys)
    await pool.aclose()


@contextlib.contextmanager
def worker(redis, log):
    """A worker process; killed at the end, if it is still there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import arq_worker; from arq import run_worker;"
        "from arq.connections import RedisSettings;"
        "run_worker(arq_worker.WorkerSettings, redis_settings=RedisSettings(port=int(sys.argv[2])), max_jobs=20)"
    )
    command = [sys.executable, "-c", code, str(Path(arq_worker.__file__).parent), str(redis.port)]
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
            process.wait(15)
        finally:
            process.kill()


def until(condition, seconds=30):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_is_ended_in_the_middle_loses_no_job_and_reports_none_twice(emulator, redis, tmp_path, number):
    emulator.troubles.add(Trouble(endpoints=("events",), latency=0.1), now=0)
    asyncio.run(enqueue(redis))
    log = tmp_path / "arq.log"
    with worker(redis, log) as first:
        until(lambda: emulator.ledger.counts.accepted >= 20)
        first.send_signal(number)
    assert emulator.ledger.counts.accepted < JOBS
    asyncio.run(forget_the_dead(redis))
    with worker(redis, log) as second:
        until(lambda: emulator.ledger.counts.accepted == JOBS)
        second.send_signal(signal.SIGTERM)
    counts = emulator.ledger.counts
    assert (counts.accepted, counts.duplicates_different) == (JOBS, 0)
    said = [event.action["attributes"]["b_id"] for event in emulator.ledger.events]
    assert sorted(map(int, said)) == list(range(JOBS))
