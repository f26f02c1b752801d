"""Processes to be killed: forked, one at a time, from this one, which has imported everything and opened nothing.

Each line on its standard input is a life, in JSON; of each it says `born <pid>`, `stopped` if that stops itself, and
`ended <exit code>`. See `live` for what is in a life, `validator` for the notes that it leaves.
"""

import asyncio
import hashlib
import itertools
import json
import os
import random
import ssl
import sys
import time
import traceback
import uuid
from pathlib import Path

from conformance.durability import phases
from support.context import CONTEXT

from moengage_personalize import AsyncPersonalizeClient, BatchPolicy, RetryPolicy, _spooling
from moengage_personalize.spool import DiskSpool

EVENTS = 400  # a life
TEXTS = ["", "short", 'quotes " and \\ and {[{["braces"]}]}', "Grüße, 你好, 🛒", "x" * 300, "é\n" * 250]


class Notes:
    """A file of them. A line is the system's when it is written, whatever becomes of this process."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, **line):
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Overheard(DiskSpool):
    """A spool that notes what it is offered, and remembers the last of it."""

    last: tuple[str, str]
    note: Notes

    def journal(self, customer, event_uuid, impression, payload, *rest):
        self.last = event_uuid, hashlib.sha256(payload).hexdigest()
        self.note(offered=event_uuid, customer=json.loads(customer), sha256=self.last[1])
        return super().journal(customer, event_uuid, impression, payload, *rest)


class Reporter:
    """Reports all kinds of events."""

    def __init__(self, client, spool, note, rng, name):
        self._client, self._spool, self._note, self._rng, self._name = client, spool, note, rng, name
        self._numbers = itertools.count()

    def report(self):
        rng, label = self._rng, f"{self._name}/{next(self._numbers)}"
        customer = f"customer-{rng.randrange(7)}"
        experience = {**CONTEXT, "label": label, "text": rng.choice(TEXTS)}
        options = {}
        if rng.random() < 0.3:
            options["at"] = rng.randrange(1_500_000_000, 1_700_000_000)
        if rng.random() < 0.5:
            options["event_uuid"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        if rng.random() < 0.2:
            options["user_attributes"] = {"last": label}
        began = int(time.time())
        if rng.random() < 0.5:
            admission = self._client.track_impression(experience, customer_id=customer, **options)
        else:
            admission = self._client.track_click(experience, customer_id=customer, b_id=label, **options)
        if admission == "accepted":
            event_uuid, sha256 = self._spool.last
            earliest, latest = options.get("at", began), options.get("at", int(time.time()))
            self._note(
                accepted=options.get("event_uuid", event_uuid),
                customer=customer, sha256=sha256, earliest=earliest, latest=latest, label=label,
            )  # fmt: skip


async def live(
    *, base_url, ca_path, directory, notes, seed, phase=None, turn=0, events=EVENTS, adopt_every=0.2, max_pending=200
):
    """One life.

    Args:
        base_url: Of the server.
        ca_path: Of its authority.
        directory: The spool's.
        notes: The path of the notes.
        seed: Of everything that is chance here.
        phase: Where to stop; None: nowhere.
        turn: Which of the phase's places, in turn.
        events: How many to report before it waits to be killed; 0: deliver what is there, and end.
        adopt_every: Seconds between looks for the dead.
        max_pending: How many events may be in memory; the others wait on the disk.
    """
    note, rng = Notes(notes), random.Random(seed)
    _spooling.ADOPT_EVERY = adopt_every
    if phase is not None:
        phases.install(phase, turn, rng, note)
    files_of_the_dead = list(Path(directory).glob("*.seg"))
    spool = Overheard(directory, segment_bytes=4096, max_bytes=1 << 26, sync_interval=0.05)
    spool.note = note
    async with AsyncPersonalizeClient(
        "DEMO_WORKSPACE", "demo-key", base_url=base_url, ssl_context=ssl.create_default_context(cafile=ca_path),
        spool=spool,
        batching=BatchPolicy(linger=0.005, max_bytes=8_192, max_pending=max_pending),
        retrying=RetryPolicy(initial=0.02, maximum=0.1),
    ) as client:  # fmt: skip
        reporter = Reporter(client, spool, note, rng, seed)
        for number in range(events):
            reporter.report()
            if number % rng.randrange(1, 9) == 0:
                await asyncio.sleep(0.001)
        while events:
            await asyncio.sleep(60)
        while (await client.flush(10)).pending or any(map(holds_records, files_of_the_dead)):
            await asyncio.sleep(0.05)


def holds_records(path):
    """Whether there is anything behind a segment's header. (A kill in the middle of a header leaves half of one.)"""
    try:
        return any(path.read_bytes()[256:])
    except FileNotFoundError:
        return False


def serve_lives():
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if not child:
            try:
                asyncio.run(live(**life))
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        print("born", child, flush=True)
        status = os.waitpid(child, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            print("stopped", flush=True)
            status = os.waitpid(child, os.WUNTRACED)[1]
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve_lives()
