"""What a process may do to a client: each function is one scenario, run as a process of its own.

`python scenarios.py NAME [LOOP]`; the environment leads to an emulator. A scenario asserts what it claims; the test
looks at the exit status, at stderr, and at what the emulator has seen.
"""

import asyncio
import gc
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from functools import cache, partial

import pytest
import uvloop
from support.context import CONTEXT

from moengage_personalize import Admission, AsyncPersonalizeClient, BatchPolicy, Condition, UsageError
from moengage_personalize.spool import DiskSpool

LOOP = asyncio.SelectorEventLoop if sys.argv[2:3] != ["uvloop"] else uvloop.new_event_loop


def run(main):
    with asyncio.Runner(loop_factory=LOOP) as runner:
        return runner.run(main)


def say(**words):
    print(json.dumps(words), flush=True)


def track(client, count, who="customer"):
    for number in range(count):
        assert client.track_click(CONTEXT, customer_id=f"{who}-{number}") == "accepted"


def interrupted():
    client = AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0, grace=30.0))

    async def main():
        async with client:
            track(client, 100)
            print("tracked", flush=True)
            await asyncio.sleep(60)

    try:
        run(main())
    except KeyboardInterrupt:
        report = client.last_report
        if report is not None:
            say(delivered=report.delivered, dropped=report.dropped)
        sys.exit(130)


# ── event loops that come and go ─────────────────────────────────────────────────────────────────────────────────────


def refusing(word):
    """What is called here raises an error that says so; it does not hang, and does not pretend."""
    return pytest.raises(UsageError, match=word)


def closed_then_opened_in_a_second_run():
    client = AsyncPersonalizeClient()

    async def main():
        async with client:
            track(client, 10)

    run(main())
    with refusing("make a new one"):
        run(main())
    assert client.track_click(CONTEXT, customer_id="late") is Admission.CLOSED


def left_open_and_used_in_a_second_run():
    client = AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0))

    async def first():
        await client.__aenter__()
        await client.warm_up()
        track(client, 10)

    async def second():
        with refusing("another event loop"):
            track(client, 1)
        with refusing("another event loop"):
            await client.fetch("home-hero")
        assert client.health().condition is Condition.CLOSED
        report = await client.aclose(1.0)
        assert report.dropped_by_reason == {"closed": 10}
        assert report.balanced
        async with AsyncPersonalizeClient() as fresh:
            track(fresh, 10)
        assert fresh.last_report.delivered == 10

    run(first())
    with refusing("another event loop"):
        track(client, 1)
    run(second())


def used_after_its_loop_was_closed_under_it():
    loop = LOOP()
    client = AsyncPersonalizeClient()
    loop.run_until_complete(client.__aenter__())
    loop.close()  # nobody cancelled its tasks, nor ever will
    with refusing("closed"):
        track(client, 1)
    assert client.stats().dropped_by_reason == {"closed": 1}
    with refusing("another event loop"):
        track(client, 1)
    assert client.stats().balanced
    assert client.health().condition is Condition.CLOSED


def closed_after_its_loop_was():
    loop = LOOP()
    client = AsyncPersonalizeClient()

    async def main():
        await client.__aenter__()
        track(client, 10)

    loop.run_until_complete(main())
    loop.close()
    report = run(client.aclose())
    assert report.dropped_by_reason == {"closed": 10}
    assert report.balanced


def two_loops_in_two_threads():
    """One client each: they are strangers."""

    async def main(name):
        async with AsyncPersonalizeClient() as client:
            track(client, 50, name)
            assert (await client.fetch("home-hero", customer_id=name, deadline=5.0))["home-hero"].matched
        assert client.last_report.delivered == 50

    threads = [threading.Thread(target=run, args=(main(name),)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_a_child(client):
    """What a forked child finds: the old client says what to do, and a new one works."""
    with refusing("forked"):
        track(client, 1)

    async def main():
        for call in (client.fetch("home-hero"), client.flush(), client.__aenter__()):
            with refusing("forked"):
                await call
        await client.aclose()
        async with AsyncPersonalizeClient(spool=_spool()) as own:
            assert (await own.fetch("home-hero", customer_id="child", deadline=5.0))["home-hero"].matched
            track(own, 20, "child")
        assert own.last_report.delivered == 20

    run(main())


@cache
def _spool():
    """One for all clients of the process and its children, as a module would have it."""
    return DiskSpool(os.environ["SPOOL"]) if os.environ.get("SPOOL") else None


async def busy_while(fork):
    """Uses a client, forks, and uses it again; `fork` returns the child's exit status."""
    async with AsyncPersonalizeClient(spool=_spool()) as client:
        assert (await client.fetch("home-hero", customer_id="parent", deadline=5.0))["home-hero"].matched
        track(client, 20, "before")
        assert await fork(client) == 0
        assert (await client.fetch("home-hero", customer_id="parent-2", deadline=5.0))["home-hero"].matched
        track(client, 20, "after")
        report = await client.flush()
        opened = client.stats().connections_opened
    assert (report.delivered, report.dropped, report.pending) == (40, 0, 0)
    assert opened == 1, "the parent's connection was damaged"


def forked_after_use():
    async def fork(client):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                in_a_child(client)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])

    run(busy_while(fork))


