"""What silence is, whose it is, and what it costs: networks with toxics between the transport and a healthy
server.
"""

from __future__ import annotations

import time
from typing import Any

import anyio
import httpx
import pytest
from faults.relay import Relay
from faults.server import FaultServer
from faults.subject import BATCH_BODY, Result, attempt, attempt_all

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]


async def test_what_a_silent_server_may_have_processed_is_not_sent_again(server: FaultServer, transport: Any) -> None:
    """The answers are lost, not the requests: sending them again would do the work twice."""
    relay = Relay(server.port)
    async with transport(relay) as it:
        assert (await attempt(it, relay.url + "/ok")).ok
        await anyio.sleep(0.05)
        relay.freeze(towards="client")
        victim = await attempt(it, relay.url + "/ok?cell=victim", deadline=5.0)
        assert isinstance(victim.outcome, httpx.TransportError), victim
        assert victim.seconds <= 1.5
        assert server.seen.requests["victim"] == 1
        assert (await attempt(it, relay.url + "/ok", deadline=1.0)).ok


async def test_a_half_open_connection_that_was_idle_costs_the_next_caller_at_most_1500_ms(
    server: FaultServer, transport: Any
) -> None:
    relay = Relay(server.port)
    async with transport(relay) as it:
        assert (await attempt(it, relay.url + "/ok")).ok
        relay.freeze()
        await anyio.sleep(1.2)
        began = time.monotonic()
        results: list[Result] = []
        while not (results and results[-1].ok):
            results.append(await attempt(it, relay.url + "/ok", deadline=0.4))
            assert time.monotonic() - began <= 1.5, results
        assert len(results) <= 4


async def test_a_slow_answer_is_not_silence(server: FaultServer, transport: Any) -> None:
    """Three seconds without an answer, while the PINGs in between are answered: one connection, one attempt,
    a few PINGs.
    """
    async with transport() as it:
        assert (await attempt(it, server.url + "/ok?ms=3000&cell=slow")).ok
    assert server.seen.requests["slow"] == 1
    assert server.seen.accepted == 1
    assert 1 <= server.seen.pings <= 6


@pytest.mark.parametrize(
    "toxic", [{"latency": 0.15}, {"slice_bytes": 1}, {"slice_bytes": 7}, {"bandwidth": 100_000.0}], ids=str
)
async def test_a_poor_network_is_slow_and_nothing_else(
    server: FaultServer, transport: Any, toxic: dict[str, Any]
) -> None:
    relay = Relay(server.port)
    for name, value in toxic.items():
        setattr(relay, name, value)
    async with transport(relay) as it:
        fetches = await attempt_all(it, [relay.url + "/ok?bytes=1000&cell=fetch"] * 30, deadline=20.0)
        batches = await attempt_all(
            it, [relay.url + "/echo?cell=batch"] * 2, deadline=20.0, body=BATCH_BODY, lane="bulk"
        )
    assert [result.ok for result in fetches + batches] == [True] * 32
    assert server.seen.requests["fetch"] == 30
    assert server.seen.requests["batch"] == 2
    assert server.seen.accepted <= 2  # one byte at a time may look like silence, behind 96 KiB


async def test_a_tcp_reset_under_way_fails_what_is_in_flight_and_nothing_after_it(
    server: FaultServer, transport: Any
) -> None:
    relay = Relay(server.port)
    async with transport(relay) as it:
        assert (await attempt(it, relay.url + "/ok")).ok
        results: list[Result] = []

        async def one() -> None:
            results.append(await attempt(it, relay.url + "/ok?ms=300&cell=flight", deadline=3.0))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)
            await anyio.sleep(0.1)
            relay.reset()
        assert all(isinstance(result.outcome, (httpx.ReadError, httpx.RemoteProtocolError)) for result in results), (
            results
        )
        after = await attempt_all(it, [relay.url + "/ok"] * 10, deadline=2.0)
        assert [result.ok for result in after] == [True] * 10
    assert server.seen.requests["flight"] == 10


async def test_a_connection_is_replaced_at_its_greatest_age_and_nobody_notices(
    server: FaultServer, transport: Any
) -> None:
    """Two seconds of work over connections that live for half a second each: the successor is open before the
    old one stops.
    """
    async with transport(max_age=0.5) as it:
        over = time.monotonic() + 2.5
        results: list[Result] = []

        async def caller() -> None:
            while time.monotonic() < over:
                results.append(await attempt(it, server.url + "/ok?ms=30", deadline=2.0))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(caller)
    assert all(result.ok for result in results), [result for result in results if not result.ok]
    assert server.seen.streams == len(results)
    assert 4 <= server.seen.accepted <= 9
    assert max(result.seconds for result in results) <= 0.5
