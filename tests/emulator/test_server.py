"""The emulator on the network: TLS, HTTP/2, HTTP/1.1, and misbehaving on request."""

import asyncio
import contextlib
import json
import time

import httpx
import pytest
from emulator.kit import action, element, events, request, uuid4
from h2.exceptions import ProtocolError

from moengage_personalize.emulator import Emulator, Trouble, serve

pytestmark = pytest.mark.conformance

FETCH = {"experience_key": ["home-hero"]}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine on either loop, with a bound."""
    if request.param == "uvloop":
        loop_factory = pytest.importorskip("uvloop").new_event_loop
    else:
        loop_factory = asyncio.new_event_loop

    def run(coroutine):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, 20))

    return run


@contextlib.asynccontextmanager
async def world(*, http2=True, **options):
    emulator = Emulator()
    async with serve(emulator, **options) as server, client(server, http2=http2) as http:
        yield emulator, server, http


def client(server, *, http2=True):
    return httpx.AsyncClient(
        base_url=server.base_url,
        verify=server.ssl_context() if server.ca_path else False,
        http2=http2,
        auth=("DEMO_WORKSPACE", "demo-key"),
        headers={"MOE-APPKEY": "DEMO_WORKSPACE"},
        timeout=5,
        trust_env=False,
    )


async def fetch(http):
    return await http.post("/v1/experiences/fetch", json=FETCH)


def wish(emulator, **trouble):
    return emulator.troubles.add(Trouble(**trouble), emulator.effects.now())


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_alpn_chooses_the_protocol(run, http2, version):
    async def body():
        async with world(http2=http2) as (emulator, _, http):
            replies = [await fetch(http) for _ in range(3)]
            assert {(reply.status_code, reply.http_version) for reply in replies} == {(200, version)}
            assert (await http.get("/v1/experiences/metadata")).json()["metadata"]["count"] == 7
            assert emulator.ledger.counts.connections_opened == 1
        assert emulator.ledger.counts.connections_open == 0

    run(body())


def test_plain_http_is_served_when_asked_for(run):
    async def body():
        async with world(tls=False, http2=False) as (_, server, http):
            assert server.base_url.startswith("http://")
            assert (await fetch(http)).status_code == 200

    run(body())


def test_the_authority_s_file_is_gone_afterwards(run):
    async def body():
        async with world() as (_, server, _http):
            assert server.ca_path.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
        assert not server.ca_path.exists()

    run(body())


def test_a_hundred_requests_share_one_connection(run):
    async def body():
        async with world() as (emulator, _, http):
            replies = await asyncio.gather(*(fetch(http) for _ in range(100)))
            assert {reply.status_code for reply in replies} == {200}
            assert emulator.ledger.counts.connections_opened == 1

    run(body())


def test_an_answer_larger_than_the_window_arrives_whole(run):
    async def body():
        emulator = Emulator(experiences={"a-lot-of": {"Text": "x" * 300_000}})
        async with serve(emulator) as server, client(server) as http:
            replies = await asyncio.gather(
                *(http.post("/v1/experiences/fetch", json={"experience_key": ["a-lot-of"]}) for _ in range(5))
            )
            for reply in replies:
                assert len(reply.json()["experiences"]["a-lot-of"]["payload"]["Text"]["value"]) == 300_000

    run(body())


def test_a_large_request_is_answered_413(run):
    async def body():
        for http2 in (True, False):
            async with world(http2=http2) as (_, _, http):
                reply = await http.post("/v1/experiences/events", content=b"x" * 2_000_000)
                assert reply.status_code == 413
                assert reply.json()["title"] == "Request Error"

    run(body())


@pytest.mark.parametrize("http2", [True, False])
def test_who_reads_a_long_ledger_slowly_is_waited_for_and_holds_up_nobody(run, http2):
    async def body():
        async with world(http2=http2) as (emulator, server, http), client(server) as other:
            many = events(element(*(action() for _ in range(200))))
            for _ in range(200):
                emulator.handle(request("events", many))
            wrote = 0
            async with http.stream("GET", "/_emulator/ledger") as reply:
                for _ in range(20):
                    assert (await fetch(other)).status_code == 200
                    wrote = max(wrote, *(c.transport.get_write_buffer_size() for c in server.connections))
                text = await reply.aread()
            assert len(text) > 10_000_000
            assert wrote < 2_000_000
            assert len(json.loads(text)["requests"]) == 200

    run(body())


def test_the_ledger_is_read_at_an_endpoint(run):
    async def body():
        async with world() as (_, _, http):
            once = action()
            for _ in range(2):
                await http.post("/v1/experiences/events", json=events(element(once)))
            ledger = (await http.get("/_emulator/ledger")).json()
            assert [event["action"] for event in ledger["events"]] == [once]
            assert ledger["counts"]["duplicates_identical"] == 1

    run(body())


def test_an_outage_refuses_connections_and_ends_by_itself(run):
    async def body():
        async with world() as (emulator, server, http):
            assert (await fetch(http)).status_code == 200
            began = time.monotonic()
            wish(emulator, outage=True, duration=0.5)
            await asyncio.sleep(0.1)
            with pytest.raises(httpx.TransportError):
                await fetch(http)
            async with client(server) as other:
                with pytest.raises(httpx.ConnectError):
                    await fetch(other)
            while server.is_out:
                await asyncio.sleep(0.02)
            assert 0.4 < time.monotonic() - began < 5
            async with client(server) as other:
                assert (await fetch(other)).status_code == 200
            assert emulator.ledger.counts.fetch_requests == 2

    run(body())


def test_the_live_page_s_connection_survives_an_outage(run):
    async def body():
        async with world() as (emulator, _, http):
            assert (await http.get("/_emulator/counts")).status_code == 200
            wish(emulator, outage=True)
            await asyncio.sleep(0.1)
            assert (await http.get("/_emulator/trouble")).json()["troubles"][0]["label"] == "outage"
            assert (await http.delete("/_emulator/trouble")).json()["troubles"] == []
            await asyncio.sleep(0.1)
            assert (await fetch(http)).status_code == 200

    run(body())


@pytest.mark.parametrize("outcome", ["reset", "refuse", "lose", "disconnect"])
def test_a_request_that_is_cut_off_fails_and_the_next_one_succeeds(run, outcome):
    async def body():
        for http2 in (True, False):
            async with world(http2=http2) as (emulator, _, http):
                trouble = wish(emulator, outcome=outcome)
                with pytest.raises((httpx.TransportError, ProtocolError)):
                    await http.post("/v1/experiences/events", json=events(element(action(moe_event_uuid=uuid4(1)))))
                emulator.troubles.clear(trouble.number)
                assert emulator.ledger.counts.accepted == (outcome == "lose")
                reply = await http.post("/v1/experiences/events", json=events())
                assert reply.status_code == 200

    run(body())


def test_drain_answers_and_then_closes_the_connection(run):
    async def body():
        async with world(http2=False) as (emulator, _, http):  # httpx drops what GOAWAY promised to finish
            trouble = wish(emulator, outcome="drain")
            assert (await fetch(http)).status_code == 200
            emulator.troubles.clear(trouble.number)
            await asyncio.sleep(0.05)
            assert emulator.ledger.counts.connections_open == 0
            assert (await fetch(http)).status_code == 200
            assert emulator.ledger.counts.connections_opened == 2

    run(body())


def test_a_client_that_leaves_a_hanging_stream_is_noticed(run):
    async def body():
        async with world() as (emulator, server, http):
            trouble = wish(emulator, outcome="hang")
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/experiences/fetch", json=FETCH, timeout=0.2)
            emulator.troubles.clear(trouble.number)
            assert emulator.ledger.requests[-1].status == 0
        assert not server.tasks

    run(body())


def test_drip_sends_the_answer_byte_by_byte(run):
    async def body():
        async with world() as (emulator, _, http):
            wish(emulator, drip=0.001)
            assert "home-hero" in (await fetch(http)).json()["experiences"]

    run(body())
