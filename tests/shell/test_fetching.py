"""Fetching, through the client, against a scripted MoEngage on a clock that jumps."""

import asyncio
import base64
import gzip

import anyio
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, error, make_client, served, serving

from moengage_personalize import (
    AsyncPersonalizeClient,
    AuthenticationError,
    BadReplyError,
    ConnectionFailedError,
    DeadlineExceededError,
    FetchPolicy,
    InSession,
    RateLimitedError,
    Reason,
    RetryPolicy,
    ServerError,
    UsageError,
)

pytestmark = pytest.mark.anyio


async def test_every_key_that_was_asked_has_an_entry():
    moengage = MoEngage(fetch=lambda body: serving(hero=served(Title="Hi")))
    async with make_client(moengage) as client:
        experiences = await client.fetch("hero", "offers", customer_id="john")
    assert list(experiences) == ["hero", "offers"]
    assert experiences["hero"].matched
    assert experiences["hero"].get("Title") == "Hi"
    assert experiences["hero"].context == CONTEXT
    assert experiences["offers"].reason is Reason.NO_MATCH
    assert experiences["offers"].get("Title", default="Welcome") == "Welcome"
    assert experiences.error is None
    with pytest.raises(KeyError, match="'cart' was not asked for"):
        experiences["cart"]


async def test_one_body_satisfies_both_documents():
    moengage = MoEngage()
    async with make_client(moengage) as client:
        await client.fetch(
            "hero",
            customer_id="john",
            user_identifiers={"u_em": "john@example.com"},
            session=InSession(day_of_week="Sunday", time_of_day="09", ip_address="192.0.2.1", user_agent="UA"),
            attributes={"utm_medium": "email"},
        )
    assert moengage.requests == [
        (
            "fetch",
            {
                "customer_id": "john",
                "identifiers": {"customer_id": "john", "user_identifiers": {"u_em": "john@example.com"}},
                "utm_medium": "email",
                "DAY_OF_THE_WEEK": "Sunday",
                "TIME_OF_THE_DAY": "09",
                "USER_IP_ADDRESS": "192.0.2.1",
                "USER_AGENT": "UA",
                "experience_key": ["hero"],
            },
        )
    ]
    headers = moengage.headers[0]
    assert headers["moe-appkey"] == "WORKSPACE"
    assert headers["authorization"] == "Basic V09SS1NQQUNFOnBlcnNvbmFsaXplLWtleQ=="
    assert headers["content-type"] == "application/json"


async def test_an_anonymous_fetch_names_nobody():
    moengage = MoEngage()
    async with make_client(moengage) as client:
        await client.fetch("hero")
    assert moengage.requests == [("fetch", {"experience_key": ["hero"]})]


async def test_fetch_all_asks_for_no_key_and_has_an_entry_for_each_that_came():
    moengage = MoEngage(fetch=lambda body: serving(a=served(), b=served()))
    async with make_client(moengage) as client:
        experiences = await client.fetch_all(customer_id="john")
    assert "experience_key" not in moengage.requests[0][1]
    assert list(experiences) == ["a", "b"]


async def test_more_than_25_keys_go_in_chunks_at_the_same_time():
    most = 0

    async def fetch(body):
        nonlocal most
        most = max(most, moengage.under_way)
        await anyio.sleep(0.1)
        return serving(**{key: served() for key in body["experience_key"]})

    moengage = MoEngage(fetch=fetch)
    keys = [f"key-{n}" for n in range(60)]
    async with make_client(moengage) as client:
        experiences = await client.fetch(*keys)
    assert [len(body["experience_key"]) for _, body in moengage.requests] == [25, 25, 10]
    assert most == 3
    assert list(experiences) == keys
    assert all(experience.matched for experience in experiences.values())


async def test_one_broken_chunk_leaves_the_others_whole():
    moengage = MoEngage(
        fetch=lambda body: error(500) if "key-0" in body["experience_key"] else serving(**{"key-30": served()})
    )
    async with make_client(moengage, fetching=FetchPolicy(attempts=1)) as client:
        experiences = await client.fetch(*[f"key-{n}" for n in range(40)])
    assert experiences["key-0"].reason is Reason.UNAVAILABLE
    assert experiences["key-30"].matched
    assert isinstance(experiences.error, ServerError)


