"""The client of an application: opened when it starts, closed when it ends, found wherever a request is served.

Theory: a client belongs to one event loop and is opened once, so an application makes one each time it starts, in each
worker. It is not started by the first request that wants it: nobody would close it, and what it accepted would be lost.

Invariant: `client_of` returns an open client, or says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from anyio import from_thread

from moengage_personalize import AsyncPersonalizeClient, UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

P = ParamSpec("P")
R = TypeVar("R")

NAME = "personalize"  # of the client, in the state of application and request


def lifespan(
    client: AsyncPersonalizeClient | Callable[[], AsyncPersonalizeClient],
) -> Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Returns a lifespan for `Starlette(lifespan=…)` or `FastAPI(lifespan=…)`.

    While it is open, the client is `app.state.personalize`, and `request.state.personalize` in this application and
    those mounted within. If the application has one there already, because a lifespan around this one opened it or a
    test put it there, that one is used and not closed.

    Args:
        client: What makes a client, such as `AsyncPersonalizeClient` itself; or one, for an application that starts
            once.
    """

    @asynccontextmanager
    async def opened(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        if (present := getattr(app.state, NAME, None)) is not None:
            yield {NAME: present}
            return
        made = client if isinstance(client, AsyncPersonalizeClient) else client()
        setattr(app.state, NAME, made)
        try:
            async with made:
                yield {NAME: made}
        finally:
            delattr(app.state, NAME)

    return opened


def client_of(connection: HTTPConnection) -> AsyncPersonalizeClient:
    """Returns the client of the application that serves a request or a WebSocket.

    Raises:
        UsageError: There is none, because the application's lifespan did not run.
    """
    state = connection.scope.get("state") or {}
    client = state.get(NAME) or getattr(getattr(connection.scope.get("app"), "state", None), NAME, None)
    if client is None:
        raise UsageError(
            "there is no Personalize client here, because no lifespan has opened one. Give the outermost application"
            " lifespan=lifespan(AsyncPersonalizeClient), from moengage_personalize.starlette: those of mounted ones do"
            " not run. In a test, `with TestClient(app)` runs it, and without `with` nothing does; with httpx's"
            " ASGITransport, `async with app.router.lifespan_context(app)`"
        )
    return cast("AsyncPersonalizeClient", client)


class BlockingClient:
    """The client for `def` endpoints, which are run in a thread: the event loop does it, and the thread waits.

    Only for the threads of Starlette, FastAPI and anyio; in the event loop's own, every call is a `UsageError`.

    Args:
        client: The client of the application.
    """

    def __init__(self, client: AsyncPersonalizeClient) -> None:
        self.fetch = _awaited(client.fetch)
        self.fetch_all = _awaited(client.fetch_all)
        self.track = _called(client.track)
        self.track_impression = _called(client.track_impression)
        self.track_click = _called(client.track_click)


def _awaited(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_thread()
        return from_thread.run(partial(function, *args, **kwargs))

    return call


def _called(function: Callable[P, R]) -> Callable[P, R]:
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_thread()
        return from_thread.run_sync(partial(function, *args, **kwargs))

    return call


def _check_thread() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "BlockingPersonalize and BlockingClient are for `def` endpoints: here they would stop the event loop that they"
        " wait for. In `async def`, take Personalize, or client_of(request), and await it"
    )
