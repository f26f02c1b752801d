"""Flights over the SDK's own transport: two plain calls while all goes well, a task as soon as it does not."""

import asyncio
import json
import random
from contextlib import suppress

import anyio
import httpx
import pytest
from hypothesis import given, strategies as st
from support.moengage import error, make_client, served, serving

from moengage_personalize import CachePolicy, FetchPolicy, InSession, Reason
from moengage_personalize._alarm import Alarm
from moengage_personalize.core.wire import encode_context_of_fetch, fetch_context, fetch_fields
from moengage_personalize.http2 import Http2Transport, Response

pytestmark = pytest.mark.anyio


def response(answer):
    return Response(answer.status_code, tuple(answer.headers.raw), answer.content)


class Multiplexer(Http2Transport):
    """Records what begins; answers it when it is told to, and what comes by a task at once."""

    def __init__(self, *later):
        super().__init__()
        self.begun, self.abandoned, self.pushes = [], [], 0
        self.asked, self.later = [], list(later)
        self.speaks_http1 = False

    def begin(self, to, body, *, ended):
        if self.speaks_http1:
            return None
        call = Begun(self, json.loads(body), ended)
        self.begun.append(call)
        return call

    def push(self):
        self.pushes += 1

    async def exchange(self, to, body=b"", **_):
        if not to.url.endswith("fetch"):
            return response(httpx.Response(200, json={"metadata": {"experiences": []}}))
        self.asked.append(json.loads(body))
        await anyio.sleep(0)
        return response(self.later.pop(0) if self.later else all_of(self.asked[-1]))

    async def aclose(self):
        pass


class Begun:
    def __init__(self, transport, body, ended):
        self.transport, self.body, self.ended = transport, body, ended

    def answer(self, answer=None):
        self.ended(response(answer or all_of(self.body)))

    def abandon(self):
        self.transport.abandoned.append(self)


def all_of(body):
    whom = body.get("customer_id", "")
    return serving(**{key: served(Whom=whom) for key in body.get("experience_key", ["all"])})


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def ready(client):
    """The first call asks for the credentials, and so takes a task."""
    await client.fetch("first")
    client._engine.exchange._multiplexer.asked.clear()


async def test_a_fetch_makes_no_task_and_a_turn_makes_one_push():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        before, pushes = len(asyncio.all_tasks()), transport.pushes
        fetching = [asyncio.create_task(client.fetch("a", "b", customer_id=f"person-{n}")) for n in range(30)]
        await turns()
        assert len(transport.begun) == 30
        assert transport.pushes == pushes + 1
        assert len(asyncio.all_tasks()) == before + 30  # the callers' own
        random.Random(1).shuffle(transport.begun)
        for call in transport.begun:
            call.answer()
        pages = await asyncio.gather(*fetching)
        assert [page["a"].get("Whom") for page in pages] == [f"person-{n}" for n in range(30)]
        assert not transport.asked
        assert client._engine.fetcher.flights.in_flight == 0
        assert not client._engine.fetcher.tower.aloft


