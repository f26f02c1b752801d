"""Cancellation at every await: a caller is cancelled after the k-th turn of the loop, for every k until it is
through.

Whatever the turn, the others on the connection get their answers, with one attempt each, over that same
connection; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import httpx
import pytest
from faults.accounts import nothing_left_behind
from faults.certificates import Certificates
from faults.loops import LOOPS, SteppingLoop
from faults.relay import Relay
from faults.server import FaultServer
from faults.subject import BATCH_BODY, FETCH_BODY, Result, attempt, attempt_all, call, make_transport

pytestmark = pytest.mark.conformance

MOST_TURNS = 300
INNOCENTS = 4


@attrs.frozen(kw_only=True)
class Victim:
    """What is cancelled, and how."""

    path: str
    body: bytes = FETCH_BODY
    warm: bool
    by_scope: bool

    def url(self, base: str, turns: int) -> str:
        return base + self.path + ("&" if "?" in self.path else "?") + f"cell=victim-{turns}"


async def _one_run(server: FaultServer, base: str, certificates: Certificates, turns: int, victim: Victim) -> bool:
    """Cancel after `turns`; returns whether the victim was through before that."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    innocents: list[Result] = []
    connections = server.seen.accepted

    async with nothing_left_behind():
        transport = make_transport(certificates.client_context())
        if victim.warm:
            assert (await attempt(transport, base + "/ok")).ok
        scope = anyio.CancelScope()

        async def doomed() -> bool:
            with scope:
                lane = "bulk" if victim.body is BATCH_BODY else "interactive"
                await call(transport, victim.url(base, turns), body=victim.body, deadline=5.0, lane=lane)
                return True
            return False

        async def innocent(number: int) -> None:
            url = f"{base}/ok?ms=3&cell=run-{turns}-{number}"
            innocents.append(await attempt(transport, url, deadline=5.0))

        async with asyncio.TaskGroup() as group:
            task = asyncio.ensure_future(doomed())
            for number in range(INNOCENTS):
                group.create_task(innocent(number))
            loop.after_turns(turns, scope.cancel if victim.by_scope else task.cancel)
            await asyncio.wait([task])
        innocents += await attempt_all(transport, [base + "/ok"] * 2, deadline=5.0)
        await transport.aclose()

    assert [result.ok for result in innocents] == [True] * (INNOCENTS + 2), (turns, innocents)
    assert [server.seen.requests[f"run-{turns}-{number}"] for number in range(INNOCENTS)] == [1] * INNOCENTS
    assert server.seen.accepted - connections <= (2 if "goaway" in victim.path else 1), turns
    return not task.cancelled() and task.result()


def _step_through(server: FaultServer, base: str, certificates: Certificates, victim: Victim) -> int:
    """Cancel at every turn, until the victim is through before it; returns how many turns that were."""
    for turns in itertools.count(1):
        with asyncio.Runner(loop_factory=SteppingLoop) as runner:
            if runner.run(_one_run(server, base, certificates, turns, victim)):
                return turns - 1
        assert turns < MOST_TURNS
    raise AssertionError


@pytest.mark.parametrize("by_scope", [False, True], ids=["task.cancel", "cancel-scope"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/ok?ms=3", FETCH_BODY, id="fetch"),
        pytest.param("/echo", BATCH_BODY, id="48-KiB-body"),
        pytest.param("/ok?bytes=300000", FETCH_BODY, id="300-kB-response"),
        pytest.param("/refuse?times=1", FETCH_BODY, id="refused-once"),
        pytest.param("/goaway?last=max", FETCH_BODY, id="told-of-the-end"),
    ],
)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_caller_cancelled_at_any_turn_of_the_loop_harms_nobody(
    server: FaultServer,
    certificates: Certificates,
    report: Callable[[str], None],
    warm: bool,
    path: str,
    body: bytes,
    by_scope: bool,
) -> None:
    victim = Victim(path=path, body=body, warm=warm, by_scope=by_scope)
    turns = _step_through(server, server.url, certificates, victim)
    report(f"cancelled at each of {turns} turns")
    assert turns >= 3


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_same_holds_where_a_network_delivers_100_bytes_a_millisecond(
    server: FaultServer, certificates: Certificates, report: Callable[[str], None], warm: bool
) -> None:
    """Many more turns: handshake, SETTINGS and answers arrive in pieces, each a place to leave."""
    with Relay(server.port) as relay:
        relay.slice_bytes, relay.bandwidth = 100, 100_000.0
        victim = Victim(path="/ok?ms=3", warm=warm, by_scope=True)
        turns = _step_through(server, relay.url, certificates, victim)
    report(f"cancelled at each of {turns} turns")
    assert turns >= (3 if warm else 10)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_1000_cancellations_never_degrade_the_connection(
    server: FaultServer, transport: Any, anyio_backend: Any
) -> None:
    """One after another, at once, and in the middle of bodies; then a fetch is as fast as before.

    They are more than the budget of resets: the rest is left to finish, and a connection full of those may
    get one successor.
    """
    async with transport() as it:
        assert (await attempt(it, server.url + "/ok")).ok
        for path, rounds in (("/ok?ms=30", 10), ("/drip-body?n=5&ms=10", 5), ("/huge?kb=900", 5)):
            for _ in range(rounds):
                async with anyio.create_task_group() as group:
                    for number in range(50):
                        group.start_soon(_give_up_after, 0.0005 * number, it, server.url + path)
        await anyio.sleep(1.0)  # the server, which is Python too, is still busy with what nobody wants
        healthy = await attempt_all(it, [server.url + "/ok"] * 20, deadline=2.0)
        assert [result.ok for result in healthy] == [True] * 20
        assert sorted(result.seconds for result in healthy)[10] <= 0.2
    assert server.seen.accepted <= 2


async def _give_up_after(seconds: float, transport: Any, url: str) -> None:
    with anyio.move_on_after(seconds):
        await attempt(transport, url)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "hostile",
    [
        "/big-header?kb=120",
        "/huge?kb=3000",
        "/truncated",
        "/reset?at=1&code=2",
        "/bad-gzip",
        "/hang",
        "/drip-body?n=50&ms=20",
    ],
)
async def test_among_hostile_answers_and_timeouts_every_innocent_is_served(
    server: FaultServer, transport: Any, hostile: str
) -> None:
    """Three hostile requests beside each innocent, five rounds."""
    innocents: list[Result] = []
    guilty: list[Result] = []
    async with transport() as it:

        async def innocent() -> None:
            innocents.append(await attempt(it, server.url + "/ok?ms=10&bytes=2000&cell=innocent", deadline=10.0))

        async def villain() -> None:
            guilty.append(await attempt(it, server.url + hostile, deadline=0.1 if hostile in LATE else 10.0))

        for _ in range(5):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(innocent)
                    for _ in range(3):
                        group.start_soon(villain)
    assert [result.ok for result in innocents] == [True] * 15
    assert all(isinstance(result.outcome, httpx.HTTPError) for result in guilty)
    assert server.seen.requests["innocent"] == 15
    assert server.seen.accepted == 1


LATE = ("/hang", "/drip-body?n=50&ms=20")
