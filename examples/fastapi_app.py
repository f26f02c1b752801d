"""A personalised page in twenty lines: uvicorn --app-dir examples fastapi_app:app."""

import os
import secrets
from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from moengage_personalize import AsyncPersonalizeClient, Experiences
from moengage_personalize.fastapi import Personalize, PersonalizeMiddleware, experiences, lifespan

app = FastAPI(lifespan=lifespan(AsyncPersonalizeClient))  # opened at the start; delivers what is waiting at the end
app.add_middleware(PersonalizeMiddleware)  # each fetch says where the visitor is, with what browser, and utm_*
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_hex())


async def visitor(request: Request) -> str:
    return str(request.session.setdefault("visitor", secrets.token_hex()))


Visitor = Annotated[str, Depends(visitor)]
Page = Annotated[Experiences, experiences("home-hero", customer=visitor, deadline=0.4)]  # 0.4 s, then its own defaults


@app.get("/", response_class=HTMLResponse)
async def home(request: Request, page: Page, visitor: Visitor, personalize: Personalize) -> str:
    hero = page["home-hero"]
    personalize.track_impression(hero, customer_id=visitor)  # returns at once; of a default nothing is reported
    request.session["hero"] = hero.context  # comes back in a signed cookie
    return f'<h1>{escape(hero.get("Title", default="Welcome"))}</h1><a href="/collection">See the collection</a>'


@app.get("/collection")
async def collection(request: Request, visitor: Visitor, personalize: Personalize) -> RedirectResponse:
    if context := request.session.get("hero"):
        personalize.track_click(context, customer_id=visitor, b_id="cta")
    return RedirectResponse("/")
