"""Names, addresses, seats: how a connection comes to be, on a clock that jumps."""

import asyncio
import socket
import threading

import pytest
import trio
import trio.testing
from http2.loops import run

from moengage_personalize.http2 import _runtime
from moengage_personalize.http2._connection import Origin
from moengage_personalize.http2._dial import dial, in_turn
from moengage_personalize.http2._resolver import Resolver
from moengage_personalize.http2._seat import Seat
from moengage_personalize.http2._terms import State
from moengage_personalize.http2._worker import Worker

V4, V6 = socket.AF_INET, socket.AF_INET6


class Network:
    """A runtime whose `connect` does as it is told: seconds until it succeeds, or fails."""

    def __init__(self, script):
        self.script, self.log, self.open = script, [], []

    async def connect(self, sock, address):
        self.open.append(sock)
        self.log.append((asyncio.get_running_loop().time(), address[0]))
        seconds, error = self.script[address[0]]
        await asyncio.sleep(seconds)
        if error:
            raise error


def dialled(script, addresses):
    network = Network(script)

    async def test():
        try:
            return await dial(addresses, network)
        finally:
            network.took = asyncio.get_running_loop().time()

    try:
        sock = run(test())
    finally:
        network.left = [each for each in network.open if each.fileno() >= 0]
        for each in network.open:
            each.close()
    assert network.left == [sock]
    return network


def test_a_dead_address_costs_a_quarter_of_a_second():
    network = dialled(
        {"a": (99, None), "b": (0.1, None), "c": (0, None)}, [(V4, ("a", 1)), (V4, ("b", 1)), (V4, ("c", 1))]
    )
    assert network.log == [(0.0, "a"), (0.25, "b")]
    assert network.took == pytest.approx(0.35)


def test_a_refused_address_costs_nothing():
    network = dialled({"a": (0.01, ConnectionRefusedError()), "b": (0, None)}, [(V6, ("a", 1)), (V4, ("b", 1))])
    assert network.took == pytest.approx(0.01)


def test_two_that_answer_at_once_leave_one_socket():
    dialled({"a": (0.25, None), "b": (0, None)}, [(V4, ("a", 1)), (V4, ("b", 1))])


@pytest.mark.parametrize("addresses", [[], [(V4, ("a", 1)), (V4, ("b", 1))]])
def test_if_none_answers_the_last_reason_is_raised(addresses):
    network = Network({"a": (0.3, ConnectionRefusedError("first")), "b": (0.1, ConnectionRefusedError("last"))})
    with pytest.raises(OSError, match=r"no address" if not addresses else r"first|last"):
        run(dial(addresses, network))
    assert all(sock.fileno() < 0 for sock in network.open)


def test_two_that_answer_at_once_leave_one_socket_on_trio_too():
    class Both(Network):
        async def connect(self, sock, address):
            self.open.append(sock)
            if len(self.open) == 2:
                self.go.set()
            await self.go.wait()

    async def test():
        network = Both({})
        network.go = trio.Event()
        sock = await dial([(V4, ("a", 1)), (V4, ("b", 1))], network)
        assert [each for each in network.open if each.fileno() >= 0] == [sock]
        sock.close()

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_giving_up_in_the_moment_of_success_leaves_no_socket():
    class Sudden(Network):
        async def connect(self, sock, address):
            self.open.append(sock)
            self.task.cancel()

    async def test(network):
        network.task = asyncio.current_task()
        await dial([(V4, ("a", 1))], network)

    network = Sudden({})
    with pytest.raises(asyncio.CancelledError):
        run(test(network))
    assert [each.fileno() for each in network.open] == [-1]


def test_giving_up_leaves_no_socket():
    network = Network({"a": (99, None), "b": (99, None)})

    async def test():
        async with asyncio.timeout(1):
            await dial([(V4, ("a", 1)), (V4, ("b", 1))], network)

    with pytest.raises(TimeoutError):
        run(test())
    assert len(network.open) == 2
    assert all(sock.fileno() < 0 for sock in network.open)


def test_families_take_turns():
    a, b, c, d = (V6, ("a", 1)), (V6, ("b", 1)), (V4, ("c", 1)), (V4, ("d", 1))
    assert in_turn([a, b, c, d]) == [a, c, b, d]
    assert in_turn([c, d]) == [c, d]


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────

