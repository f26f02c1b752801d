"""A process to be killed: reports events through a client with a spool, and names each as soon as it was accepted.

Arguments: base URL, CA file, spool directory, prefix of its UUIDs' parts, events per second (0: none, just drain).
"""

import asyncio
import ssl
import sys

from support.context import CONTEXT

from moengage_personalize import AsyncPersonalizeClient, BatchPolicy, RetryPolicy, event_uuid_for
from moengage_personalize.spool import DiskSpool


async def main(base_url, ca_path, directory, prefix, rate):
    async with AsyncPersonalizeClient(
        "DEMO_WORKSPACE",
        "demo-key",
        base_url=base_url,
        ssl_context=ssl.create_default_context(cafile=ca_path),
        spool=DiskSpool(directory, segment_bytes=1 << 16, max_bytes=1 << 26),
        batching=BatchPolicy(linger=0.02, max_bytes=8_192, max_pending=500),
        retrying=RetryPolicy(initial=0.02, maximum=0.2),
    ) as client:
        if not rate:
            print("draining", flush=True)
            for _ in range(200):
                await asyncio.sleep(0.1)
                report = await client.flush(10)
                spool = client._spool.stats()
                if not report.pending and not spool.pending and not spool.unread_segments:
                    break
            print(f"drained {report.recovered} {report.delivered} {report.pending}", flush=True)
            return
        number = 0
        while True:
            for _ in range(10):
                event_uuid = event_uuid_for(prefix, number)
                admission = client.track_click(
                    CONTEXT, customer_id=f"customer-{number % 17}", event_uuid=event_uuid, b_id=f"{prefix}-{number}"
                )
                if admission == "accepted":
                    sys.stdout.write(event_uuid + "\n")
                number += 1
            sys.stdout.flush()
            await asyncio.sleep(10 / rate)


asyncio.run(main(*sys.argv[1:5], float(sys.argv[5])))
