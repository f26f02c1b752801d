"""From Python 3.12 on a loop may start its tasks at once, in the middle of whoever makes them."""

import asyncio
import sys
from collections import Counter

import anyio
import pytest
import uvloop
from support.clock import JumpingLoop
from support.emulated import emulated, emulator  # noqa: F401 - fixtures
from support.moengage import CONTEXT, MoEngage, accepted, make_client, serving

from moengage_personalize import Admission, AsyncPersonalizeClient, BatchPolicy, CachePolicy

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.eager_task_factory came with Python 3.12"),
]
NOT_UVLOOP = pytest.mark.skipif(
    (3, 13) <= sys.version_info < (3, 13, 3), reason="uvloop passes the factory what it takes from Python 3.13.3 on"
)
PAGE = ["hero", "offers", "footer", "banner", "cart"]


def eager(make):
    def make_eager():
        loop = make()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    return "asyncio", {"loop_factory": make_eager}


@pytest.fixture
def anyio_backend():
    return eager(JumpingLoop)


class AtOnce(MoEngage):
    """Answers without ever giving up the processor, so that a task is over before its maker has a name for it."""

    async def handle_async_request(self, request):
        answering = super().handle_async_request(request)
        try:
            while True:
                answering.send(None)
        except StopIteration as answer:
            return answer.value


@pytest.mark.parametrize("moengage", [MoEngage, AtOnce])
@pytest.mark.parametrize("ttl", [0, 30])
async def test_a_page_shares_one_request_and_its_events_arrive_once(moengage, ttl):
    moengage = moengage()
    async with make_client(moengage, caching=CachePolicy(ttl=ttl), batching=BatchPolicy(linger=0)) as client:
        for _ in range(3):
            page = await asyncio.gather(*(client.fetch(key, customer_id="john") for key in PAGE))
            for key, experiences in zip(PAGE, page, strict=True):
                assert experiences[key].get("Title") == f"for {key}"
                assert client.track_impression(experiences[key], customer_id="john") is Admission.ACCEPTED
                await asyncio.sleep(0)
        report = await client.flush(5)
    assert moengage.count("fetch") == (1 if ttl else 3)
    assert (report.delivered, report.pending, report.balanced) == (15, 0, True)
    assert set(Counter(moengage.uuids).values()) == {1}
    assert moengage.closed


async def test_a_caller_that_is_cancelled_before_its_maker_goes_on_harms_nobody():
    moengage = MoEngage(fetch=lambda body: 3_600 if body["experience_key"] == ["slow"] else serving())
    async with make_client(moengage) as client:
        leaving = asyncio.create_task(client.fetch("slow", customer_id="john"))
        leaving.cancel()
        staying = asyncio.create_task(client.fetch("hero", customer_id="jane"))
        late = await client.fetch("slow", customer_id="jim", deadline=0.5)
        assert late["slow"].reason == "timeout"
        assert not (await staying)["hero"].matched
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert moengage.under_way == 0


async def test_it_closes_within_its_grace_and_counts_what_is_left():
    moengage = MoEngage(events=lambda body: 3_600)
    client = await make_client(moengage, batching=BatchPolicy(linger=0, grace=3)).__aenter__()
    client.track_impression(CONTEXT, customer_id="john")
    await anyio.sleep(1)
    began = anyio.current_time()
    first, second = await asyncio.gather(client.aclose(), client.aclose(1))
    assert first == second
    assert first.dropped_by_reason == {"closed": 1}
    assert 1 <= anyio.current_time() - began <= 1.1


async def test_an_outage_is_tried_again_until_it_is_over():
    over = anyio.current_time() + 30
    moengage = MoEngage(events=lambda body: accepted() if anyio.current_time() > over else ConnectionError("no"))
    async with make_client(moengage, batching=BatchPolicy(linger=0, max_elements=1)) as client:
        for number in range(20):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        report = await client.flush(120)
    assert (report.delivered, report.balanced) == (20, True)


@pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(eager(asyncio.SelectorEventLoop), id="asyncio"),
        pytest.param(eager(uvloop.new_event_loop), id="uvloop", marks=NOT_UVLOOP),
    ],
)
async def test_over_http2_it_is_no_different(emulated):  # noqa: F811
    async with AsyncPersonalizeClient(batching=BatchPolicy(linger=0)) as client:
        for number in range(20):
            page = await asyncio.gather(*(client.fetch("home-hero", customer_id=f"{number}-{n}") for n in range(20)))
            for experiences in page:
                client.track_impression(experiences["home-hero"], customer_id="john")
            abandoned = [asyncio.create_task(client.fetch("home-hero", customer_id=f"jane-{n}")) for n in range(5)]
            for task in abandoned:
                task.cancel()
            await asyncio.wait(abandoned)
            assert [task for task in abandoned if not task.cancelled()] == []
        report = await client.flush(10)
        assert client.stats().connections_opened == 1
    assert report.delivered == emulated.ledger.counts.accepted == 400
