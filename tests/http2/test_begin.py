"""Requests without a task: begun and pushed, told by a call."""

import asyncio

import anyio
import httpx
import pytest
from http2.servers import Http1, client_context, server_context, serving
from http2.test_transport import BACKENDS, get, transport

from moengage_personalize.http2 import Http2Transport, Response


@pytest.fixture(params=BACKENDS)
def run(request):
    """Run an async test on each of the event loops."""
    return lambda test: BACKENDS[request.param](test) if request.param == "trio" else BACKENDS[request.param](test())


@pytest.fixture
def server():
    with serving() as server:
        yield server


def begin(client, server, path, body=b"", told=None):
    told = [] if told is None else told
    sending = client.begin(client.route("POST", server.origin + path), body, ended=told.append)
    return sending, told


async def until(condition, every=0.001):
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(every)


def test_what_has_begun_leaves_with_one_push_and_its_answers_are_told(run, server):
    async def test():
        async with transport() as client:
            await client.warm_up(server.origin)
            told = [begin(client, server, "/echo", b"%d" % n)[1] for n in range(20)]
            assert client.stats().streams_opened == 0
            client.push()
            assert client.stats().streams_opened == 20
            await until(lambda: all(told))
            assert [each[0].body for each in told] == [b"%d" % n for n in range(20)]
            await anyio.sleep(0.01)
            assert all(len(each) == 1 for each in told)

    run(test)


def test_it_waits_for_the_connection_that_it_opens(run, server):
    async def test():
        async with transport() as client:
            _, told = begin(client, server, "/echo", b"early")
            client.push()
            await until(lambda: told)
            assert isinstance(told[0], Response)
            assert told[0].body == b"early"

    run(test)


def test_who_has_called_it_off_is_never_told(run, server):
    async def test():
        async with transport() as client:
            sending, told = begin(client, server, "/hang")
            client.push()
            await until(lambda: server.paths)
            sending.abandon()
            sending.abandon()
            await until(lambda: server.resets)
            assert (await get(client, server, "/echo", b"on")).body == b"on"
            assert not told

    run(test)


def test_what_was_not_processed_is_sent_again_three_times_at_most(run, server):
    async def test():
        async with transport() as client:
            for path, times in (("/refuse", 4), ("/goaway", 4)):
                _, told = begin(client, server, path)
                client.push()
                await until(lambda told=told: told)
                assert isinstance(told[0], httpx.RemoteProtocolError)
                assert server.paths.count(path) == times
            assert client.stats().retransmitted == 6

    run(test)


def test_who_calls_off_what_is_to_be_sent_again_has_called_it_off(run, server):
    async def test():
        async with transport() as client:
            sending, told = begin(client, server, "/refuse")
            client.push()
            await until(lambda: client.stats().retransmitted, every=0)  # a moment later it may be refused for good
            sending.abandon()
            seen = len(server.paths)
            await anyio.sleep(0.05)
            assert not told
            assert len(server.paths) <= seen + 1

    run(test)


def test_closing_tells_those_who_wait(run, server):
    async def test():
        client = transport()
        _, told = begin(client, server, "/hang")
        client.push()
        await until(lambda: server.paths)
        await client.aclose()
        assert [type(each) for each in told] == [httpx.ReadError]

    run(test)


def test_where_http2_is_not_to_be_had_nothing_was_sent(run):
    async def test():
        with serving(Http1, context=server_context(["http/1.1"])) as server:
            async with transport() as client:
                _, told = begin(client, server, "/")
                client.push()
                await until(lambda: told)
                assert told == [None]
                assert begin(client, server, "/") == (None, [])

    run(test)


def test_a_broken_content_coding_is_told_as_such(monkeypatch):
    async def test():
        def broken(response, limit):
            raise httpx.DecodingError("broken")

        monkeypatch.setattr("moengage_personalize.http2._transport.decoded", broken)
        with serving() as server:
            async with Http2Transport(ssl_context=client_context()) as client:
                _, told = begin(client, server, "/echo", b"x")
                client.push()
                await until(lambda: told)
                assert isinstance(told[0], httpx.DecodingError)

    asyncio.run(test())
