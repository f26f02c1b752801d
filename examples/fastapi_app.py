"""A personalised page in twenty lines: uvicorn --app-dir examples fastapi_app:app."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from moengage_personalize import AsyncPersonalizeClient, InSession


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncPersonalizeClient() as app.state.personalize:  # MOENGAGE_WORKSPACE_ID and the like say where to
        yield  # on the way out, what is still waiting is delivered


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_hex())


@app.get("/", response_class=HTMLResponse)
async def home(request: Request) -> str:
    visitor = request.session.setdefault("visitor", secrets.token_hex())
    experiences = await request.app.state.personalize.fetch(
        "home-hero",
        customer_id=visitor,
        session=InSession(user_agent=request.headers.get("user-agent") or None),
        deadline=0.4,  # whatever happens, the page waits no longer; then it shows its own defaults
    )
    hero = experiences["home-hero"]
    request.app.state.personalize.track_impression(hero, customer_id=visitor)  # returns at once; unmatched: no event
    request.session["hero"] = hero.context  # comes back in a signed cookie
    return f'<h1>{escape(hero.get("Title", default="Welcome"))}</h1><a href="/collection">See the collection</a>'


@app.get("/collection")
async def collection(request: Request) -> RedirectResponse:
    if context := request.session.get("hero"):
        request.app.state.personalize.track_click(context, customer_id=request.session["visitor"], b_id="cta")
    return RedirectResponse("/")