async def test_the_last_caller_who_leaves_calls_the_request_off():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        first, second = (asyncio.create_task(client.fetch("a", deadline=100.0)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        assert not transport.abandoned
        second.cancel()
        await turns()
        assert transport.abandoned == transport.begun
        assert not client._engine.fetcher.tower.aloft
        assert client._engine.fetcher.pilot.breaker._failures == 0


async def test_a_deadline_that_passes_calls_the_request_off_and_counts_as_a_failure():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        page = await client.fetch("a", deadline=0.3)
        assert page["a"].reason is Reason.TIMEOUT
        assert page.error.attempts == 1
        assert transport.abandoned == transport.begun
        assert client._engine.fetcher.pilot.breaker._failures == 1


async def test_closing_answers_those_who_wait_and_calls_their_requests_off():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        fetching = asyncio.create_task(client.fetch("a", deadline=100.0))
        await turns()
        client._engine.fetcher.close()
        assert (await fetching)["a"].reason is Reason.CLOSED
        assert transport.abandoned == transport.begun


async def test_after_a_setback_a_task_goes_on_from_there():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        requests = client.stats().fetch_requests
        fetching = asyncio.create_task(client.fetch("a", customer_id="john"))
        await turns()
        transport.begun[0].answer(error(503))
        assert (await fetching)["a"].get("Whom") == "john"
        assert transport.asked == [transport.begun[0].body]
        stats = client.stats()
        assert (stats.fetch_requests - requests, stats.retries) == (2, 1)


async def test_a_setback_is_the_cause_of_the_last_error():
    transport = Multiplexer(error(500))
    async with make_client(transport, fetching=FetchPolicy(on_error="raise")) as client:
        await ready(client)
        transport.later = [error(500)]
        fetching = asyncio.create_task(client.fetch("a"))
        await turns()
        transport.begun[0].ended(httpx.ReadError("gone"))
        with pytest.raises(Exception, match="500") as caught:
            await fetching
        assert caught.value.attempts == 2


async def test_what_could_not_be_begun_is_asked_by_a_task_and_counted_once():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        requests = client.stats().fetch_requests
        fetching = asyncio.create_task(client.fetch("a"))
        await turns()
        transport.begun[0].ended(None)  # there is no HTTP/2 after all
        assert (await fetching)["a"].matched
        transport.speaks_http1 = True
        assert (await client.fetch("a"))["a"].matched
        assert client.stats().fetch_requests - requests == 2
        assert client.stats().retries == 0


async def test_a_bug_leaves_nobody_waiting(monkeypatch):
    for broken in ("begin", "read"):
        transport = Multiplexer()
        async with make_client(transport) as client:
            await ready(client)
            monkeypatch.setattr(client._engine.fetcher.pilot, broken, None)
            fetching = asyncio.create_task(client.fetch("a", deadline=100.0))
            await turns()
            for call in transport.begun:
                call.answer()
            page = await fetching
            assert "this is a bug" in str(page.error)
            assert not client._engine.fetcher.tower.aloft


async def test_a_refused_flight_that_was_shared_flies_once_more_for_each_question():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        good, bad = (asyncio.create_task(client.fetch(key, deadline=100.0)) for key in ("good", "bad"))
        await turns()
        transport.begun[0].answer(error(400))
        await turns()
        assert [call.body["experience_key"] for call in transport.begun[1:]] == [["good"], ["bad"]]
        transport.begun[1].answer()
        transport.begun[2].answer(error(400))
        assert (await good)["good"].matched
        assert (await bad)["bad"].reason is Reason.BAD_REQUEST


async def test_a_late_answer_fills_the_cache():
    transport = Multiplexer()
    async with make_client(transport, caching=CachePolicy(ttl=60.0)) as client:
        await ready(client)
        assert (await client.fetch("a", deadline=0.1))["a"].reason is Reason.TIMEOUT
        assert not transport.abandoned
        transport.begun[0].answer()
        assert (await client.fetch("a"))["a"].reason is Reason.CACHED
        assert client.stats().late_answers == 1


async def test_entries_are_copied_only_if_two_callers_asked_for_the_same_key():
    transport = Multiplexer()
    async with make_client(transport) as client:
        await ready(client)
        fetching = [asyncio.create_task(client.fetch(*keys)) for keys in (["a", "b"], ["c"], ["d"], ["d"])]
        await turns()
        transport.begun[0].answer()
        pages = await asyncio.gather(*fetching)
        assert pages[2]["d"] == pages[3]["d"]
        assert pages[2]["d"] is not pages[3]["d"]
        pages[2]["d"].payload["Whom"] = "changed"
        assert pages[3]["d"].get("Whom") == ""


# ── what the fast ways must agree with ───────────────────────────────────────────────────────────────────────────────


@given(
    customer_id=st.text(st.characters(exclude_categories=("Cs",)), min_size=1) | st.none(),
    user_identifiers=st.none() | st.just({"u_em": "e"}),
    session=st.none() | st.just(InSession(time_of_day="07")),
    attributes=st.none() | st.just({}) | st.just({"utm": 1}),
    identity=st.sampled_from(["both", "flat", "identifiers"]),
)
def test_the_short_way_to_a_question_ends_where_the_long_one_does(**question):
    with suppress(ValueError):  # user_identifiers with "flat", either way
        assert fetch_context(**question) == encode_context_of_fetch(fetch_fields(**question))


async def test_an_alarm_wakes_in_order_and_keeps_nobody_who_has_left():
    loop, alarm, rung = asyncio.get_running_loop(), Alarm(), []
    began = loop.time()

    async def caller(after, leave):
        waiter = loop.create_future()
        number = alarm.set(began + after, waiter)
        if leave:
            await asyncio.sleep(0)
        else:
            await waiter
            rung.append((after, round(loop.time() - began, 6)))
        alarm.unset(number)

    chance = random.Random(2)
    await asyncio.gather(*(caller(chance.randrange(1, 90), leave=n % 3 > 0) for n in range(600)))
    assert len(rung) == 200
    assert rung == sorted(rung)
    assert all(after == at for after, at in rung)
    assert not alarm._waiting
    assert len(alarm._heap) <= 64