@pytest.mark.parametrize(
    ("answer", "reason", "kind", "requests"),
    [
        (lambda: error(500), Reason.UNAVAILABLE, ServerError, 2),
        (lambda: error(503), Reason.UNAVAILABLE, ServerError, 2),
        (lambda: error(429), Reason.RATE_LIMITED, RateLimitedError, 2),
        (lambda: error(429, retry_after="30"), Reason.RATE_LIMITED, RateLimitedError, 1),
        (lambda: error(429, x_ratelimit_reset="30"), Reason.RATE_LIMITED, RateLimitedError, 1),
        (lambda: error(408), Reason.UNAVAILABLE, ServerError, 2),
        (lambda: error(401), Reason.UNAUTHORIZED, AuthenticationError, 1),
        (lambda: error(403), Reason.UNAUTHORIZED, AuthenticationError, 1),
        (lambda: error(400), Reason.BAD_REQUEST, None, 1),
        (lambda: error(422), Reason.BAD_REQUEST, None, 1),
        (lambda: error(413), Reason.UNAVAILABLE, None, 1),
        (lambda: error(404), Reason.UNAVAILABLE, None, 1),
        (lambda: error(302, location="https://elsewhere.example/"), Reason.UNAVAILABLE, None, 1),
        (lambda: httpx.ConnectError("secret words"), Reason.UNAVAILABLE, ConnectionFailedError, 2),
        (lambda: RuntimeError("secret words"), Reason.UNAVAILABLE, ConnectionFailedError, 2),
        (lambda: 3_600, Reason.TIMEOUT, DeadlineExceededError, 1),
        (lambda: httpx.Response(200, content=b"<html>"), Reason.BAD_REPLY, BadReplyError, 1),
        (lambda: httpx.Response(200, json=[]), Reason.BAD_REPLY, BadReplyError, 1),
        (lambda: httpx.Response(200, json={"experiences": None}), Reason.BAD_REPLY, BadReplyError, 1),
        (lambda: httpx.Response(200, content=b"x" * 2_000_000), Reason.BAD_REPLY, BadReplyError, 1),
        (lambda: httpx.Response(200, content=b"[" * 100_000), Reason.BAD_REPLY, BadReplyError, 1),
    ],
)
async def test_their_trouble_is_a_reason_and_an_error_and_raises_on_request(answer, reason, kind, requests):
    moengage = MoEngage(fetch=lambda body: answer())
    async with make_client(moengage) as client:
        experiences = await client.fetch("hero", customer_id="john")
        assert experiences["hero"].reason is reason
        assert experiences["hero"].source == "default"
        assert experiences.error is not None
        assert kind is None or type(experiences.error) is kind
        assert "secret words" not in str(experiences.error)
        assert experiences.error.attempts == requests == moengage.count("fetch")
        with pytest.raises(type(experiences.error)):
            experiences.raise_for_error()
        with pytest.raises(type(experiences.error)):
            await client.fetch("hero", customer_id="john", on_error="raise")


async def test_a_second_attempt_may_succeed():
    answers = [error(500), serving(hero=served())]
    moengage = MoEngage(fetch=lambda body: answers.pop(0))
    async with make_client(moengage) as client:
        experiences = await client.fetch("hero")
        assert experiences["hero"].matched
        assert experiences.error is None
        assert client.stats().fetch_requests == 2
        assert client.stats().retries == 1


async def test_the_deadline_bounds_every_attempt_together_and_its_error_names_the_cause():
    async def fetch(body):
        await anyio.sleep(0.3)
        return error(500)

    moengage = MoEngage(fetch=fetch)
    async with make_client(moengage, fetching=FetchPolicy(attempts=10)) as client:
        began = anyio.current_time()
        experiences = await client.fetch("hero", deadline=1.0)
        assert anyio.current_time() - began <= 1.001
    assert isinstance(experiences.error, DeadlineExceededError)
    assert isinstance(experiences.error, TimeoutError)
    assert isinstance(experiences.error.__cause__, ServerError)
    assert experiences["hero"].reason is Reason.TIMEOUT


async def test_a_dripping_body_is_left_in_time():
    async def drip():
        while True:
            await anyio.sleep(0.1)
            yield b" "

    moengage = MoEngage(fetch=lambda body: httpx.Response(200, content=drip()))
    async with make_client(moengage) as client:
        began = anyio.current_time()
        experiences = await client.fetch("hero", deadline=0.5)
        assert anyio.current_time() - began == pytest.approx(0.5, abs=0.01)
    assert experiences["hero"].reason is Reason.TIMEOUT


async def test_cancelling_the_caller_propagates_and_leaves_others_alone():
    async def fetch(body):
        await anyio.sleep(0.5)
        return serving(**{key: served() for key in body["experience_key"]})

    moengage = MoEngage(fetch=fetch)
    async with make_client(moengage) as client:
        cancelled = asyncio.create_task(client.fetch("one"))
        kept = asyncio.create_task(client.fetch("two"))
        await anyio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await kept)["two"].matched


async def test_a_gzip_reply_is_read_and_a_bomb_is_not():
    good = gzip.compress(serving(hero=served()).content)
    bomb = gzip.compress(b" " * 50_000_000)
    answers = [good, bomb]
    moengage = MoEngage(
        fetch=lambda body: httpx.Response(200, stream=_Raw(answers.pop(0)), headers={"content-encoding": "gzip"})
    )
    async with make_client(moengage) as client:
        assert (await client.fetch("hero"))["hero"].matched
        experiences = await client.fetch("hero")
    assert experiences["hero"].reason is Reason.BAD_REPLY
    assert "larger than 1048576 bytes" in str(experiences.error)


class _Raw(httpx.AsyncByteStream):
    def __init__(self, content):
        self._content = content

    async def __aiter__(self):
        yield self._content


