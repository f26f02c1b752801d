"""Moves accepted events from the buffer to MoEngage, in the background, and ends in time.

Theory: the core decides, this does. One dispatcher sleeps until the buffer says that a batch is due, waits for a free
sender, and hands it the batch; a sender does whatever the batch's `Delivery` says, and goes on with the next one that
is due. Whatever changes (an event was accepted, a request came back, the circuit closed, the client closes) wakes
everybody who sleeps, and each asks again. There is no await between "taken from the buffer" and "a delivery owns it".

Invariants: `run` is total: it ends only when told to close with everything settled, at the deadline, or when it is
cancelled; whatever is then unsettled is counted as dropped. It never outlives the deadline that `close` set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, assert_never

import anyio

from ._config import BatchPolicy, RetryPolicy
from ._effects import Effects
from ._errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    PayloadTooLargeError,
    PersonalizeError,
    UnexpectedStatusError,
)
from ._exchange import Call, Exchange
from ._report import Condition, DropReason, Loss
from .core.batch import Batch, Record, State
from .core.buffer import Buffer, Fate
from .core.circuit import Circuit
from .core.delivery import (
    Answer,
    Delivered,
    Delivery,
    Denied,
    Done,
    Refused,
    Send,
    Settle,
    Sleep,
    TooLarge,
    Unavailable,
)
from .core.wire import EVENTS_PATH

if TYPE_CHECKING:
    from ._spooling import Spooling

log = logging.getLogger("moengage_personalize")
LOOK = 1.0  # seconds that a loss may go untold while every sender waits
EPISODE = 60.0  # seconds without a loss after which the next one is news
EVENT_TIMEOUT = 10.0  # seconds for one events request; nobody waits for it, and a stuck one should not hold a sender


class _Seat:
    """One of `BatchPolicy.senders`, held by whoever delivers a batch, save while that is parked."""

    def __init__(self, slots: anyio.Semaphore) -> None:
        self._slots = slots
        self.held = True

    def leave(self) -> None:
        if self.held:
            self.held = False
            self._slots.release()

    async def take(self) -> None:
        if not self.held:
            await self._slots.acquire()
            self.held = True


class Pump:
    """The pump. See the module's docstring.

    Args:
        buffer: Where events wait.
        circuit: What senders know together.
        exchange: How requests are made.
        batching: Its policy.
        retrying: Its policy.
        effects: The wall clock and chance.
        spooling: What makes events outlive the process, if anything does.
        on_dropped: Hears of losses.
    """

    def __init__(
        self,
        buffer: Buffer,
        circuit: Circuit,
        exchange: Exchange,
        *,
        batching: BatchPolicy,
        retrying: RetryPolicy,
        effects: Effects,
        spooling: Spooling | None = None,
        on_dropped: Callable[[Loss], None] | None = None,
    ) -> None:
        self._spooling = spooling
        self._on_dropped = on_dropped
        buffer.losses = None if on_dropped is None else {}
        self._dropped = 0
        self._dropping_until = -inf
        self._buffer = buffer
        self._circuit = circuit
        self._exchange = exchange
        self._batching = batching
        self._retrying = retrying
        self._effects = effects
        self._sleepers: list[asyncio.Future[None]] = []
        self._slots = anyio.Semaphore(batching.senders, fast_acquire=True)
        self._returning = 0  # deliveries that were parked, and wait for a sender
        self._scope = anyio.CancelScope()
        self._now: Callable[[], float] = anyio.current_time  # in `run`: the loop's own, which costs a tenth of it
        self._closing = self._ended = False
        self._condition = Condition.HEALTHY
        self._why = ""  # the last request got no answer that counts
        self.requests = 0
        self.retries = 0
        self.attributes_refused = 0

    # ── told by others ───────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Makes everybody who sleeps look again."""
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            _end(sleeper)

    async def _sleep(self, until: float) -> None:
        """Returns when anything has changed, or at that time."""
        # An `anyio.Event` in a `CancelScope` would take 20 µs, several times a request.
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        self._sleepers.append(sleeper)
        timer = loop.call_at(until, _end, sleeper) if until < inf else None
        try:
            await sleeper
        finally:
            if timer is not None:
                timer.cancel()
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def close(self, deadline: float) -> None:
        """Delivers what is left, and ends by the deadline (on the loop's clock); a later call may only shorten it."""
        self._scope.deadline = min(self._scope.deadline, -inf if self._circuit.paused else deadline)
        self._closing = True
        self._buffer.drain()
        self.wake()

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """Waits until everything accepted so far is settled, for at most `timeout` seconds."""
        barrier = self._buffer.barrier()
        self.wake()
        try:
            with anyio.move_on_after(timeout):
                while barrier.remaining and not self._ended:
                    await self._sleep(inf)
        finally:
            self._buffer.lift(barrier)

    # ── in the background ────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        self._now = asyncio.get_running_loop().time
        try:
            with self._scope:
                async with anyio.create_task_group() as refilling:
                    if self._spooling is not None:
                        refilling.start_soon(self._spooling.run, self._sleep, self.wake)
                    async with anyio.create_task_group() as senders:
                        while not self._closing or self._buffer.pending > self._buffer.in_flight:
                            batch = await self._next_batch()
                            if batch is not None:
                                senders.start_soon(self._serve, batch)
                    refilling.cancel_scope.cancel()
        finally:
            self.abandon()
            self.note_losses()
            self.wake()

    def abandon(self) -> None:
        """Counts what nobody will deliver any more; what is spooled stays for the next process."""
        self._ended = True
        if self._spooling is not None:
            self._spooling.shelter()
        self._buffer.abandon(DropReason.CLOSED)
        self._release()

    def _release(self) -> None:
        if self._spooling is not None:
            self._spooling.release()

    async def _next_batch(self) -> Batch | None:
        """Returns a batch that is due, and has a sender; None: look again."""
        due = inf if self._circuit.paused else self._buffer.due()
        if due > self._now():
            await self._sleep(due)
            return None
        await self._slots.acquire()
        batch = self._take()
        if batch is None:
            self._slots.release()
        return batch

    def _take(self) -> Batch | None:
        batch = self._buffer.take(self._effects.wall(), max_bytes=self._circuit.ceiling)
        self._release()
        self.note_losses()
        return batch

    async def _serve(self, batch: Batch | None) -> None:
        """A sender's work: this batch, and whatever is due when it is done, unless somebody waits for the sender."""
        seat = _Seat(self._slots)
        try:
            while batch is not None:
                await self._deliver(batch, seat)
                batch = None
                if seat.held and not (self._returning or self._circuit.paused) and self._buffer.due() <= self._now():
                    batch = self._take()
        finally:
            seat.leave()

    async def _deliver(self, batch: Batch, seat: _Seat) -> None:
        delivery = Delivery(
            self._unforgotten(batch),
            self._circuit,
            self._retrying,
            time_to_live=self._batching.lifetime(spooled=False),
            spooled_time_to_live=self._batching.lifetime(spooled=True),
        )
        try:
            await self._drive(delivery, seat)
        except Exception as error:  # the core promises not to; nothing may be lost in silence
            log.critical("a delivery failed with %s: this is a bug of moengage_personalize", type(error).__name__)
            unsettled = [record for record in batch.records if record.state is State.IN_FLIGHT]
            self._buffer.settle(unsettled, Fate.DROPPED, DropReason.INTERNAL)
        finally:
            self.attributes_refused += delivery.attributes_refused
            self.wake()

    def _unforgotten(self, batch: Batch) -> Batch:
        if self._spooling is None:
            return batch
        forgotten = set(chain.from_iterable(map(self._spooling.forgotten, batch.elements)))
        if not forgotten:
            return batch
        self._buffer.settle(forgotten, Fate.FORGOTTEN)
        self._release()
        return batch.only(set(batch.records) - forgotten)

    def _is_forgotten(self, record: Record) -> bool:
        return record.seq <= record.lane.forgotten or (
            self._spooling is not None and self._spooling.is_forgotten(record)
        )

    async def _drive(self, delivery: Delivery, seat: _Seat) -> None:
        while True:
            if delivery.requests:  # it may have taken hours since the first
                delivery.forget(self._is_forgotten)
            command = delivery.next(self._now(), self._effects.wall())
            match command:
                case Send(batch, probe):
                    if probe:
                        self._exchange.distrust_key()
                    await self._send(delivery, batch)
                case Settle():
                    await self._settle(command)
                case Sleep(until, parked):
                    if self._scope.deadline <= until < inf:
                        return  # closing, and its turn comes too late
                    if parked:
                        seat.leave()
                    await self._sleep_until_ready(delivery)
                    await self._return(seat)
                case Done():
                    return
                case _:
                    assert_never(command)

    async def _return(self, seat: _Seat) -> None:
        self._returning += 1
        try:
            await seat.take()
        finally:
            self._returning -= 1

    async def _settle(self, settled: Settle) -> None:
        self._buffer.settle(settled.records, settled.fate, settled.reason)
        self._release()
        self.note_losses()
        self.wake()
        if settled.fate is Fate.REJECTED and self._spooling is not None:
            await self._spooling.bury(settled.records, settled.rejection)

    async def _sleep_until_ready(self, delivery: Delivery) -> None:
        closing = self._closing
        while (until := delivery.ready_at(self._now())) > self._now():
            if self._closing is not closing:
                return  # to be asked again: it may be too late by now
            await self._sleep(min(until, self._now() + LOOK))
            self.note_losses()

    async def _send(self, delivery: Delivery, batch: Batch) -> None:
        self.requests += 1
        answer = await self._ask(batch)
        self.retries += isinstance(answer, Denied | Unavailable)
        delivery.answered(answer, self._now(), self._effects.jitter())
        self._note_condition()
        self.note_losses()
        self.wake()

    async def _ask(self, batch: Batch) -> Answer:
        call = Call(method="POST", target=EVENTS_PATH, body=batch.encode(), bulk=True)
        known = self._exchange.credentials_changed
        try:
            await self._exchange.request(call, deadline=self._now() + EVENT_TIMEOUT)
        except BadRequestError as error:
            return Refused(error.status_code or 400, error.description)
        except PayloadTooLargeError as error:
            return TooLarge(413, error.description)
        except (AuthenticationError, UnexpectedStatusError, ConfigurationError) as error:
            return Denied(error.status_code or 0)
        except PersonalizeError as error:
            self._why = str(error)
            return Unavailable(error.status_code, error.retry_after)
        except Exception as error:  # the exchange promises not to; nothing may be lost, and no probe stay out for ever
            log.critical("a request failed with %s: this is a bug of moengage_personalize", type(error).__name__)
            return Unavailable()
        finally:
            if known not in (0, self._exchange.credentials_changed):
                self._circuit.new_credentials()
        return Delivered()

    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def note_losses(self) -> None:
        """Tells the listener, and the log once per episode: one that was quiet for a minute is over."""
        dropped = self._buffer.dropped.total() + self._buffer.dropped_at_the_door
        if dropped == self._dropped and not self._buffer.losses:
            return
        if dropped > self._dropped:
            now = self._now()
            if now >= self._dropping_until:
                log.warning("events are dropped: %s", self._buffer.counts()["dropped_by_reason"] or "no room")
            self._dropping_until, self._dropped = now + EPISODE, dropped
        if self._on_dropped is not None and self._buffer.losses:
            losses, self._buffer.losses = self._buffer.losses, {}
            for reason, event_uuids in losses.items():
                try:
                    self._on_dropped(Loss(reason=reason, event_uuids=tuple(event_uuids)))
                except Exception as error:  # a listener of the user's
                    log.warning("on_dropped raised %s", type(error).__name__)

    # ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def condition(self) -> Condition:
        if self._circuit.is_open:
            return Condition.MISCONFIGURED
        return Condition.DEGRADED if self._circuit.failing else Condition.HEALTHY

    @property
    def detail(self) -> str:
        match self.condition:
            case Condition.MISCONFIGURED if self._circuit.denied_with in (401, 403):
                return (
                    "MoEngage refuses the credentials: check workspace_id, api_key (the Personalize one), data_center"
                )
            case Condition.MISCONFIGURED if self._circuit.denied_with in (400, 422):
                return "MoEngage has refused every event so far: check workspace_id and data_center; events are held"
            case Condition.MISCONFIGURED:
                return f"MoEngage answers {self._circuit.denied_with or 'nothing: the api_key callable fails'}"
            case Condition.DEGRADED:
                return f"requests for events fail and are tried again: {self._why}"
            case _:
                return ""

    def _note_condition(self) -> None:
        before, self._condition = self._condition, self.condition
        if before is not self._condition:
            level = logging.INFO if self._condition is Condition.HEALTHY else logging.WARNING
            why = f": {detail}" if (detail := self.detail) else ""
            log.log(level, "events are %s (%d pending)%s", self._condition.value, self._buffer.pending, why)


def _end(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
