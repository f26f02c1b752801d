"""An hour's worth of trouble on a clock that jumps: what an outage costs, and how its end looks from MoEngage's side."""

import gc
import random
import tracemalloc
from contextlib import AsyncExitStack

import anyio
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client

from moengage_personalize import BatchPolicy, Effects, RetryPolicy, event_uuid_for
from moengage_personalize.core.batch import Record

pytestmark = pytest.mark.anyio
OUTAGE = 60.0
LOAD = 500  # events a second
PODS = 50


class Troubled(MoEngage):
    """Answers with `trouble` until `over`, on the loop's clock."""

    def __init__(self, trouble, over):
        super().__init__(events=self._during)
        self.trouble, self.over = trouble, over

    def _during(self, body):
        return self.trouble() if anyio.current_time() < self.over else accepted()


async def load(client, seconds, *, first=0, clicks=True, on_second=lambda second: None):
    """`LOAD` events a second, each of another customer, one click in ten."""
    for second in range(seconds):
        for number in range(first + second * LOAD, first + (second + 1) * LOAD):
            track = client.track_click if clicks and number % 10 == 0 else client.track_impression
            track(CONTEXT, customer_id=f"customer-{number}", event_uuid=event_uuid_for(number))
            if number % 50 == 49:
                await anyio.sleep(0.1)
        on_second(second)


def effects(seed):
    return Effects(jitter=random.Random(seed).random)


# ── one client ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_60_seconds_of_503_under_load_cost_no_more_than_the_retry_budget_and_lose_nothing():
    moengage = Troubled(lambda: error(503), over=anyio.current_time() + OUTAGE)
    batching = BatchPolicy(max_pending=50_000, max_pending_bytes=1 << 25)
    async with make_client(moengage, effects=effects(1), batching=batching) as client:
        await load(client, 60)
        stats = client.stats()
        assert stats.pending == 60 * LOAD
        during = moengage.count("events")
        assert stats.retries == during <= RetryPolicy().budget + OUTAGE
        assert during < 60  # full jitter up to ten seconds, two senders: far below what the budget allows
        report = await client.flush(120)
    assert (report.delivered, report.dropped, report.pending) == (60 * LOAD, 0, 0)
    assert report.balanced
    assert set(moengage.uuids) == {event_uuid_for(number) for number in range(60 * LOAD)}


async def test_60_seconds_of_503_beyond_the_bounds_shed_impressions_alone_and_every_click_arrives():
    moengage = Troubled(lambda: error(503), over=anyio.current_time() + OUTAGE)
    policy = BatchPolicy()
    most = {"pending": 0, "bytes": 0}

    async with make_client(moengage, effects=effects(1)) as client:

        def look(second):
            stats = client.stats()
            assert stats.balanced
            most["pending"] = max(most["pending"], stats.pending)
            most["bytes"] = max(most["bytes"], stats.pending_bytes)

        await load(client, 60, on_second=look)
        report = await client.flush(120)
    assert most["pending"] == policy.max_pending
    assert most["bytes"] <= policy.max_pending_bytes
    assert (report.accepted, report.delivered) == (60 * LOAD, policy.max_pending)
    assert report.dropped_by_reason == {"overflow": 60 * LOAD - policy.max_pending}
    clicks = {event_uuid_for(number) for number in range(0, 60 * LOAD, 10)}
    assert clicks <= set(moengage.uuids)


async def test_an_outage_beyond_the_bounds_grows_nothing_however_many_events_and_customers_come():
    """Once the bounds are reached, 4,000 further events of 4,000 further customers leave no trace: 60 bytes of each would be seen."""
    moengage = Troubled(lambda: error(503), over=anyio.current_time() + 10_000)
    moengage.requests = moengage.bodies = moengage.headers = moengage.times = Forgetful()
    others = {id(record): record for record in gc.get_objects() if isinstance(record, Record)}  # of other tests
    async with make_client(
        moengage, effects=effects(1), batching=BatchPolicy(max_pending=200, max_elements=10, grace=0.0)
    ) as client:
        await load(client, 1, clicks=False)
        buffer = client._buffer
        before = sizes_of(buffer)
        tracemalloc.start()
        try:
            traced = []
            for turn in range(3):
                await load(client, 2 if turn == 0 else 8, first=turn * 100_000, clicks=False)
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        after = sizes_of(buffer)
        assert buffer.in_memory == 200
        assert len({id(record) for record in gc.get_objects() if isinstance(record, Record)} - others.keys()) <= 300
    assert all(after[name] <= max(before[name], 2 * 200 + 100) for name in after), (before, after)
    assert traced[2] - traced[1] < 8 * LOAD * 60, traced


