"""A small service to be signalled, killed, frozen and forked: the application that `Service` (processes.py) runs.

It answers a click's UUID once the client has ACCEPTED it. Settings come from the environment: SPOOL (a directory),
LINGER and GRACE (seconds), PARENT ("constructed" or "entered": what a client of
the module has been through when gunicorn forks).
"""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from functools import partial

import anyio.from_thread
from fastapi import FastAPI
from support.context import CONTEXT

from moengage_personalize import AsyncPersonalizeClient, BatchPolicy, UsageError, event_uuid_for
from moengage_personalize.spool import DiskSpool


def make_client():
    directory = os.environ.get("SPOOL")
    return AsyncPersonalizeClient(
        batching=BatchPolicy(linger=float(os.environ.get("LINGER", "1")), grace=float(os.environ.get("GRACE", "5"))),
        spool=DiskSpool(directory, segment_bytes=1 << 16) if directory else None,
    )


PARENT = os.environ.get("PARENT")
personalize = make_client() if PARENT else None
if PARENT == "entered":
    asyncio.run(personalize.__aenter__())


@asynccontextmanager
async def lifespan(app):
    async with personalize or make_client() as app.state.client:
        yield
    report = app.state.client.last_report
    print(json.dumps({"accepted": report.accepted, "delivered": report.delivered, "dropped": report.dropped,
                      "spooled": report.spooled, "balanced": report.balanced}), file=sys.stdout, flush=True)  # fmt: skip


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready():
    return os.getpid()


@app.post("/click/{visitor}")
async def click(visitor: str):
    event_uuid = event_uuid_for(os.urandom(16).hex())
    admission = app.state.client.track_click(CONTEXT, customer_id=f"customer-{visitor}", event_uuid=event_uuid)
    return {"uuid": event_uuid, "admission": admission.value}


@app.get("/slow")
async def slow():
    await asyncio.sleep(60)


@app.post("/from-a-thread")
def from_a_thread():
    try:
        app.state.client.track_click(CONTEXT, customer_id="customer-1")
    except UsageError as error:
        return str(error)
    return "no error"


@app.post("/from-a-thread-remedied")
def remedied():
    return anyio.from_thread.run_sync(partial(app.state.client.track_click, CONTEXT, customer_id="customer-1"))
