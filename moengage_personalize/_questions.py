"""The nouns of fetching: a question, the caller's ticket for it, and how callers were answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from ._errors import DeadlineExceededError, PersonalizeError
from ._experiences import Experience, Reason
from .core.flights import Flight, Key, Ticket

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
