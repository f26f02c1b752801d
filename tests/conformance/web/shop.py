"""An application for real servers. It says what it accepted, so that a test can ask MoEngage for it."""

import os
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, Header, Request

from moengage_personalize import AsyncPersonalizeClient, BatchPolicy, Experiences, RetryPolicy, event_uuid_for
from moengage_personalize.fastapi import (
    BlockingPersonalize,
    CurrentInSession,
    Personalize,
    PersonalizeMiddleware,
    experiences,
    lifespan,
)
from moengage_personalize.spool import DiskSpool


def make_client():
    spool = os.environ.get("SHOP_SPOOL")
    return AsyncPersonalizeClient(
        spool=DiskSpool(spool) if spool else None,
        batching=BatchPolicy(linger=0.2),
        retrying=RetryPolicy(initial=0.05, maximum=0.5),
    )


async def customer(x_customer: Annotated[str, Header()]) -> str:
    return x_customer


app = FastAPI(lifespan=lifespan(make_client() if "SHOP_SHARED" in os.environ else make_client))
app.add_middleware(PersonalizeMiddleware, trusted_proxies=os.environ.get("SHOP_TRUSTS", "").split())
Customer = Annotated[str, Depends(customer)]
Page = Annotated[Experiences, experiences("home-hero", customer=customer, deadline=5)]


@app.get("/")
async def home(page: Page, customer: Customer, personalize: Personalize, view: str):
    event_uuid = event_uuid_for(customer, view)
    admission = personalize.track_impression(page["home-hero"], customer_id=customer, event_uuid=event_uuid)
    return {"pid": os.getpid(), "uuid": event_uuid, "admission": admission, "title": page["home-hero"].get("Title")}


@app.get("/def")
def home_in_a_thread(page: Page, customer: Customer, personalize: BlockingPersonalize, view: str):
    event_uuid = event_uuid_for(customer, view)
    admission = personalize.track_impression(page["home-hero"], customer_id=customer, event_uuid=event_uuid)
    return {"pid": os.getpid(), "uuid": event_uuid, "admission": admission, "title": page["home-hero"].get("Title")}


@app.get("/impatient")
async def cancelled_when_the_visitor_leaves(request: Request, customer: Customer, personalize: Personalize):
    found = {}

    async def watch():
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        page = await personalize.fetch("home-hero", customer_id=customer, deadline=5)
        found["title"] = page["home-hero"].get("Title")
        tasks.cancel_scope.cancel()
    return found


@app.get("/who")
async def who(session: CurrentInSession):
    return {"address": session.ip_address, "agent": session.user_agent}


@app.get("/how")
async def how(personalize: Personalize):
    stats = personalize.stats()
    return {
        "condition": personalize.health().condition,
        "pending": stats.pending,
        "connections": stats.connections_opened,
    }
