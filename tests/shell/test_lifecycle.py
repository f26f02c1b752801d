"""Opening, closing, and where a client cannot be used."""

import asyncio
import contextvars
import gc
import os
import threading
import warnings

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, accepted, error, make_client, served, serving

from moengage_personalize import (
    Admission,
    BatchPolicy,
    Condition,
    PersonalizeError,
    Reason,
    ReservedCustomerIdWarning,
    UsageError,
)
from moengage_personalize.spool import DiskSpool

pytestmark = pytest.mark.anyio


async def test_entering_and_leaving_may_happen_in_different_tasks():
    moengage = MoEngage()
    client = make_client(moengage)
    await asyncio.create_task(client.__aenter__())
    client.track_impression(CONTEXT, customer_id="john")
    await asyncio.create_task(client.__aexit__(None, None, None))
    assert client.last_report.delivered == 1
    assert moengage.closed


async def test_body_error_is_not_wrapped():
    class BodyError(Exception):
        pass

    moengage = MoEngage()
    with pytest.raises(BodyError) as caught:
        async with make_client(moengage) as client:
            client.track_impression(CONTEXT, customer_id="john")
            raise BodyError
    assert type(caught.value) is BodyError
    assert caught.value.__context__ is None
    assert client.last_report.delivered == 1


async def test_the_constructor_needs_no_loop_and_does_no_io():
    clients = []
    thread = threading.Thread(target=lambda: clients.append(make_client()))
    thread.start()
    thread.join()
    async with clients[0] as client:
        assert client.track_impression(CONTEXT, customer_id="john") is Admission.ACCEPTED


async def test_closing_delivers_what_is_pending_and_a_late_event_is_counted():
    moengage = MoEngage()
    async with make_client(moengage, batching=BatchPolicy(linger=60)) as client:
        for number in range(1_000):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
    assert client.last_report.delivered == 1_000
    assert client.track_impression(CONTEXT, customer_id="john") is Admission.CLOSED
    assert client.stats().closed == 1
    assert client.stats().offered == 1_000


@pytest.mark.parametrize(
    "answer",
    [lambda: 3_600, lambda: error(503), lambda: error(401), lambda: httpx.ConnectError("refused"), lambda: error(400)],
    ids=["hang", "503", "401", "refused", "400"],
)
async def test_closing_takes_no_longer_than_grace_however_the_server_behaves(answer):
    moengage = MoEngage(events=lambda body: answer())
    client = make_client(moengage, batching=BatchPolicy(grace=5))
    async with client:
        for number in range(1_000):
            client.track_impression(CONTEXT, customer_id=f"customer-{number}")
        await anyio.sleep(2)
        began = anyio.current_time()
    assert anyio.current_time() - began <= 5.1
    report = client.last_report
    assert report.dropped == 1_000
    assert report.dropped_by_reason == {"closed": 1_000}
    assert report.balanced
    assert report.pending == 0


async def test_a_fetch_under_way_may_be_answered_while_closing_delivers_and_then_is_closed():
    async def fetch(body):
        await anyio.sleep(0.5 if body["experience_key"] == ["soon"] else 60)
        return serving(soon=served())

    moengage = MoEngage(fetch=fetch, events=lambda body: 3_600)
    pages = {}

    async def ask(key):
        pages[key] = (await client.fetch(key, customer_id=f"{key}@example.com", deadline=100.0))[key]

    async with make_client(moengage) as client, anyio.create_task_group() as tasks:
        client.track_impression(CONTEXT, customer_id="john")
        tasks.start_soon(ask, "soon")
        tasks.start_soon(ask, "late")
        await anyio.sleep(0.1)
        await client.aclose(1.0)
    assert pages["soon"].matched
    assert pages["late"].reason is Reason.CLOSED


