"""What reached the emulator: exact counts for ever, and the newest requests and events within bounds.

Theory: a test asks two questions. "Did every event arrive exactly once, unchanged?" needs every event as
it was received, keyed by its UUID; "in how many requests?" needs counts. So counts are never forgotten,
while the lists keep the newest entries.

Invariant: `received == accepted + duplicates_identical + duplicates_different`, counted in actions of
requests that were answered 200; an accepted UUID is accepted once, as long as `max_uuids` remembers it.
"""

import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from moengage_personalize.emulator._records import Batch, Counts, Duplicate, EventRecord, RequestRecord, Second, Tally
from moengage_personalize.emulator._rules import SHOWN, Element

Kind = Literal["request", "event", "duplicate"]
PULSE = 60  # seconds that the pulse looks back
CHUNK = 32_768  # characters of the ledger that are made in one turn of the loop
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

    def as_ndjson(self) -> Iterator[bytes]:
        """The whole ledger as it is now, one record a line; the counts come last. In chunks of some milliseconds."""
        lines = [_lines(kind, records) for kind, records in self._snapshot().items()]
        counts = json.dumps({"kind": "counts", **self.counts_json()})
        return _chunks(text + "\n" for text in itertools.chain(*lines, [counts]))

    def as_json(self) -> Iterator[bytes]:
        """The whole ledger as it is now, as one JSON document. In chunks of some milliseconds."""
        return _chunks(_document(self._snapshot(), json.dumps(self.counts_json())))

    def _snapshot(self) -> dict[Kind, tuple[Any, ...]]:
        """What is kept now: it takes time to tell, and more may come meanwhile."""
        return {"request": tuple(self.requests), "event": tuple(self.events), "duplicate": tuple(self.duplicates)}


def _chunks(texts: Iterable[str]) -> Iterator[bytes]:
    pieces, size = [], 0
    for text in texts:
        pieces.append(text)
        size += len(text)
        if size >= CHUNK:
            yield "".join(pieces).encode()
            pieces, size = [], 0
    yield "".join(pieces).encode()


def _document(records: Mapping[Kind, Iterable[Any]], counts: str) -> Iterator[str]:
    yield "{"
    for kind, of_kind in records.items():
        yield f'"{kind}s": ['
        for number, text in enumerate(_lines(kind, of_kind)):
            yield f", {text}" if number else text
        yield "], "
    yield f'"counts": {counts}}}'


def _lines(kind: Kind, records: Iterable[Any]) -> Iterator[str]:
    """Records of one kind, each as a line of JSON."""
    for record in records:
        match record:
            case Duplicate(event, identical):
                yield _event_text(event, {"kind": kind, "identical": identical})
            case EventRecord():
                yield _event_text(record, {"kind": kind})
            case _:
                yield json.dumps({"kind": kind, **attrs.asdict(record, recurse=False)})


def _event_text(event: EventRecord, more: Mapping[str, Any]) -> str:
    """An event as a line of JSON; its action is the text that came, unless that has lines of its own."""
    action = event.raw if event.raw.isprintable() else json.dumps(event.action)
    return f'{json.dumps({**more, **attrs.asdict(event, recurse=False)})[:-1]}, "action": {action}}}'
