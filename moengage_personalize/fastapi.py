"""For FastAPI: what an endpoint needs, as `Annotated` dependencies.

::

    app = FastAPI(lifespan=lifespan(AsyncPersonalizeClient))
    app.add_middleware(PersonalizeMiddleware)

    HomePage = Annotated[Experiences, experiences("home-hero", customer=visitor, deadline=0.4)]

    @app.get("/")
    async def home(page: HomePage, personalize: Personalize) -> …

Invariant: none of them is a parameter of the endpoint's in OpenAPI. They run in the event loop, also for `def`
endpoints, so a page of `experiences` is fetched there and needs no thread.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.requests import HTTPConnection

from moengage_personalize import AsyncPersonalizeClient, Experiences, InSession, InvalidInputError, current_request

from .starlette import BlockingClient, PersonalizeMiddleware, client_of, lifespan

__all__ = [
    "BlockingClient",
    "BlockingPersonalize",
    "CurrentInSession",
    "Personalize",
    "PersonalizeMiddleware",
    "experiences",
    "lifespan",
    "personalize_client",
]


async def personalize_client(connection: HTTPConnection) -> AsyncPersonalizeClient:
    """The application's client. What a test overrides: `app.dependency_overrides[personalize_client] = …`.

    Raises:
        UsageError: The application's lifespan did not run.
    """
    return client_of(connection)


Personalize = Annotated[AsyncPersonalizeClient, Depends(personalize_client)]
"""The client, for `async def` endpoints."""


async def _blocking(client: Personalize) -> BlockingClient:
    return BlockingClient(client)


BlockingPersonalize = Annotated[BlockingClient, Depends(_blocking)]
"""The client, for `def` endpoints."""


async def _in_session() -> InSession:
    request = current_request.get()
    return InSession() if request is None else request.session


CurrentInSession = Annotated[InSession, Depends(_in_session)]
"""Address and user agent of the request, as `PersonalizeMiddleware` found them; to be handed on to a worker, say."""


_LONGEST_KEY: Final = 50  # characters; `fetch` would say so, but only when the first visitor is there


async def _nobody() -> None:
    return None


def experiences(*keys: str, customer: Callable[..., Any] | None = None, deadline: float | None = None) -> Any:
    """Makes a dependency that fetches what a page shows.

    One for all slots of a page: FastAPI solves dependencies one after the other, so two of them would be two requests.

    Args:
        *keys: Experience keys.
        customer: The dependency that returns the customer's id, or None or nothing for an anonymous visitor. Without
            one, all are anonymous.
        deadline: Seconds; None takes the policy's.

    Raises:
        InvalidInputError: There is no key, or one that could not exist; or `customer` is no dependency.
    """
    if not keys:
        raise InvalidInputError("experiences(…) needs at least one experience key")
    if not all(isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY for key in keys):
        raise InvalidInputError(f"experiences(…) takes keys one by one, each text of 1 to {_LONGEST_KEY} characters")
    if customer is not None and not callable(customer):
        raise InvalidInputError("customer must be a dependency: a function that returns the customer's id, or None")

    async def fetch(
        client: Personalize, customer_id: Annotated[str | None, Depends(customer or _nobody)]
    ) -> Experiences:
        return await client.fetch(*keys, customer_id=customer_id or None, deadline=deadline)

    return Depends(fetch)