async def test_a_pause_that_outlasts_the_grace_is_not_waited_for():
    moengage = MoEngage(events=lambda body: error(503, retry_after="60"))
    async with make_client(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await anyio.sleep(2)
        began = anyio.current_time()
    assert anyio.current_time() - began < 0.1
    assert client.last_report.dropped == 1


async def test_closing_is_idempotent_and_concurrent_and_may_only_be_shortened():
    moengage = MoEngage(events=lambda body: 3_600)
    client = await make_client(moengage).__aenter__()
    client.track_impression(CONTEXT, customer_id="john")
    began = anyio.current_time()
    reports = []

    async def close(grace):
        reports.append(await client.aclose(grace))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close, 10)
        await anyio.sleep(0.5)
        tasks.start_soon(close, 60)
        tasks.start_soon(close, 1)
    assert anyio.current_time() - began == pytest.approx(1.5, abs=0.1)
    assert reports == [client.last_report] * 3
    assert await client.aclose() == client.last_report


async def test_cancelling_a_waiter_does_not_cancel_the_closing():
    async def events(body):
        await anyio.sleep(1)
        return accepted()

    moengage = MoEngage(events=events)
    client = await make_client(moengage).__aenter__()
    client.track_impression(CONTEXT, customer_id="john")
    with anyio.move_on_after(0.1):
        await client.aclose()
    report = await client.aclose()
    assert report.delivered == 1


async def test_a_cancelled_loop_counts_what_it_loses():
    moengage = MoEngage(events=lambda body: 3_600)
    client = await make_client(moengage).__aenter__()
    client.track_impression(CONTEXT, customer_id="john")
    await anyio.sleep(2)
    (host,) = [task for task in asyncio.all_tasks() if task.get_name() == "moengage_personalize"]
    host.cancel()
    await asyncio.wait([host])
    assert client.stats().dropped_by_reason == {"closed": 1}
    assert client.track_impression(CONTEXT, customer_id="john") is Admission.CLOSED
    assert client.health().condition is Condition.CLOSED
    assert client.stats().closed == 1
    assert client.stats().balanced
    assert (await client.aclose()).dropped == 1
    assert moengage.closed


async def test_leaving_in_a_cancelled_scope_delivers_all_the_same():
    async def events(body):
        await anyio.sleep(1)
        return accepted()

    moengage = MoEngage(events=events)
    with anyio.move_on_after(10) as scope:
        async with make_client(moengage, batching=BatchPolicy(linger=60)) as client:
            client.track_impression(CONTEXT, customer_id="john")
            await anyio.sleep(20)
    assert scope.cancelled_caught
    assert client.last_report.delivered == 1


async def test_opening_that_is_cancelled_leaves_nothing_behind():
    moengage = MoEngage()
    client = make_client(moengage)
    before = asyncio.all_tasks()
    opening = asyncio.create_task(client.__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert asyncio.all_tasks() == before
    assert moengage.closed
    assert client.track_impression(CONTEXT, customer_id="john") is Admission.CLOSED
    assert (await client.aclose()).balanced


async def test_a_spool_that_cannot_be_opened_leaves_no_transport_open(tmp_path):
    (tmp_path / "file").touch()
    moengage = MoEngage()
    client = make_client(moengage, spool=DiskSpool(tmp_path / "file"))
    with pytest.raises(PersonalizeError):
        await client.__aenter__()
    assert moengage.closed


async def test_closing_while_opening_wins():
    moengage = MoEngage()
    client = make_client(moengage)
    opening = asyncio.create_task(client.__aenter__())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="opened once"):
        await client.__aenter__()
    await client.aclose()
    with pytest.raises(UsageError, match="closed while it was being opened"):
        await opening
    assert moengage.closed


def test_a_loop_that_was_closed_under_an_open_client_is_said_once_and_for_all():
    loop = asyncio.new_event_loop()
    client = make_client()
    loop.run_until_complete(client.__aenter__())
    loop.close()
    with pytest.raises(UsageError, match="closed, and not the client"):
        client.track_impression(CONTEXT, customer_id="john")
    with pytest.raises(UsageError, match="another event loop"):
        client.track_impression(CONTEXT, customer_id="john")
    assert client.stats().dropped_by_reason == {"closed": 1}
    assert asyncio.run(client.aclose()).balanced


