"""Real servers, several workers, visitors who leave, processes that are killed: what was accepted arrives once."""

import asyncio
import contextlib
import importlib.util
import os
import random
import signal
import sys
from pathlib import Path

import httpx
import pytest
from faults.external import free_port, missing, running

from moengage_personalize.emulator import Emulator, Trouble, serve_in_thread

pytestmark = pytest.mark.conformance
HERE = str(Path(__file__).parent)
HERO = {"Title": "Hello"}


def uvicorn(port, *options):
    command = [sys.executable, "-m", "uvicorn", "--app-dir", HERE, "shop:app", "--port", str(port)]
    return [*command, "--no-access-log", "--timeout-graceful-shutdown", "3", *options]


def gunicorn(port):
    # Preloaded: the application, and what it makes, is there before the workers are forked.
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--pythonpath", HERE]
    return [*command, "--worker-class", "asgi", "--bind", f"127.0.0.1:{port}", "shop:app"]


def granian(port):
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--workers", "2", "--working-dir", HERE]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "shop:app"]


SERVERS = {
    "uvicorn": uvicorn,
    "uvicorn with 3 workers": lambda port: uvicorn(port, "--workers", "3"),
    "gunicorn, preloaded": gunicorn,
    "granian with 2 workers": granian,
}
WORKERS = {"uvicorn": 1, "uvicorn with 3 workers": 3, "gunicorn, preloaded": 2, "granian with 2 workers": 2}


@pytest.fixture
def emulator(monkeypatch):
    emulator = Emulator("DEMO_WORKSPACE", "demo-key", experiences={"home-hero": HERO})
    with serve_in_thread(emulator) as server:
        monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", emulator.workspace_id)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", emulator.api_key)
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", server.base_url)
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_path))
        yield emulator


@pytest.fixture
def shop(emulator, tmp_path):
    """Starts the shop, under a server; leaving stops it as a supervisor would."""

    @contextlib.contextmanager
    def start(command=uvicorn, *options):
        port = free_port()
        words = command(port, *options)
        if importlib.util.find_spec(words[2]) is None:
            missing(words[2], f"pip install {words[2]}")
        log = tmp_path / f"{port}.log"
        with running(words, port, cwd=tmp_path, log=log) as process:
            yield f"http://127.0.0.1:{port}", process
        assert "Traceback" not in log.read_text(), log.read_text()

    return start


async def look(http, path, name, view):
    """One page view; nothing if the server died meanwhile."""
    try:
        answer = await http.get(path, params={"view": view}, headers={"X-Customer": name, "User-Agent": name})
    except httpx.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None


async def crowd(url, views, at_once=20, path=lambda view: "/def" if view % 5 == 0 else "/"):
    """So many page views; returns what was answered."""
    turn = asyncio.Semaphore(at_once)

    async def one(http, view):
        async with turn:
            return await look(http, path(view), f"customer-{view % 17}", f"{url} {view}")

    # Connections of their own, so that the views meet all workers.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20, limits=limits) as http:
        return [answer for answer in await asyncio.gather(*(one(http, view) for view in views)) if answer]


def arrived(emulator):
    events = [event.uuid for event in emulator.ledger.events]
    assert len(events) == len(set(events))
    return set(events)


def test_a_client_that_was_made_before_the_fork_serves_every_worker(emulator, shop, monkeypatch):
    monkeypatch.setenv("SHOP_SHARED", "1")
    with shop(gunicorn) as (url, _):
        answers = asyncio.run(crowd(url, range(100)))
    assert len({answer["pid"] for answer in answers}) == 2
    assert arrived(emulator) == {answer["uuid"] for answer in answers}
    assert len(answers) == 100


@pytest.mark.parametrize("server", SERVERS)
def test_what_every_worker_accepted_is_delivered_when_the_server_stops(emulator, shop, server):
    with shop(SERVERS[server]) as (url, _):
        answers = asyncio.run(crowd(url, range(200)))
    assert {answer["admission"] for answer in answers} == {"accepted"}
    assert {answer["title"] for answer in answers} == {"Hello"}
    assert len({answer["pid"] for answer in answers}) == WORKERS[server]
    assert arrived(emulator) == {answer["uuid"] for answer in answers}
    assert len(answers) == 200
    assert emulator.ledger.counts.connections_opened == WORKERS[server]


