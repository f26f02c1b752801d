"""What reached the emulator: exact counts for ever, and the newest requests and events within bounds.

Theory: a test asks two questions. "Did every event arrive exactly once, unchanged?" needs every event as
it was received, keyed by its UUID; "in how many requests?" needs counts. So counts are never forgotten,
while the lists keep the newest entries.

Invariant: `received == accepted + duplicates_identical + duplicates_different`, counted in actions of
requests that were answered 200; an accepted UUID is accepted once, as long as `max_uuids` remembers it.
"""

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from moengage_personalize.emulator._records import Batch, Counts, Duplicate, EventRecord, RequestRecord, Second, Tally
from moengage_personalize.emulator._rules import SHOWN, Element

PULSE = 60  # seconds that the pulse looks back
BATCHES = 8  # that the live page draws


class Ledger:
    """Counts, requests, events and duplicates; bounded.

    Args:
        max_requests: How many requests are kept.
        max_events: How many accepted events are kept.
        max_duplicates: How many duplicates are kept.
        max_uuids: How many UUIDs are remembered, to refuse them a second time.
    """

    def __init__(
        self,
        *,
        max_requests: int = 50_000,
        max_events: int = 200_000,
        max_duplicates: int = 10_000,
        max_uuids: int = 1_000_000,
    ) -> None:
        self._max_requests = max_requests
        self._max_events = max_events
        self._max_duplicates = max_duplicates
        self._max_uuids = max_uuids
        self.counts = Counts()
        self._forget()

    def _forget(self) -> None:
        self.requests: deque[RequestRecord] = deque(maxlen=self._max_requests)
        self.events: deque[EventRecord] = deque(maxlen=self._max_events)
        self.duplicates: deque[Duplicate] = deque(maxlen=self._max_duplicates)
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        """By (experience name, audience name, variation id)."""
        self.elements_per_request: Counter[int] = Counter()
        self.actions_per_element: Counter[int] = Counter()
        self.pulse: deque[Second] = deque(maxlen=PULSE)
        """The seconds of late in which something came; those without are absent."""
        self.batches: deque[Batch] = deque(maxlen=BATCHES)
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
                self._record_fetch(record)
            case "events":
                counts.event_requests += 1
            case "metadata":
                counts.metadata_requests += 1
            case "other":
                counts.other_requests += 1
        counts.by_status[f"{record.endpoint} {record.status}"] += 1
        self._beat(record)
        if record.elements:
            self.elements_per_request[record.elements] += 1
        counts.troubles += record.trouble is not None
        self.requests.append(record)

    def _beat(self, record: RequestRecord) -> None:
        second = int(record.at)
        if not self.pulse or self.pulse[-1].at < second:
            self.pulse.append(Second(second))
        now = self.pulse[-1]
        now.fetches += record.endpoint == "fetch"
        now.event_requests += record.endpoint == "events"
        now.accepted += record.actions - record.duplicates
        now.duplicates += record.duplicates
        now.failed += record.status != 200

    def _record_fetch(self, record: RequestRecord) -> None:
        counts = self.counts
        counts.fetch_requests += 1
        counts.keys_asked += len(record.served) + len(record.unserved)
        counts.experiences_served += len(record.served)
        counts.anonymous_fetches += record.identity not in {None, "known"}
        counts.wrong_identity_forms += record.identity == "wrong form"
        for _, name, audience, variation in record.served:
            self._tally(name, audience, variation).served += 1

    def record_batch(self, elements: Iterable[Element], *, request: int, at: float) -> None:
        """Enters how the events of one accepted request were coalesced."""
        shown = [(element, sum(a.value["action"] == SHOWN for a in element.actions)) for element in elements]
        sizes = tuple((count, len(element.actions) - count) for element, count in shown)
        self.batches.append(Batch(request, at, sizes))

    def record_element(self, element: Element, *, request: int, at: float) -> int:
        """Enters the actions of one accepted element; returns how many of them had come before."""
        counts = self.counts
        counts.elements += 1
        self.actions_per_element[min(len(element.actions), 1000)] += 1
        repeated = 0
        for action in element.actions:
            counts.received += 1
            event = EventRecord(
                number=counts.received,
                at=at,
                request=request,
                uuid=action.value["moe_event_uuid"].lower(),
                customer_id=element.customer_id,
                raw=action.raw,
                user_attributes=element.user_attributes,
                user_timezone_offset=element.user_timezone_offset,
            )
            repeated += not self._enter(event, action.value)
        return repeated

    def _enter(self, event: EventRecord, action: Mapping[str, Any]) -> bool:
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
        context = action["attributes"]
        tally = self._tally(*(str(context[name]) for name in ("experience", "audience_name", "moe_variation_id")))
        if action["action"] == SHOWN:
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

    def counts_json(self) -> dict[str, Any]:
        """The totals as JSON-ready values."""
        counts = attrs.asdict(self.counts, recurse=False)
        counts["by_status"] = dict(self.counts.by_status)
        return counts

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Every record as its kind and a line of JSON."""
        for request in self.requests:
            yield "request", json.dumps({"kind": "request", **attrs.asdict(request, recurse=False)})
        for event in self.events:
            yield "event", _event_text(event, {"kind": "event"})
        for duplicate in self.duplicates:
            more = {"kind": "duplicate", "identical": duplicate.identical}
            yield "duplicate", _event_text(duplicate.event, more)

    def as_ndjson(self) -> bytes:
        """The whole ledger, one record a line; the counts come last."""
        counts = json.dumps({"kind": "counts", **self.counts_json()})
        return "\n".join([*(text for _, text in self._texts()), counts, ""]).encode()

    def as_json(self) -> bytes:
        """The whole ledger as one JSON document."""
        found: dict[str, list[str]] = {"request": [], "event": [], "duplicate": []}
        for kind, text in self._texts():
            found[kind].append(text)
        members = [f'"{kind}s": [{", ".join(texts)}]' for kind, texts in found.items()]
        return f'{{{", ".join(members)}, "counts": {json.dumps(self.counts_json())}}}'.encode()


def _event_text(event: EventRecord, more: Mapping[str, Any]) -> str:
    """An event as a line of JSON; its action is the text that came, unless that has lines of its own."""
    action = event.raw if event.raw.isprintable() else json.dumps(event.action)
    return f'{json.dumps({**more, **attrs.asdict(event, recurse=False)})[:-1]}, "action": {action}}}'
