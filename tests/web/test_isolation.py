"""A thousand requests at once: nobody sees what another's request said, in the loop or in a thread."""

import random
from typing import Annotated

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection
from web.mirror import asked, mirrored

from moengage_personalize import Experiences, FetchPolicy, current_request
from moengage_personalize.fastapi import BlockingPersonalize, Personalize, PersonalizeMiddleware, experiences, lifespan

pytestmark = [pytest.mark.anyio, pytest.mark.real_loops]
REQUESTS = 1_000
dice = random.Random(7)


async def turns():
    for _ in range(dice.randrange(5)):
        await anyio.lowlevel.checkpoint()


async def customer(connection: HTTPConnection) -> str:
    await turns()
    return connection.headers["x-customer"]


app = FastAPI(lifespan=lifespan(lambda: mirrored(fetching=FetchPolicy(max_in_flight=2 * REQUESTS, deadline=60))))
app.add_middleware(PersonalizeMiddleware, trusted_proxies=["127.0.0.1"])
Customer = Annotated[str, Depends(customer)]


@app.get("/async")
async def in_the_loop(personalize: Personalize, customer: Customer):
    await turns()
    return asked(await personalize.fetch("home-hero", customer_id=customer))


@app.get("/def")
def in_a_thread(personalize: BlockingPersonalize, customer: Customer):
    before = current_request.get()
    found = asked(personalize.fetch("home-hero", customer_id=customer))
    assert current_request.get() is before
    return found


@app.get("/page")
async def a_page(page: Annotated[Experiences, experiences("home-hero", customer=customer)]):
    return asked(page)


@app.get("/group")
async def in_tasks_of_its_own(personalize: Personalize, customer: Customer):
    found = []

    async def one():
        await turns()
        found.append(asked(await personalize.fetch("home-hero", customer_id=customer)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert found[0] == found[1]
    return found[0]


async def test_a_thousand_interleaved_requests_never_see_each_others_context():
    wrong = []

    async def visit(http, number):
        # Every second visitor is the same customer elsewhere, so that only the situation tells them apart.
        name = f"customer-{number // 2}"
        agent, address = f"Agent/{number}", f"203.0.113.{number % 250}"
        path = ("/async", "/def", "/page", "/group")[number % 4]
        await turns()
        answer = await http.get(
            f"{path}?utm_id={number}",
            headers={"X-Customer": name, "User-Agent": agent, "X-Forwarded-For": f"8.8.8.8, {address}"},
        )
        said = {"USER_AGENT": agent, "USER_IP_ADDRESS": address, "utm_id": str(number), "customer_id": name}
        if answer.json() != said:
            wrong.append((number, answer.json()))

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop", timeout=None) as http,
    ):
        async with anyio.create_task_group() as tasks:
            for number in range(REQUESTS):
                tasks.start_soon(visit, http, number)
        stats = app.state.personalize.stats()
    assert wrong == []
    assert stats.fetch_requests >= REQUESTS, "nor is an answer of theirs shared"
    assert current_request.get() is None
