"""A worker that reads events from its standard input, a JSON object a line, and reports them.

    {"action": "click", "customer_id": "c-1", "experience_context": {...}, "at": 1795459200, "b_id": "cta"}

`action` is `impression` or `click`. The first three are needed; the rest may be any argument of
`moengage_personalize.Event`. A line without an `event_uuid` gets one that is made of the line, so the same line again
is the same event again: a file that is fed twice counts once.

At the end of the input, and when it is told to stop (SIGTERM, Ctrl-C), it delivers what it has taken on and prints
what became of everything. The exit status is 0 if every line was delivered, 1 if not.
"""

import asyncio
import json
import signal
import sys
import threading
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import attrs

from moengage_personalize import (
    Action,
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    Event,
    InvalidInputError,
    event_uuid_for,
)

AHEAD = 2_000  # lines that are taken on before it looks whether they arrive
ACTIONS = {"impression": Action.IMPRESSION, "click": Action.CLICK}


def event_of(line: bytes) -> Event:
    """Reads one line.

    Raises:
        ValueError: It is no event.
    """
    fields: dict[str, Any] = json.loads(line)
    try:
        action, experience = ACTIONS[fields.pop("action")], fields.pop("experience_context")
        fields.setdefault("event_uuid", event_uuid_for("worker", line.decode()))
        return Event(action=action, experience=experience, **fields)
    except (AttributeError, KeyError, TypeError):
        raise ValueError("not an event") from None


async def lines() -> AsyncIterator[bytes]:
    """Yields the lines of the standard input, from a file, a pipe or a terminal."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[bytes | None](100)

    def read() -> None:
        with open(0, "rb", closefd=False) as stdin:
            for line in chain(stdin, [None]):
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    # A daemon, since a read cannot be cancelled: it must not keep a worker alive that was told to stop.
    threading.Thread(target=read, daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


async def report(client: AsyncPersonalizeClient) -> int:
    """Reports every line; returns how many could not be. What is wrong is said by number: lines hold people's data."""
    number = unusable = 0
    async for line in lines():
        number += 1
        try:
            admission = client.track(event_of(line))
        except ValueError as error:
            reason = str(error) if isinstance(error, InvalidInputError) else "it is not an event in JSON"
            print(f"line {number}: {reason}", file=sys.stderr)
            unusable += 1
        else:
            unusable += admission not in {Admission.ACCEPTED, Admission.DUPLICATE}
        if number % AHEAD == 0:
            # The buffer is bounded: waiting here, through an outage if need be, holds up whoever writes the lines.
            while (await client.flush()).pending:
                pass
    return unusable


async def main() -> int:
    """Works until the input ends or a signal comes; returns the exit status."""
    unusable, finished = 0, True
    async with AsyncPersonalizeClient(batching=BatchPolicy(grace=8.0)) as client:
        working = asyncio.ensure_future(report(client))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        try:
            unusable = await working
        except asyncio.CancelledError:
            finished = False
    result = client.last_report
    assert result is not None, "leaving the context makes it"
    print(json.dumps({**attrs.asdict(result), "unusable_lines": unusable}))
    return 0 if finished and not unusable and result.delivered == result.accepted else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
