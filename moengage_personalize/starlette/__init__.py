"""For Starlette, and whatever else speaks ASGI.

::

    app = Starlette(routes=…, lifespan=lifespan(AsyncPersonalizeClient))
    app.add_middleware(PersonalizeMiddleware)

`lifespan` opens the client when the application starts and closes it when it ends; `client_of(request)` is that client.
`PersonalizeMiddleware` says of each request what `fetch` sends along: address, user agent, `utm_*`. `BlockingClient` is
for `def` endpoints. Only what has types of Starlette's in its signature needs Starlette, and only for the types.
"""

from ._lifespan import BlockingClient, client_of, lifespan
from ._middleware import PersonalizeMiddleware

__all__ = ["BlockingClient", "PersonalizeMiddleware", "client_of", "lifespan"]
