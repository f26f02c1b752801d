"""The shell's corners: what a socket, a TLS session and a process may do to it."""

import asyncio
import os
import socket
import ssl
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import pytest
import trio
from http2.servers import Silent, client_context, server_context, serving
from http2.test_transport import get, transport

from moengage_personalize.http2 import _fork, _runtime
from moengage_personalize.http2._asyncio import AsyncioRuntime, _Link
from moengage_personalize.http2._connection import _text
from moengage_personalize.http2._tls import TlsPipe


def handshake(alpn=("h2",)):
    """A client's pipe, and the server's session that it talks to."""
    pipe = TlsPipe(client_context(), "localhost")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = server_context(alpn).wrap_bio(incoming, outgoing, server_side=True)
    assert pipe.open(b"") == b""
    while not pipe.established:
        incoming.write(pipe.seal(b""))
        with suppress(ssl.SSLWantReadError):
            session.do_handshake()
        pipe.open(outgoing.read())
    incoming.write(pipe.seal(b""))
    session.do_handshake()
    return pipe, session, incoming, outgoing


def test_a_pipe_carries_bytes_both_ways():
    pipe, session, incoming, outgoing = handshake()
    assert pipe.protocol == "h2"
    incoming.write(pipe.seal(b"x" * 100_000))
    received = b""
    while len(received) < 100_000:
        received += session.read(200_000)
    session.write(b"answer")
    assert pipe.open(outgoing.read()) == b"answer"
    large = b"y" * 200_000
    session.write(large)
    assert pipe.open(outgoing.read()) == large


def test_the_peers_goodbye_is_noticed_after_its_last_words():
    pipe, session, _, outgoing = handshake()
    session.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        session.unwrap()
    assert pipe.open(outgoing.read()) == b"last words"
    assert pipe.open(b"") is None


def test_nothing_is_sealed_before_the_server_is_known():
    pipe = TlsPipe(client_context(), "localhost")
    pipe.open(b"")
    with pytest.raises(ssl.SSLError):
        pipe.seal(b"secret")


def test_our_goodbye_waits_for_nobody():
    pipe, session, incoming, _ = handshake()
    incoming.write(pipe.end())
    assert session.read(1) == b""
    assert TlsPipe(client_context(), "localhost").end() == b""


@pytest.mark.parametrize("way", ["seal", "open"])
def test_a_session_that_breaks_costs_the_connection_and_the_request_is_sent_again(monkeypatch, way):
    monkeypatch.setattr("moengage_personalize.http2._liveness.REST", 0.0)

    def fail(*_):
        raise ssl.SSLError("broken")

    async def test():
        with serving() as server:
            async with transport() as client:
                await get(client, server)
                (connection,) = client._pool._open
                monkeypatch.setattr(connection._tls, way, fail)
                assert (await get(client, server)).status == 200
                assert client.stats().connections_opened == 2
                assert client.stats().retransmitted == 1

    asyncio.run(test())


def test_a_handshake_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr("moengage_personalize.http2._connection.CONNECT_LIMIT", 0.05)
    monkeypatch.setattr("moengage_personalize.http2._connection.CLOSE_LIMIT", 0.0)

    async def test():
        with serving(Silent, cleartext=True) as server:
            async with transport() as client:
                to = client.route("GET", f"https://localhost:{server.port}/")
                with pytest.raises(httpx.ConnectTimeout):
                    await client.exchange(to)

    asyncio.run(test())


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_closing_a_connection_that_nobody_reads_from_takes_no_longer_than_its_limit(run, monkeypatch):
    monkeypatch.setattr("moengage_personalize.http2._connection.CLOSE_LIMIT", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]

        async def test():
            client = httpx_transport_with_prior_knowledge()
            to = client.route("POST", f"http://127.0.0.1:{port}/")
            await client.warm_up(to.url)
            with pytest.raises(httpx.ReadTimeout):
                await client.exchange(to, deadline=anyio.current_time() + 0.05)
            (connection,) = client._pool._open
            connection._link.write(bytes(50_000_000))
            await client.aclose()
            assert not client._pool._open

        run(test) if run is trio.run else run(test())


