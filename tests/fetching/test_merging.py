"""Merging, through the client, against a scripted MoEngage on a clock that jumps."""

import asyncio
import random

import anyio
import pytest
from hypothesis import given, settings, strategies as st
from support.clock import JumpingLoop
from support.moengage import MoEngage, error, make_client, served, serving

from moengage_personalize import BadRequestError, CachePolicy, FetchPolicy, Reason, ServerError

pytestmark = pytest.mark.anyio


def answering(seconds=0.0):
    """Serves every key with the customer who asked, so that a mix-up shows."""

    async def fetch(body):
        await anyio.sleep(seconds)
        whom = body.get("customer_id", "anonymous") + body.get("utm", "")
        return serving(**{key: served(Whom=whom, Key=key) for key in body.get("experience_key", ["all"])})

    return MoEngage(fetch=fetch)


async def test_five_components_that_await_five_keys_in_one_turn_make_one_request():
    moengage = answering()
    async with make_client(moengage) as client:
        pages = await asyncio.gather(*(client.fetch(f"key-{n}", customer_id="john") for n in range(5)))
        stats = client.stats()
    assert [body["experience_key"] for _, body in moengage.requests] == [[f"key-{n}" for n in range(5)]]
    assert [list(page) for page in pages] == [[f"key-{n}"] for n in range(5)]
    assert all(experience.matched for page in pages for experience in page.values())
    assert (stats.fetches, stats.fetch_requests, stats.fetches_merged, stats.requests_saved) == (5, 1, 4, 4)


async def test_a_thousand_concurrent_fetches_for_a_hundred_people_make_a_hundred():
    moengage = answering(0.1)
    async with make_client(moengage) as client:
        pages = await asyncio.gather(
            *(client.fetch(f"key-{n // 100}", customer_id=f"person-{n % 100}") for n in range(1_000))
        )
    assert moengage.count("fetch") == 100
    for n, page in enumerate(pages):
        assert page[f"key-{n // 100}"].get("Whom") == f"person-{n % 100}"


async def test_other_people_other_attributes_and_other_types_of_attributes_are_other_requests():
    moengage = answering()
    async with make_client(moengage) as client:
        await asyncio.gather(
            client.fetch("a"),
            client.fetch("a", customer_id="john"),
            client.fetch("a", customer_id="jane"),
            client.fetch("a", customer_id="john", attributes={"utm": "1"}),
            client.fetch("a", customer_id="john", attributes={"n": 1}),
            client.fetch("a", customer_id="john", attributes={"n": 1.0}),
            client.fetch("a", customer_id="john", attributes={"n": True}),
            client.fetch("a", customer_id="john", attributes={"n": "1"}),
            client.fetch_all(customer_id="john"),
        )
    assert moengage.count("fetch") == 9


async def test_the_order_of_attributes_means_nothing():
    moengage = answering()
    async with make_client(moengage) as client:
        await asyncio.gather(
            client.fetch("a", attributes={"x": "1", "y": "2"}, user_identifiers={"u_em": "e", "u_mb": "m"}),
            client.fetch("b", attributes={"y": "2", "x": "1"}, user_identifiers={"u_mb": "m", "u_em": "e"}),
            client.fetch_all(attributes={"x": "1", "y": "2"}),
            client.fetch_all(attributes={"y": "2", "x": "1"}),
        )
    assert moengage.count("fetch") == 2


async def test_a_key_in_flight_is_joined_unless_the_flight_is_too_old_for_the_joiner():
    moengage = answering(0.4)
    async with make_client(moengage) as client:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.fetch("a", deadline=1.0))
            await anyio.sleep(0.2)
            young = tasks.create_task(client.fetch("a", deadline=0.5))  # 0.2 s old: less than half of 0.5
            await anyio.sleep(0)
            assert moengage.count("fetch") == 1
            old = tasks.create_task(client.fetch("a", deadline=0.3))
        assert young.result()["a"].matched
        assert old.result()["a"].reason is Reason.TIMEOUT
        assert moengage.count("fetch") == 2
        assert client.stats().fetches_joined == 1


