"""A taskiq worker that reports what others enqueue; `taskiq worker taskiq_worker:broker` starts it.

    await report.kiq("click", "customer-1", hero.context, time.time(), b_id="cta")

A client per worker process, opened at its start and closed at its end, with a spool, which the processes of one host
may share. A task is done when its event is on the disk: whatever happens to the process, the next one delivers it. One
that runs twice reports one event: its UUID is made of the task's id, and its time is the enqueuer's.
"""

import asyncio
import os
from typing import Annotated, Any

from taskiq import AsyncBroker, Context, InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState

from moengage_personalize import Action, Admission, AsyncPersonalizeClient, Event, event_uuid_for
from moengage_personalize.spool import DiskSpool

PAUSE = 10.0  # seconds before a task that could not be taken on comes again
AGAIN = {Admission.DROPPED, Admission.PAUSED, Admission.CLOSED}
broker: AsyncBroker = InMemoryBroker()  # yours: taskiq-redis, taskiq-aio-pika, …


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    spool = DiskSpool(os.environ.get("PERSONALIZE_SPOOL", "/var/lib/personalize"))
    state.personalize = await AsyncPersonalizeClient(spool=spool).__aenter__()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    await state.personalize.aclose()


@broker.task(task_name="report")
async def report(
    action: str,
    customer_id: str,
    experience_context: dict[str, Any],
    at: float,
    b_id: str | None = None,
    context: Annotated[Context, TaskiqDepends()] = None,  # type: ignore[assignment]  # taskiq's to fill in
) -> None:
    personalize: AsyncPersonalizeClient = context.state.personalize
    event = Event(
        action=Action[action.upper()],
        experience=experience_context,
        customer_id=customer_id,
        at=at,
        event_uuid=event_uuid_for("taskiq", context.message.task_id),
        b_id=b_id,
    )
    if personalize.track(event) in AGAIN:
        await asyncio.sleep(PAUSE)
        await context.requeue()  # ends this run
    await personalize.journaled()
