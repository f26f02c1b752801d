"""A second event loop, a fork, a client that nobody closes, another thread: a clear error or a fresh start, never a hang."""

import json

import anyio
import httpx
import pytest
from conformance.lifecycle.ledger import check
from conformance.lifecycle.processes import Load, Script, gunicorn, uvicorn

from moengage_personalize import AsyncPersonalizeClient
from moengage_personalize.spool import DiskSpool

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

BOUND = 15  # seconds for a process that should take two
on_both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


async def played(name, loop, directory, **environment):
    """Runs a scenario to its end, which has to come by itself."""
    with Script(name, loop, directory=directory, **environment) as script:
        status, took = await script.ended(BOUND)
        assert status == 0, script.stderr
        assert script.others() == []
    return script, took


def customers(emulator):
    return {event.customer_id.rpartition("-")[0] for event in emulator.ledger.events}


# ── a second event loop ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_was_closed_cannot_be_opened_in_a_second_run(emulated, tmp_path):
    script, _ = await played("closed_then_opened_in_a_second_run", "asyncio", tmp_path)
    assert script.complaints == []
    assert emulated.ledger.counts.accepted == 10


@on_both_loops
async def test_a_client_that_was_left_open_says_so_in_a_second_run_and_counts_what_the_first_lost(
    loop, emulated, tmp_path
):
    script, _ = await played("left_open_and_used_in_a_second_run", loop, tmp_path)
    assert script.complaints == []
    assert emulated.ledger.counts.accepted == 10


@on_both_loops
async def test_a_client_whose_loop_was_closed_under_it_says_so(loop, emulated, tmp_path):
    await played("used_after_its_loop_was_closed_under_it", loop, tmp_path)
    await played("closed_after_its_loop_was", loop, tmp_path)
    assert emulated.ledger.counts.accepted == 0


async def test_two_loops_in_two_threads_with_a_client_each_are_strangers(emulated, tmp_path):
    script, _ = await played("two_loops_in_two_threads", "asyncio", tmp_path)
    assert script.complaints == []
    assert emulated.ledger.counts.accepted == 100


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("how", "loop", "spooled"),
    [
        ("forked_after_use", "asyncio", True),
        ("forked_after_use", "uvloop", False),
        ("forked_by_multiprocessing", "asyncio", False),
        ("forked_by_multiprocessing", "uvloop", True),
    ],
)
async def test_a_child_that_was_forked_after_use_makes_its_own_client_and_the_parent_goes_on(
    how, spooled, loop, emulated, tmp_path
):
    settings = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    script, _ = await played(how, loop, tmp_path, **settings)
    assert script.complaints == []
    assert customers(emulated) == {"before", "child", "after"}
    counts = emulated.ledger.counts
    assert (counts.accepted, counts.received) == (60, 60)


@on_both_loops
async def test_starting_programs_does_not_disturb_an_open_client(loop, emulated, tmp_path):
    script, _ = await played("started_programs", loop, tmp_path, SPOOL=str(tmp_path / "spool"))
    assert script.complaints == []
    assert emulated.ledger.counts.accepted == emulated.ledger.counts.received == 40


async def test_under_gunicorn_preload_a_client_that_was_made_in_the_parent_works_in_each_worker(emulated, tmp_path):
    with gunicorn("--preload", directory=tmp_path, PARENT="constructed", SPOOL=str(tmp_path / "spool")) as service:
        await service.ready()
        async with Load(service, visitors=8) as load:
            await load.until(300)
            service.send(15)
            status, took = await service.ended(15)
        assert (status, service.complaints) == (0, [])
        assert took < 6
        reports = [json.loads(line) for line in service.stdout.splitlines() if line.startswith("{")]
        assert service.others() == []
    assert len(reports) == 2
    assert all(report["balanced"] and not report["dropped"] for report in reports)
    check(emulated, load.accepted)


async def test_under_gunicorn_preload_a_client_that_was_opened_in_the_parent_says_what_to_do(emulated, tmp_path):
    # One worker: where a second one dies while gunicorn halts for the first, it loses the status of that.
    with gunicorn("--preload", "--workers", "1", directory=tmp_path, PARENT="entered") as service:
        status, _ = await service.ended(BOUND)
        assert status == 3  # gunicorn's "worker failed to boot"
        assert "this process was forked after the client was opened: open one in the child" in service.stderr
        assert service.others() == []


# ── nobody closes ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_is_collected_unclosed_says_so_and_its_events_are_delivered(emulated, tmp_path):
    script, took = await played("forgotten_with_events_pending", "asyncio", tmp_path)
    assert "was never closed: use `async with`" in script.stderr
    assert [line for line in script.complaints if "ResourceWarning" not in line] == []
    assert emulated.ledger.counts.accepted == 10
    assert took < 5


@pytest.mark.parametrize(("loop", "spooled"), [("asyncio", False), ("uvloop", True)])
async def test_a_client_that_is_never_closed_counts_what_is_lost_and_does_not_hold_up_the_end(
    spooled, loop, emulated, tmp_path
):
    settings = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    script, took = await played("never_closed", loop, tmp_path, **settings)
    assert took < 5
    lost = {"dropped": 0, "spooled": 10} if spooled else {"dropped": 10, "spooled": 0}
    assert json.loads(script.stdout) == {**lost, "balanced": True}
    assert "was never closed" in script.stderr
    if spooled:
        async with AsyncPersonalizeClient(spool=DiskSpool(tmp_path / "spool")) as second:
            with anyio.fail_after(10):
                while second.stats().delivered < 10:
                    await anyio.sleep(0.02)


@on_both_loops
async def test_a_client_whose_loop_is_never_closed_either_does_not_hold_up_the_end(loop, emulated, tmp_path):
    _, took = await played("never_closed_nor_its_loop", loop, tmp_path, SPOOL=str(tmp_path / "spool"))
    assert took < 5


async def test_a_resolver_that_is_stuck_holds_up_neither_the_closing_nor_the_end(emulated, tmp_path):
    script, took = await played("exits_while_the_resolver_is_stuck", "asyncio", tmp_path)
    assert took < 5
    assert json.loads(script.stdout) == {"dropped": 10}
    assert script.complaints == []


# ── other threads ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_daemon_thread_is_told_the_remedies_and_does_not_hold_up_the_end(emulated, tmp_path):
    script, took = await played("tracked_by_a_daemon_thread", "asyncio", tmp_path)
    assert took < 5
    said = json.loads(script.stdout)
    assert "anyio.from_thread.run_sync(partial(client.track_impression, …))" in said["told"][0]
    assert "loop.call_soon_threadsafe(partial(…))" in said["told"][0]
    assert said["delivered"] == 1
    assert script.complaints == []


async def test_a_def_endpoint_is_told_the_remedy_which_works(emulated, tmp_path):
    with uvicorn(directory=tmp_path) as service:
        await service.ready()
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as http:
            told = (await http.post("/from-a-thread")).json()
            assert (await http.post("/from-a-thread-remedied")).json() == "accepted"
        service.send(15)
        await service.ended(BOUND)
    assert "`def` endpoint, use anyio.from_thread.run_sync(partial(client.track_impression, …))" in told
    assert emulated.ledger.counts.accepted == 1