async def test_each_keeps_its_own_deadline_and_the_longest_keeps_the_request():
    moengage = answering(0.8)
    async with make_client(moengage) as client:
        began = anyio.current_time()

        async def ask(seconds):
            page = await client.fetch("a", deadline=seconds)
            return page["a"].matched, anyio.current_time() - began

        results = await asyncio.gather(ask(0.1), ask(0.2), ask(1.0))
    assert results == [(False, pytest.approx(0.1)), (False, pytest.approx(0.2)), (True, pytest.approx(0.8))]
    assert moengage.count("fetch") == 1


async def test_a_joiner_with_more_time_keeps_the_flight_alive():
    moengage = answering(0.5)
    async with make_client(moengage) as client:
        first = asyncio.create_task(client.fetch("a", deadline=0.3))
        await anyio.sleep(0.1)
        second = asyncio.create_task(client.fetch("a", deadline=1.0))
        assert (await first)["a"].reason is Reason.TIMEOUT
        assert (await second)["a"].matched
    assert moengage.count("fetch") == 1


async def test_a_flight_that_nobody_wants_is_called_off_at_once():
    moengage = answering(10.0)
    async with make_client(moengage) as client:
        task = asyncio.create_task(client.fetch("a", deadline=5.0))
        await anyio.sleep(0.1)
        assert moengage.under_way == 1
        task.cancel()
        await asyncio.wait([task])
        await anyio.sleep(0)
        assert moengage.under_way == 0


async def test_nobody_left_before_it_departs_means_no_request():
    moengage = answering()
    async with make_client(moengage, fetching=FetchPolicy(merge_window=0.005)) as client:
        task = asyncio.create_task(client.fetch("a"))
        await anyio.sleep(0)
        task.cancel()
        await anyio.sleep(1.0)
    assert moengage.count("fetch") == 0


async def test_the_window_waits_for_company_only_if_it_is_asked_to():
    for window, requests in ((0.0, 2), (0.005, 1)):
        moengage = answering(0.1)
        async with make_client(moengage, fetching=FetchPolicy(merge_window=window)) as client:
            first = asyncio.create_task(client.fetch("a"))
            await anyio.sleep(0.004)
            await client.fetch("b")
            await first
        assert moengage.count("fetch") == requests


async def test_merging_can_be_switched_off():
    moengage = answering()
    async with make_client(moengage, fetching=FetchPolicy(merge=False)) as client:
        await asyncio.gather(*(client.fetch("a") for _ in range(5)))
    assert moengage.count("fetch") == 5


async def test_a_full_request_is_followed_by_another():
    moengage = answering()
    async with make_client(moengage, fetching=FetchPolicy(max_keys=2)) as client:
        pages = await asyncio.gather(*(client.fetch(f"{n}", f"{n + 1}") for n in range(0, 6, 2)))
    assert [body["experience_key"] for _, body in moengage.requests] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert all(experience.matched for page in pages for experience in page.values())


async def test_errors_are_not_shared():
    moengage = MoEngage(fetch=lambda body: error(500))
    async with make_client(moengage, fetching=FetchPolicy(on_error="raise")) as client:
        errors = await asyncio.gather(*(client.fetch("a") for _ in range(3)), return_exceptions=True)
        assert client.stats().fetch_requests == 2
    assert [type(each) for each in errors] == [ServerError] * 3
    assert len({id(each) for each in errors}) == 3
    assert [each.attempts for each in errors] == [2, 2, 2]
    depths = [len(list(_frames(each.__traceback__))) for each in errors]
    assert len(set(depths)) == 1


def _frames(trace):
    while trace is not None:
        yield trace
        trace = trace.tb_next