async def test_a_client_is_opened_once():
    async with make_client() as client:
        with pytest.raises(UsageError, match="opened once"):
            await client.__aenter__()
    with pytest.raises(UsageError, match="opened once"):
        await client.__aenter__()


async def test_an_unopened_client_says_what_to_do():
    client = make_client()
    with pytest.raises(UsageError, match="use `async with"):
        client.track_impression(CONTEXT, customer_id="john")
    report = await client.aclose()
    assert report.balanced


async def test_another_thread_is_told_the_remedy_which_works():
    moengage = MoEngage()
    async with make_client(moengage) as client:

        def endpoint():
            with pytest.raises(UsageError, match="anyio.from_thread.run_sync"):
                client.track_impression(CONTEXT, customer_id="john")
            return anyio.from_thread.run_sync(lambda: client.track_impression(CONTEXT, customer_id="john"))

        assert await anyio.to_thread.run_sync(endpoint) is Admission.ACCEPTED
    assert len(moengage.actions) == 1


async def test_another_loop_is_told_so():
    async with make_client() as client:

        def elsewhere():
            with pytest.raises(UsageError, match="another event loop"):
                asyncio.run(client.fetch("hero"))

        await anyio.to_thread.run_sync(elsewhere)


async def test_a_forked_child_is_told_so_and_the_parent_goes_on():
    moengage = MoEngage()
    async with make_client(moengage) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads, from Python 3.12 on
            child = os.fork()
        if child == 0:
            code = 1
            try:
                client.track_impression(CONTEXT, customer_id="john")
            except UsageError as refusal:
                code = 0 if "forked" in str(refusal) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.track_impression(CONTEXT, customer_id="john") is Admission.ACCEPTED
    assert len(moengage.actions) == 1


async def test_background_work_runs_in_an_empty_context():
    request = contextvars.ContextVar("request", default=None)
    seen = []

    async def look(body):
        seen.append(request.get())
        return accepted()

    moengage = MoEngage(events=look)
    moengage.fetch = look
    request.set("the first request's")
    async with make_client(moengage) as client:
        client.track_impression(CONTEXT, customer_id="john")
        await client.flush()
        await client.fetch("hero")
    assert seen == [None, None]


async def test_a_client_that_is_forgotten_unclosed_says_so():
    client = await make_client().__aenter__()
    engine = client._engine
    with pytest.warns(ResourceWarning, match="never closed"):
        del client
        gc.collect()
    engine.close(0)
    await engine.ended()


async def test_reserved_customer_ids_warn_without_naming_anybody():
    async with make_client() as client:
        for reserved in ("guest", "NULL", "0", "x"):
            with pytest.warns(ReservedCustomerIdWarning):
                client.track_impression(CONTEXT, customer_id=reserved)
        with pytest.warns(ReservedCustomerIdWarning):
            await client.fetch("hero", customer_id="unknown")


async def test_flush_returns_when_its_time_is_over():
    moengage = MoEngage(events=lambda body: 3_600)
    async with make_client(moengage, batching=BatchPolicy(grace=0)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        began = anyio.current_time()
        report = await client.flush(3)
        assert anyio.current_time() - began == pytest.approx(3)
        assert report.pending == 1


async def test_flush_does_not_wait_for_what_came_after_it():
    async def events(body):
        await anyio.sleep(1)
        return accepted()

    moengage = MoEngage(events=events)
    async with make_client(moengage, batching=BatchPolicy(linger=1_000)) as client:
        client.track_impression(CONTEXT, customer_id="john")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.flush)
            await anyio.sleep(0.1)
            client.track_impression(CONTEXT, customer_id="jane")
        assert client.stats().pending == 1


async def test_two_clients_are_strangers():
    one, two = MoEngage(), MoEngage()
    async with make_client(one) as first, make_client(two) as second:
        first.track_impression(CONTEXT, customer_id="john")
        second.track_impression(CONTEXT, customer_id="jane")
    assert list(one.by_customer()) == ["john"]
    assert list(two.by_customer()) == ["jane"]
