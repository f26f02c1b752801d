"""What the request that is being served says of its visitor, sent along by `fetch` without being passed.

Theory: whoever serves requests sets `current_request` (`moengage_personalize.starlette` does, and anybody may); the
client reads it, and knows no framework. It follows the request's tasks and worker threads, as every ContextVar does.
The SDK's own background runs in empty contexts, and never sees it.

Invariant: a `RequestContext` that exists can be sent. Making it is what raises, never a fetch that happens within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import attrs

from ._session import InSession
from .core.wire import encode_context_of_fetch, fetch_fields


@attrs.frozen(kw_only=True, repr=False)
class RequestContext:
    """The visitor's situation, as their request shows it.

    Args:
        session: Address and user agent, as far as they are known.
        attributes: Custom in-session attributes, by the names of the dashboard's query parameters.

    Raises:
        InvalidInputError: Something of it cannot be sent.
    """

    session: InSession = attrs.field(factory=InSession)
    attributes: Mapping[str, str | float | bool] = attrs.field(factory=dict)
    fields: Mapping[str, Any] = attrs.field(init=False, eq=False)
    """The same as members of a fetch's body. Not part of the public API."""

    @fields.default
    def _sendable(self) -> dict[str, Any]:
        fields = fetch_fields(
            customer_id=None,
            user_identifiers=None,
            session=self.session,
            attributes=self.attributes,
            identity="both",  # of nobody: it is the same in all three
        )
        encode_context_of_fetch(fields)
        return fields

    def __repr__(self) -> str:
        return f"RequestContext({self.session!r}, {len(self.attributes)} attributes)"


current_request: ContextVar[RequestContext | None] = ContextVar("moengage_personalize.current_request", default=None)
