"""The buffer's memory beyond this process: what goes into the spool, what comes back, and when.

Theory: the buffer decides and holds tickets; the spool holds bytes. This lies between: it journals what the buffer
accepts, tells the spool which tickets are settled, brings spilled events back when there is room, adopts what dead
processes left, and buries what MoEngage rejected.

Invariants: an event is journaled before it is admitted, with the bytes that will be sent. A ticket is settled after its
event's fate is known, never before. Trouble with the disk never reaches a page: it is counted, told once, and the
events are then only as safe as the memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final, cast

import anyio
import anyio.lowlevel

from ._errors import PersonalizeError
from .core.batch import Element, Record
from .core.buffer import Buffer, Journaled
from .core.codec import encode, loads
from .core.delivery import Refused, TooLarge
from .core.wire import pack_attributes, unpack_attributes
from .spool import DeadLetter, Entry, ForgetReceipt, Spool, Ticket

log = logging.getLogger("moengage_personalize")
ADOPT_EVERY: Final = 10.0  # seconds between looks for processes that died; at first less: a predecessor may be dying
PAGE: Final = 100  # events per turn of the loop
_ACCEPTED_WALL: Callable[[Record], float] = attrgetter("accepted_wall")
POLL: Final = 1.0  # seconds without any change after which it looks whether there is room


class Spooling:
    """See the module's docstring.

    Args:
        spool: The spool, open.
        buffer: The buffer whose events it keeps.
        wall: Epoch seconds.
    """

    def __init__(self, spool: Spool, buffer: Buffer, wall: Callable[[], float]) -> None:
        self._spool = spool
        self._buffer = buffer
        self._wall = wall
        self._troubled = False
        buffer.journal = spool.journal

    # ── while the pump works ─────────────────────────────────────────────────────────────────────────────────────────

    def release(self) -> None:
        """Tells the spool what needs no sending any more."""
        if self._buffer.released:
            released, self._buffer.released = self._buffer.released, []
            self._spool.settle(cast("list[Ticket]", released))

    def forgotten(self, element: Element) -> list[Record]:
        """Which of one person's events were accepted before some process forgot that person."""
        if not self._spool.is_forgotten(element.customer, min(map(_ACCEPTED_WALL, element.records))):
            return []  # the oldest is not
        return list(filter(self.is_forgotten, element.records))

    def is_forgotten(self, record: Record) -> bool:
        """Whether any process has forgotten the person since the event was accepted."""
        return record.ticket is not None and self._spool.is_forgotten(record.lane.customer, record.accepted_wall)

    def shelter(self) -> None:
        """Gives the spool, at the last moment, what is in memory only."""
        while self._buffer.shelter(PAGE):
            pass

    # ── in the background ────────────────────────────────────────────────────────────────────────────────────────────

    async def bury(self, records: Sequence[Record], rejection: Refused | TooLarge | None) -> None:
        """Keeps rejected events as dead letters."""
        letters = [
            DeadLetter(
                entry=Entry(
                    event_uuid=record.event_uuid,
                    customer=record.lane.customer,
                    impression=record.impression,
                    payload=record.action,
                    attributes=pack_attributes(record.attributes) if record.attributes else b"",
                    timezone_offset=record.offset,
                    accepted_at=record.accepted_wall,
                ),
                reason=(rejection.description if rejection else None) or "refused",
                status=rejection.status if rejection else None,
                buried_at=self._wall(),
            )
            for record in records
        ]
        tickets = [Ticket(record.ticket) for record in records if record.ticket is not None]
        await self._guarded(self._spool.bury(letters, tickets))

    async def run(self, changed: Callable[[float], Awaitable[None]], wake: Callable[[], None]) -> None:
        """Brings events back, and gives the spool what it could not take before, for ever.

        Args:
            changed: Returns at a time (of the loop's clock), or as soon as anything changed.
            wake: Tells the others that something changed.
        """
        look_again = offer_again = 0.0
        pause = POLL
        while True:
            if anyio.current_time() >= offer_again:
                while self._buffer.shelter(PAGE):
                    await anyio.lowlevel.checkpoint()
                offer_again = anyio.current_time() + POLL
            while (want := self._buffer.wants) and (tickets := self._buffer.spilled(min(want, PAGE))):
                if not await self._guarded(self._unspill(tickets)) or self._buffer.spilled(1) == tickets[:1]:
                    break  # the disk refuses, or the next one is too large for the room there is
                wake()
            if self._buffer.wants and anyio.current_time() >= look_again:
                await self._guarded(self._adopt(wake))
                look_again = anyio.current_time() + min(pause, ADOPT_EVERY)
                pause = min(2 * pause, ADOPT_EVERY)
            await changed(offer_again if self._buffer.exposed else max(look_again, anyio.current_time() + POLL))

    async def _unspill(self, tickets: Sequence[int]) -> None:
        entries = await self._spool.read([Ticket(ticket) for ticket in tickets])
        events = map(_journaled, tickets, entries)
        self._buffer.unspill(tickets, list(events))
        self.release()

    async def _adopt(self, wake: Callable[[], None]) -> None:
        async for page in self._spool.recover(page=PAGE):
            for ticket, entry in page:
                self._recover(ticket, entry)
            self.release()
            wake()
            if not self._buffer.wants:
                return  # the next look goes on with the rest

    async def forget(self, customer_id: str) -> ForgetReceipt:
        """Removes a person's entries and dead letters, those of other processes included."""
        self.release()
        return await self._spool.forget(encode(customer_id, "customer_id"))

    async def replay(self, event_uuids: Sequence[str] | None) -> int:
        """Takes dead letters on again; returns how many."""
        found = await self._spool.replay(event_uuids)
        taken = sum(self._recover(ticket, entry, replayed=True) for ticket, entry in found)
        self.release()
        return taken

    def _recover(self, ticket: int, entry: Entry, *, replayed: bool = False) -> bool:
        event = _journaled(ticket, entry)
        return event is not None and self._buffer.recover(event, replayed=replayed)

    async def _guarded(self, work: Awaitable[None]) -> bool:
        try:
            await work
        except PersonalizeError as error:
            if not self._troubled:
                log.warning("the spool fails with %s: events may be in memory only", type(error).__name__)
            self._troubled = True
            return False
        self._troubled = False
        return True


def _journaled(ticket: int, entry: Entry | None) -> Journaled | None:
    if entry is None:
        return None
    return Journaled(
        ticket=ticket,
        customer_id=loads(entry.customer),
        event_uuid=entry.event_uuid,
        action=entry.payload,
        impression=entry.impression,
        attributes=unpack_attributes(entry.attributes) if entry.attributes else None,
        offset=entry.timezone_offset,
        accepted_wall=entry.accepted_at,
    )
