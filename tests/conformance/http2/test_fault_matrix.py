"""Every fault, on a cold, a warm and an idle connection, for a fetch and a batch, on three loops: one oracle.

The oracle: what comes out is the response or one typed httpx exception; the server saw as many attempts as
stated; the caller is back by its deadline; neighbours on the same connection are unaffected where the fault
is one stream's, and come out typed or served where it is the connection's; afterwards a healthy request
succeeds at once; the client broke no rule of the protocol; nothing is left behind.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import httpx
import pytest
from faults.loops import LOOPS_AND_TRIO
from faults.server import FaultServer, FaultServerProcess
from faults.subject import BATCH_BODY, FETCH_BODY, Lane, Result, attempt, attempt_all

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

Errors = tuple[type[httpx.HTTPError], ...]

PATIENCE = 0.3  # seconds that a caller of a fault gives it
MARGIN = 0.25  # … and what a busy machine may add; the report says what it really was
IDLE = 1.1  # seconds; the transport calls a connection idle after one

BROKEN: Errors = (httpx.RemoteProtocolError,)
CUT: Errors = (httpx.RemoteProtocolError, httpx.ReadError)
OVER_LIMIT: Errors = (httpx.RemoteProtocolError, httpx.DecodingError)
LATE: Errors = (httpx.ReadTimeout,)
LATE_BODY: Errors = (httpx.ReadTimeout, httpx.WriteTimeout)

SERVED = "served"  # every neighbour gets its answer
SERVED_OR_TYPED = "served or typed"  # the connection dies, and the protocol does not say what became of them


@attrs.frozen
class Fault:
    """One row: a path, and what must come of it."""

    path: str
    outcome: int | Errors
    attempts: int = 1
    neighbours: str = SERVED
    connections: int = 1  # at most, the healthy request after it included
    warm_only: bool = False  # nothing about the connection: one temperature says it all

    def __str__(self) -> str:
        return self.path.removeprefix("/")


FAULTS = [
    # What the server says is passed on as it is: retries on a status are not the transport's business.
    Fault("/status?code=200", 200),
    *(Fault(f"/status?code={n}", n, warm_only=True) for n in (400, 401, 403, 404, 413, 429, 500, 503)),
    *(
        Fault(f"/status?code=429&retry={value}", 429, warm_only=True)
        for value in ("7", "Wed,21-Oct-2026-07:28:00-GMT", "soon", "9" * 40)
    ),
    Fault("/status?code=503&retry=1", 503, warm_only=True),
    Fault("/malformed-json", 200, warm_only=True),
    Fault("/deep-json", 200, warm_only=True),
    Fault("/wrong-type", 200, warm_only=True),
    Fault("/empty?code=204", 204),
    Fault("/empty?code=304", 304),
    Fault("/informational", 200),
    Fault("/trailers", 200),
    Fault("/early?code=413", 413),
    Fault("/early?code=413&rst=1", 413),
    Fault("/early?code=401&rst=1", 401),
    Fault("/gzip?kb=100", 200),
    Fault("/drip-body?n=10&ms=5", 200),
    # Late, or never.
    Fault("/hang", LATE),
    Fault("/hang-after-headers", LATE),
    Fault("/hang-in-body", LATE),
    Fault("/drip-body?n=50&ms=50", LATE),
    Fault("/drip-headers?ms=20", LATE),
    # Wrong, for one stream.
    Fault("/truncated", BROKEN),
    Fault("/too-long", BROKEN),
    Fault("/no-status", BROKEN),
    Fault("/bad-status", BROKEN),
    Fault("/bad-gzip", OVER_LIMIT),
    Fault("/huge?kb=3000", OVER_LIMIT),
    Fault("/huge-declared?kb=3000", OVER_LIMIT),
    Fault("/gzip?kb=3000", OVER_LIMIT),
    Fault("/gzip?kb=60000", OVER_LIMIT),
    Fault("/gzip?kb=60000&layers=2", OVER_LIMIT),
    Fault("/big-header?kb=120", OVER_LIMIT),
    # Ended by the server, for one stream.
    Fault("/refuse?times=1", 200, attempts=2),
    Fault("/refuse?times=3", 200, attempts=4),
    Fault("/refuse?times=1000", BROKEN, attempts=4),
    *(
        Fault(f"/reset?at={at}&code={code}", BROKEN)
        for at, code in ((0, 2), (1, 2), (2, 2), (0, 8), (1, 8), (2, 0), (0, 11))
    ),
    Fault("/reset?at=3&code=0", 200),
    # A connection that says goodbye, and one that does not.
    Fault("/goaway?last=max", 200, connections=2),
    Fault("/goaway?last=this", 200, connections=2),
    Fault("/goaway?last=this&code=11", 200, connections=2),
    Fault("/goaway?last=before", 200, attempts=2, connections=2),
    Fault("/goaway?last=before&code=11", 200, attempts=2, connections=2),
    Fault("/goaway?last=zero", 200, attempts=2, connections=2),
    Fault("/goaway?last=zero&code=11", 200, attempts=2, connections=2),
    Fault("/shutdown", 200, connections=2),
    *(
        Fault(f"/close?at={at}&rst={rst}", CUT, neighbours=SERVED_OR_TYPED, connections=2)
        for at in (0, 1, 2)
        for rst in (0, 1)
    ),
    Fault("/close-inside-headers", CUT, neighbours=SERVED_OR_TYPED, connections=2),
    # Broken for the whole connection, except the frame of an unknown type.
    Fault("/broken?kind=unknown", 200),
    *(
        Fault(f"/broken?kind={kind}", CUT, neighbours=SERVED_OR_TYPED, connections=2)
        for kind in (
            "garbage", "data-on-zero", "oversize-frame", "bad-hpack", "even-stream", "idle-stream",
            "window-overflow", "zero-increment", "bad-settings", "push", "headers-interleaved",
        )
    ),
    *(
        Fault(f"/flood?kind={kind}", (*CUT, *LATE), neighbours=SERVED_OR_TYPED, connections=2)
        for kind in ("ping", "settings", "empty-data", "continuation")
    ),
    # Settings that change under way.
    Fault("/settings?streams=1&ms=20", 200),
    Fault("/settings?table=0&ms=20", 200),
    Fault("/settings?table=65536&ms=20", 200),
    Fault("/settings?frame=65536&ms=20", 200),
    Fault("/settings?window=100&ms=20", 200),
]  # fmt: skip

CELLS = [
    pytest.param(fault, temperature, lane, loop.values[0], id=f"{fault}-{temperature}-{lane}-{loop.id}")
    for fault in FAULTS
    for temperature in ("cold", "warm", "idle")
    if temperature == "warm" or not fault.warm_only
    for lane in ("interactive", "bulk")
    for loop in LOOPS_AND_TRIO
    # Idleness takes a second each, for either lane and on any loop.
    if temperature != "idle" or (lane == "interactive" and loop.id == "asyncio")
]

_worst = 0.0


@pytest.mark.parametrize(("fault", "temperature", "lane", "anyio_backend"), CELLS)
async def test_a_fault_has_its_one_outcome_and_touches_nobody_else(
    server: FaultServer, transport: Any, fault: Fault, temperature: str, lane: Lane, anyio_backend: Any
) -> None:
    neighbours: list[Result] = []

    async def neighbour(number: int) -> None:
        neighbours.append(await attempt(it, f"{server.url}/ok?ms=40&cell=neighbour-{number}", deadline=3.0))

    async with transport() as it:
        if temperature != "cold":
            assert (await attempt(it, server.url + "/ok?cell=first", deadline=3.0)).ok
        if temperature == "idle":
            await anyio.sleep(IDLE)
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(neighbour, number)
            if temperature == "warm":
                await anyio.sleep(0.01)  # the neighbours are under way
            victim = await attempt(
                it,
                server.url + fault.path + ("&" if "?" in fault.path else "?") + "cell=victim",
                deadline=PATIENCE if fault.outcome is LATE else 2.0,
                lane=lane,
                body=FETCH_BODY if lane == "interactive" else BATCH_BODY,
            )
        healthy = await attempt(it, server.url + "/ok?cell=after", deadline=2.0)
    seen = server.seen

    match fault.outcome:
        case int(status):
            assert victim.status == status
        case errors:
            assert isinstance(victim.outcome, errors), victim
    assert seen.requests["victim"] == fault.attempts
    _on_time(victim, PATIENCE if fault.outcome is LATE else 2.0)
    assert healthy.ok, healthy
    if fault.neighbours == SERVED:
        assert [result.ok for result in neighbours] == [True] * 3, neighbours
    assert seen.accepted <= fault.connections


def _on_time(result: Result, deadline: float) -> None:
    global _worst
    _worst = max(_worst, result.seconds - deadline)
    assert result.seconds <= deadline + MARGIN


@pytest.mark.parametrize("path", ["/hang", "/hang-after-headers", "/hang-in-body", "/drip-body?n=1000&ms=10"])
@pytest.mark.parametrize("budget", ["deadline", "timeout"])
async def test_a_deadline_and_httpx_own_read_timeout_both_end_a_wait(
    server: FaultServer, transport: Any, path: str, budget: str
) -> None:
    """httpx's read timeout is per read: a body that drips is in time for it, and late for a deadline."""
    async with transport() as it:
        with anyio.move_on_after(1.0) as scope:
            result = await attempt(it, server.url + path, **{budget: PATIENCE})
            assert isinstance(result.outcome, httpx.ReadTimeout), result
            _on_time(result, PATIENCE)
        assert scope.cancelled_caught == (budget == "timeout" and "drip" in path)


