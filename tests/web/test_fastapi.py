"""The dependencies: what an endpoint gets, in the loop and in a thread, and that nobody else sees them."""

import asyncio
from contextlib import nullcontext
from typing import Annotated

import anyio.from_thread
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket
from web.mirror import AGENT, asked, browser, mirror, mirrored

from moengage_personalize import AsyncPersonalizeClient, Experiences, InvalidInputError, UsageError
from moengage_personalize.fastapi import (
    BlockingPersonalize,
    CurrentInSession,
    Personalize,
    PersonalizeMiddleware,
    experiences,
    lifespan,
    personalize_client,
)
from moengage_personalize.testing import FakePersonalize

WHO = {"USER_IP_ADDRESS": "203.0.113.7", "USER_AGENT": AGENT}


async def visitor(x_visitor: Annotated[str | None, Header()] = None) -> str | None:
    return x_visitor


def visitor_from_a_database(x_visitor: Annotated[str, Header()]) -> str:
    return x_visitor


Visitor = Annotated[str | None, Depends(visitor)]
Page = Annotated[Experiences, experiences("home-hero", "home-offers", customer=visitor, deadline=5)]
AnonymousPage = Annotated[Experiences, experiences("home-hero")]
router = APIRouter()


@router.get("/client")
async def with_a_client(personalize: Personalize) -> dict[str, str]:
    found: dict[str, str] = asked(await personalize.fetch("home-hero"))
    return found


@router.get("/page")
async def with_a_page(page: Page, visitor: Visitor, personalize: Personalize) -> list[str]:
    return [str(personalize.track_impression(shown, customer_id=visitor or "nobody")) for shown in page.values()]


@router.get("/what")
async def what_was_asked(page: Page) -> dict[str, str]:
    return asked(page)


@router.get("/anonymous")
async def anonymous(page: AnonymousPage) -> dict[str, str]:
    return asked(page)


@router.get("/def-page")
def def_page(
    page: Annotated[Experiences, experiences("home-hero", customer=visitor_from_a_database)],
    personalize: BlockingPersonalize,
) -> list[str]:
    hero, again = page["home-hero"], personalize.fetch("home-hero")["home-hero"]
    personalize.fetch_all()
    return [
        str(personalize.track_impression(hero, customer_id="customer-1")),
        str(personalize.track_click(again, customer_id="customer-1", b_id="cta")),
    ]


@router.get("/def-wrong")
def def_wrong(page: AnonymousPage, personalize: Personalize) -> str:
    return str(personalize.track_impression(page["home-hero"], customer_id="customer-1"))


@router.get("/async-fetch")
async def async_fetch(personalize: BlockingPersonalize) -> dict[str, str]:
    found: dict[str, str] = asked(personalize.fetch("home-hero"))
    return found


@router.get("/async-track")
async def async_track(personalize: BlockingPersonalize) -> str:
    return str(personalize.track_impression({}, customer_id="customer-1"))


@router.get("/def-loop")
def def_loop(personalize: Personalize) -> dict[str, str]:
    return asked(asyncio.run(personalize.fetch("home-hero")))


@router.get("/def-by-hand")
def def_by_hand(personalize: Personalize) -> dict[str, str]:
    found: dict[str, str] = asked(anyio.from_thread.run(personalize.fetch, "home-hero"))
    return found


@router.get("/session")
async def session(session: CurrentInSession) -> list[str | None]:
    return [session.ip_address, session.user_agent]


@router.websocket("/socket")
async def socket(websocket: WebSocket, page: AnonymousPage) -> None:
    await websocket.accept()
    await websocket.send_json(asked(page))
    await websocket.close()


def make_app(make=mirrored, **options):
    app = FastAPI(lifespan=lifespan(make), **options)
    app.add_middleware(PersonalizeMiddleware)
    app.include_router(router)
    return app


@pytest.fixture
def http():
    with browser(make_app()) as opened:
        yield opened


class TestAnEndpoint:
    def test_gets_the_client(self, http):
        assert http.get("/client?utm_source=mail").json() == {**WHO, "utm_source": "mail"}

    def test_gets_a_page_in_one_request(self):
        moengage = mirror()
        with browser(make_app(lambda: mirrored(moengage)), **{"X-Visitor": "customer-1"}) as http:
            assert http.get("/page").json() == ["accepted", "accepted"]
        assert moengage.count("fetch") == 1
        assert set(moengage.by_customer()) == {"customer-1"}

    def test_asks_for_the_customer_that_the_dependency_returns(self, http):
        assert http.get("/what", headers={"X-Visitor": "customer-1"}).json() == {**WHO, "customer_id": "customer-1"}
        assert http.get("/what").json() == WHO
        assert http.get("/what", headers={"X-Visitor": ""}).json() == WHO
        assert http.get("/anonymous", headers={"X-Visitor": "customer-1"}).json() == WHO

    def test_gets_the_situation_to_hand_it_on(self, http):
        assert http.get("/session").json() == ["203.0.113.7", AGENT]

    def test_of_a_web_socket_gets_a_page(self, http):
        with http.websocket_connect("/socket?utm_a=1") as ws:
            assert ws.receive_json() == {**WHO, "utm_a": "1"}

    def test_without_the_middleware_gets_an_empty_situation(self):
        app = FastAPI(lifespan=lifespan(mirrored))
        app.include_router(router)
        with browser(app) as http:
            assert http.get("/session").json() == [None, None]
            assert http.get("/client").json() == {}


