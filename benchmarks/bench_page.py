"""What a page with five slots costs: five components that await `fetch` at the same time, against five httpx calls.

    python benchmarks/bench_page.py [--pages N] [--rounds N]

The server is the emulator, in a process of its own, over TLS and HTTP/2. Only this process's CPU counts. The contenders
take turns in one run, so that a slow machine is slow for both; the median of the rounds is compared. Targets
(design.md, section 6): a page ≤ 0.10 of five httpx calls with one request; one fetch ≤ 0.15 of one httpx call.
"""

import argparse
import asyncio
import gc
import importlib.util
import multiprocessing
import platform
import ssl
import statistics
import time
from importlib.metadata import version

import httpx

from moengage_personalize import AsyncPersonalizeClient

KEYS = [f"slot-{n}" for n in range(5)]
PAYLOAD = {"Title": "Welcome back", "Subtitle": "x" * 200, "Discount": 20, "Cta": {"text": "Shop", "url": "/shop"}}


def serve(pipe):
    """The server's process."""
    from moengage_personalize.emulator import Emulator, serve as served

    async def main():
        emulator = Emulator(experiences=dict.fromkeys(KEYS, PAYLOAD), rate_limit=None)
        async with served(emulator) as server:
            pipe.send((server.base_url, str(server.ca_path), emulator.workspace_id, emulator.api_key))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


async def page_of_httpx(http, url, who):
    async def one(key):
        body = {"identifiers": {"customer_id": who}, "customer_id": who, "experience_key": [key]}
        return (await http.post(url, json=body)).json()["experiences"][key]["payload"]["Title"]["value"]

    return await asyncio.gather(*map(one, KEYS))


async def page_of_ours(client, who):
    async def one(key):
        return (await client.fetch(key, customer_id=who, deadline=5.0))[key].get("Title", default="")

    return await asyncio.gather(*map(one, KEYS))


async def one_of_httpx(http, url, who):
    body = {"identifiers": {"customer_id": who}, "customer_id": who, "experience_key": KEYS[:1]}
    return [(await http.post(url, json=body)).json()["experiences"][KEYS[0]]["payload"]["Title"]["value"]]


async def one_of_ours(client, who):
    return [(await client.fetch(KEYS[0], customer_id=who, deadline=5.0))[KEYS[0]].get("Title", default="")]


async def cpu(page, count, concurrent):
    """Seconds of CPU per page; pages are asked `concurrent` at a time."""
    gc.collect()
    began, wall = time.process_time(), time.perf_counter()
    for first in range(0, count, concurrent):
        for titles in await asyncio.gather(*(page(f"person-{first + n}") for n in range(concurrent))):
            assert set(titles) == {"Welcome back"}, titles
    return (time.process_time() - began) / count, (time.perf_counter() - wall) / count


async def compare(name, ours, theirs, *, pages, rounds, concurrent, target):
    for page in (ours, theirs):
        await cpu(page, pages // 4, concurrent)
    results = [[await cpu(page, pages, concurrent) for page in (ours, theirs)] for _ in range(rounds)]
    mine, others = (statistics.median(each[side][0] for each in results) for side in (0, 1))
    ratio = statistics.median(each[0][0] / each[1][0] for each in results)
    print(
        f"{name:34} {concurrent:3} at a time: {mine * 1e6:7.0f} µs against {others * 1e6:7.0f} µs of CPU:"
        f" {ratio:.3f} (target {target}) {'ok' if ratio <= target else 'MISSED'}"
    )


def own_transport(context):
    if importlib.util.find_spec("moengage_personalize.http2") is None:
        return None
    from moengage_personalize.http2 import Http2Transport

    return Http2Transport(ssl_context=context)


async def main(options, base_url, ca_path, workspace_id, api_key):
    def context():
        return ssl.create_default_context(cafile=ca_path)

    url, ours = f"{base_url}/v1/experiences/fetch", context()
    client = AsyncPersonalizeClient(
        workspace_id, api_key, base_url=base_url, transport=own_transport(ours), ssl_context=ours
    )
    auth, headers = (workspace_id, api_key), {"MOE-APPKEY": workspace_id}
    async with client, httpx.AsyncClient(http2=True, verify=context(), auth=auth, headers=headers) as http:
        print(
            f"Python {platform.python_version()}, httpx {version('httpx')}, orjson"
            f" {'yes' if importlib.util.find_spec('orjson') else 'no'}, {type(client._engine.transport).__name__},"
            f" payload {len(str(PAYLOAD))} bytes per slot"
        )
        given = {"pages": options.pages, "rounds": options.rounds}
        for concurrent in (1, 8):
            await compare(
                "page of 5 slots",
                lambda who: page_of_ours(client, who),
                lambda who: page_of_httpx(http, url, who),
                concurrent=concurrent, target=0.10, **given,
            )  # fmt: skip
        stats = client.stats()
        print(f"{stats.fetches} fetches, {stats.fetch_requests} requests, {stats.requests_saved} saved")
        for concurrent in (1, 32):
            await compare(
                "one fetch",
                lambda who: one_of_ours(client, who),
                lambda who: one_of_httpx(http, url, who),
                concurrent=concurrent, target=0.15, **given,
            )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        asyncio.run(main(parser.parse_args(), *here.recv()))
    finally:
        here.send(None)
        process.join(5)
