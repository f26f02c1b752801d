"""The Starlette and FastAPI parts of the public API, as a type checker sees them: checked, never run."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any, assert_type

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.websockets import WebSocket

from moengage_personalize import (
    Admission,
    AsyncPersonalizeClient,
    Experiences,
    InSession,
    RequestContext,
    current_request,
)
from moengage_personalize.fastapi import (
    BlockingPersonalize,
    CurrentInSession,
    Personalize,
    experiences,
    personalize_client,
)
from moengage_personalize.starlette import BlockingClient, PersonalizeMiddleware, client_of, lifespan


def make_client() -> AsyncPersonalizeClient:
    return AsyncPersonalizeClient(enabled=False)


@asynccontextmanager
async def own(app: FastAPI) -> AsyncGenerator[Mapping[str, Any], None]:
    async with lifespan(make_client)(app) as state:
        yield {**state, "database": None}


async def customer(request: Request) -> str | None:
    return request.cookies.get("customer")


Page = Annotated[Experiences, experiences("home-hero", customer=customer, deadline=0.4)]
app = FastAPI(lifespan=own)
app.add_middleware(
    PersonalizeMiddleware,
    query_parameters=["utm_*"],
    trusted_proxies=("10.0.0.0/8", "unix"),
    forwarded_header="Forwarded",
)
router = APIRouter(lifespan=lifespan(AsyncPersonalizeClient))
plain = Starlette(lifespan=lifespan(make_client()), middleware=[Middleware(PersonalizeMiddleware)])
lifespan(make_client)(plain)
lifespan("client")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.dependency_overrides[personalize_client] = make_client


@app.get("/")
async def home(page: Page, session: CurrentInSession, personalize: Personalize) -> str:
    assert_type(page, Experiences)
    assert_type(session, InSession)
    assert_type(personalize, AsyncPersonalizeClient)
    return page["home-hero"].get("Title", default="Welcome")


@app.get("/def")
def in_a_thread(personalize: BlockingPersonalize, seen: Annotated[None, Depends(customer)]) -> None:
    del seen
    assert_type(personalize, BlockingClient)
    found = personalize.fetch("home-hero", customer_id="john", deadline=0.4)
    assert_type(found, Experiences)
    assert_type(personalize.track_impression(found["home-hero"], customer_id="john"), Admission)
    assert_type(personalize.track_click(found["home-hero"].context, customer_id="john", b_id="cta"), Admission)
    personalize.track_impression(found["home-hero"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    personalize.fetch("home-hero", on_error="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def whoever(request: Request, websocket: WebSocket) -> None:
    client = client_of(request)
    assert_type(client, AsyncPersonalizeClient)
    assert_type(client_of(websocket), AsyncPersonalizeClient)
    assert_type(await client.fetch("home-hero", ambient=False), Experiences)
    assert_type(current_request, ContextVar[RequestContext | None])
    token = current_request.set(RequestContext(session=InSession(user_agent="x"), attributes={"utm_source": "y"}))
    current_request.reset(token)
    RequestContext(InSession())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
