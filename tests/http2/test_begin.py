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


class Told(list):
    """What was told."""

    def __init__(self):
        super().__init__()
        self._news = anyio.Event()

    def append(self, answer):
        super().append(answer)
        self._news.set()

    async def come(self):
        """Returns when something was."""
        with anyio.fail_after(10):
            await self._news.wait()


def begin(client, server, path, body=b""):
    told = Told()
    sending = client.begin(client.route("POST", server.origin + path), body, ended=told.append)
    return sending, told


def test_what_has_begun_leaves_with_one_push_and_its_answers_are_told(run, server):
    async def test():
        async with transport() as client:
            await client.warm_up(server.origin)
            told = [begin(client, server, "/echo", b"%d" % n)[1] for n in range(20)]
            assert client.stats().streams_opened == 0
            client.push()
            assert client.stats().streams_opened == 20
            for each in told:
                await each.come()
            assert [each[0].body for each in told] == [b"%d" % n for n in range(20)]
            await get(client, server)  # what would be told twice has been by now
            assert all(len(each) == 1 for each in told)

    run(test)


def test_it_waits_for_the_connection_that_it_opens(run, server):
    async def test():
        async with transport() as client:
            _, told = begin(client, server, "/echo", b"early")
            client.push()
            await told.come()
            assert isinstance(told[0], Response)
            assert told[0].body == b"early"

    run(test)


def test_who_has_called_it_off_is_never_told(run, server):
    async def test():
        async with transport() as client:
            sending, told = begin(client, server, "/hang")
            client.push()
            await server.comes(lambda: server.paths)
            sending.abandon()
            sending.abandon()
            await server.comes(lambda: server.resets)
            assert (await get(client, server, "/echo", b"on")).body == b"on"
            assert not told

    run(test)


def test_what_was_not_processed_is_sent_again_three_times_at_most(run, server):
    async def test():
        async with transport() as client:
            for path, times in (("/refuse", 4), ("/goaway", 4)):
                _, told = begin(client, server, path)
                client.push()
                await told.come()
                assert isinstance(told[0], httpx.RemoteProtocolError)
                assert server.paths.count(path) == times
            assert client.stats().retransmitted == 6

    run(test)


def test_who_calls_off_what_was_sent_again_has_called_it_off(run, server):
    async def test():
        async with transport() as client:
            sending, told = begin(client, server, "/refuse-once")
            client.push()
            await server.comes(lambda: len(server.paths) == 2)
            assert client.stats().retransmitted == 1
            sending.abandon()
            await server.comes(lambda: server.resets)
            assert (await get(client, server)).body == b"ok"
            assert server.paths == ["/refuse-once", "/refuse-once", "/"]
            assert not told

    run(test)


def test_closing_tells_those_who_wait(run, server):
    async def test():
        client = transport()
        _, told = begin(client, server, "/hang")
        client.push()
        await server.comes(lambda: server.paths)
        await client.aclose()
        assert [type(each) for each in told] == [httpx.ReadError]

    run(test)


def test_where_http2_is_not_to_be_had_nothing_was_sent(run):
    async def test():
        with serving(Http1, context=server_context(["http/1.1"])) as server:
            async with transport() as client:
                _, told = begin(client, server, "/")
                client.push()
                await told.come()
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
                await told.come()
                assert isinstance(told[0], httpx.DecodingError)

    asyncio.run(test())
