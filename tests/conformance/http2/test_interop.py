"""The transport against the servers that people run: nginx, Node (nghttp2) and Granian (hyper), on asyncio,
uvloop and trio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from faults.certificates import Certificates
from faults.granian_server import granian
from faults.loops import LOOPS_AND_TRIO
from faults.nginx import Nginx, nginx
from faults.node import node
from faults.subject import BATCH_BODY, FETCH_BODY, Result, attempt, attempt_all

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]


@pytest.fixture(scope="module")
def plain_nginx(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(certificates, tmp_path_factory.mktemp("nginx"), directives="client_max_body_size 100k;") as running:
        yield running


@pytest.fixture(scope="module")
def node_url(certificates: Certificates) -> Iterator[str]:
    with node(certificates) as running:
        yield running.url
        assert running.seen["session_errors"] == []


@pytest.fixture(scope="module")
def granian_url(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with granian(certificates, tmp_path_factory.mktemp("granian")) as running:
        yield running.url


@pytest.fixture(params=["node", "granian"])
def echo_url(request: pytest.FixtureRequest) -> str:
    """A real server that answers with the length and the digest of what it got."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url + "/echo"


def _body(number: int, size: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest() * (size // 32) + b"." * (size % 32)


@pytest.mark.parametrize("size", [0, 1, 300, 16_384, 48 * 1024, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("anyio_backend", LOOPS_AND_TRIO)
async def test_a_body_arrives_byte_for_byte(transport: Any, echo_url: str, size: int, anyio_backend: Any) -> None:
    async with transport() as it:
        result = await attempt(it, echo_url, body=_body(1, size), deadline=10.0)
    assert isinstance(result.outcome, httpx.Response), result
    assert result.outcome.http_version == "HTTP/2"
    answer = result.outcome.json()
    assert (answer["length"], answer["sha256"]) == (size, hashlib.sha256(_body(1, size)).hexdigest())


@pytest.mark.parametrize("anyio_backend", LOOPS_AND_TRIO)
async def test_300_fetches_beside_20_batches_of_48_kib_arrive_byte_for_byte_over_one_connection(
    transport: Any, echo_url: str, anyio_backend: Any
) -> None:
    digests: list[bool] = []

    async def one(it: Any, number: int, size: int, lane: Any) -> None:
        body = _body(number, size)
        result = await attempt(it, echo_url, body=body, lane=lane, deadline=30.0)
        assert isinstance(result.outcome, httpx.Response), result
        digests.append(result.outcome.json()["sha256"] == hashlib.sha256(body).hexdigest())

    async with transport() as it:
        async with anyio.create_task_group() as group:
            for number in range(320):
                lane, size = ("bulk", 48 * 1024) if number % 16 == 0 else ("interactive", 300)
                group.start_soon(one, it, number, size, lane)
        assert it.stats().connections_opened == 1
        assert it.stats().retransmitted == 0
    assert digests == [True] * 320


@pytest.mark.parametrize(("path", "body"), [("/x", FETCH_BODY), ("/upload", BATCH_BODY)], ids=["fetch", "48-KiB"])
@pytest.mark.parametrize("anyio_backend", LOOPS_AND_TRIO)
async def test_nginx_answers_500_at_once_over_one_http2_connection(
    plain_nginx: Nginx, transport: Any, path: str, body: bytes, anyio_backend: Any
) -> None:
    """Batches go to a location that reads them: nginx takes many bodies that it only discards for a flood,
    and says goodbye.
    """
    before, before_connections = plain_nginx.requests(), len(plain_nginx.connections())
    async with transport() as it:
        results = await attempt_all(it, [plain_nginx.url + path] * 500, body=body, deadline=30.0)
    assert all(result.ok for result in results), [result for result in results if not result.ok][:3]
    assert all(isinstance(result.outcome, httpx.Response) and len(result.outcome.content) == 1000 for result in results)
    assert plain_nginx.requests() - before == 500
    assert len(plain_nginx.connections()) - before_connections == 1
    assert plain_nginx.protocols() == {"HTTP/2.0"}


@pytest.mark.parametrize("size", [150_000, 2_000_000])
async def test_nginx_body_limit_is_seen_as_413_and_neighbours_do_not_notice(
    plain_nginx: Nginx, transport: Any, size: int
) -> None:
    """`client_max_body_size 100k`: nginx answers before the body was sent (a stock client sees a broken
    connection instead).
    """
    async with transport() as it:
        assert (await attempt(it, plain_nginx.url + "/x")).ok
        neighbours: list[Result] = []

        async def neighbour() -> None:
            while len(neighbours) < 20:
                neighbours.append(await attempt(it, plain_nginx.url + "/x", deadline=5.0))

        async with anyio.create_task_group() as group:
            group.start_soon(neighbour)
            poison = await attempt_all(
                it, [plain_nginx.url + "/upload"] * 3, body=b"x" * size, lane="bulk", deadline=5.0
            )
        assert [result.status for result in poison] == [413] * 3
        assert [result.ok for result in neighbours] == [True] * 20
        assert (await attempt(it, plain_nginx.url + "/upload", body=BATCH_BODY)).ok


async def test_nginx_closing_idle_connections_costs_nobody_an_error(
    certificates: Certificates, transport: Any, tmp_path: Path
) -> None:
    """`keepalive_timeout 1s`, and bursts of five around that second."""
    with nginx(certificates, tmp_path, directives="keepalive_timeout 1s;") as server:
        async with transport() as it:
            for pause in (0.9, 0.95, 1.0, 1.05, 1.1, 1.3):
                results = await attempt_all(it, [server.url + "/x"] * 5, deadline=3.0)
                assert [result.ok for result in results] == [True] * 5, (pause, results)
                await anyio.sleep(pause)
        assert server.requests() == 30


@pytest.mark.parametrize(("limit", "callers"), [(1, 1), (2, 2), (7, 7), (20, 20)])
async def test_nginx_that_retires_a_connection_every_few_requests_still_answers_each_once(
    certificates: Certificates, transport: Any, tmp_path: Path, limit: int, callers: int
) -> None:
    """No more callers than the limit: with more, the three resends of a request may run out."""
    with nginx(certificates, tmp_path, directives=f"keepalive_requests {limit};") as server:
        async with transport() as it:
            results: list[Result] = []

            async def caller(first: int) -> None:
                results.extend(
                    [await attempt(it, f"{server.url}/{n}", deadline=10.0) for n in range(first, 200, callers)]
                )

            async with anyio.create_task_group() as group:
                for first in range(callers):
                    group.start_soon(caller, first)
        assert all(result.ok for result in results), [result for result in results if not result.ok][:3]
        paths = [line[5] for line in server.lines()]
        assert len(paths) == len(set(paths)) == 200


async def test_nginx_with_few_streams_is_served_in_turn(
    certificates: Certificates, transport: Any, tmp_path: Path
) -> None:
    with nginx(certificates, tmp_path, directives="http2_max_concurrent_streams 3;") as server:
        async with transport() as it:
            results = await attempt_all(it, [server.url + "/x"] * 100, deadline=10.0)
        assert [result.ok for result in results] == [True] * 100
        assert len(server.connections()) == 1


async def test_nginx_reloading_and_quitting_loses_no_request(
    certificates: Certificates, transport: Any, tmp_path: Path
) -> None:
    """SIGQUIT is nginx's graceful end: what was accepted is answered, then it goes; connecting again is
    refused, typed.
    """
    import os
    import signal

    with nginx(certificates, tmp_path) as server:
        async with transport() as it:
            assert (await attempt(it, server.url + "/x")).ok
            os.kill(server.pid, signal.SIGQUIT)
            await anyio.sleep(0.3)
            result = await attempt(it, server.url + "/x", deadline=2.0)
            assert isinstance(result.outcome, httpx.ConnectError), result
        assert server.requests() == 1


async def test_httpx_client_on_top_behaves_as_with_its_own_transport(plain_nginx: Nginx, transport: Any) -> None:
    async with transport() as it, httpx.AsyncClient(transport=it, timeout=5.0) as client:
        response = await client.post(plain_nginx.url + "/x", json={"a": 1}, headers={"x-some": "header"})
        assert (response.status_code, response.http_version, len(response.content)) == (200, "HTTP/2", 1000)
        assert (await client.get(plain_nginx.url + "/file")).json() == response.json()
        assert (await client.head(plain_nginx.url + "/file")).content == b""
        async with client.stream("GET", plain_nginx.url + "/file") as streamed:
            assert len(b"".join([chunk async for chunk in streamed.aiter_bytes()])) == 1000