def sizes_of(buffer):
    return {name: len(value) for name, value in vars(buffer).items() if hasattr(value, "__len__")}


class Forgetful(list):
    def append(self, item):
        pass


# ── many clients ─────────────────────────────────────────────────────────────────────────────────────────────────────


def busiest(times, window=0.1):
    """The largest number of them in any window."""
    times = sorted(times)
    return max(sum(1 for each in times[first:] if each < times[first] + window) for first in range(len(times)))


async def outage(trouble, *, seconds=OUTAGE, after=30.0):
    """50 pods whose server is in trouble from the same moment on; returns each pod's arrivals after that."""
    began = anyio.current_time()
    pods = [Troubled(trouble, over=began + seconds) for _ in range(PODS)]
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(make_client(pod, effects=effects(number)))
            for number, pod in enumerate(pods)
        ]

        async def visitors(client, chance):
            while anyio.current_time() < began + seconds + after:
                client.track_impression(CONTEXT, customer_id=f"customer-{chance.randrange(9)}")
                await anyio.sleep(2 * chance.random())

        async with anyio.create_task_group() as tasks:
            for number, client in enumerate(clients):
                tasks.start_soon(visitors, client, random.Random(number))
        reports = [await client.flush(60) for client in clients]
    assert all(report.pending == report.dropped == 0 for report in reports)
    return [[time - began for time in pod.times if time - began >= seconds] for pod in pods]


@pytest.mark.parametrize(
    "trouble",
    [lambda: error(503), lambda: httpx.ConnectError("refused"), lambda: error(401)],
    ids=["503", "refused", "401"],
)
async def test_after_60_seconds_of_outage_50_pods_do_not_return_at_once(trouble):
    arrivals = await outage(trouble)
    first = [times[0] - OUTAGE for times in arrivals]
    assert busiest(first) <= PODS * 0.12, "no more than an eighth of the pods in any tenth of a second"
    assert max(first) - min(first) > 3
    following = [time for times in arrivals for time in times[1:5]]
    assert busiest(following) <= len(following) * 0.12


async def test_50_pods_that_are_told_to_retry_after_30_seconds_do_not_return_in_the_same_second():
    arrivals = await outage(lambda: error(429, retry_after="30"), seconds=5.0, after=50.0)
    first = [times[0] for times in arrivals]
    assert min(first) >= 30.0
    assert max(first) <= 1 + 30 + 10 + 0.1
    assert busiest(first) <= PODS * 0.12
    assert busiest(first, window=1.0) <= PODS * 0.4


async def test_what_was_told_to_wait_or_parked_returns_by_no_more_than_the_senders_at_a_time():
    """Within one client: 8 parked customers and a backlog, when the pause that holds them all is over."""
    flying, most = 0, []
    moods = {}

    async def events(body):
        nonlocal flying
        flying += 1
        most.append(flying)
        try:
            await anyio.sleep(0.05)
        finally:
            flying -= 1
        stuck = any(element["customer_id"].startswith("stuck") for element in body["elements"])
        return moods.get("answer", lambda: error(500) if stuck else accepted())()

    moengage = MoEngage(events=events)
    batching = BatchPolicy(linger=0, max_elements=1, senders=2)
    async with make_client(moengage, effects=effects(7), batching=batching) as client:
        for number in range(8):
            client.track_impression(CONTEXT, customer_id=f"stuck-{number}")
            client.track_impression(CONTEXT, customer_id=f"fine-{number}")
        await anyio.sleep(60)
        assert client.stats().delivered == 8
        assert client._buffer.in_flight == 8, "all are parked, and none holds a sender"
        moods["answer"] = lambda: error(429, retry_after="30")
        await anyio.sleep(60)
        moods["answer"] = accepted
        for number in range(100):
            client.track_impression(CONTEXT, customer_id=f"later-{number}")
        report = await client.flush(600)
    assert report.delivered == 116
    assert max(most) <= 2
