"""The nouns of fetching: a question, the caller's ticket for it, and how callers were answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ._ambient import current_request
from ._config import Identity
from ._door import warn_if_reserved
from ._errors import DeadlineExceededError, InvalidInputError, PersonalizeError
from ._experiences import Experience, Reason
from ._session import InSession, check_customer_id, check_user_identifiers
from .core.flights import Flight, Key, Ticket
from .core.wire import fetch_context

EVERYTHING: tuple[Key, ...] = (None,)
Entries = Mapping[str, Experience]


@attrs.frozen(repr=False, eq=False)
class Question:
    """What is asked, and nothing of it in a repr.

    Attributes:
        keys: The experience keys; None asks for everything.
        fields: The rest of the body, encoded: identity, in-session attributes. Equal bytes are the same situation.
        customer_id: Whose.
    """

    keys: tuple[str, ...] | None
    fields: bytes
    customer_id: str | None = None


def question_of(
    keys: tuple[str, ...] | None,
    customer_id: str | None,
    user_identifiers: Mapping[str, str] | None,
    *,
    session: InSession | None,
    attributes: Mapping[str, Any] | None,
    ambient: bool,
    identity: Identity,
) -> Question:
    """Returns what is asked with these arguments of `AsyncPersonalizeClient.fetch`.

    Raises:
        InvalidInputError: One of them cannot be sent.
    """
    if customer_id is not None:
        warn_if_reserved(check_customer_id(customer_id))
    if session is not None and not isinstance(session, InSession):
        raise InvalidInputError("session must be an InSession")
    request = current_request.get() if ambient else None
    fields = fetch_context(
        customer_id=customer_id,
        user_identifiers=None if user_identifiers is None else check_user_identifiers(user_identifiers),
        session=session,
        attributes=attributes,
        identity=identity,
        below=None if request is None else request.fields,
    )
    return Question(keys, fields, customer_id)


@attrs.frozen(eq=False)
class Trouble:
    """Why there are no entries."""

    reason: Reason
    error: PersonalizeError


class Asking:
    """One call on its way: what was answered at once, and the ticket for the rest."""

    __slots__ = ("context", "found", "keys", "refused", "ticket")

    def __init__(self, keys: Sequence[Key], context: bytes, ticket: Ticket) -> None:
        self.keys = keys
        self.context = context
        self.ticket = ticket
        self.found: dict[str, Experience] = {}
        self.refused: dict[Key, Trouble] = {}


@attrs.define(eq=False)
class Counts:
    """How calls were answered. Each is counted once: `fetches == sent + merged + joined + cached + refused`."""

    sent: int = 0
    merged: int = 0
    joined: int = 0
    cached: int = 0
    refused: int = 0
    stale: int = 0
    late: int = 0


def too_late(flight: Flight) -> Trouble:
    """Returns what a flight that has not landed is to a caller who leaves."""
    passenger = flight.passenger
    error = DeadlineExceededError("no answer within the deadline", attempts=passenger.attempts)
    error.__cause__ = passenger.setback
    return Trouble(Reason.TIMEOUT, error)


def unmatched(keys: Iterable[str], reason: Reason) -> dict[str, Experience]:
    """Returns an entry for each key that leaves the page to its defaults."""
    return {key: Experience(key=key, reason=reason, source="default") for key in keys}
