"""What the live page shows, as JSON-ready values: a view on emulator and ledger that changes neither.

Theory: the page asks again and again, each time for what is newer than the last request that it has seen.
So an answer is bounded however much happened in between, and says how much it left out.
"""

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from moengage_personalize.emulator._ledger import PULSE
from moengage_personalize.emulator._records import EventRecord, RequestRecord, Tally
from moengage_personalize.emulator._rules import SHOWN
from moengage_personalize.emulator._trouble import wishes_json

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator

_NEWEST = 60  # requests in one answer
_STEPS = 200  # of one customer's story
_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 1000)


def live(emulator: "Emulator", since: int) -> dict[str, Any]:
    """Everything on the page, with the requests after number `since`."""
    now, ledger = emulator.effects.now(), emulator.ledger
    newest = ledger.requests[-1].number if ledger.requests else 0
    fresh = list(itertools.islice(_after(emulator, since), _NEWEST))
    return {
        "now": now,
        "started": emulator.started,
        "exports": emulator.exports,
        "complaint": emulator.complaint,
        "last": newest,
        "left_out": max(0, newest - since - len(fresh)) if since <= newest else 0,
        "requests": [_request(record) for record in reversed(fresh)],
        "counts": ledger.counts_json(),
        "profiles": len(emulator.profiles),
        "pulse": _pulse(emulator, int(now)),
        "elements_per_request": _histogram(ledger.elements_per_request),
        "actions_per_element": _histogram(ledger.actions_per_element),
        "batches": [attrs.asdict(batch) for batch in reversed(ledger.batches)],
        "duplicates": [
            {
                "at": duplicate.event.at,
                "uuid": duplicate.event.uuid,
                "customer": duplicate.event.customer_id,
                "identical": duplicate.identical,
            }
            for duplicate in itertools.islice(reversed(ledger.duplicates), 5)
        ],
        "experiences": _experiences(emulator),
        "customers": _customers(emulator),
        "troubles": wishes_json(emulator.troubles.current(now), now),
    }


def _after(emulator: "Emulator", since: int) -> "itertools.takewhile[RequestRecord]":
    return itertools.takewhile(lambda record: record.number > since, reversed(emulator.ledger.requests))


def _request(record: RequestRecord) -> dict[str, Any]:
    """A record without its defaults: most of its fields concern other endpoints."""
    return attrs.asdict(
        record, recurse=False, filter=lambda field, value: field.default is attrs.NOTHING or value != field.default
    )


def _pulse(emulator: "Emulator", now: int) -> list[dict[str, int]]:
    """The last minute, second by second, quiet ones included."""
    seconds = {second.at: second for second in emulator.ledger.pulse}
    empty = {"fetches": 0, "event_requests": 0, "accepted": 0, "duplicates": 0, "failed": 0}
    return [
        attrs.asdict(seconds[at]) if at in seconds else {"at": at, **empty} for at in range(now - PULSE + 1, now + 1)
    ]


def _histogram(sizes: Counter[int]) -> list[dict[str, Any]]:
    """How often each size came, in a few ranges."""
    found, below = [], 0
    for top in _BUCKETS:
        label = str(top) if top == below + 1 else f"{below + 1}-{top}"
        found.append({"label": label, "count": sum(sizes[size] for size in sizes if below < size <= top)})
        below = top
    while len(found) > 1 and not found[-1]["count"]:
        found.pop()
    return found


def _experiences(emulator: "Emulator") -> list[dict[str, Any]]:
    """Every experience with its variations and how they fare."""
    tallies = emulator.ledger.tallies
    return [
        {
            "key": experience.key,
            "name": experience.name,
            "status": experience.status,
            "control_group": experience.control_group,
            "audiences": [
                {
                    "name": audience.name,
                    "when": audience.when.describe(),
                    "variations": [
                        {
                            "id": str(number),
                            "weight": variation.weight,
                            "says": variation.summary,
                            **attrs.asdict(tallies.get((experience.name, audience.name, str(number)), Tally())),
                        }
                        for number, variation in enumerate(audience.variations, 1)
                    ],
                }
                for audience in experience.audiences
            ],
        }
        for experience in emulator.catalogue
    ]


def _customers(emulator: "Emulator") -> list[str]:
    """Who was here last."""
    found: dict[str, None] = {}
    for event in itertools.islice(reversed(emulator.ledger.events), 500):
        found[event.customer_id] = None
    for record in itertools.islice(reversed(emulator.ledger.requests), 500):
        if record.customer_id is not None:
            found[record.customer_id] = None
    return list(found)[:12]


def story(emulator: "Emulator", customer_id: str) -> dict[str, Any]:
    """What one customer met and did, newest first."""
    ledger = emulator.ledger
    fetches = (
        record
        for record in reversed(ledger.requests)
        if record.endpoint == "fetch" and record.customer_id == customer_id
    )
    events = (event for event in reversed(ledger.events) if event.customer_id == customer_id)
    steps = [_asked(record) for record in itertools.islice(fetches, _STEPS)]
    steps += [_reported(event) for event in itertools.islice(events, _STEPS)]
    steps.sort(key=lambda step: (step["at"], step["request"]), reverse=True)
    return {"customer": customer_id, "profile": emulator.profiles.get(customer_id), "steps": steps[:_STEPS]}


def _asked(record: RequestRecord) -> dict[str, Any]:
    return {
        "at": record.at,
        "kind": "fetch",
        "request": record.number,
        "identity": record.identity,
        "served": record.served,
        "unserved": record.unserved,
    }


def _reported(event: EventRecord) -> dict[str, Any]:
    action = event.action
    attributes = action["attributes"]
    return {
        "at": event.at,
        "kind": "impression" if action["action"] == SHOWN else "click",
        "request": event.request,
        "experience": attributes["experience"],
        "audience": attributes["audience_name"],
        "variation": attributes["moe_variation_id"],
        "b_id": attributes.get("b_id", action.get("b_id")),
        "platform": action.get("platform"),
        "event_time": action["event_time"],
        "uuid": event.uuid,
    }
