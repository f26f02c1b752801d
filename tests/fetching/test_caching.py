"""The cache and late answers, through the client; every knob is turned, and requests are counted."""

import asyncio

import anyio
import pytest
from support.moengage import CONTEXT, MoEngage, error, make_client, served, serving

from moengage_personalize import (
    Action,
    BadRequestError,
    CachePolicy,
    Event,
    FetchPolicy,
    Forgotten,
    InvalidInputError,
    Reason,
    ServerError,
)

pytestmark = pytest.mark.anyio
ONCE = FetchPolicy(attempts=1)


def counting(*, fails_from=10**9, seconds=0.0):
    """Serves `Title` = the number of the request; fails from one on."""

    async def fetch(body):
        number = moengage.count("fetch")
        await anyio.sleep(seconds)
        if number >= fails_from:
            return error(500)
        return serving(**{key: served(Title=f"{number}") for key in body.get("experience_key", ["all"])})

    moengage = MoEngage(fetch=fetch)
    return moengage


async def test_nothing_is_kept_by_default():
    moengage = counting()
    async with make_client(moengage) as client:
        await client.fetch("a", customer_id="john")
        await client.fetch("a", customer_id="john")
    assert moengage.count("fetch") == 2


async def test_ttl_is_how_long_an_answer_is_served_without_asking():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        await client.fetch("a", customer_id="john")
        await anyio.sleep(29)
        cached = (await client.fetch("a", customer_id="john"))["a"]
        assert (cached.matched, cached.reason, cached.source) == (True, Reason.CACHED, "cache")
        assert cached.age == pytest.approx(29)
        assert cached.get("Title") == "1"
        await anyio.sleep(2)
        assert (await client.fetch("a", customer_id="john"))["a"].source == "network"
        assert client.stats().fetches_cached == 1
        assert client.stats().requests_saved == 1
    assert moengage.count("fetch") == 2


async def test_people_and_attributes_are_kept_apart():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        for who in (
            {"customer_id": "john"},
            {"customer_id": "jane"},
            {},
            {"customer_id": "john", "attributes": {"x": "1"}},
        ):
            assert (await client.fetch("a", **who))["a"].source == "network"
            assert (await client.fetch("a", **who))["a"].source == "cache"
    assert moengage.count("fetch") == 4


async def test_only_the_missing_keys_are_asked():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        await client.fetch("a")
        page = await client.fetch("b", "a")
    assert [body["experience_key"] for _, body in moengage.requests] == [["a"], ["b"]]
    assert [(key, entry.source) for key, entry in page.items()] == [("b", "network"), ("a", "cache")]


async def test_fetch_all_is_kept_too():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        assert (await client.fetch_all())["all"].source == "network"
        assert (await client.fetch_all())["all"].source == "cache"


async def test_stale_while_revalidate_serves_at_once_and_asks_behind():
    moengage = counting(seconds=0.1)
    async with make_client(moengage, caching=CachePolicy(ttl=10, stale_while_revalidate=60, late=0)) as client:
        await client.fetch("a")
        await anyio.sleep(20)
        began = anyio.current_time()
        stale = (await client.fetch("a"))["a"]
        assert anyio.current_time() == began
        assert (stale.reason, stale.source, stale.get("Title")) == (Reason.STALE, "stale", "1")
        await anyio.sleep(1)
        assert (await client.fetch("a"))["a"].get("Title") == "2"
    assert moengage.count("fetch") == 2


async def test_stale_if_error_is_served_when_moengage_fails_and_nothing_is_raised_then():
    moengage = counting(fails_from=2)
    async with make_client(moengage, caching=CachePolicy(ttl=10, stale_if_error=60), fetching=ONCE) as client:
        await client.fetch("a")
        await anyio.sleep(20)
        page = await client.fetch("a", on_error="raise")
        assert (page["a"].reason, page["a"].source, page["a"].trouble) == (Reason.STALE, "stale", Reason.UNAVAILABLE)
        assert page["a"].matched
        assert page.error is None
        assert client.stats().stale_answers == 1
        with pytest.raises(ServerError):
            await client.fetch("a", "b", on_error="raise")  # of b there is none
        await anyio.sleep(60)
        assert (await client.fetch("a"))["a"].reason is Reason.UNAVAILABLE


async def test_a_timeout_is_answered_with_what_is_stale():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(stale_if_error=60, late=0)) as client:
        await client.fetch("a")
        moengage.fetch = lambda body: 3_600
        page = await client.fetch("a", deadline=0.2)
    assert (page["a"].reason, page["a"].trouble) == (Reason.STALE, Reason.TIMEOUT)


async def test_a_no_match_is_kept_briefly():
    moengage = MoEngage(fetch=lambda body: serving())
    async with make_client(moengage, caching=CachePolicy(ttl=30, negative_ttl=5)) as client:
        await client.fetch("a")
        kept = (await client.fetch("a"))["a"]
        assert (kept.reason, kept.source) == (Reason.NO_MATCH, "cache")
        await anyio.sleep(5)
        await client.fetch("a")
    assert moengage.count("fetch") == 2


async def test_a_refused_question_is_not_asked_again_for_a_while():
    moengage = MoEngage(fetch=lambda body: error(400))
    async with make_client(moengage, caching=CachePolicy(ttl=30, negative_ttl=5)) as client:
        for _ in range(10):
            page = await client.fetch("a", "b")
            assert page["a"].reason is Reason.BAD_REQUEST
            assert isinstance(page.error, BadRequestError)
        assert moengage.count("fetch") == 1
        await client.fetch("a")  # another question
        await anyio.sleep(5)
        await client.fetch("a", "b")
    assert moengage.count("fetch") == 3


