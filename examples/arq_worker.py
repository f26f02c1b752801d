"""An arq worker that reports what others enqueue; `arq arq_worker.WorkerSettings` starts it.

    await redis.enqueue_job("report", "click", "customer-1", hero.context, b_id="cta")

A client per worker process, shared by its jobs: opened at its start, closed at its end. A job is done when its event
was delivered, and until then arq has it, so a worker that is killed loses nothing. Jobs that run at the same time share
a request. A job that runs twice reports one event: its UUID is made of the job's id.
"""

import asyncio
from math import inf
from typing import Any, ClassVar

from arq import Retry

from moengage_personalize import Action, Admission, AsyncPersonalizeClient, Event, event_uuid_for

COMPANY = 0.2  # seconds that a job waits for others, to share a request with them
PATIENCE = 30.0  # seconds that a job waits for its delivery, before arq has it back
AGAIN = {Admission.DROPPED, Admission.PAUSED, Admission.CLOSED}


async def startup(ctx: dict[str, Any]) -> None:
    ctx["personalize"] = await AsyncPersonalizeClient().__aenter__()


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["personalize"].aclose()


async def report(
    ctx: dict[str, Any], action: str, customer_id: str, experience_context: dict[str, Any], b_id: str | None = None
) -> None:
    personalize: AsyncPersonalizeClient = ctx["personalize"]
    event = Event(
        action=Action[action.upper()],
        experience=experience_context,
        customer_id=customer_id,
        at=ctx["enqueue_time"],
        event_uuid=event_uuid_for("arq", ctx["job_id"]),
        b_id=b_id,
    )
    if personalize.track(event) in AGAIN:
        raise Retry(defer=PATIENCE)
    await asyncio.sleep(COMPANY)
    try:
        async with asyncio.timeout(PATIENCE):
            await personalize.flush(timeout=inf)
    except TimeoutError:
        raise Retry(defer=PATIENCE) from None


class WorkerSettings:
    """What `arq` reads."""

    functions: ClassVar = [report]
    on_startup = startup
    on_shutdown = shutdown
    max_jobs = 100
    max_tries = 1_440  # a day of outage: each try waits for half a minute, and the next comes half a minute later
    job_timeout = 45  # seconds: longer than a job waits, and not much, since the jobs of a killed worker wait as long
