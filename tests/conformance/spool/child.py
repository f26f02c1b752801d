"""A process that journals until it is killed.

Usage: child.py DIRECTORY SEED PHASE STOP. It says on its standard output, each line in one write:

    A <uuid>    append answered with a ticket
    s <uuid>    about to settle
    P <phase> <function>:<line>    stopped there, for good, until somebody kills it

PHASE names the functions in which it stops, at the STOP-th line that is executed in any of them; the other
thread goes on meanwhile. `wild` stops nowhere.
"""

import asyncio
import hashlib
import os
import random
import sys
import threading
import uuid

from moengage_personalize.spool import DiskSpool, Entry, _chores, _directory, _inheritance, _journal, _keeper, _segment

PHASES = {
    "append": [_journal.Journal.append, _segment.Segment.append],
    "rotation": [
        _journal.Journal._rotated,
        _segment.Segment.activate,
        _segment.create_segment,
        _keeper.Keeper.make_inline,
        _keeper.Keeper._prepare,
    ],
    "settling": [
        _journal.Journal.settle,
        _journal.Journal._settle,
        _journal.Journal._retire_if_done,
        _journal.Journal._retire,
        _segment.Segment.mark,
        _keeper.Keeper._sweep,
    ],
    "adoption": [
        _inheritance.Inheritance.adopt,
        _inheritance.Inheritance._adopt_from,
        _inheritance.Inheritance._adopted,
        _inheritance.Inheritance.read_page,
        _inheritance.Inheritance.let_go,
        _directory.Directory.release,
        _segment.adopt_segment,
        _journal.Journal.take,
        _directory.Directory.lock,
    ],
    "carrying": [_journal.Journal._carry, _journal.Journal._append_copy, _chores.carries, _keeper.Keeper.sync],
    "wild": [],
}


def made_for(number: uuid.UUID) -> Entry:
    """The only entry that may ever exist under this UUID."""
    digest = hashlib.sha256(number.bytes).digest()
    size = 40 + int.from_bytes(digest[:2], "big") % 900
    return Entry(
        event_uuid=str(number),
        customer=b'"%s"' % digest[2:6].hex().encode(),
        impression=digest[6] % 2 == 0,
        payload=hashlib.shake_256(number.bytes).digest(size),
        attributes=digest[7:15] if digest[7] % 2 else b"",
        timezone_offset=None if digest[15] % 2 else digest[16],
        accepted_at=float(int.from_bytes(digest[17:21], "big")),
    )


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def stop_at(phase: str, stop: int) -> None:
    codes = {function.__code__ for function in PHASES[phase]}
    left = [stop]

    def line(frame, event, argument):
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                say(f"P {phase} {frame.f_code.co_name}:{frame.f_lineno}")
                while True:
                    os.read(0, 1)
        return line

    def call(frame, event, argument):
        return line if frame.f_code in codes else None

    threading.settrace(call)
    sys.settrace(call)


async def work(directory: str, seed: int) -> None:
    rng = random.Random(seed)
    spool = DiskSpool(directory, segment_bytes=8192, sync_interval=0.002, max_bytes=1 << 26)
    await spool.open()
    tickets: dict[object, str] = {}

    def settle(share: float) -> None:
        chosen = [ticket for ticket in tickets if rng.random() < share]
        for ticket in chosen:
            say(f"s {tickets.pop(ticket)}")
        spool.settle(chosen)

    while True:
        async for page in spool.recover(page=5):
            for ticket, found in page:
                assert found == made_for(uuid.UUID(found.event_uuid)), "foreign bytes"
                tickets[ticket] = found.event_uuid
            settle(0.8)
        for _ in range(rng.randrange(1, 12)):
            for _ in range(rng.randrange(1, 9)):
                made = made_for(uuid.UUID(int=rng.getrandbits(128), version=4))
                ticket = spool.append(made)
                if ticket is not None:
                    say(f"A {made.event_uuid}")
                    tickets[ticket] = made.event_uuid
            settle(rng.choice([0.0, 0.1, 0.95]))
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            await spool.sync()
        await asyncio.sleep(rng.choice([0, 0, 0.003]))


if __name__ == "__main__":
    _chores.STRAGGLING_AFTER = 0.0
    if sys.argv[3] != "wild":
        stop_at(sys.argv[3], int(sys.argv[4]))
    asyncio.run(work(sys.argv[1], int(sys.argv[2])))