class TestADefEndpoint:
    def test_has_a_page_and_a_client_that_waits(self):
        moengage = mirror()
        with browser(make_app(lambda: mirrored(moengage))) as http:
            assert http.get("/def-page", headers={"X-Visitor": "customer-1"}).json() == ["accepted", "accepted"]
        assert len(moengage.uuids) == 2

    def test_is_told_what_to_do_by_the_client_itself(self, http):
        with pytest.raises(UsageError, match=r"anyio\.from_thread\.run_sync\(partial\(client\.track_impression"):
            http.get("/def-wrong")

    def test_that_makes_a_loop_of_its_own_is_told_too(self, http):
        with pytest.raises(UsageError, match=r"anyio\.from_thread\.run\(client\.fetch"):
            http.get("/def-loop")

    @pytest.mark.parametrize("path", ["/async-fetch", "/async-track"])
    def test_its_client_says_what_to_take_in_an_async_def(self, http, path):
        with pytest.raises(UsageError, match=r"are for `def` endpoints: .* In `async def`, take Personalize"):
            http.get(path)

    def test_keeps_its_request_where_it_calls_the_loop(self, http):
        assert http.get("/def-by-hand?utm_a=1").json() == {**WHO, "utm_a": "1"}


def test_no_dependency_shows_in_openapi(http):
    paths = http.get("/openapi.json").json()["paths"]
    shown = {path: [each["name"] for each in spec["get"].get("parameters", [])] for path, spec in paths.items()}
    visitors = {"/page", "/what", "/def-page"}
    assert shown == {path: ["x-visitor"] if path in visitors else [] for path in shown}
    assert len(shown) == 11
    assert not any("requestBody" in spec["get"] for spec in paths.values())


def test_a_page_without_keys_is_refused_where_it_is_declared():
    with pytest.raises(InvalidInputError, match="at least one"):
        experiences()


class TestInATest:
    def test_without_a_lifespan_a_request_says_what_to_do(self):
        with pytest.raises(UsageError, match="with TestClient"):
            browser(make_app()).get("/client")

    def test_an_override_needs_no_lifespan_and_no_network(self):
        async def offline():
            async with AsyncPersonalizeClient(enabled=False) as client:
                yield client

        app = make_app()
        app.dependency_overrides[personalize_client] = offline
        http = browser(app)
        assert http.get("/page").json() == ["disabled", "disabled"]
        assert http.get("/page").json() == ["disabled", "disabled"]

    @pytest.mark.parametrize("started", [True, False])
    def test_a_fake_is_open_with_the_lifespan_and_without(self, started):
        app = make_app()
        with FakePersonalize() as fake:
            fake.serve("home-hero", {"Title": "Hello"})
            app.state.personalize = fake.client
            http = browser(app, **{"X-Visitor": "customer-1"})
            with http if started else nullcontext():
                assert http.get("/page").json() == ["accepted", "unmatched"]
                assert http.get("/def-page?utm_a=1").status_code == 200
            assert fake.asked[-1].attributes["utm_a"] == "1"
            assert len(fake.shown("home-hero", customer_id="customer-1")) == 2

    def test_disabled_by_the_environment_the_lifespan_needs_no_credentials(self, monkeypatch):
        monkeypatch.setenv("MOENGAGE_PERSONALIZE_DISABLED", "1")
        with browser(make_app(AsyncPersonalizeClient)) as http:
            assert http.get("/page").json() == ["disabled", "disabled"]


class TestNested:
    def test_a_router_with_the_same_lifespan_shares_the_client(self):
        made = []

        def make():
            made.append(mirrored())
            return made[-1]

        own = APIRouter(lifespan=lifespan(make))
        own.include_router(router, prefix="/own")
        app = make_app(make)
        app.include_router(own)
        with browser(app) as http:
            assert http.get("/own/client").json() == WHO
        assert len(made) == 1

    def test_a_mounted_application_uses_the_outer_client(self):
        inner = FastAPI()
        inner.include_router(router)
        app = make_app()
        app.mount("/inner", inner)
        with browser(app) as http:
            assert http.get("/inner/client").json() == WHO


@pytest.mark.parametrize("keys", [(["home-hero"],), ("home-hero", ""), ("k" * 51,), (None,)])
def test_a_page_of_keys_that_cannot_be_is_refused_before_the_first_visitor(keys):
    with pytest.raises(InvalidInputError, match="takes keys one by one, each text of 1 to 50 characters"):
        experiences(*keys)


def test_a_customer_who_is_no_dependency_is_refused_before_the_first_visitor():
    with pytest.raises(InvalidInputError, match="^customer must be a dependency: a function that returns the customer"):
        experiences("home-hero", customer="john")
