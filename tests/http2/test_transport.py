"""The transport on asyncio, uvloop and trio, against a server in another thread."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
from math import inf

import anyio
import httpx
import pytest
import trio
import trustme
import uvloop
from http2.servers import AUTHORITY, Http1, client_context, server_context, serving

from moengage_personalize.http2 import Http2Transport, Lane, Patience

BACKENDS = {"asyncio": asyncio.run, "uvloop": uvloop.run, "trio": trio.run}


@pytest.fixture(params=BACKENDS)
def run(request):
    """Run an async test on each of the event loops."""
    return lambda test: BACKENDS[request.param](test) if request.param == "trio" else BACKENDS[request.param](test())


@pytest.fixture
def server():
    with serving() as server:
        yield server


def transport(**options):
    return Http2Transport(ssl_context=client_context(), **options)


async def get(client, server, path="/", body=b"", **options):
    return await client.exchange(client.route("POST", server.origin + path), body, **options)


def library():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio"
    return "asyncio"


def after(seconds):
    return anyio.current_time() + seconds


def test_requests_share_one_connection(run, server):
    async def test():
        async with transport() as client:
            assert "unused" in repr(client)
            results = []

            async def one(at):
                response = await get(client, server, "/echo", b"%d" % at)
                results.append(response.body)

            async with anyio.create_task_group() as group:
                for at in range(50):
                    group.start_soon(one, at)
            assert sorted(results, key=int) == [b"%d" % at for at in range(50)]
            stats = client.stats()
            assert (stats.connections_opened, stats.handshakes, stats.streams_opened) == (1, 1, 50)
            assert stats.protocol == "h2"
            assert "serving streams=0 queued=0" in repr(client)
        assert "closed" in repr(client)
        assert len(server.paths) == 50

    run(test)
    server.wait_for(lambda: server.goodbyes == 1 and not server.connections)


def test_it_is_a_transport_of_httpx(run, server):
    async def test():
        async with httpx.AsyncClient(transport=transport()) as client:
            response = await client.post(server.origin + "/echo", content=b"hello", headers={"X-Thing": "1"})
            assert response.text == "hello"
            assert response.http_version == "HTTP/2"
            again = await client.post(server.origin + "/echo", content=b"again", headers={"X-Thing": "1"})
            assert again.text == "again"
            with pytest.raises(httpx.ReadTimeout):
                await client.get(server.origin + "/hang", timeout=0.05)
            request = client.build_request(
                "GET", server.origin + "/hang", extensions={"deadline": after(0.05), "lane": "bulk"}
            )
            with pytest.raises(httpx.ReadTimeout):
                await client.send(request)

    run(test)


def test_a_cancelled_caller_resets_its_own_stream(run, server):
    async def test():
        async with transport() as client:
            await client.warm_up(server.origin)
            async with anyio.create_task_group() as group:
                group.start_soon(get, client, server, "/hang")
                await server.comes(lambda: server.paths)
                group.cancel_scope.cancel()
            assert (await get(client, server)).body == b"ok"
            assert client.stats().resets_sent == 1
            assert client.stats().connections_opened == 1
        server.wait_for(lambda: server.resets == 1)

    run(test)


def test_a_deadline_ends_one_request_and_touches_no_other(run, server):
    async def test():
        async with transport() as client:
            await client.warm_up(server.origin)
            with pytest.raises(httpx.ReadTimeout):
                await get(client, server, "/hang", deadline=after(0.05))
            assert (await get(client, server)).body == b"ok"
            with pytest.raises(httpx.PoolTimeout):
                await get(client, server, deadline=after(-1))
            with pytest.raises(httpx.ReadTimeout):
                await get(client, server, "/hang", patience=Patience(read=0.02))
            assert client.stats().connections_opened == 1

    run(test)


def test_a_large_body_travels_in_either_lane(run, server):
    body = bytes(range(256)) * 1500

    async def test():
        async with transport() as client:
            for lane in Lane:
                assert (await get(client, server, "/echo", body[:60_000], lane=lane)).body == body[:60_000]
            assert (await get(client, server, "/early", body)).status == 413
            assert (await get(client, server)).status == 200
            assert client.stats().connections_opened == 1

    run(test)


def test_what_a_goaway_leaves_unprocessed_is_sent_again_on_a_new_connection(run, server):
    async def test():
        async with transport() as client:
            assert (await get(client, server)).status == 200
            with pytest.raises(httpx.RemoteProtocolError):
                await get(client, server, "/goaway")
            assert server.paths.count("/goaway") == 4  # once, and three times again
            stats = client.stats()
            assert (stats.retransmitted, stats.goaways) == (3, 4)
            assert (await get(client, server)).status == 200

    run(test)


def test_what_waited_for_a_stream_moves_when_the_server_says_goodbye(run):
    with serving(streams=1) as server:

        async def test():
            async with transport() as client:
                await get(client, server)
                async with anyio.create_task_group() as group:
                    group.start_soon(get, client, server, "/hang")
                    await server.comes(lambda: "/hang" in server.paths)
                    group.start_soon(get, client, server, "/moved")
                    await anyio.wait_all_tasks_blocked()
                    server.call(server.connections[0].goaway, 3)
                    await server.comes(lambda: "/moved" in server.paths)
                    assert client.stats().connections_opened == 2
                    assert client.stats().retransmitted == 0
                    group.cancel_scope.cancel()

        run(test)


def test_a_refused_stream_is_sent_again_three_times_at_most(run, server):
    async def test():
        async with transport() as client:
            with pytest.raises(httpx.RemoteProtocolError, match="REFUSED_STREAM"):
                await get(client, server, "/refuse")
            assert server.paths == ["/refuse"] * 4
            assert client.stats().connections_opened == 1

    run(test)


def test_a_request_on_a_dead_idle_connection_is_sent_again_once(run, server, monkeypatch):
    monkeypatch.setattr("moengage_personalize.http2._liveness.REST", 0.0)

    async def test():
        async with transport() as client:
            await get(client, server)
            with pytest.raises(httpx.ReadError):
                await get(client, server, "/close")
            assert server.paths.count("/close") == 2
            assert (await get(client, server)).status == 200

    run(test)


def test_a_connection_that_the_server_closed_while_idle_is_replaced(run, server, monkeypatch):
    monkeypatch.setattr("moengage_personalize.http2._liveness.REST", 0.0)

    async def test():
        async with transport() as client:
            await get(client, server)
            server.call(server.connections[0].transport.close)
            await server.comes(lambda: not server.connections)
            assert (await get(client, server)).status == 200
            assert client.stats().connections_opened == 2

    run(test)


@pytest.mark.parametrize("trouble", ["authority", "host", "plain"])
def test_not_one_byte_of_a_request_leaves_if_the_server_is_not_who_it_should_be(run, trouble):
    context = {
        "authority": server_context(certificate=trustme.CA().issue_cert("localhost")),
        "host": server_context(certificate=AUTHORITY.issue_cert("example.com")),
        "plain": None,
    }[trouble]
    with serving(context=context, cleartext=trouble == "plain") as server:

        async def test():
            async with transport() as client:
                to = client.route("POST", f"https://localhost:{server.port}/", [(b"authorization", b"secret")])
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.exchange(to, b"body", deadline=after(5))
                assert "secret" not in repr(caught.value)
                with pytest.raises(httpx.ConnectError):
                    await client.warm_up(f"https://localhost:{server.port}")

        run(test)
        assert not server.paths
        assert server.bytes < 1200 * (trouble == "plain") + 1  # two ClientHellos are all that cleartext sees


def test_nobody_listens(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def test():
            async with transport() as client:
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.exchange(client.route("GET", f"https://127.0.0.1:{port}/"))
                assert isinstance(caught.value.__cause__, ConnectionRefusedError)
                assert client.stats().connections_opened == 1

        run(test)


def test_a_stuck_resolver_holds_up_nobody(run, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: stuck.wait(10) and [])

    async def test():
        async with transport() as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.exchange(client.route("GET", "https://example.com/"), deadline=after(0.05))
            with pytest.raises(httpx.ConnectTimeout):
                await client.exchange(client.route("GET", "https://example.com/"), patience=Patience(connect=0.02))
            assert "connecting" in repr(client)

    run(test)
    stuck.set()


def test_a_server_without_http2_is_spoken_to_in_http1(run):
    with serving(Http1, context=server_context(["http/1.1"])) as server:

        async def test():
            async with transport(max_response_bytes=4000) as client:
                async with anyio.create_task_group() as group:
                    for _ in range(2):
                        group.start_soon(get, client, server)
                assert (await get(client, server, body=b"x", varying=[(b"traceparent", b"00")])).body == b"one"
                assert client.stats().protocol == "http/1.1"
                assert "http/1.1" in repr(client)
                request = httpx.Request("GET", server.origin)
                assert (await client.handle_async_request(request)).extensions["http_version"] == b"HTTP/1.1"
                with pytest.raises(httpx.ReadTimeout):
                    await get(client, server, "/hang", deadline=after(0.05))
                await client.warm_up(server.origin)
                if library() != "trio":  # which warns of a generator of httpcore's that is not exhausted
                    with pytest.raises(httpx.RemoteProtocolError, match="larger"):
                        await get(client, server, "/large")

        run(test)


def test_warming_up_finds_out_too_and_http2_is_asked_for_again_later(run):
    with serving(Http1, context=server_context(["http/1.1"])) as server:

        async def test():
            async with transport() as client:
                await client.warm_up(server.origin)
                assert client.stats().protocol == "http/1.1"
                client._pool._http1_until = anyio.current_time()
                assert (await get(client, server)).body == b"one"
                assert client.stats().connections_opened == 2

        run(test)


def test_cleartext_is_http1_unless_the_caller_knows_better(run):
    with serving(Http1, cleartext=True) as old, serving(cleartext=True) as new:

        async def test():
            async with Http2Transport() as client:
                assert (await get(client, old)).body == b"one"
                assert client.stats().connections_opened == 0
            async with Http2Transport(cleartext_http2=True) as client:
                assert (await get(client, new, "/echo", b"hello")).body == b"hello"
                assert client.stats().protocol == "h2"

        run(test)


def test_a_proxy_means_http1(run):
    async def test():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
            async with transport(proxy=proxy) as client:
                with pytest.raises(httpx.ConnectError):
                    await client.exchange(client.route("GET", "https://example.com/"))
                assert "http/1.1" in repr(client)

    run(test)


def test_the_default_authorities_do_not_know_a_private_one(run, server):
    async def test():
        async with Http2Transport() as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await get(client, server)

    run(test)


def test_an_aged_connection_serves_until_its_successor_is_ready(run, server):
    async def test():
        async with transport(max_age=0.0, jitter=lambda: 0.5) as client:
            await get(client, server)
            while client.stats().handshakes < 2:
                assert (await get(client, server)).status == 200
            await get(client, server)
        assert client.stats().retransmitted == 0

    run(test)
    server.wait_for(lambda: not server.connections)


def test_a_second_connection_is_opened_only_if_asked_for_and_needed(run):
    with serving(streams=2) as server:

        async def test():
            for connections, opened in ((1, 1), (2, 2)):
                async with transport(connections=connections) as client:
                    await client.warm_up(server.origin)
                    await get(client, server)
                    already = server.paths.count("/hang")
                    async with anyio.create_task_group() as group:
                        for number in range(4):
                            group.start_soon(get, client, server, "/hang")
                            await anyio.wait_all_tasks_blocked()
                            wanted = already + min(
                                number + 1, 2
                            )  # under way, so that it does not make the first look full
                            await server.comes(lambda wanted=wanted: server.paths.count("/hang") >= wanted)
                        await get(client, server, "/echo", deadline=inf) if connections == 2 else None
                        assert client.stats().connections_opened == opened
                        group.cancel_scope.cancel()

        run(test)


def test_closing_fails_what_is_in_flight_and_then_everything(run, server):
    async def test():
        client = transport()
        errors = []

        async def hang():
            try:
                await get(client, server, "/hang")
            except httpx.ReadError as error:
                errors.append(error)

        await client.warm_up(server.origin)
        async with anyio.create_task_group() as group:
            group.start_soon(hang)
            while not server.paths:
                await anyio.sleep(0.001)
            await client.aclose()
        assert len(errors) == 1
        with pytest.raises(httpx.LocalProtocolError):
            await get(client, server)
        await client.aclose()

    run(test)
    server.wait_for(lambda: not server.connections)


def test_a_transport_that_was_never_used_can_be_closed(run):
    async def test():
        await Http2Transport().aclose()

    run(test)


def test_one_transport_serves_one_origin(run, server):
    async def test():
        async with transport() as client:
            client.route("GET", server.origin)
            with pytest.raises(httpx.LocalProtocolError, match="another origin"):
                client.route("GET", "https://evil.example/")
            with pytest.raises(httpx.UnsupportedProtocol):
                client.route("GET", "ftp://example.com/")
            with pytest.raises(httpx.LocalProtocolError, match="x-evil"):
                client.route("GET", server.origin, [(b"x-evil", b"a\r\nb: c")])
            to = client.route("GET", server.origin)
            with pytest.raises(httpx.LocalProtocolError, match="another transport"):
                await transport().exchange(to)
            with pytest.raises(httpx.LocalProtocolError, match="traceparent"):
                await client.exchange(to, varying=[(b"traceparent", b"\n")])

    run(test)


def test_many_kinds_of_requests_do_not_pile_up(server):
    async def test():
        async with transport() as client:
            for at in range(200):
                client._route_of(httpx.Request("GET", f"{server.origin}/{at}"))
            assert len(client._routes) <= 64

    asyncio.run(test())


def test_it_starts_afresh_in_a_second_loop(server):
    client = transport()

    async def test():
        assert (await get(client, server)).status == 200

    def twice():
        asyncio.run(test())
        asyncio.run(test())
        gc.collect()

    with pytest.warns(ResourceWarning):  # asyncio's, of the connection that the first loop left open
        twice()
    assert client.stats().connections_opened == 2

    async def close():
        await client.aclose()  # in a third loop: nothing to wait for

    def finish():
        asyncio.run(close())
        gc.collect()

    with pytest.warns(ResourceWarning):
        finish()


def test_it_starts_afresh_in_a_second_run_of_trio(server):
    client = transport()

    async def test():
        assert (await get(client, server)).status == 200

    trio.run(test)
    trio.run(test)
    assert client.stats().connections_opened == 2


def test_two_loops_at_once_are_an_error(server):
    client = transport()

    async def other():
        with pytest.raises(httpx.LocalProtocolError, match="another event loop"):
            await get(client, server)

    async def test():
        async with client:
            await get(client, server)
            await asyncio.to_thread(lambda: asyncio.run(other()))
            assert (await get(client, server)).status == 200

    asyncio.run(test())


FORK = """
import asyncio, os, ssl, sys, threading
from moengage_personalize.http2 import Http2Transport

client = Http2Transport(ssl_context=ssl.create_default_context(cafile=sys.argv[2]))
if sys.argv[3] == "uvloop":
    import uvloop as loops
else:
    loops = asyncio

async def get():
    return (await client.exchange(client.route("GET", sys.argv[1]))).status

def child():
    ok = loops.run(get()) == 200 and client.stats().connections_opened == 2
    os._exit(0 if ok else 1)

async def parent():
    statuses = [await get()]
    pid = os.fork()
    if not pid:
        thread = threading.Thread(target=child)  # where no loop is running
        thread.start()
        thread.join(10)
        os._exit(2)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    statuses += [await get(), client.stats().connections_opened]
    await client.aclose()
    print(*statuses)

loops.run(parent())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_forked_child_starts_afresh_and_the_parents_connection_lives(server, tmp_path, loop):
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    out = subprocess.run(
        [sys.executable, "-c", FORK, server.origin, authority, loop],
        capture_output=True,
        timeout=20,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert out.stdout.split() == [b"200", b"0", b"200", b"1"], out
