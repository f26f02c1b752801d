"""SIGTERM and Ctrl-C under uvicorn, with visitors in the shop."""

import contextlib
import json
import signal

import anyio
import httpx
import pytest
from conformance.lifecycle.ledger import check
from conformance.lifecycle.processes import Load, Script, uvicorn

from moengage_personalize import AsyncPersonalizeClient
from moengage_personalize.emulator import Trouble
from moengage_personalize.spool import DiskSpool

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

ENDS_WITH = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}  # uvicorn raises again what it has caught
LOOPS = ("asyncio", "uvloop")


@pytest.mark.parametrize("number", ENDS_WITH, ids=lambda number: number.name)
@pytest.mark.parametrize("loop", LOOPS)
async def test_told_to_stop_under_load_it_delivers_everything_that_was_accepted(number, loop, emulated, tmp_path):
    with uvicorn("--loop", loop, directory=tmp_path, LINGER="30") as service:
        await service.ready()
        async with Load(service) as load:
            await load.until(300)
            assert emulated.ledger.counts.accepted < len(load.accepted)  # the rest lingers
            service.send(number)
            status, took = await service.ended(15)
        assert (status, service.complaints) == (ENDS_WITH[number], [])
        assert took < 4
        report = json.loads(service.stdout)
    check(emulated, load.accepted)
    assert report["delivered"] == report["accepted"] >= len(load.accepted)
    assert report["balanced"]


async def test_told_to_stop_in_an_outage_it_ends_within_its_grace_and_counts_what_is_lost(emulated, tmp_path):
    emulated.troubles.add(Trouble(endpoints=("events",), status=503), emulated.effects.now())
    with uvicorn(directory=tmp_path, LINGER="0.05", GRACE="1") as service:
        await service.ready()
        async with Load(service) as load:
            await load.until(100)
            service.send(signal.SIGTERM)
            status, took = await service.ended(15)
        assert (status, service.complaints) == (-signal.SIGTERM, [])
        assert took < 3
        report = json.loads(service.stdout)
    assert report["dropped"] == report["accepted"] >= len(load.accepted)
    assert report["balanced"]


@pytest.mark.parametrize(("loop", "spooled"), [("asyncio", True), ("uvloop", False)])
async def test_forced_to_exit_it_loses_only_what_was_neither_sent_nor_spooled(spooled, loop, emulated, tmp_path):
    """Two Ctrl-C, while a slow page keeps uvicorn from ending: the lifespan is not asked to end, but cancelled.

    On asyncio's own loop, from Python 3.12 on, uvicorn waits for the page all the same, for as long as it is told to.
    """
    settings = {"SPOOL": str(tmp_path / "spool")} if spooled else {}
    options = ["--loop", loop, "--timeout-graceful-shutdown", "2"]
    with uvicorn(*options, directory=tmp_path, LINGER="0.05", GRACE="30", **settings) as service:
        await service.ready()
        async with httpx.AsyncClient(trust_env=False) as http, anyio.create_task_group() as pages:
            pages.start_soon(_ask, http, f"{service.url}/slow")
            async with Load(service) as load:
                await load.until(100)
                await anyio.sleep(0.3)
                emulated.troubles.add(Trouble(endpoints=("events",), status=503), emulated.effects.now())
                await load.until(100)
            sent = {event.uuid for event in emulated.ledger.events}
            service.send(signal.SIGINT)
            await anyio.sleep(0.5)
            assert service.process.poll() is None
            service.send(signal.SIGINT)
            status, took = await service.ended(10)
            pages.cancel_scope.cancel()
        assert status == 0
        assert took < 4
    emulated.troubles.clear()
    unsent = set(load.accepted) - sent
    assert sent
    assert unsent
    if not spooled:
        check(emulated, load.accepted, lost=unsent)
        return
    async with AsyncPersonalizeClient(spool=DiskSpool(tmp_path / "spool")) as second:
        with anyio.fail_after(10):
            while second.stats().delivered < len(unsent):
                await anyio.sleep(0.02)
    check(emulated, load.accepted)


async def _ask(http, url):
    with contextlib.suppress(httpx.TransportError):
        await http.get(url, timeout=60)


@pytest.mark.parametrize("loop", LOOPS)
async def test_without_a_server_one_ctrl_c_delivers_and_the_exit_status_tells_of_it(loop, emulated, tmp_path):
    with Script("interrupted", loop, directory=tmp_path) as script:
        await _said(script, "tracked")
        script.send(signal.SIGINT)
        status, took = await script.ended(10)
        assert status == 130
        assert took < 3
        assert [line for line in script.complaints if "Traceback" not in line] == []
        assert json.loads(script.stdout.splitlines()[-1]) == {"delivered": 100, "dropped": 0}
    assert emulated.ledger.counts.accepted == 100


async def test_without_a_server_a_second_ctrl_c_ends_at_once(emulated, tmp_path):
    emulated.troubles.add(Trouble(outcome="hang"), emulated.effects.now())
    with Script("interrupted", "asyncio", directory=tmp_path) as script:
        await _said(script, "tracked")
        script.send(signal.SIGINT)
        await anyio.sleep(0.5)
        assert script.process.poll() is None  # it has thirty seconds
        script.send(signal.SIGINT)
        status, took = await script.ended(10)
        assert status == 130
        assert took < 2


async def _said(script, word):
    with anyio.fail_after(15):
        while word not in script.stdout:
            assert script.process.poll() is None, script.stderr
            await anyio.sleep(0.01)