async def test_a_callers_deadline_is_exact_to_within_the_margin_in_every_cell(report: Callable[[str], None]) -> None:
    """Runs last in this module: the worst of all cells before it."""
    report(f"the latest of all callers was {_worst * 1000:.0f} ms behind its deadline")
    assert _worst <= MARGIN


@pytest.mark.parametrize("how", ["fin", "rst", "goaway"])
@pytest.mark.parametrize("later", [0.0, 0.05, 1.1])
async def test_a_connection_that_the_server_ended_while_idle_costs_nobody_an_error(
    server: FaultServer, transport: Any, how: str, later: float
) -> None:
    """The burst may find the end at hand, under way (0 s), or long past; each of the ten is served, with one
    attempt that counts.
    """
    async with transport() as it:
        assert (await attempt(it, f"{server.url}/close-later?how={how}&ms=50")).ok
        await anyio.sleep(0.05 + later)
        results: list[Result] = []

        async def one(number: int) -> None:
            results.append(await attempt(it, f"{server.url}/ok?cell=burst-{number}", deadline=2.0))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(one, number)
    assert [result.ok for result in results] == [True] * 10, results
    assert server.seen.accepted == 2 or (later == 0.0 and server.seen.accepted <= 3)
    assert {server.seen.completed[f"burst-{number}"] for number in range(10)} <= {1, 2}
    if later:
        assert {server.seen.requests[f"burst-{number}"] for number in range(10)} == {1}


