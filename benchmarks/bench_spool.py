"""What journaling one event costs on the event loop's thread, beside its alternatives.

Run `python benchmarks/bench_spool.py [--events N] [--directory PATH] [--json FILE]`. Each subject journals
the same entries in bursts, idle and beside one thread that keeps the CPU busy; the loop's own overhead (a
no-op in the same place) is a row of its own. Times are per append, in microseconds.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moengage_personalize.spool import DiskSpool, Entry
from moengage_personalize.spool._format import encode_entry

Append = Callable[[Entry], object]


PAYLOAD = b'{"action":"MOE_PERSONALISATION_IMPRESSION","attributes":{"experience":"' + b"x" * 310 + b'","n":%d}}'


def entry(number: int) -> Entry:
    """As the client makes it: new bytes, just before they are journaled."""
    return Entry(
        event_uuid=f"9b2f6a52-7d1c-4f3e-8a6b-{number:012x}",
        customer=b'"customer-%06d"' % (number % 5000),
        impression=True,
        payload=PAYLOAD % number,
        accepted_at=1_700_000_000.0 + number,
    )


@contextmanager
def busy(*, wanted: bool) -> Iterator[None]:
    """One thread that never lets go of the GIL by itself."""
    stop = False

    def spin() -> None:
        while not stop:
            sum(range(100))

    thread = threading.Thread(target=spin, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop = True
        if wanted:
            thread.join()


def measure(append: Append, events: int, burst: int) -> dict[str, float]:
    """Bursts with a pause between them, as requests come; the pause is where other threads get their turn."""
    clock = time.perf_counter_ns
    times = []
    for number in range(events):
        made = entry(number)
        begin = clock()
        append(made)
        times.append(clock() - begin)
        if number % burst == 0:
            time.sleep(0.001)
    times.sort()
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] / 1000  # noqa: E731
    return {"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": times[-1] / 1000}


async def mapped(directory: Path, events: int, burst: int) -> dict[str, float]:
    spool = DiskSpool(directory / "spool")
    await spool.open()
    result = measure(spool.append, events, burst)
    stats = spool.stats()
    assert stats.appended == events, stats
    result["inline segments"] = stats.inline_segments
    await spool.aclose()
    return result


async def appended(directory: Path, events: int, burst: int) -> dict[str, float]:
    fd = os.open(directory / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return measure(lambda entry: os.write(fd, encode_entry(entry)), events, burst)
    finally:
        os.close(fd)


async def sqlite(directory: Path, events: int, burst: int) -> dict[str, float]:
    database = sqlite3.connect(directory / "wal.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE events (id TEXT, body BLOB)")
    insert = "INSERT INTO events VALUES (?, ?)"
    try:
        return measure(lambda entry: database.execute(insert, (entry.event_uuid, encode_entry(entry))), events, burst)
    finally:
        database.close()


async def encoded(_: Path, events: int, burst: int) -> dict[str, float]:
    return measure(encode_entry, events, burst)


async def nothing(_: Path, events: int, burst: int) -> dict[str, float]:
    return measure(lambda _: None, events, burst)


SUBJECTS = {
    "a no-op": nothing,
    "encoding alone": encoded,
    "DiskSpool.append": mapped,
    "os.write to a log": appended,
    "sqlite, WAL, NORMAL": sqlite,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--directory")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    for wanted in (False, True):
        for name, subject in SUBJECTS.items():
            directory = Path(tempfile.mkdtemp(prefix="bench-spool-", dir=arguments.directory))
            few = min(2000, arguments.events) if wanted and subject in (appended, sqlite) else arguments.events
            try:
                with busy(wanted=wanted):
                    result = asyncio.run(subject(directory, few, arguments.burst))
            finally:
                shutil.rmtree(directory)
            rows.append({"subject": name, "busy thread": wanted, **result})
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, payload {len(entry(1).payload)} bytes")
    print(f"{'append, microseconds':24} {'beside':9} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9}")
    for row in rows:
        beside = "busy" if row["busy thread"] else "idle"
        print(f"{row['subject']:24} {beside:9} " + " ".join(f"{row[k]:9.1f}" for k in ("p50", "p99", "p99.9", "max")))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"python": sys.version, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