@pytest.mark.parametrize("caching", [CachePolicy(), CachePolicy(ttl=30)])
async def test_what_two_callers_get_shares_nothing_that_can_be_changed(caching):
    value = {"List": {"value": [1, {"x": 2}], "data_type": "json"}}
    moengage = MoEngage(fetch=lambda body: serving(a={**served(), "payload": value}))
    async with make_client(moengage, caching=caching) as client:
        pages = await asyncio.gather(client.fetch("a"), client.fetch("a"))
        first, second = (page["a"] for page in pages)
        first.payload["List"][1]["x"] = "mine"
        first.payload["More"] = 1
        first.context["cid"] = "mine"
        assert second.payload == {"List": [1, {"x": 2}]}
        assert (await client.fetch("a"))["a"].payload == {"List": [1, {"x": 2}]}


async def test_a_refused_question_does_not_spoil_those_it_was_merged_with():
    moengage = MoEngage(
        fetch=lambda body: error(400) if "bad" in body["experience_key"] else serving(good=served(), fine=served())
    )
    async with make_client(moengage) as client:
        good, bad, fine, fine2 = await asyncio.gather(*map(client.fetch, ("good", "bad", "fine", "fine")))
    assert good["good"].matched
    assert fine["fine"].matched
    assert fine2["fine"].matched
    assert isinstance(bad.error, BadRequestError)
    assert [sorted(body["experience_key"]) for _, body in moengage.requests] == [
        ["bad", "fine", "good"], ["good"], ["bad"], ["fine"]
    ]  # fmt: skip


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_a_thousand_interleaved_requests_never_mix_contexts(chance):
    async def one(client, moengage_delay):
        await anyio.sleep(chance.random() * moengage_delay)
        whom, utm = f"p{chance.randrange(20)}", chance.choice(["", "x", "y"])
        keys = [f"k{n}" for n in chance.sample(range(40), chance.randint(1, 30))]
        page = await client.fetch(*keys, customer_id=whom, attributes={"utm": utm} if utm else None, deadline=5.0)
        assert list(page) == keys
        assert {key: (entry.get("Whom"), entry.get("Key")) for key, entry in page.items()} == {
            key: (whom + utm, key) for key in keys
        }

    async def main():
        moengage = answering(0.05)
        async with make_client(moengage, fetching=FetchPolicy(max_in_flight=10_000)) as client:
            await asyncio.gather(*(one(client, 1.0) for _ in range(1_000 // 25)))
            assert client.stats().fetches == 40

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


async def test_a_thousand_interleaved_requests_for_twenty_people():
    chance = random.Random(5)
    moengage = answering(0.05)

    async def one(client):
        await anyio.sleep(chance.random())
        whom, keys = f"p{chance.randrange(20)}", [f"k{n}" for n in chance.sample(range(10), 3)]
        page = await client.fetch(*keys, customer_id=whom)
        assert {key: (entry.get("Whom"), entry.get("Key")) for key, entry in page.items()} == {
            key: (whom, key) for key in keys
        }

    async with make_client(moengage) as client:
        await asyncio.gather(*(one(client) for _ in range(1_000)))
        stats = client.stats()
    assert stats.fetches == 1_000
    assert stats.fetch_requests < 900
    assert stats.fetch_requests + stats.requests_saved == 1_000


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.booleans(), st.sampled_from([0.0, 0.01, 0.2])),
        max_size=30,
    )
)
def test_cancelling_any_subset_fails_no_other(callers):
    async def main():
        moengage = answering(0.1)
        async with make_client(moengage) as client:
            tasks = []
            for person, key, cancelled, after in callers:
                task = asyncio.create_task(client.fetch(key, customer_id=f"person-{person}"))
                if cancelled:
                    asyncio.get_running_loop().call_later(after, task.cancel)
                tasks.append((task, person, key, cancelled))
            await asyncio.wait([task for task, *_ in tasks]) if tasks else None
            for task, person, key, cancelled in tasks:
                if not cancelled:
                    assert task.result()[key].get("Whom") == f"person-{person}"
            assert moengage.under_way == 0
            assert client._engine.fetcher.flights.in_flight == 0

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
