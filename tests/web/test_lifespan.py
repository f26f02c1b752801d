"""The client of an application: opened once, found everywhere within, closed with it; missed with a clear word."""

from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from web.mirror import AGENT, asked, browser, mirror, mirrored

from moengage_personalize import Condition, UsageError
from moengage_personalize.starlette import BlockingClient, PersonalizeMiddleware, client_of, lifespan

pytestmark = pytest.mark.anyio


async def page(request):
    return JSONResponse(asked(await client_of(request).fetch("home-hero")))


async def socket(websocket):
    await websocket.accept()
    await websocket.send_json(asked(await client_of(websocket).fetch("home-hero")))
    await websocket.close()


def def_page(request):
    client = BlockingClient(client_of(request))
    experiences = client.fetch("home-hero")
    return JSONResponse(str(client.track_impression(experiences["home-hero"], customer_id="customer-1")))


ROUTES = [Route("/", page), Route("/def", def_page), WebSocketRoute("/socket", socket)]


def make_app(span, routes=ROUTES):
    app = Starlette(routes=routes, lifespan=span)
    app.add_middleware(PersonalizeMiddleware)
    return app


WHO = {"USER_IP_ADDRESS": "203.0.113.7", "USER_AGENT": AGENT}


def start(app):
    """What a server does, for starts that fail: TestClient leaves streams open then, before Starlette 0.42."""

    async def life():
        async with app.router.lifespan_context(app):
            pass

    anyio.run(life)


class TestWithTheLifespan:
    def test_requests_and_web_sockets_find_the_client_and_send_what_they_say(self):
        with browser(make_app(lifespan(mirrored))) as http:
            assert http.get("/?utm_source=mail").json() == {**WHO, "utm_source": "mail"}
            with http.websocket_connect("/socket?utm_source=x") as ws:
                assert ws.receive_json() == {**WHO, "utm_source": "x"}

    def test_a_def_endpoint_has_a_client_that_waits(self):
        moengage = mirror()
        with browser(make_app(lifespan(lambda: mirrored(moengage)))) as http:
            assert http.get("/def").json() == "accepted"
        assert len(moengage.uuids) == 1

    def test_leaving_delivers_and_closes(self):
        moengage = mirror()
        client = mirrored(moengage)
        app = make_app(lifespan(client))
        with browser(app) as http:
            assert app.state.personalize is client
            http.get("/def")
        assert client.last_report.delivered == 1
        assert client.health().condition is Condition.CLOSED
        assert not hasattr(app.state, "personalize")

    def test_an_application_that_starts_again_gets_another_client(self):
        app = make_app(lifespan(mirrored))
        for _ in range(2):
            with browser(app) as http:
                assert http.get("/").json() == WHO

    def test_one_client_serves_one_start(self):
        app = make_app(lifespan(mirrored()))
        with browser(app):
            pass
        with pytest.raises(UsageError, match="make a new one"):
            start(app)

    def test_mounted_applications_find_it(self):
        inner = Starlette(routes=[Mount("/deeper", Starlette(routes=ROUTES))])
        with browser(make_app(lifespan(mirrored), [Mount("/inner", inner)])) as http:
            assert http.get("/inner/deeper/").json() == WHO

    def test_a_middleware_further_inside_has_the_last_word_and_only_there(self):
        inner = Starlette(routes=ROUTES)
        inner.add_middleware(PersonalizeMiddleware, query_parameters=["page"])
        with browser(make_app(lifespan(mirrored), [Mount("/inner", inner), *ROUTES])) as http:
            assert http.get("/inner/?utm_a=1&page=2").json() == {**WHO, "page": "2"}
            assert http.get("/?utm_a=1&page=2").json() == {**WHO, "utm_a": "1"}

    def test_another_lifespan_goes_within_and_has_the_client(self):
        said = []

        @asynccontextmanager
        async def own(app):
            async with lifespan(mirrored)(app) as state:
                said.append(asked(await app.state.personalize.fetch("home-hero")))
                yield {**state, "database": "mine"}
                said.append(app.state.personalize.health().condition)

        async def both(request):
            return JSONResponse([request.state.database, asked(await client_of(request).fetch("home-hero"))])

        with browser(make_app(own, [Route("/", both)])) as http:
            assert http.get("/").json() == ["mine", WHO]
        assert said == [{}, Condition.HEALTHY]

    def test_nested_in_itself_it_opens_one_client(self):
        made = []

        def make():
            made.append(mirrored())
            return made[-1]

        @asynccontextmanager
        async def twice(app):
            async with lifespan(make)(app), lifespan(make)(app) as state:
                yield state

        with browser(make_app(twice)) as http:
            assert http.get("/").json() == WHO
        assert [client.last_report.balanced for client in made] == [True]

    def test_a_client_that_a_test_put_there_is_used_and_not_closed(self):
        app = make_app(lifespan(lambda: pytest.fail("not needed")))
        app.state.personalize = client = mirrored()
        with browser(app) as http:
            http.portal.call(client.__aenter__)
            assert http.get("/").json() == WHO
            http.portal.call(client.aclose)
        assert app.state.personalize is client

    def test_an_application_does_not_start_with_a_client_that_cannot_be_made(self):
        app = make_app(lifespan(lambda: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            start(app)
        assert not hasattr(app.state, "personalize")

    def test_what_a_lifespan_around_it_raises_arrives_unwrapped_and_the_client_is_closed(self):
        client = mirrored()

        @asynccontextmanager
        async def own(app):
            async with lifespan(client)(app) as state:
                yield state
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            start(make_app(own))
        assert client.last_report is not None

    @pytest.mark.real_loops
    async def test_without_a_server_its_state_is_found_at_the_application(self):
        app = make_app(lifespan(mirrored))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http,
        ):
            assert (await http.get("/", headers={"User-Agent": AGENT})).json() == {"USER_AGENT": AGENT}


class TestWithoutTheLifespan:
    def test_a_request_says_what_to_do(self):
        with pytest.raises(UsageError, match=r"lifespan=lifespan\(AsyncPersonalizeClient\).*with TestClient"):
            browser(make_app(lifespan(mirrored))).get("/")

    def test_after_it_the_client_says_that_it_is_closed(self):
        app = make_app(lifespan(mirrored))
        with browser(app) as http:
            http.get("/")
        with pytest.raises(UsageError, match="the client is closed"):
            http.get("/")

    def test_that_of_a_mounted_application_does_not_run(self):
        inner = make_app(lifespan(mirrored))
        with browser(Starlette(routes=[Mount("/inner", inner)])) as http:
            with pytest.raises(UsageError, match="those of mounted ones do not run"):
                http.get("/inner/")