FOUND = [(V4, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


class Names:
    """A `getaddrinfo` that answers when it is allowed to."""

    def __init__(self, *answers):
        self.answers, self.asked, self.go = list(answers), 0, threading.Event()
        self.begun = threading.Event()
        self.go.set()

    def __call__(self, host, port, **_):
        self.asked += 1
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go.wait(5)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def resolving(names, test):
    async def main():
        worker = Worker()
        resolver, runtime = Resolver(worker, names), _runtime.current()
        await test(lambda: resolver.resolve("example.com", 443, runtime))
        worker.stop()
        worker.stop()

    asyncio.run(main())


def test_a_name_is_asked_for_once_in_a_daemon_thread_however_many_wait():
    names = Names(FOUND)
    names.go.clear()

    async def test(resolve):
        tasks = [asyncio.create_task(resolve()) for _ in range(5)]
        await asyncio.sleep(0)
        names.go.set()
        assert await asyncio.gather(*tasks) == [[(V4, ("192.0.2.1", 443))]] * 5

    resolving(names, test)
    assert names.asked == 1
    assert names.thread.daemon
    assert names.thread is not threading.main_thread()


@pytest.mark.parametrize("error", [socket.gaierror("no such name"), UnicodeError("label too long"), []])
def test_a_name_that_cannot_be_resolved_is_an_os_error(error):
    async def test(resolve):
        with pytest.raises(OSError, match=r"name|address"):
            await resolve()

    resolving(Names(error), test)


def test_the_last_good_addresses_outlive_a_failing_resolver():
    async def test(resolve):
        assert await resolve() == await resolve() == [(V4, ("192.0.2.1", 443))]

    resolving(Names(FOUND, socket.gaierror("down")), test)


def test_the_last_good_addresses_are_used_when_the_resolver_takes_long(monkeypatch):
    monkeypatch.setattr("moengage_personalize.http2._resolver.PATIENCE", 0.01)
    names = Names(FOUND, FOUND)

    async def test(resolve):
        await resolve()
        names.go.clear()
        assert await resolve() == [(V4, ("192.0.2.1", 443))]
        assert await resolve() == [(V4, ("192.0.2.1", 443))]
        names.go.set()

    resolving(names, test)
    assert names.asked == 2


def test_an_answer_for_a_loop_that_has_ended_is_nobodys():
    names = Names(FOUND)
    names.go.clear()

    async def test(resolve):
        task = asyncio.create_task(resolve())
        await asyncio.sleep(0)
        task.cancel()

    resolving(names, test)
    assert names.begun.wait(5)
    names.go.set()
    names.thread.join(5)
    assert not names.thread.is_alive()


def test_a_workers_errors_come_back():
    async def test():
        worker = Worker()
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0, _runtime.current())
        assert await worker.run(lambda: 1, _runtime.current()) == 1
        worker.stop()

    asyncio.run(test())


def test_an_origin_shows_where_it_is():
    assert str(Origin("https", "::1", 443)) == "https://[::1]:443"


# ── seats ──────────────────────────────────────────────────────────────────────────────────────────────


class Sitter:
    """A connection, as far as a seat can see."""

    def __init__(self):
        self.state, self.opened_at, self.accepting, self.load, self.is_full = (
            State.CONNECTING,
            float("inf"),
            True,
            0,
            False,
        )

    def serve(self, at):
        self.state, self.opened_at = State.SERVING, at

    def drain(self):
        self.state, self.accepting = State.DRAINING, False


def seat(age=100.0):
    made = []
    return Seat(lambda: made.append(Sitter()) or made[-1], lambda: age), made


def test_there_is_one_attempt_at_a_time():
    place, made = seat()
    assert place.load == -1
    assert not place.is_full
    assert place.take(0) is place.take(5) is made[0]
    made[0].serve(5)
    assert place.take(104) is made[0]
    assert place.load == 0
    assert len(made) == 1


def test_an_aged_connection_keeps_its_place_until_its_successor_is_ready():
    place, made = seat()
    place.take(0)
    made[0].serve(0)
    assert place.take(100) is place.take(101) is made[0]
    assert made[0].accepting
    made[1].serve(102)
    assert place.take(102) is made[1]
    assert made[0].state is State.DRAINING
    assert place.take(150) is made[1]


def test_a_successor_that_failed_is_tried_again_a_little_later():
    place, made = seat()
    place.take(0)
    made[0].serve(0)
    place.take(100)
    made[1].state, made[1].accepting = State.CLOSED, False
    assert place.take(101) is made[0]
    assert len(made) == 2
    place.take(105)
    assert len(made) == 2
    assert place.take(112) is made[0]
    assert len(made) == 3


def test_one_that_no_longer_accepts_loses_its_place_at_once():
    place, made = seat()
    place.take(0)
    made[0].serve(0)
    made[0].accepting = False
    assert place.take(1) is made[1]
    assert made[0].state is State.DRAINING


def test_a_successor_on_its_way_takes_over_from_one_that_fails():
    place, made = seat()
    place.take(0)
    made[0].serve(0)
    place.take(100)
    made[0].accepting = False
    assert place.take(101) is made[1]
    made[1].accepting = False
    place.forget()
    assert place.take(102) is made[2]