async def test_a_window_of_nothing_ends_the_body_in_time_and_later_ones_when_it_opens_again(
    server: FaultServer, transport: Any
) -> None:
    async with transport() as it:
        assert (await attempt(it, server.url + "/settings?window=0")).ok
        stuck = await attempt(it, server.url + "/ok?cell=stuck", deadline=PATIENCE)
        assert isinstance(stuck.outcome, LATE_BODY), stuck
        _on_time(stuck, PATIENCE)
        async with anyio.create_task_group() as group:
            results: list[Result] = []

            async def one() -> None:
                results.append(await attempt(it, server.url + "/ok", body=BATCH_BODY, deadline=3.0))

            for _ in range(3):
                group.start_soon(one)
            await anyio.sleep(0.1)
            assert results == []
            opened = httpx.Request(
                "GET", server.url + "/settings?window=65535", extensions={"deadline": anyio.current_time() + 2.0}
            )
            response = await it.handle_async_request(opened)
            await response.aread()
        assert [result.ok for result in results] == [True] * 3
    assert server.seen.accepted == 1


async def test_beside_two_bodies_of_48_kib_a_fetch_still_leaves_when_the_server_withholds_credit(
    server: FaultServer, transport: Any
) -> None:
    """96 KiB do not fit into the connection's 65,535 bytes; the bulk lane may hold half of them."""
    async with transport() as it:
        assert (await attempt(it, server.url + "/ok")).ok
        batches: list[Result] = []

        async def batch() -> None:
            batches.append(await attempt(it, server.url + "/withhold", body=BATCH_BODY, lane="bulk", deadline=1.0))

        async with anyio.create_task_group() as group:
            group.start_soon(batch)
            group.start_soon(batch)
            await anyio.sleep(0.1)
            fetches = [await attempt(it, server.url + "/ok?cell=fetch", deadline=1.0) for _ in range(5)]
        assert [fetch.ok for fetch in fetches] == [True] * 5, fetches
        assert max(fetch.seconds for fetch in fetches) <= 0.3
        assert all(isinstance(result.outcome, LATE_BODY) for result in batches)


