"""The arq worker: done means delivered, and twice means once."""

import asyncio
from datetime import UTC, datetime

import arq_worker
import fakeredis
import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.worker import Worker
from emulator.kit import CONTEXT
from support.moengage import MoEngage, accepted, make_client

from moengage_personalize import InvalidInputError

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 23, tzinfo=UTC)


def job(number=1):
    return {"job_id": f"job-{number}", "job_try": 1, "enqueue_time": AT}


class TestInArq:
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}

    @pytest.fixture
    def redis(self, monkeypatch):
        async def not_understood_by_fakeredis(*_):
            pass

        monkeypatch.setattr("arq.worker.log_redis_info", not_understood_by_fakeredis)
        return ArqRedis(fakeredis.FakeAsyncRedis().connection_pool)

    @pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's
    async def test_every_job_arrives_once_and_those_that_run_together_share_requests(
        self, emulated, redis, monkeypatch
    ):
        monkeypatch.setattr(arq_worker, "COMPANY", 1.0)  # arq starts them one by one, and the machine may be busy
        for number in range(40):
            arguments = {"b_id": "cta"} if number % 2 else {}
            action = "click" if number % 2 else "impression"
            await redis.enqueue_job("report", action, f"customer-{number}", CONTEXT, **arguments)
        settings = {name: value for name, value in vars(arq_worker.WorkerSettings).items() if not name.startswith("_")}
        worker = Worker(**settings, redis_pool=redis, burst=True, poll_delay=0.01, handle_signals=False)
        assert await worker.run_check() == 40
        await worker.close()
        counts = emulated.ledger.counts
        assert (counts.impressions, counts.clicks, counts.duplicates_identical) == (20, 20, 0)
        assert counts.event_requests < 20, "forty, if each job sent its own"
        assert worker.ctx["personalize"].last_report.pending == 0

    async def test_a_job_that_two_workers_run_is_one_event(self, emulated):
        for _ in range(2):
            ctx = job()
            await arq_worker.startup(ctx)
            await arq_worker.report(ctx, "click", "customer-1", CONTEXT)
            await arq_worker.shutdown(ctx)
        counts = emulated.ledger.counts
        assert (counts.accepted, counts.duplicates_identical, counts.duplicates_different) == (1, 1, 0)


class TestAJob:
    async def test_is_done_when_its_event_was_delivered_and_not_before(self):
        moengage = MoEngage(events=lambda body: 7)
        async with make_client(moengage) as client:
            with pytest.raises(Retry):
                await arq_worker.report({**job(), "personalize": client}, "click", "customer-1", CONTEXT)
            moengage.events = MoEngage().events
            await arq_worker.report({**job(), "personalize": client}, "click", "customer-1", CONTEXT)
        assert client.last_report.delivered == client.last_report.accepted == 1
        assert len(set(moengage.uuids)) == 1

    async def test_waits_for_no_other_that_came_later(self):
        async def slow(body):
            await asyncio.sleep(1 if moengage.count("events") == 1 else 3_600)
            return accepted()

        moengage = MoEngage(events=slow)
        async with make_client(moengage) as client:
            first, late = (
                arq_worker.report({**job(n), "personalize": client}, "click", f"customer-{n}", CONTEXT) for n in (1, 2)
            )
            first = asyncio.create_task(first)
            await asyncio.sleep(0.5)
            late = asyncio.create_task(late)
            await first
            assert not late.done()
            with pytest.raises(Retry):
                await late
            await client.aclose(grace=0)

    async def test_comes_again_if_it_could_not_be_taken_on(self):
        async with make_client(MoEngage()) as client:
            client.pause()
            with pytest.raises(Retry):
                await arq_worker.report({**job(), "personalize": client}, "click", "customer-1", CONTEXT)
        with pytest.raises(Retry):
            await arq_worker.report({**job(), "personalize": client}, "click", "customer-1", CONTEXT)

    async def test_that_can_never_be_sent_fails_without_quoting_it(self):
        async with make_client(MoEngage()) as client:
            with pytest.raises(InvalidInputError) as error:
                await arq_worker.report({**job(), "personalize": client}, "click", "customer-1", {"cid": "secret"})
        assert "secret" not in str(error.value)
        assert "customer-1" not in str(error.value)
