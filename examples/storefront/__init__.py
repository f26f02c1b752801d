"""A small shop whose pages are personalised: `uvicorn --app-dir examples --factory storefront:create_app`.

Each page has several slots, all of them asked for in one `fetch`. What is shown is reported while the page is rendered;
links lead through `/go`, which reports the click (`visits.py` says how it is kept genuine).

Configured by the environment, as any client: `MOENGAGE_WORKSPACE_ID` and the like. Beyond that `STOREFRONT_SECRET`
signs cookies and links, and `STOREFRONT_REPORT` names a file in which the shop leaves, when it stops, what became of
its events.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import attrs
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from itsdangerous import URLSafeTimedSerializer
from starlette.middleware.sessions import SessionMiddleware

from moengage_personalize import AsyncPersonalizeClient

from .shop import PRODUCTS
from .visits import Visit

HERE = Path(__file__).parent
PERSONAS = {
    "john": "john@example.com",
    "asha": "asha@example.com",
}  # whom the emulator knows; no password, it is a demo
templates = Jinja2Templates(HERE / "templates")


def create_app(open_client: Callable[[], AsyncPersonalizeClient] = AsyncPersonalizeClient) -> FastAPI:
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
            _write_report(report, app.state.personalize, app.state.accepted)

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


async def _page(request: Request, visit: Visit, name: str, *keys: str, **more: Any) -> Response:
    slots = await visit.slots(keys)
    shown = {"slots": slots, "products": PRODUCTS, "cart": request.session.get("cart", []), "visit": visit, **more}
    who = next((persona for persona, customer_id in PERSONAS.items() if customer_id == visit.visitor), "stranger")
    response = templates.TemplateResponse(request, f"{name}.html", {**shown, "who": who})
    response.headers["Server-Timing"] = f"personalize;dur={visit.seconds * 1000:.3f}"
    return response


def _add_pages(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse)
    async def home(request: Request, visit: Visiting) -> Response:
        return await _page(request, visit, "home", "home-hero", "home-offers", "recommendations", "evening-banner")

    @app.get("/offers", response_class=HTMLResponse)
    async def offers(request: Request, visit: Visiting) -> Response:
        return await _page(request, visit, "offers", "home-offers", "recommendations", "evening-banner")

    @app.get("/product/{key}", response_class=HTMLResponse)
    async def product(request: Request, visit: Visiting, key: str) -> Response:
        if key not in PRODUCTS:
            return RedirectResponse("/", status_code=303)
        return await _page(
            request, visit, "product", "recommendations", "home-offers", "evening-banner", product=PRODUCTS[key]
        )

    @app.get("/cart", response_class=HTMLResponse)
    async def cart(request: Request, visit: Visiting) -> Response:
        return await _page(request, visit, "cart", "cart-upsell", "recommendations", "evening-banner")


def _add_actions(app: FastAPI) -> None:
    @app.get("/go")
    async def go(visit: Visiting, t: str = "") -> Response:
        return RedirectResponse(visit.follow(t), status_code=303)

    @app.post("/cart/{key}")
    async def add(request: Request, key: str) -> Response:
        if key in PRODUCTS:
            request.session["cart"] = [*request.session.get("cart", []), key][-20:]
        return RedirectResponse("/cart", status_code=303)

    @app.post("/as/{who}")
    async def become(request: Request, who: str) -> Response:
        request.session.clear()
        if who in PERSONAS:
            request.session["visitor"] = PERSONAS[who]
        return RedirectResponse("/", status_code=303)

    @app.get("/healthz")
    async def healthz(request: Request) -> dict[str, str]:
        health = request.app.state.personalize.health()
        return {"condition": health.condition, "detail": health.detail}


def _write_report(path: str, client: AsyncPersonalizeClient, accepted: list[str]) -> None:
    report = {"stats": attrs.asdict(client.stats()), "accepted": accepted}
    Path(path).write_text(json.dumps(report), encoding="utf-8")