def httpx_transport_with_prior_knowledge():
    from moengage_personalize.http2 import Http2Transport

    return Http2Transport(cleartext_http2=True)


def test_a_full_socket_holds_back_data_and_goes_on_later():
    body = bytes(4_000_000)

    async def test():
        with serving() as server:
            async with transport(max_response_bytes=10_000_000) as client:
                await client.warm_up(server.origin)
                (connection,) = client._pool._open
                connection.writable(ready=False)
                task = asyncio.create_task(get(client, server, "/echo", body[:100_000]))
                await anyio.wait_all_tasks_blocked()
                await server.settles()
                assert server.paths == []
                connection.writable(ready=True)
                assert (await task).body == body[:100_000]

    asyncio.run(test())


def test_a_socket_that_cannot_be_taken_over_is_closed(monkeypatch):
    taken = []

    async def refuse(self, sock, receiver):
        taken.append(sock)
        raise OSError("no")

    monkeypatch.setattr(AsyncioRuntime, "link", refuse)

    async def test():
        with serving() as server:
            async with transport() as client:
                with pytest.raises(httpx.ConnectError):
                    await get(client, server)

    asyncio.run(test())
    assert [sock.fileno() for sock in taken] == [-1]


def test_a_connection_that_has_no_socket_yet_can_be_forsaken(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answered.wait(10) and [])

    async def test():
        async with transport() as client:
            client.route("GET", "https://localhost:9")
            client._here().take()
            (connection,) = client._pool._open
            connection.forsake(forked=False)
            assert "connecting" in repr(connection)

    asyncio.run(test())
    answered.set()


def test_a_link_without_a_socket_does_nothing():
    told = []

    class Receiver:
        def received(self, data): ...

        def writable(self, *, ready):
            told.append(ready)

    link = _Link(Receiver())
    link.write(b"x")
    link.close()
    link.abort()
    link.pause_writing()
    link.resume_writing()
    assert told == [False, True]


def test_a_child_loses_the_parents_sockets_and_nothing_else(monkeypatch):
    monkeypatch.setattr(_fork, "_generation", _fork.generation())
    ours, theirs = socket.socketpair()
    closed = socket.socket()
    _fork.guard(ours)
    _fork.guard(closed)
    closed.close()
    number, before = ours.fileno(), _fork.generation()
    _fork._in_child()
    assert _fork.generation() == before + 1
    assert ours.fileno() == number
    assert str(Path(f"/proc/self/fd/{number}").readlink()) == os.devnull
    assert theirs.recv(1) == b""  # nobody holds the other end any more
    ours.close()
    theirs.close()


def test_a_runtime_knows_its_own_loop():
    async def test():
        return _runtime.current()

    runtime = asyncio.run(test())
    assert not runtime.is_current()
    assert not runtime.is_alive()
    runtime.from_thread(lambda: None)  # nobody waits
    trios = trio.run(test)
    assert not trios.is_current()
    assert not trios.is_alive()
    trios.from_thread(lambda: None)


def test_a_woken_waiter_may_be_woken_again():
    async def test():
        runtime = _runtime.current()
        waiter = runtime.waiter()
        runtime.wake(waiter)
        runtime.wake(waiter)
        await waiter

    asyncio.run(test())
    trio.run(test)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(111, "Connection refused"), "Connection refused"),
        (OSError("no address"), "no address"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_errors_are_told_by_what_they_say(error, text):
    assert _text(error) == text


def test_no_traceback_shows_a_secret_or_a_body():
    async def test():
        with serving() as server:
            async with transport() as client:
                await client.warm_up(server.origin)  # it is the answer that does not come, and not the connection
                to = client.route("POST", server.origin + "/hang", [(b"authorization", b"canary-secret")])
                try:
                    await client.exchange(to, b"canary-body", deadline=anyio.current_time() + 0.03)
                except httpx.ReadTimeout as error:
                    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    told = asyncio.run(test())
    told = told[told.index("_transport.py") :]  # this test's own frame knows them
    assert "_multiplexed" in told
    assert "canary" not in told