def forked_by_multiprocessing():
    async def fork(client):
        process = multiprocessing.get_context("fork").Process(target=in_a_child, args=(client,))
        process.start()
        await asyncio.to_thread(process.join)
        return process.exitcode

    run(busy_while(fork))


def started_programs():
    """Of these, uvloop forks within libuv and runs the hooks of forks on both sides."""

    async def fork(client):
        program = [sys.executable, "-c", "import sys; sys.exit(0)"]
        processes = [await asyncio.create_subprocess_exec(*program) for _ in range(3)]
        statuses = [await process.wait() for process in processes]
        plain = await asyncio.to_thread(subprocess.run, program, preexec_fn=lambda: None, check=False)
        return max(*statuses, plain.returncode)

    run(busy_while(fork))


# ── nobody closes ────────────────────────────────────────────────────────────────────────────────────────────────────


def forgotten_with_events_pending():
    """Collected while its loop runs: said so, and what it took on is delivered all the same."""

    async def main():
        client = await AsyncPersonalizeClient(batching=BatchPolicy(linger=0.2)).__aenter__()
        track(client, 10)
        del client
        gc.collect()
        await asyncio.sleep(1.0)

    run(main())


def never_closed():
    async def main():
        global kept
        kept = await AsyncPersonalizeClient(batching=BatchPolicy(linger=60.0), spool=_spool()).__aenter__()
        track(kept, 10)

    run(main())
    say(dropped=kept.stats().dropped, spooled=kept.stats().spooled, balanced=kept.stats().balanced)


def never_closed_nor_its_loop():
    async def main():
        global kept
        kept = await AsyncPersonalizeClient(spool=_spool()).__aenter__()
        track(kept, 10)
        await asyncio.sleep(0.3)

    global loop
    loop = LOOP()
    loop.run_until_complete(main())


def exits_while_the_resolver_is_stuck():
    resolve = socket.getaddrinfo

    def stuck(host, *rest, **options):
        if host == "stuck.invalid":
            time.sleep(30)
        return resolve(host, *rest, **options)

    socket.getaddrinfo = stuck

    async def main():
        async with AsyncPersonalizeClient(
            base_url="https://stuck.invalid", batching=BatchPolicy(linger=0.0, grace=0.3)
        ) as client:
            track(client, 10)
            await asyncio.sleep(0.1)
        say(dropped=client.last_report.dropped)

    run(main())


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tracked_by_a_daemon_thread():
    """It is told the remedies, which work, and does not hold up the end."""
    told, done = [], threading.Event()

    def work(client, loop):
        try:
            client.track_click(CONTEXT, customer_id="customer-1")
        except UsageError as error:
            told.append(str(error))
        loop.call_soon_threadsafe(partial(client.track_click, CONTEXT, customer_id="customer-2"))
        done.set()
        while True:
            try:
                client.track_click(CONTEXT, customer_id="customer-3")
            except UsageError:
                continue

    async def main():
        async with AsyncPersonalizeClient() as client:
            threading.Thread(target=work, args=(client, asyncio.get_running_loop()), daemon=True).start()
            await asyncio.to_thread(done.wait)
            await asyncio.sleep(0.1)
        say(delivered=client.last_report.delivered, told=told)

    run(main())


# ── freezing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def frozen():
    """Notices that it stood still, then fetches at once, and tells how that went and when its events were delivered."""

    async def main():
        async with AsyncPersonalizeClient(batching=BatchPolicy(linger=2.0)) as client:
            assert (await client.fetch("home-hero", customer_id="visitor-0", deadline=5.0))["home-hero"].matched
            track(client, 50)
            print("ready", flush=True)
            thawed = before = time.monotonic()
            while thawed - before < 1.0:
                before = time.monotonic()
                await asyncio.sleep(0.02)
                thawed = time.monotonic()
            page = await client.fetch("home-hero", customer_id="visitor-1", deadline=1.0)
            took = time.monotonic() - thawed
            while client.stats().delivered < 50:
                await asyncio.sleep(0.01)
            flushed = time.monotonic() - thawed
            stats = client.stats()
            say(matched=page["home-hero"].matched, took=took, flushed=flushed, connections=stats.connections_opened)

    run(main())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
