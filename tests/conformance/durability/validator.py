"""Holds what a server wrote down against what the processes that were killed had said.

Shares no code with the package, nor with the processes. A server's ledger has a line of JSON for every request: the
status of its answer and the body, each byte a character (`latin-1`). Notes are lines of JSON too, one file for each
process:

    {"offered": uuid, "customer": ..., "sha256": ...}         before the action's bytes went to the spool
    {"accepted": uuid, "customer": ..., "sha256": ..., "earliest": ..., "latest": ..., "label": ...}    ACCEPTED was returned
    {"stopped": phase, "at": where}                           stopped there, to be killed

Customer, label and times of `accepted` are what the caller had passed, so that an event which was altered before it
was journaled is found out as well.
"""

import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
AN_ACTION = "{[{[{"  # the body, its elements, one of them, its actions, one of them


@dataclass(frozen=True)
class Delivery:
    """One action in one request."""

    customer: str
    raw: bytes

    @property
    def action(self):
        return json.loads(self.raw)

    @property
    def sha256(self):
        return hashlib.sha256(self.raw).hexdigest()


def deliveries(body: bytes) -> list[Delivery]:
    """The actions in a request's body, each with the bytes that it came as."""
    customers = [
        (element["customer_id"], action) for element in json.loads(body)["elements"] for action in element["actions"]
    ]
    slices, nesting, began = [], "", 0
    for token in TOKENS.finditer(body):
        sign = token[0].decode() if len(token[0]) == 1 else ""
        if sign in ("{", "["):
            nesting += sign
            if nesting == AN_ACTION:
                began = token.start()
        elif sign:
            if nesting == AN_ACTION:
                slices.append(body[began : token.end()])
            nesting = nesting[:-1]
    assert [json.loads(raw) for raw in slices] == [action for _, action in customers]
    return [Delivery(customer, raw) for (customer, _), raw in zip(customers, slices, strict=True)]


def lines(path):
    """The lines of a file; what has no end was not said."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def delivered(path) -> set[str]:
    """The UUIDs of what a ledger's file says was taken."""
    return {
        delivery.action["moe_event_uuid"]
        for request in lines(path)
        if request["status"] == 200
        for delivery in deliveries(request["body"].encode("latin-1"))
    }


@dataclass
class Account:
    """What was offered, accepted and delivered, and everything that is wrong with it."""

    offered: dict = field(default_factory=dict)
    accepted: dict = field(default_factory=dict)
    delivered: dict = field(default_factory=lambda: defaultdict(list))
    problems: list = field(default_factory=list)

    @property
    def duplicates(self):
        return sum(map(len, self.delivered.values())) - len(self.delivered)

    def check(self, delivery):
        """Whether just this was offered, and when its caller said."""
        action = delivery.action
        offer = self.offered.get(action["moe_event_uuid"])
        if offer is None:
            self.problems.append(f"foreign: {delivery}")
            return
        said = self.accepted.get(action["moe_event_uuid"], {})
        if (delivery.customer, delivery.sha256) != (offer["customer"], offer["sha256"]):
            self.problems.append(f"altered: {delivery}")
        if said and not said["earliest"] <= action["event_time"] <= said["latest"]:
            self.problems.append(f"event_time: {delivery}, {said}")
        if said and (delivery.customer, action["attributes"]["label"]) != (said["customer"], said["label"]):
            self.problems.append(f"another event: {delivery}, {said}")

    def check_order(self, accepted):
        """Whether what one process accepted of one customer came in that order, what came twice aside."""
        lanes = defaultdict(list)
        for said in accepted:
            places = self.delivered.get(said["accepted"], ())
            if len(places) == 1:
                lanes[said["customer"]].append(places[0][0])
        self.problems += [f"order: {customer}" for customer, lane in lanes.items() if lane != sorted(lane)]


def account(ledger, notes) -> Account:
    """Settle up.

    Args:
        ledger: The server's lines, in order.
        notes: For each process, its lines, in order.
    """
    found, place = Account(), itertools.count()
    accepted = [[line for line in process if "accepted" in line] for process in notes]
    for process in notes:
        found.offered |= {line["offered"]: line for line in process if "offered" in line}
    for said in accepted:
        found.accepted |= {line["accepted"]: line for line in said}
    for request in ledger:
        for delivery in deliveries(request["body"].encode("latin-1")):
            found.check(delivery)
            if request["status"] == 200:
                found.delivered[delivery.action["moe_event_uuid"]].append((next(place), delivery))
    found.problems += [f"lost: {event_uuid}" for event_uuid in found.accepted if event_uuid not in found.delivered]
    for event_uuid, came in found.delivered.items():
        if len({delivery for _, delivery in came}) > 1:
            found.problems.append(f"duplicates differ: {event_uuid}")
    for said in accepted:
        found.check_order(said)
    return found


def stops(notes) -> Counter:
    """How many processes had said that they stopped in each phase, and place of it."""
    said = [line for process in notes for line in process if "stopped" in line]
    return Counter((line["stopped"], line["at"].partition(",")[0]) for line in said)
