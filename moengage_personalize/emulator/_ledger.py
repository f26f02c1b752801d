"""What reached the emulator: exact counts for ever, and the newest requests and events within bounds.

Theory: a test asks two questions. "Did every event arrive exactly once, unchanged?" needs every event as
it was received, keyed by its UUID; "in how many requests?" needs counts. So counts are never forgotten,
while the lists keep the newest entries and say how many older ones they let go.

Invariant: `received == accepted + duplicates_identical + duplicates_different`, counted in actions of
requests that were answered 200; an accepted UUID is accepted once, as long as `max_uuids` remembers it.
"""

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs

from moengage_personalize.emulator._rules import SHOWN, Element

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
    served: tuple[tuple[str, str, str], ...] = ()
    """(key, audience name, variation id) of each experience in the answer."""
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
    """One action as it was received; `raw` is its exact text."""

    number: int
    at: float
    request: int
    uuid: str
    customer_id: str
    action: Mapping[str, Any]
    raw: str
    user_attributes: Mapping[str, Any] | None = None
    user_timezone_offset: int | None = None


@attrs.frozen
class Duplicate:
    """The same `moe_event_uuid` again: `identical` if customer and text are those of the first time."""

    event: EventRecord
    identical: bool


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


class Ledger:
    """Counts, requests, events and duplicates; bounded.

    Args:
        max_requests: How many requests are kept.
        max_events: How many accepted events are kept, and how many duplicates.
        max_uuids: How many UUIDs are remembered, to refuse them a second time.
    """

    def __init__(self, *, max_requests: int = 50_000, max_events: int = 200_000, max_uuids: int = 1_000_000) -> None:
        self._max_requests = max_requests
        self._max_events = max_events
        self._max_uuids = max_uuids
        self.counts = Counts()
        self._forget()

    def _forget(self) -> None:
        self.requests: deque[RequestRecord] = deque(maxlen=self._max_requests)
        self.events: deque[EventRecord] = deque(maxlen=self._max_events)
        self.duplicates: deque[Duplicate] = deque(maxlen=self._max_events)
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        """By (experience name, audience name, variation id)."""
        self._seen: dict[str, int] = {}

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"<Ledger {counts.requests} requests, {counts.accepted} events accepted, "
            f"{counts.duplicates_identical}+{counts.duplicates_different} duplicates>"
        )

    def reset(self) -> None:
        """Forgets everything but the connections that are open."""
        self.counts = Counts(connections_open=self.counts.connections_open)
        self._forget()

    @property
    def next_request(self) -> int:
        """The number that the next request gets; the first is 1."""
        return self.counts.requests + 1

    def record_request(self, record: RequestRecord) -> None:
        """Enters one answered request."""
        counts = self.counts
        counts.requests += 1
        match record.endpoint:
            case "fetch":
                counts.fetch_requests += 1
            case "events":
                counts.event_requests += 1
            case "metadata":
                counts.metadata_requests += 1
            case "other":
                counts.other_requests += 1
        counts.by_status[f"{record.endpoint} {record.status}"] += 1
        counts.troubles += record.trouble is not None
        self.requests.append(record)

    def record_served(self, name: str, audience: str, variation: str) -> None:
        """Enters that a variation was part of an answer."""
        self._tally(name, audience, variation).served += 1

    def record_element(self, element: Element, *, request: int, at: float) -> int:
        """Enters the actions of one accepted element; returns how many of them had come before."""
        counts = self.counts
        counts.elements += 1
        repeated = 0
        for action in element.actions:
            counts.received += 1
            event = EventRecord(
                number=counts.received,
                at=at,
                request=request,
                uuid=action.value["moe_event_uuid"].lower(),
                customer_id=element.customer_id,
                action=action.value,
                raw=action.raw,
                user_attributes=element.user_attributes,
                user_timezone_offset=element.user_timezone_offset,
            )
            repeated += not self._enter(event)
        return repeated

    def _enter(self, event: EventRecord) -> bool:
        """Accepts an event, or files it as a duplicate."""
        counts, fingerprint = self.counts, hash((event.customer_id, event.raw))
        before = self._seen.get(event.uuid)
        if before is not None:
            identical = before == fingerprint
            counts.duplicates_identical += identical
            counts.duplicates_different += not identical
            self.duplicates.append(Duplicate(event, identical))
            return False
        self._seen[event.uuid] = fingerprint
        if len(self._seen) > self._max_uuids:
            del self._seen[next(iter(self._seen))]
        counts.accepted += 1
        self.events.append(event)
        context = event.action["attributes"]
        tally = self._tally(*(str(context[name]) for name in ("experience", "audience_name", "moe_variation_id")))
        if event.action["action"] == SHOWN:
            counts.impressions += 1
            tally.impressions += 1
        else:
            counts.clicks += 1
            tally.clicks += 1
        return True

    def _tally(self, name: str, audience: str, variation: str) -> Tally:
        tally = self.tallies.get((name, audience, variation))
        if tally is None:
            tally = Tally()
            if len(self.tallies) < 10_000:  # names come from the events, so their number must be bounded
                self.tallies[name, audience, variation] = tally
        return tally

    def connection_opened(self) -> None:
        """A transport was accepted."""
        self.counts.connections_opened += 1
        self.counts.connections_open += 1

    def connection_closed(self) -> None:
        """A transport is gone."""
        self.counts.connections_open -= 1

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every record as JSON-ready objects, in the order of arrival within each kind, counts last."""
        for request in self.requests:
            yield {"kind": "request", **attrs.asdict(request)}
        for event in self.events:
            yield {"kind": "event", **attrs.asdict(event, recurse=False)}
        for duplicate in self.duplicates:
            yield {
                "kind": "duplicate",
                "identical": duplicate.identical,
                **attrs.asdict(duplicate.event, recurse=False),
            }
        yield {"kind": "counts", **self.counts_json()}

    def counts_json(self) -> dict[str, Any]:
        """The totals as JSON-ready values."""
        counts = attrs.asdict(self.counts, recurse=False)
        counts["by_status"] = dict(self.counts.by_status)
        return counts

    def as_json(self) -> bytes:
        """The whole ledger as one JSON document."""
        document: dict[str, Any] = {"requests": [], "events": [], "duplicates": []}
        for line in self.lines():
            kind = line.pop("kind")
            if kind == "counts":
                document[kind] = line
            else:
                document[f"{kind}s"].append(line)
        return json.dumps(document).encode()

    def as_ndjson(self) -> bytes:
        """The whole ledger, one record a line."""
        return b"".join(json.dumps(line).encode() + b"\n" for line in self.lines())