async def test_a_late_answer_is_there_for_the_next_page():
    moengage = counting(seconds=0.5)
    async with make_client(moengage, caching=CachePolicy(ttl=30, late=1.0)) as client:
        assert (await client.fetch("a", deadline=0.2))["a"].reason is Reason.TIMEOUT
        await anyio.sleep(0.5)
        page = await client.fetch("a", deadline=0.2)
        assert page["a"].source == "cache"
        assert client.stats().late_answers == 1
        assert client.stats().circuit_openings == 0
    assert moengage.count("fetch") == 1


async def test_late_is_how_long_an_abandoned_flight_goes_on():
    moengage = counting(seconds=10)
    async with make_client(moengage, caching=CachePolicy(ttl=30, late=1.0)) as client:
        await client.fetch("a", deadline=0.2)
        await anyio.sleep(0.9)
        assert moengage.under_way == 1
        await anyio.sleep(0.2)
        assert moengage.under_way == 0
        assert client._engine.fetcher.flights.late == 0


async def test_without_a_cache_nothing_is_late():
    moengage = counting(seconds=10)
    async with make_client(moengage) as client:
        await client.fetch("a", deadline=0.2)
        await anyio.sleep(0)
        assert moengage.under_way == 0


async def test_max_late_bounds_late_flights_which_take_no_place_of_others():
    moengage = counting(seconds=10)
    caching, fetching = CachePolicy(ttl=30, late=5.0, max_late=3), FetchPolicy(max_in_flight=5)
    async with make_client(moengage, caching=caching, fetching=fetching) as client:
        await asyncio.gather(*(client.fetch("a", customer_id=f"person-{n}", deadline=0.2) for n in range(5)))
        await anyio.sleep(0)
        assert moengage.under_way == 3
        pages = await asyncio.gather(*(client.fetch("b", customer_id=f"person-{n}", deadline=0.2) for n in range(6)))
        assert [page["b"].reason for page in pages] == [Reason.TIMEOUT] * 5 + [Reason.OVERLOADED]


async def test_a_late_flight_may_be_joined():
    moengage = counting(seconds=1.0)
    async with make_client(moengage, caching=CachePolicy(ttl=30, late=0.5)) as client:
        await client.fetch("a", deadline=0.3)
        assert (await client.fetch("a", deadline=2.0))[
            "a"
        ].source == "network"  # outlives `late`, as it is wanted again
    assert moengage.count("fetch") == 1


@pytest.mark.parametrize("bound", [{"max_entries": 2}, {"max_bytes": 4_500}])
async def test_the_cache_is_bounded(bound):
    moengage = MoEngage(fetch=lambda body: serving(**{key: served(Text="x" * 100) for key in body["experience_key"]}))
    async with make_client(moengage, caching=CachePolicy(ttl=30, **bound)) as client:
        for _ in range(2):
            for key in "abcde":
                await client.fetch(key)
    assert moengage.count("fetch") == 10


async def test_forget_drops_answers_and_unsent_events_and_lets_no_late_answer_in():
    moengage = counting(seconds=0.1)
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        await client.fetch("a", "b", customer_id="john")
        await client.fetch("a", customer_id="john", attributes={"x": "1"})
        await client.fetch("a", customer_id="jane")
        client.track(Event(action=Action.CLICK, experience=CONTEXT, customer_id="john"))
        flying = asyncio.create_task(client.fetch("c", customer_id="john"))
        await anyio.sleep(0.05)
        assert await client.forget("john") == Forgotten(experiences=3, events=1, fetches_in_flight=1)
        assert (await flying)["c"].matched
        assert (await client.fetch("c", customer_id="john"))["c"].source == "network"
        assert (await client.fetch("a", customer_id="john"))["a"].source == "network"
        assert (await client.fetch("a", customer_id="jane"))["a"].source == "cache"
        assert await client.forget("john") == Forgotten(experiences=2)
        assert client.stats().forgotten == 1
        with pytest.raises(InvalidInputError):
            await client.forget("")
    assert moengage.count("events") == 0


async def test_no_customer_id_outlives_its_request():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        await client.fetch("a", customer_id="john@example.com")
        fetcher = client._engine.fetcher
        assert "john@example.com" not in repr(
            [fetcher.kept._cache._entries, fetcher.kept._cache._persons, fetcher.flights._carrying]
        )
        assert len(fetcher.kept._cache) == 1
        assert not fetcher.tower.aloft


async def test_what_was_cached_can_be_tracked():
    moengage = counting()
    async with make_client(moengage, caching=CachePolicy(ttl=30)) as client:
        await client.fetch("a", customer_id="john")
        client.track_impression((await client.fetch("a", customer_id="john"))["a"], customer_id="john")
        await client.flush()
    assert moengage.actions[0][1]["attributes"] == CONTEXT


async def test_a_flight_may_be_late_more_than_once_and_forget_needs_no_cache():
    moengage = counting(seconds=2.0)
    async with make_client(moengage, caching=CachePolicy(ttl=30, late=1.5)) as client:
        await client.fetch("a", deadline=0.2)
        await client.fetch("a", deadline=0.9)
        await anyio.sleep(1.2)
        assert (await client.fetch("a"))["a"].source == "cache"
    assert moengage.count("fetch") == 1
    async with make_client() as client:
        assert await client.forget("john") == Forgotten()
