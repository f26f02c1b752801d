"""A synchronous driver for deliveries, and servers with moods."""

from collections.abc import Iterable
from math import inf
from typing import Any

from core.kit import NOW, WALL, number_of, offer

from moengage_personalize import BatchPolicy, RetryPolicy
from moengage_personalize.core.batch import Batch
from moengage_personalize.core.buffer import Buffer, Fate
from moengage_personalize.core.circuit import Circuit
from moengage_personalize.core.delivery import Answer, Delivered, Delivery, Done, Refused, Send, Settle, Sleep, TooLarge

ROOMY = BatchPolicy(max_actions=100_000, max_bytes=1 << 22)


def batch_of(*numbers: int, customers: int = 1, attributes: Iterable[int] = (), padding: int = 0) -> Batch:
    """A batch of these events, dealt to the customers in turn."""
    buffer = Buffer(ROOMY)
    for number in numbers:
        own = {f"of {number}": number} if number in set(attributes) else None
        offer(buffer, number, f"customer {number % customers}", attributes=own, padding=padding)
    batch = buffer.take(WALL)
    assert batch is not None
    assert batch.count == len(numbers)
    return batch


class Server:
    """Answers honestly, after its moods.

    Args:
        poison: Events that it refuses.
        poisonous_attributes: Events whose user attributes it refuses.
        limit: Bytes above which a request is too large.
        moods: Answers that it gives first, whatever it is asked.
    """

    def __init__(
        self,
        *,
        poison: Iterable[int] = (),
        poisonous_attributes: Iterable[int] = (),
        limit: float = inf,
        moods: Iterable[Answer] = (),
    ) -> None:
        self.poison = set(poison)
        self.poisonous_attributes = {b'"of %d"' % number for number in poisonous_attributes}
        self.limit = limit
        self.moods = list(moods)
        self.requests: list[list[int]] = []
        self.accepted: list[int] = []
        self.splits_needed = 0

    def __call__(self, batch: Batch) -> Answer:
        events = [number_of(record.event_uuid) for record in batch.records]
        self.requests.append(events)
        if self.moods:
            answer = self.moods.pop(0)
        elif len(batch.encode()) > self.limit:
            answer = TooLarge()
        elif self.poison & set(events) or any(
            self.poisonous_attributes & (element.attributes or {}).keys() for element in batch.elements
        ):
            answer = Refused(400, "no")
        else:
            answer = Delivered()
        if answer == Delivered():
            self.accepted += events
        return answer


class Counting(Delivery):
    """Counts its splits and its tries without attributes."""

    splits = strips = holds = 0

    def _split(self, *args: Any, **kwargs: Any) -> None:
        self.splits += 1
        super()._split(*args, **kwargs)

    def _stripped(self, piece: Any) -> bool:
        stripped = super()._stripped(piece)
        self.strips += stripped
        return stripped


class Course:
    """One delivery on its way, on a clock that jumps over its sleeps."""

    def __init__(
        self,
        batch: Batch,
        server: Server,
        *,
        circuit: Circuit | None = None,
        proven: bool = True,
        time_to_live: float = inf,
        retrying: RetryPolicy | None = None,
        jitter: float = 0.5,
    ) -> None:
        self.retrying = retrying or RetryPolicy()
        self.circuit = circuit or Circuit(self.retrying, max_bytes=ROOMY.max_bytes)
        if proven:
            self.circuit.succeeded()
        self.batch = batch
        self.server = server
        self.delivery = Counting(batch, self.circuit, self.retrying, time_to_live=time_to_live)
        self.now, self.began = NOW, NOW
        self.jitter = jitter
        self.fates: dict[int, tuple[Fate, Any]] = {}
        self.settled: list[Settle] = []
        self.sleeps: list[Sleep] = []
        self.done = False

    def step(self) -> None:
        match self.delivery.next(self.now, WALL + self.now - NOW):
            case Send(batch):
                self.delivery.answered(self.server(batch), self.now, self.jitter)
            case Settle(records, fate, reason) as settle:
                self.settled.append(settle)
                for record in records:
                    number = number_of(record.event_uuid)
                    assert number not in self.fates, "an event met two fates"
                    self.fates[number] = fate, reason
            case Sleep(until, _) as sleep:
                assert until > self.now
                self.sleeps.append(sleep)
                self.now = until
            case Done():
                self.done = True

    def run(self, *, requests: int = 10_000) -> "Course":
        """Goes on until it is done, or has sent this many requests, or sleeps for ever."""
        while not self.done and self.delivery.requests < requests and self.now < inf:
            self.step()
        return self

    def settle_down(self) -> "Course":
        """Takes note of what is settled without sending anything more."""
        while self.delivery._settled:
            self.step()
        return self

    def met(self, fate: Fate) -> set[int]:
        return {number for number, (found, _) in self.fates.items() if found is fate}