async def test_requests_beyond_the_stream_limit_wait_in_order_each_within_its_own_deadline(
    server: FaultServer, transport: Any
) -> None:
    async with transport() as it:
        assert (await attempt(it, server.url + "/settings?streams=2")).ok
        order: list[int] = []
        results: dict[int, Result] = {}

        async def one(number: int, deadline: float) -> None:
            results[number] = await attempt(it, f"{server.url}/ok?ms=100&cell=n{number}", deadline=deadline)
            if results[number].ok:
                order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(one, number, 0.15 if number in (4, 5) else 5.0)
                await anyio.sleep(0.002)
        assert order == sorted(order) == [0, 1, 2, 3, 6, 7, 8, 9]
        for number in (4, 5):
            assert isinstance(results[number].outcome, httpx.TimeoutException), results[number]
            _on_time(results[number], 0.15)
    assert server.seen.most_concurrent <= 2
    assert server.seen.requests["n5"] == 0
    assert server.seen.accepted == 1


async def test_the_stream_limit_may_fall_while_requests_wait(server: FaultServer, transport: Any) -> None:
    async with transport() as it:
        results: list[Result] = []

        async def one() -> None:
            results.append(await attempt(it, server.url + "/ok?ms=50", deadline=10.0))

        async with anyio.create_task_group() as group:
            for _ in range(150):
                group.start_soon(one)
            await anyio.sleep(0.02)
            group.start_soon(attempt, it, server.url + "/settings?streams=5")
        assert [result.ok for result in results] == [True] * 150
        began = time.monotonic()
        assert (await attempt(it, server.url + "/ok")).ok
        assert time.monotonic() - began < 1.0
    assert server.seen.accepted == 1


async def test_a_server_that_allows_no_stream_for_now_is_waited_for_within_the_deadline(
    server: FaultServer, transport: Any
) -> None:
    async with transport() as it:
        assert (await attempt(it, server.url + "/settings?streams=0")).ok
        result = await attempt(it, server.url + "/ok?cell=never", deadline=PATIENCE)
        assert isinstance(result.outcome, httpx.TimeoutException), result
        _on_time(result, PATIENCE)
    assert server.seen.requests["never"] == 0


async def test_a_cold_burst_of_300_keeps_to_the_usual_limit_of_100_before_it_has_heard_of_it(
    server: FaultServer, transport: Any
) -> None:
    """A server on h2 ends the connection over one stream too many, before its SETTINGS arrived too."""
    async with transport() as it:
        results = await attempt_all(it, [server.url + "/ok?ms=5"] * 300, deadline=10.0)
    assert [result.ok for result in results] == [True] * 300
    assert server.seen.violations == []
    assert server.seen.accepted == 1


async def test_1000_stuck_streams_beyond_the_reset_budget_do_not_shut_out_the_next_caller(
    server: FaultServer, transport: Any, report: Callable[[str], None]
) -> None:
    """What may not be reset and never ends fills a connection: it gets a successor before anybody waits."""
    async with transport() as it:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(_abandon, it, server.url + "/hang")
            healthy = await attempt(it, server.url + "/ok?cell=healthy", deadline=1.0)
            assert healthy.ok, healthy
            assert healthy.seconds <= 0.5
    seen = server.seen
    report(f"{seen.streams} streams, {seen.resets} resets, {seen.accepted} connections")
    assert seen.requests["healthy"] == 10
    assert seen.accepted <= 10


async def _abandon(transport: Any, url: str) -> None:
    with anyio.move_on_after(0.05):
        await attempt(transport, url)


@pytest.mark.parametrize("path", ["/gzip?kb=60000", "/gzip?kb=60000&layers=2", "/huge?kb=60000"])
async def test_a_bomb_costs_memory_for_its_limit_and_not_for_its_size(
    server_process: FaultServerProcess, transport: Any, report: Callable[[str], None], path: str
) -> None:
    async with transport() as it:
        assert (await attempt(it, server_process.url + "/ok")).ok
        assert not (await attempt(it, server_process.url + path, deadline=10.0)).ok
        tracemalloc.start()
        try:
            result = await attempt(it, server_process.url + path, deadline=10.0)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert isinstance(result.outcome, OVER_LIMIT), result
    report(f"{peak / 1024:.0f} KiB at most")
    assert peak <= 6 * 1024 * 1024
