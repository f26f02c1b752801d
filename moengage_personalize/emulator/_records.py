"""What a ledger is made of: one request, one event, one duplicate, and the totals."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import attrs

Endpoint = Literal["fetch", "events", "metadata", "other"]


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One request as it was answered."""

    number: int
    at: float
    endpoint: Endpoint
    status: int
    request_bytes: int = 0
    customer_id: str | None = None
    identity: str | None = None
    asked: tuple[str, ...] = ()
    served: tuple[tuple[str, str, str, str], ...] = ()
    """(key, experience name, audience name, variation id) of each experience in the answer."""
    unserved: tuple[tuple[str, str], ...] = ()
    """(key, reason) of each experience that is absent from the answer."""
    elements: int = 0
    actions: int = 0
    duplicates: int = 0
    error: str | None = None
    notes: tuple[str, ...] = ()
    trouble: str | None = None


@attrs.frozen(kw_only=True)
class EventRecord:
    """One action as it was received: `raw` is its exact text, and all that is kept of it."""

    number: int
    at: float
    request: int
    uuid: str
    customer_id: str
    raw: str
    user_attributes: Mapping[str, Any] | None = None
    user_timezone_offset: int | None = None

    @property
    def action(self) -> dict[str, Any]:
        """What the text says."""
        action: dict[str, Any] = json.loads(self.raw)
        return action


@attrs.frozen
class Duplicate:
    """The same `moe_event_uuid` again: `identical` if customer and text are those of the first time."""

    event: EventRecord
    identical: bool


@attrs.frozen
class Batch:
    """One accepted events request, as its sender had coalesced it."""

    request: int
    at: float
    elements: tuple[tuple[int, int], ...]
    """Impressions and clicks of each customer."""


@attrs.define(kw_only=True)
class Counts:
    """Totals since the start or the last reset."""

    requests: int = 0
    fetch_requests: int = 0
    event_requests: int = 0
    metadata_requests: int = 0
    other_requests: int = 0
    keys_asked: int = 0
    experiences_served: int = 0
    anonymous_fetches: int = 0
    wrong_identity_forms: int = 0
    elements: int = 0
    received: int = 0
    accepted: int = 0
    impressions: int = 0
    clicks: int = 0
    duplicates_identical: int = 0
    duplicates_different: int = 0
    profiles_created: int = 0
    troubles: int = 0
    connections_opened: int = 0
    connections_open: int = 0
    streams_reset: int = 0
    by_status: Counter[str] = attrs.field(factory=Counter)
    """How many requests ended how: `"fetch 200"`, `"events 400"`, ..."""


@attrs.define
class Tally:
    """How one variation fares."""

    served: int = 0
    impressions: int = 0
    clicks: int = 0


@attrs.define
class Second:
    """What one second of the clock brought."""

    at: int
    fetches: int = 0
    event_requests: int = 0
    accepted: int = 0
    duplicates: int = 0
    failed: int = 0
