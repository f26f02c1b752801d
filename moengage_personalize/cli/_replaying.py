"""Replays a source: reads blocks, offers their lines to a client, notes what is settled.

Theory: the file is read in blocks. One block is offered to the client while the one before is on its way, so memory
holds two, however long the file is. When every event of a block is settled (delivered, or refused and written down),
the state moves to its end; a run that is killed goes on from there, and what it repeats has the same UUIDs.

Invariant: the state counts settled lines only, and every one of them once: delivered, duplicate, rejected or bad.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Any, Final

import attrs
import click

from moengage_personalize import (
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    Condition,
    Health,
    InvalidInputError,
    Loss,
)

from ._aside import off_the_loop
from ._checkpoint import Checkpoint, State
from ._ending import NEGATIVE, OK, complain
from ._lines import BadLineError, event_of
from ._output import document, table
from ._patience import GiveUp, Patience
from ._progress import Progress, progress
from ._source import Block, Line, Source

TOLD: Final = 20  # bad lines that are reported one by one
_TURN = 200  # lines that are offered in one turn of the event loop


@attrs.frozen
class Options:
    """How to replay.

    Attributes:
        client: Arguments of the client.
        restart: Whether to begin at the beginning.
        senders: Requests at a time.
        patience: Seconds without progress after which to give up.
        as_json: How to report.
    """

    client: Mapping[str, Any] = attrs.field(repr=False)
    restart: bool = attrs.field(kw_only=True)
    senders: int = attrs.field(kw_only=True)
    patience: float = attrs.field(kw_only=True)
    as_json: bool = attrs.field(kw_only=True)


async def replay(file: str, checkpoint: Checkpoint, options: Options) -> int:
    """Replays a file; returns the exit status.

    Raises:
        SourceError: The file or its state cannot be used.
        OSError: The file cannot be read to its end, or the state not be written.
    """
    with await off_the_loop(lambda: Source(file)) as source, progress(source.size) as shown:
        state = checkpoint.load(source.identity, restart=options.restart)
        if state.offset:
            complain(f"going on after line {state.lines:,} (--restart begins at the beginning)")
        await off_the_loop(lambda: source.go_to(state.offset, state.lines))
        refused: set[str] = set()
        client = AsyncPersonalizeClient(
            **options.client, batching=_batching(options.senders), on_dropped=lambda loss: _note(loss, refused)
        )
        run = Replay(client, source, checkpoint, state, shown=shown, refused=refused, patience=options.patience)
        async with client:
            if client.health().condition is Condition.DISABLED:
                raise click.UsageError("MOENGAGE_PERSONALIZE_DISABLED is set: nothing is sent")
            try:
                status = await run.run()
            finally:
                run.tell(as_json=options.as_json)
    return status


def _batching(senders: int) -> BatchPolicy:
    # Room for two blocks, so that nothing is turned away; and no event is given up for its age.
    return BatchPolicy(
        linger=0.1,
        senders=senders,
        max_pending=50_000,
        max_pending_bytes=32 << 20,
        dedup_window=50_000,
        time_to_live=inf,
    )


def _note(loss: Loss, refused: set[str]) -> None:
    if loss.reason == "rejected":
        refused.update(loss.event_uuids)


@attrs.define
class _Flight:
    """A block on its way.

    Attributes:
        block: What was read.
        lines: Its lines by UUID, of the events that were taken on.
        bad: Lines that were not, and why.
        duplicate: How many had come shortly before.
        settled: Done when nothing of it is pending.
    """

    block: Block
    lines: dict[str, Line] = attrs.field(factory=dict)
    bad: list[tuple[Line, str]] = attrs.field(factory=list)
    duplicate: int = 0
    settled: asyncio.Task[Any] | None = None


class Replay:
    """One run. See the module's docstring.

    Args:
        client: Open while `run` runs.
        source: Where lines come from.
        checkpoint: Where it is noted how far it is.
        state: How far it is.
        shown: Progress.
        refused: UUIDs that MoEngage rejected; filled by the client.
        patience: Seconds.
    """

    def __init__(
        self,
        client: AsyncPersonalizeClient,
        source: Source,
        checkpoint: Checkpoint,
        state: State,
        *,
        shown: Progress,
        refused: set[str],
        patience: float,
    ) -> None:
        self._client = client
        self._source = source
        self._checkpoint = checkpoint
        self._shown = shown
        self._refused = refused
        self._patience = Patience(patience)
        self._flights: deque[_Flight] = deque()
        self._position = 0
        self._unfinished = False
        self._problems = 0
        self._told: list[tuple[int, str]] = []
        self._state = state

    async def run(self) -> int:
        """Replays what is left; returns the exit status."""
        try:
            while (block := await off_the_loop(self._source.block)) is not None:
                self._flights.append(await self._offer(block))
                if len(self._flights) == 2:
                    await self._land()
            await self._land_all()
        except GiveUp as reason:
            complain(f"given up after line {self._state.lines:,}: {reason}")
            await self._close(grace=0.0)
            return reason.status
        except asyncio.CancelledError:
            await self._close(grace=None)
            complain(f"stopped after line {self._state.lines:,}; the same command goes on from there")
            raise
        except OSError:  # the source ends badly: what came before is still to be settled
            await self._land_all()
            raise
        self._look()
        self._state = self._checkpoint.save(attrs.evolve(self._state, done=not self._unfinished))
        return NEGATIVE if self._state.bad or self._state.rejected or self._unfinished else OK

    def tell(self, *, as_json: bool) -> None:
        """Prints what became of the lines."""
        if (more := self._problems - len(self._told)) > 0:
            complain(f"and {more:,} more lines")
        names = ("lines", "delivered", "duplicate", "rejected", "bad", "done")
        counts = {name: getattr(self._state, name) for name in names}
        if as_json:
            problems = [{"line": number, "why": why} for number, why in self._told]
            document({**counts, "offset": self._state.offset, "problems": problems})
        else:
            table(names, [tuple(counts.values())])

    # ── one block ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _offer(self, block: Block) -> _Flight:
        flight = _Flight(block)
        for index, line in enumerate(block.lines):
            if not index % _TURN:
                await asyncio.sleep(0)
            try:
                self._offer_line(flight, line)
            except BadLineError as error:
                flight.bad.append((line, str(error)))
        flight.settled = asyncio.create_task(self._client.flush(inf))
        await asyncio.sleep(0)  # so that it waits for this block, and not for the next one
        self._patience.renew(time.monotonic())
        return flight

    def _offer_line(self, flight: _Flight, line: Line) -> None:
        if line.too_long:
            raise BadLineError("it is longer than any event may be")
        if not line.text:
            return
        event = event_of(line.text, line.number, self._source.identity)
        try:
            admission = self._client.track(event)
        except InvalidInputError as error:
            raise BadLineError(str(error)) from None
        match admission:
            case Admission.ACCEPTED:
                flight.lines[str(event.event_uuid).lower()] = line
            case Admission.DUPLICATE:
                flight.duplicate += 1
            case Admission.REFUSED:
                raise BadLineError("it is larger than a request may be")
            case _:
                raise AssertionError(f"an event was {admission.value}: there is room for two blocks")

    async def _land(self) -> None:
        """Waits until the oldest block is settled, and notes it."""
        flight = self._flights[0]
        assert flight.settled is not None  # noqa: S101 - set when it was offered
        self._show()  # it may be settled already, as may all after it
        while not flight.settled.done():
            await asyncio.wait({flight.settled}, timeout=0.2)
            self._look()
        self._settle()

    async def _land_all(self) -> None:
        while self._flights:
            await self._land()

    def _settle(self) -> None:
        """Notes the oldest block. Blocks for the disk, so that nothing comes between."""
        flight = self._flights.popleft()
        block, state = flight.block, self._state
        rejected = [(line, "MoEngage refused it") for uuid, line in flight.lines.items() if uuid in self._refused]
        self._refused.difference_update(flight.lines)
        problems = sorted((*flight.bad, *rejected), key=lambda problem: problem[0].number)
        self._report(problems)
        self._position = block.position
        if flight.bad and not block.lines[-1].ended:  # a block of its own
            self._unfinished = True
            return
        fresh = attrs.evolve(
            state,
            offset=block.end,
            lines=block.lines[-1].number,
            delivered=state.delivered + len(flight.lines) - len(rejected),
            duplicate=state.duplicate + flight.duplicate,
            rejected=state.rejected + len(rejected),
            bad=state.bad + len(flight.bad),
        )
        self._state = self._checkpoint.save(fresh, [line.text for line, _ in problems if not line.too_long])

    def _report(self, problems: list[tuple[Line, str]]) -> None:
        self._problems += len(problems)
        for line, why in problems[: TOLD - len(self._told)]:
            said = why if line.ended else f"{why}, and has no end: it may still be written, and is not passed over"
            self._told.append((line.number, said))
            complain(f"line {line.number}: {said}")

    # ── how it goes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """Shows progress, and gives up when there has been none for too long."""
        self._patience.spend(time.monotonic(), self._client.stats(), self._show())

    def _show(self) -> Health:
        health = self._client.health()
        self._shown.show(position=self._position, lines=self._state.lines, note=health.detail)
        return health

    async def _close(self, grace: float | None) -> None:
        """Ends early; blocks that are settled by then count."""
        report = await self._client.aclose(grace)
        while self._flights and not report.dropped:
            self._settle()
        for flight in self._flights:
            if flight.settled is not None:
                flight.settled.cancel()