@pytest.mark.parametrize("coding", ["br", "gzip, gzip"])
async def test_other_content_codings_are_refused(coding):
    moengage = MoEngage(fetch=lambda body: httpx.Response(200, stream=_Raw(b"x"), headers={"content-encoding": coding}))
    async with make_client(moengage) as client:
        assert (await client.fetch("hero"))["hero"].reason is Reason.BAD_REPLY


async def test_metadata_is_typed_and_raises_their_trouble():
    entry = {"experience_name": "Hero", "experience_key": "home-hero", "status": "Active"}
    answers = [httpx.Response(200, json={"metadata": {"count": 1, "experiences": [entry]}}), error(500)]
    moengage = MoEngage(metadata=lambda body: answers.pop(0))
    async with make_client(moengage) as client:
        metadata = await client.metadata(["Active", "Paused"])
        assert metadata.count == 1
        assert metadata["home-hero"].name == "Hero"
        assert metadata["home-hero"].status == "Active"
        with pytest.raises(ServerError):
            await client.metadata()


async def test_odd_metadata_is_logged_once_per_change_and_without_what_it_holds(caplog):
    entry = {"experience_name": "Hero", "experience_key": "home-hero", "status": "Active"}
    odd = {"experience_name": "Secret", "experience_key": "secret"}
    answers = [[entry, odd], [entry, odd, odd], [entry], [odd]]
    moengage = MoEngage(metadata=lambda body: httpx.Response(200, json={"metadata": {"experiences": answers.pop(0)}}))
    async with make_client(moengage) as client:
        assert [list(await client.metadata()) for _ in range(4)] == [["home-hero"]] * 3 + [[]]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["1 of the workspace's experiences cannot be read, and are left out"] * 2


async def test_a_key_from_a_callable_is_asked_again_when_it_is_refused_and_the_visitor_does_not_notice():
    keys = ["old", "new"]
    moengage = MoEngage(fetch=lambda body: error(401) if "old" in _password(moengage) else serving(hero=served()))

    async def api_key():
        return keys.pop(0)

    async with AsyncPersonalizeClient("WORKSPACE", api_key, "01", transport=moengage) as client:
        assert (await client.fetch("hero"))["hero"].matched
        assert client.stats().circuit_openings == 0
    assert keys == []
    assert moengage.count("fetch") == 2


async def test_the_same_key_again_opens_the_circuit():
    moengage = MoEngage(fetch=lambda body: error(401))
    async with AsyncPersonalizeClient("WORKSPACE", lambda: "key", "01", transport=moengage) as client:
        assert (await client.fetch("hero"))["hero"].reason is Reason.UNAUTHORIZED
        experiences = await client.fetch("hero")
    assert experiences["hero"].reason is Reason.OPEN_CIRCUIT
    assert isinstance(experiences.error, AuthenticationError)
    assert experiences.error.attempts == 0
    assert moengage.count("fetch") == 1


def _password(moengage):
    return base64.b64decode(moengage.headers[-1]["authorization"].split()[1]).decode()


async def test_a_failing_key_callable_is_their_trouble_without_its_words():
    def api_key():
        raise RuntimeError("vault://secret")

    moengage = MoEngage()
    async with AsyncPersonalizeClient("WORKSPACE", api_key, "01", transport=moengage) as client:
        experiences = await client.fetch("hero")
    assert experiences["hero"].reason is Reason.UNAVAILABLE
    assert "vault" not in str(experiences.error)
    assert moengage.requests == []


async def test_a_key_callable_that_hangs_costs_a_caller_no_more_than_the_deadline():
    moengage = MoEngage()
    async with AsyncPersonalizeClient("WORKSPACE", anyio.sleep_forever, "01", transport=moengage) as client:
        began = anyio.current_time()
        experiences = await client.fetch("hero", deadline=0.4)
        assert anyio.current_time() - began == pytest.approx(0.4)
        assert experiences["hero"].reason is Reason.TIMEOUT
        with anyio.fail_after(11), pytest.raises(DeadlineExceededError, match="api_key callable did not return"):
            await client.metadata()
    assert moengage.requests == []


async def test_fetching_needs_an_open_client():
    client = make_client()
    with pytest.raises(UsageError, match="not open: use `async with"):
        await client.fetch("hero")
    async with client:
        pass
    with pytest.raises(UsageError, match="closed: make a new one"):
        await client.fetch("hero")


async def test_paused_means_that_nothing_is_asked():
    moengage = MoEngage()
    async with make_client(moengage) as client:
        client.pause()
        assert (await client.fetch("hero"))["hero"].reason is Reason.PAUSED
        client.resume()
        assert (await client.fetch("hero"))["hero"].matched
    assert moengage.count("fetch") == 1


async def test_the_retry_budget_ends_retries_not_fetches():
    moengage = MoEngage(fetch=lambda body: error(500))
    async with make_client(moengage, retrying=RetryPolicy(budget=3, initial=0.001)) as client:
        for _ in range(10):
            await client.fetch("hero")
    assert moengage.count("fetch") == 10 + 3