def test_a_forged_address_changes_nothing_unless_its_proxy_was_trusted(shop, monkeypatch):
    forged = {"X-Forwarded-For": "8.8.8.8", "Forwarded": "for=8.8.8.8", "User-Agent": "Phone"}

    def seen(*lines):
        with shop(uvicorn, "--no-proxy-headers") as (url, _):
            headers = [*forged.items(), *(("X-Forwarded-For", line) for line in lines)]
            return httpx.get(f"{url}/who", headers=headers, trust_env=False).json()

    assert seen("203.0.113.7") == {"address": None, "agent": "Phone"}
    monkeypatch.setenv("SHOP_TRUSTS", "127.0.0.1 10.0.0.0/8")
    assert seen("203.0.113.7, 10.1.2.3") == {"address": "203.0.113.7", "agent": "Phone"}
    assert seen("203.0.113.7", "10.1.2.3") == {"address": "203.0.113.7", "agent": "Phone"}


async def leave(url, path, name):
    """Asks, and is gone before the answer; every second one slams the door."""
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nX-Customer: {name}\r\nUser-Agent: {name}\r\n\r\n".encode())
    await writer.drain()
    await asyncio.sleep(0.05)
    if random.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


def test_visitors_who_leave_harm_nobody(emulator, shop):
    emulator.troubles.add(Trouble(endpoints=("fetch",), latency=0.3), now=0)

    async def visits(url):
        async with asyncio.TaskGroup() as tasks:
            for number in range(150):  # some share a request with one who stays
                path = "/impatient" if number % 2 else f"/?view=left-{number}"
                tasks.create_task(leave(url, path, f"customer-{number % 17}"))
            stayed = tasks.create_task(
                crowd(url, range(150), at_once=150, path=lambda view: "/impatient" if view % 3 == 0 else "/")
            )
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            return stayed.result(), (await http.get("/how")).json()

    with shop() as (url, _):
        answers, how = asyncio.run(visits(url))
    assert len(answers) == 150
    assert {answer["title"] for answer in answers} == {"Hello"}
    assert {answer["uuid"] for answer in answers if "uuid" in answer} <= arrived(emulator)
    assert (how["condition"], how["connections"]) == ("healthy", 1)


def test_four_workers_with_one_spool_are_killed_under_load_and_nothing_accepted_is_lost(
    emulator, shop, monkeypatch, tmp_path
):
    monkeypatch.setenv("SHOP_SPOOL", str(tmp_path / "spool"))
    accepted = set()
    dice = random.Random(7)

    async def load(url, process, start):
        known = set()
        views = iter(range(start, start + 100_000))

        async def visitor():
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5, limits=limits) as http:
                while True:
                    view = next(views)
                    answer = await look(http, "/", f"customer-{view % 17}", f"{view}")
                    if answer and answer["admission"] == "accepted":
                        accepted.add(answer["uuid"])
                        known.add(answer["pid"])

        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            visitors = [tasks.create_task(visitor()) for _ in range(8)]
            for _ in range(3):
                enough = len(accepted) + 50  # rather than a time: the machine may be busy
                while len(accepted) < enough or not known:
                    await asyncio.sleep(dice.uniform(0.02, 0.2))
                with contextlib.suppress(ProcessLookupError):  # it is replaced by the supervisor
                    os.kill(dice.choice(sorted(known)), signal.SIGKILL)
            await asyncio.sleep(dice.random())
            os.killpg(process.pid, signal.SIGKILL)  # all of them, and the supervisor
            for each in visitors:
                each.cancel()

    for round_ in range(3):
        if round_ == 2:  # so that much is left behind
            emulator.troubles.add(Trouble(endpoints=("events",), status=503), now=emulator.effects.now())
        with shop(uvicorn, "--workers", "4") as (url, process):
            asyncio.run(load(url, process, round_ * 100_000))
    emulator.troubles.clear()
    assert accepted - arrived(emulator), "the killed left something behind"

    async def drained(url):
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=url, trust_env=False) as http:
            while not accepted <= arrived(emulator) or (await http.get("/how")).json()["pending"]:
                await asyncio.sleep(0.2)

    with shop(uvicorn) as (url, _):
        asyncio.run(drained(url))
    assert len(accepted) > 200
    assert emulator.ledger.counts.duplicates_different == 0
