"""Everything that can go wrong before the first answer: names, TCP, TLS, ALPN, the greeting. One oracle a
cell.

The oracle: one typed exception, by the deadline; a bounded number of connections; where TLS failed, not one
byte of a request on the wire; and nothing left behind. A later caller is served as soon as the fault is gone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from faults.certificates import Certificates
from faults.loops import LOOPS_AND_TRIO
from faults.relay import Relay
from faults.server import FaultServer, ServerConfig, black_hole, refused_port
from faults.subject import BATCH_BODY, FETCH_BODY, Lane, Result, attempt, attempt_all, call

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]

PATIENCE = 0.4
MARGIN = 0.25
BODIES = {"interactive": FETCH_BODY, "bulk": BATCH_BODY}


def _late(results: list[Result]) -> float:
    return max(result.seconds for result in results) - PATIENCE


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_a_refused_connection_is_a_connect_error_at_once(transport: Any, lane: Lane) -> None:
    async with transport() as it:
        results = await attempt_all(
            it, [f"https://localhost:{refused_port()}/"] * 5, deadline=PATIENCE, lane=lane, body=BODIES[lane]
        )
    assert {type(result.outcome) for result in results} == {httpx.ConnectError}
    assert _late(results) <= MARGIN


@pytest.mark.parametrize("budget", ["deadline", "timeout"])
async def test_a_tcp_black_hole_is_a_connect_timeout_in_time(transport: Any, budget: str) -> None:
    with black_hole() as port:
        async with transport() as it:
            results = await attempt_all(it, [f"https://127.0.0.1:{port}/"] * 5, **{budget: PATIENCE})
    assert {type(result.outcome) for result in results} == {httpx.ConnectTimeout}
    assert _late(results) <= MARGIN


async def test_a_name_that_does_not_exist_is_a_connect_error(
    server: FaultServer, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with transport() as it:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        results = await attempt_all(it, [f"https://nowhere.test:{server.port}/ok"] * 5, deadline=PATIENCE)
    assert {type(result.outcome) for result in results} == {httpx.ConnectError}
    assert _late(results) <= MARGIN


async def test_the_last_good_addresses_serve_while_the_name_cannot_be_resolved(
    server: FaultServer, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async with transport() as it:
        assert (await attempt(it, server.url + "/ok")).ok
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        server.close_connections()
        await anyio.sleep(0.05)
        assert (await attempt(it, server.url + "/ok", deadline=2.0)).ok
    assert server.seen.accepted == 2


@pytest.mark.parametrize("budget", ["deadline", "timeout"])
@pytest.mark.parametrize("greeting", ["stalled_handshake", "silent", "garbage", "http1", "close"])
async def test_a_server_that_does_not_greet_as_http2_is_a_typed_error_in_time(
    certificates: Certificates, transport: Any, greeting: Any, budget: str
) -> None:
    expected: dict[str, tuple[type[httpx.HTTPError], ...]] = {
        "stalled_handshake": (httpx.ConnectTimeout,),
        "silent": (httpx.ReadTimeout, httpx.ConnectTimeout, httpx.PoolTimeout),
        "garbage": (httpx.RemoteProtocolError,),
        "http1": (httpx.RemoteProtocolError,),
        "close": (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError),
    }
    with FaultServer(ServerConfig(certificates=str(certificates.directory), greeting=greeting)) as server:
        async with transport() as it:
            results = await attempt_all(it, [server.url + "/ok"] * 5, **{budget: PATIENCE})
        assert all(isinstance(result.outcome, expected[greeting]) for result in results), results
        assert _late(results) <= MARGIN
        assert server.seen.accepted <= 10


@pytest.mark.parametrize("certificate", ["wrong_ca", "wrong_host", "expired"])
@pytest.mark.parametrize("lane", ["interactive", "bulk"])
@pytest.mark.parametrize("anyio_backend", LOOPS_AND_TRIO)
async def test_a_certificate_that_does_not_verify_is_a_connect_error_and_no_byte_of_a_request_leaves(
    certificates: Certificates, transport: Any, certificate: str, lane: Lane, anyio_backend: Any
) -> None:
    with FaultServer(ServerConfig(certificates=str(certificates.directory), certificate=certificate)) as server:
        async with transport() as it:
            for _ in range(3):
                results = await attempt_all(it, [server.url + "/ok"] * 3, deadline=2.0, lane=lane, body=BODIES[lane])
                assert {type(result.outcome) for result in results} == {httpx.ConnectError}, results
        assert (server.seen.plaintext_bytes, server.seen.streams, server.seen.handshakes) == (0, 0, 0)
        assert 1 <= server.seen.failed_handshakes == server.seen.accepted <= 9


async def test_tls_11_is_refused_before_any_byte_of_a_request(certificates: Certificates, transport: Any) -> None:
    config = ServerConfig(certificates=str(certificates.directory), tls_maximum="TLSv1_1")
    with FaultServer(config) as server:
        async with transport() as it:
            result = await attempt(it, server.url + "/ok", deadline=2.0)
        assert isinstance(result.outcome, httpx.ConnectError), result
        assert (server.seen.plaintext_bytes, server.seen.handshakes) == (0, 0)


async def test_a_certificate_that_goes_bad_under_way_is_an_error_for_new_connections_only(
    certificates: Certificates, transport: Any
) -> None:
    """The open connection was verified; its successor is verified again."""
    good = ServerConfig(certificates=str(certificates.directory))
    with FaultServer(good) as server, Relay(server.port) as relay:
        async with transport() as it:
            assert (await attempt(it, relay.url + "/ok")).ok
            with FaultServer(ServerConfig(certificates=str(certificates.directory), certificate="expired")) as worse:
                relay.target_port = worse.port
                assert (await attempt(it, relay.url + "/ok")).ok
                relay.reset()
                await anyio.sleep(0.05)
                result = await attempt(it, relay.url + "/ok", deadline=2.0)
                assert isinstance(result.outcome, httpx.ConnectError), result
                assert worse.seen.plaintext_bytes == 0


@pytest.mark.parametrize("alpn", [("http/1.1",), ()], ids=["http/1.1", "no ALPN"])
async def test_without_h2_in_alpn_http_11_takes_over_visibly(
    certificates: Certificates, transport: Any, alpn: tuple[str, ...]
) -> None:
    config = ServerConfig(certificates=str(certificates.directory), alpn=alpn)
    with FaultServer(config) as server:
        async with transport() as it:
            results = await attempt_all(it, [server.url + "/ok"] * 10, deadline=3.0)
            assert [result.ok for result in results] == [True] * 10, results
            assert "http/1.1" in repr(it)
            assert it.stats().protocol == "http/1.1"
        assert server.seen.http1_requests == 10
        assert server.seen.streams == 0


async def test_callers_that_came_while_the_connection_opened_share_it(
    certificates: Certificates, transport: Any
) -> None:
    """Forty cold callers over a line with 50 ms of latency: one handshake."""
    with FaultServer(ServerConfig(certificates=str(certificates.directory))) as server:
        relay = Relay(server.port)
        relay.latency = 0.05
        async with transport(relay) as it:
            results = await attempt_all(it, [relay.url + "/ok"] * 40, deadline=5.0)
        assert [result.ok for result in results] == [True] * 40
        assert server.seen.handshakes == server.seen.accepted == 1


async def test_a_caller_with_less_patience_leaves_and_the_connection_still_opens_for_the_others(
    server: FaultServer, transport: Any
) -> None:
    relay = Relay(server.port)
    relay.latency = 0.1
    async with transport(relay) as it:
        patient: list[Result] = []

        async def wait() -> None:
            patient.append(await attempt(it, relay.url + "/ok", deadline=5.0))

        async with anyio.create_task_group() as group:
            hasty = [attempt(it, relay.url + "/ok", deadline=0.05) for _ in range(3)]
            for _ in range(3):
                group.start_soon(wait)
            for one in hasty:
                result = await one
                assert isinstance(result.outcome, httpx.ConnectTimeout), result
        assert [result.ok for result in patient] == [True] * 3
    assert server.seen.handshakes == 1


async def test_a_service_that_comes_back_is_found_by_the_next_caller(
    certificates: Certificates, transport: Any
) -> None:
    port = refused_port()
    config = ServerConfig(certificates=str(certificates.directory))
    async with transport() as it:
        for _ in range(3):
            assert isinstance(
                (await attempt(it, f"https://localhost:{port}/ok", deadline=1.0)).outcome, httpx.ConnectError
            )
        with FaultServer(config) as server, Relay(server.port, port=port):
            assert (await attempt(it, f"https://localhost:{port}/ok", deadline=1.0)).ok


async def test_warming_up_opens_the_connection_that_the_first_request_uses(server: FaultServer, transport: Any) -> None:
    async with transport() as it:
        await it.warm_up(server.url)
        assert (server.seen.accepted, server.seen.streams) == (1, 0)
        assert (await attempt(it, server.url + "/ok")).ok
    assert server.seen.handshakes == 1


@pytest.mark.parametrize("greeting", ["http2", "silent", "stalled_handshake"])
async def test_closing_is_bounded_whatever_the_server_does(
    certificates: Certificates, transport: Callable[..., contextlib.AbstractAsyncContextManager[Any]], greeting: Any
) -> None:
    """Callers in flight get a typed error; the close takes at most its second."""
    with FaultServer(ServerConfig(certificates=str(certificates.directory), greeting=greeting)) as server:
        outcomes: list[Result] = []
        async with transport() as it, anyio.create_task_group() as group:

            async def caller() -> None:
                outcomes.append(await attempt(it, server.url + "/hang", deadline=10.0))

            for _ in range(5):
                group.start_soon(caller)
            await anyio.sleep(0.1)
            began = time.monotonic()
            await it.aclose()
            assert time.monotonic() - began <= 1.25
    assert len(outcomes) == 5
    assert all(isinstance(result.outcome, httpx.TransportError) for result in outcomes), outcomes
    assert all(result.seconds <= 2.0 for result in outcomes)


async def test_a_closed_transport_refuses_work_with_a_typed_error(server: FaultServer, transport: Any) -> None:
    async with transport() as it:
        assert (await attempt(it, server.url + "/ok")).ok
    with pytest.raises((httpx.TransportError, RuntimeError)):
        await call(it, server.url + "/ok")


def test_the_servers_contexts_can_fail(certificates: Certificates) -> None:
    """The control: a client that does not verify does send its bytes to the wrong certificate, and the server
    sees them.
    """
    with FaultServer(ServerConfig(certificates=str(certificates.directory), certificate="wrong_ca")) as server:
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", server.port)) as raw, context.wrap_socket(raw) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            give_up = time.monotonic() + 5.0
            while not server.seen.plaintext_bytes and time.monotonic() < give_up:
                time.sleep(0.01)
        assert server.seen.plaintext_bytes == 24
