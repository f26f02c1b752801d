"""A small shop whose pages are personalised: `uvicorn --app-dir examples --factory storefront:create_app`.

A page has several slots, each a component that fetches its own experience (`slots.py`); all of a page's components
travel in one request. What was rendered is reported as shown; links lead through `/go`, which reports the click
(`visits.py` says how it is kept genuine). Beside the page a bar says which variation this visitor got, why, and from
where, and lets them be somebody else, come from elsewhere, or at another hour.

Configured by the environment, as any client: `MOENGAGE_WORKSPACE_ID` and the like. Beyond that `STOREFRONT_SECRET`
signs cookies and links, and `STOREFRONT_REPORT` names a file in which the shop leaves, when it stops, what became of
its events.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from itsdangerous import URLSafeTimedSerializer
from starlette.middleware.sessions import SessionMiddleware

from moengage_personalize import AsyncPersonalizeClient, CachePolicy

from .shop import PRODUCTS, THINGS
from .slots import banner, hero, offers, recommendations, upsell
from .visits import Slot, Visit

HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")
Component = Callable[[Visit], Awaitable[Slot[Any]]]
Day = Literal["", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def open_client() -> AsyncPersonalizeClient:
    """The one client of the process. A real shop adds `stale_if_error=3600`; this one wants an outage to be seen."""
    return AsyncPersonalizeClient(caching=CachePolicy(ttl=5))


def create_app(open_client: Callable[[], AsyncPersonalizeClient] = open_client) -> FastAPI:
    """Makes the application.

    Args:
        open_client: Makes its client; by default one that the environment configures.
    """
    secret = os.environ.get("STOREFRONT_SECRET") or secrets.token_hex()  # by default links live as long as the process
    report = os.environ.get("STOREFRONT_REPORT")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.signer = URLSafeTimedSerializer(secret, salt="click")
        app.state.accepted = [] if report else None
        async with open_client() as app.state.personalize:
            yield
        # Leaving has delivered what was waiting, within the grace period.
        if report:
            _write_account(report, app)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # Signed, so that nobody sees another's experiences by naming them.
    app.add_middleware(SessionMiddleware, secret_key=secret, session_cookie="visitor", same_site="lax")
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _add_pages(app)
    _add_actions(app)
    return app


async def _visit(request: Request) -> Visit:
    state = request.app.state
    return Visit(request, state.personalize, state.signer, state.accepted)


Visiting = Annotated[Visit, Depends(_visit)]


async def _page(request: Request, visit: Visit, name: str, *components: Component, **more: Any) -> Response:
    started = time.perf_counter()
    slots = await asyncio.gather(*(component(visit) for component in components))  # in one turn, so in one request
    waited = (time.perf_counter() - started) * 1000
    by_key = {slot.experience.key: slot for slot in slots}
    client: AsyncPersonalizeClient = request.app.state.personalize
    facts = {"visit": visit, "waited": waited, "stats": client.stats(), "health": client.health()}
    response = templates.TemplateResponse(request, f"{name}.html", {"slots": by_key, "things": THINGS, **facts, **more})
    for slot in slots:
        visit.shown(slot)  # after it was rendered: what failed to render was not shown
    response.headers["Server-Timing"] = f"personalize;dur={waited:.3f}"
    return response


def _add_pages(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse)
    async def home(request: Request, visit: Visiting) -> Response:
        return await _page(request, visit, "home", hero, offers, recommendations, banner)

    @app.get("/offers", response_class=HTMLResponse)
    async def offers_page(request: Request, visit: Visiting) -> Response:
        return await _page(request, visit, "offers", offers, recommendations, banner)

    @app.get("/product/{key}", response_class=HTMLResponse)
    async def product(request: Request, visit: Visiting, key: str) -> Response:
        if key not in PRODUCTS:
            return RedirectResponse("/", status_code=303)
        return await _page(request, visit, "product", recommendations, offers, banner, product=PRODUCTS[key])

    @app.get("/cart", response_class=HTMLResponse)
    async def cart(request: Request, visit: Visiting) -> Response:
        bought = [THINGS[key] for key in visit.cart]
        extra = [upsell] if bought else []
        return await _page(request, visit, "cart", *extra, recommendations, banner, bought=bought)


def _add_actions(app: FastAPI) -> None:
    @app.get("/go")
    async def go(visit: Visiting, t: str = "") -> Response:
        return RedirectResponse(visit.clicked(t), status_code=303)

    @app.post("/cart/{key}")
    async def add(visit: Visiting, key: str, t: Annotated[str, Form()] = "") -> Response:
        if key in THINGS:
            visit.memory["cart"] = [*visit.cart, key][-12:]
        if t:  # it was put there by a slot
            visit.clicked(t)
        return RedirectResponse("/cart", status_code=303)

    @app.post("/look")
    async def look(
        request: Request,
        who: Annotated[Literal["", "new", "nobody", "john", "asha"], Form()] = "",
        campaign: Annotated[Literal["", "none", "email", "social"], Form()] = "",
        day: Annotated[Day, Form()] = "",
        hour: Annotated[str, Form(pattern="^([01][0-9]|2[0-3])?$")] = "",
    ) -> Response:
        """For the bar: be somebody else, come from elsewhere, at another time."""
        memory = request.session
        if who:  # another person: another id, another cart
            memory.pop("visitor", None)
            memory.pop("cart", None)
            memory["who"] = who
        if campaign:
            memory["campaign"] = {} if campaign == "none" else {"utm_medium": campaign}
        memory.update(day=day, hour=hour)
        return RedirectResponse("/", status_code=303)

    @app.get("/healthz")
    async def healthz(request: Request) -> dict[str, str]:
        health = request.app.state.personalize.health()
        return {"condition": health.condition, "detail": health.detail}

    @app.get("/account")
    async def account(request: Request) -> dict[str, Any]:
        """What became of the events so far. For whoever checks the demo; a real shop keeps it to itself."""
        return _account(request.app)


def _write_account(path: str, app: FastAPI) -> None:
    Path(path).write_text(json.dumps(_account(app)), encoding="utf-8")


def _account(app: FastAPI) -> dict[str, Any]:
    return {"stats": attrs.asdict(app.state.personalize.stats()), "accepted": app.state.accepted}
