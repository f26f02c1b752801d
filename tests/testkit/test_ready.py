"""The client that is ready: where it may be used, and how it ends."""

import asyncio
import threading
from contextvars import ContextVar

import anyio.from_thread
import anyio.to_thread
import pytest

from moengage_personalize import Admission, UsageError
from moengage_personalize.testing import FakePersonalize
from moengage_personalize.testing._ready import Backstage
from moengage_personalize.testing._record import Record
from moengage_personalize.testing._script import Script
from moengage_personalize.testing._scripted import Stage


@pytest.fixture
def fake(personalize_fake):
    personalize_fake.serve("home-hero", {"Title": "Hi"})
    return personalize_fake


async def show(fake):
    hero = (await fake.client.fetch("home-hero", customer_id="john"))["home-hero"]
    assert fake.client.track_impression(hero, customer_id="john") is Admission.ACCEPTED
    return hero


def test_one_client_serves_one_loop_after_another(fake):
    for _ in range(3):
        asyncio.run(show(fake))
    assert len(fake.impressions) == 3


def test_a_test_without_a_loop_may_track(fake):
    hero = asyncio.run(show(fake))
    assert fake.client.track_click(hero, customer_id="john") is Admission.ACCEPTED
    assert fake.client.stats().accepted == 2


def test_a_thread_without_a_loop_is_told_what_to_do_as_in_production(fake):
    async def def_endpoint(call):
        return await anyio.to_thread.run_sync(call)

    hero = asyncio.run(show(fake))
    with pytest.raises(UsageError, match="anyio.from_thread.run_sync"):
        asyncio.run(def_endpoint(lambda: fake.client.track_click(hero, customer_id="john")))
    admission = asyncio.run(
        def_endpoint(lambda: anyio.from_thread.run_sync(lambda: fake.client.track_click(hero, customer_id="john")))
    )
    assert admission is Admission.ACCEPTED


def test_several_loops_at_once_share_it(fake):
    threads = [threading.Thread(target=lambda: asyncio.run(show(fake))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake.impressions) == 8


def test_it_sees_the_callers_context(monkeypatch):
    from moengage_personalize.testing import _scripted

    seen, word = [], ContextVar("word", default="none")
    monkeypatch.setattr(_scripted.ScriptedClient, "fetch", lambda self, *keys: _look(seen, word))

    async def ask(said):
        word.set(said)
        await fake.client.fetch("home-hero")

    async def two():
        await asyncio.gather(ask("one"), ask("two"))

    with FakePersonalize() as fake:
        asyncio.run(two())
    assert seen == ["one", "two"]


async def _look(seen, word):
    seen.append(word.get())


def test_who_is_cancelled_here_is_cancelled_there():
    async def forever(client):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def give_up():
        task = asyncio.create_task(backstage.run(forever))
        await anyio.to_thread.run_sync(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun, ended = threading.Event(), threading.Event()
    backstage = Backstage(Stage(Script(), Record()))
    asyncio.run(give_up())
    assert ended.wait(30)
    backstage.close()


def test_who_waits_when_it_is_closed_is_cancelled():
    async def wait():
        task = asyncio.create_task(backstage.run(lambda client: asyncio.Event().wait()))
        await asyncio.sleep(0)
        await anyio.to_thread.run_sync(backstage.close)
        with pytest.raises(asyncio.CancelledError):
            await task

    backstage = Backstage(Stage(Script(), Record()))
    asyncio.run(wait())


def test_one_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr("moengage_personalize.testing._ready.ScriptedClient", lambda stage: 1 / 0)
    with FakePersonalize() as fake, pytest.raises(ZeroDivisionError):
        fake.client.stats()


def test_it_starts_a_thread_when_it_is_used_and_ends_it_with_the_fake():
    def there():
        return [thread for thread in threading.enumerate() if thread.name == "moengage-fake"]

    with FakePersonalize() as fake:
        assert not there()
        assert "0 keys" in repr(fake)
        asyncio.run(fake.client.fetch("home-hero"))
        assert len(there()) == 1
    assert not there()
    fake.close()
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(fake.client.fetch("home-hero"))


def test_leaving_it_leaves_it_open(fake):
    async def application():
        async with fake.client as client:
            await show(fake)
        assert client.last_report.delivered == client.last_report.accepted

    asyncio.run(application())
    asyncio.run(application())
    assert len(fake.impressions) == 2
    assert repr(fake.client) == "<ReadyClient of a fake>"


def test_events_leave_while_it_is_used(fake):
    async def until_delivered():
        await show(fake)
        with anyio.fail_after(30):
            while not fake.client.stats().delivered:
                await anyio.sleep(0.01)

    asyncio.run(until_delivered())
