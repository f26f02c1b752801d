"""The contenders, each behind the same five verbs, with its own batching left at its defaults.

`track` is what a web handler calls, on the event loop. `settle` returns when everything that was tracked is answered:
each SDK's own flush, in a thread where it blocks. `room` says how much may be outstanding before an SDK drops events.

Everybody is given what a page has in hand after a fetch: an experience, or its context as a dictionary, decoded afresh
from a reply for every page. `ours-repeated` and `launchdarkly-repeated` share those of one page, as behind a cache.
"""

import asyncio
import inspect
import logging
import ssl
import time
import uuid
from importlib.metadata import version
from itertools import cycle, islice

from . import workload


class Contender:
    """One SDK.

    Attributes:
        distribution: What PyPI calls it.
        room: Events that may be outstanding.
    """

    distribution = ""
    room = 5_000
    stall_events = 10_000
    warm_up = 500

    def __init__(self, url, ca, capacity=None):
        self.url, self.ca, self.capacity = url, ca, capacity

    @classmethod
    def version(cls):
        return version(cls.distribution)

    def prepare(self, count):
        """What the next `count` calls of `track` are given; its cost is not the SDK's."""
        pages = [workload.page() for _ in range(-(-count // len(workload.SLOTS)))]
        return islice([properties for page in pages for properties in page], count)


class Ours(Contender):
    distribution = "moengage-personalize"
    max_bytes = 49_152

    @classmethod
    def version(cls):
        from moengage_personalize import __version__

        return __version__

    def _client(self, **more):
        from moengage_personalize import AsyncPersonalizeClient, BatchPolicy

        bounds = {"max_pending": self.capacity, "max_pending_bytes": 1 << 30} if self.capacity else {}
        batching = BatchPolicy(max_bytes=self.max_bytes, **bounds)
        context = ssl.create_default_context(cafile=self.ca)
        return AsyncPersonalizeClient(
            "WORKSPACE", "key", "01", base_url=self.url, ssl_context=context, batching=batching, **more
        )

    async def open(self):
        self.client = await self._client().__aenter__()
        self._track = self.client.track_impression

    def prepare(self, count):
        from moengage_personalize.core.wire.answers import read_experiences

        slots = workload.SLOTS
        pages = [read_experiences(workload.REPLY, slots).values() for _ in range(-(-count // len(slots)))]
        return islice([experience for page in pages for experience in page], count)

    def track(self, customer, experience):
        self._track(experience, customer_id=customer)

    async def settle(self):
        await self.client.flush()

    async def close(self):
        report = await self.client.aclose()
        if report.dropped or report.dropped_at_the_door or report.pending:
            raise RuntimeError(f"events were lost: {report}")


class OursRepeated(Ours):
    _page = ()

    def prepare(self, count):
        self._page = self._page or list(super().prepare(len(workload.SLOTS)))
        return islice(cycle(self._page), count)


class OursLarge(Ours):
    """With requests of a megabyte, the size of LaunchDarkly's, instead of 48 KiB."""

    max_bytes = 1 << 20


class Floor(Ours):
    """What the bytes alone cost: encoded, joined by customer, and posted by two senders over our transport.

    No bounds, no linger, no retry, no settling, no account of anything: a buffer's cost is what is beyond this.
    """

    async def open(self):
        from moengage_personalize import Effects

        await super().open()
        await self.client.warm_up()
        self._exchange = self.client._engine.exchange
        self._uuid4, self._wall = Effects().uuid4, Effects().wall
        self._lanes = {}

    def track(self, customer, experience):
        action = (
            f'{{"action":"{workload.EVENT}","moe_event_uuid":"{self._uuid4()}","event_time":{int(self._wall())},'
            f'"platform":"web","attributes":{experience.wire_context}}}'
        ).encode()
        lane = self._lanes.get(customer)
        if lane is None:
            self._lanes[customer] = [action]
        else:
            lane.append(action)

    def _bodies(self):
        lanes, self._lanes = self._lanes, {}
        elements, size = [], 0
        for customer, actions in lanes.items():
            element = b'{"customer_id":"%b","actions":[%b]}' % (customer.encode(), b",".join(actions))
            if elements and size + len(element) > self.max_bytes - 100:
                yield b'{"elements":[' + b",".join(elements) + b"]}"
                elements, size = [], 0
            elements.append(element)
            size += len(element) + 1
        yield b'{"elements":[' + b",".join(elements) + b"]}"

    async def settle(self):
        from moengage_personalize._exchange import Call

        bodies = self._bodies()

        async def send():
            for body in bodies:
                call = Call(method="POST", target="/v1/experiences/events", body=body, bulk=True)
                await self._exchange.request(call, deadline=asyncio.get_running_loop().time() + 10)

        await asyncio.gather(send(), send())


class OursSpool(Ours):
    """With a journal on disk; there if the client has a `spool`."""

    @staticmethod
    def exists():
        from moengage_personalize import AsyncPersonalizeClient

        return "spool" in inspect.signature(AsyncPersonalizeClient).parameters

    def _client(self, **more):
        import tempfile

        from moengage_personalize.spool import DiskSpool

        self._directory = tempfile.TemporaryDirectory(prefix="bench-spool-")
        return super()._client(spool=DiskSpool(self._directory.name), **more)

    async def close(self):
        await super().close()
        self._directory.cleanup()


class Noop(Contender):
    """A call that does nothing: what the measurement itself costs."""

    distribution = "moengage-personalize"
    version = Ours.version

    async def open(self):
        pass

    def track(self, customer, properties):
        self._track(properties, customer_id=customer)

    def _track(self, properties, *, customer_id, platform="web", at=None):
        pass

    async def settle(self):
        pass

    async def close(self):
        pass


class Segment(Contender):
    distribution = "segment-analytics-python"

    async def open(self):
        from segment.analytics.client import Client

        self.client = Client("write-key", host=self.url, max_queue_size=self.capacity or 10_000)

    def track(self, customer, properties):
        self.client.track(customer, workload.EVENT, properties)

    async def settle(self):
        await asyncio.to_thread(self.client.flush)

    async def close(self):
        await asyncio.to_thread(self.client.shutdown)


class Posthog(Contender):
    distribution = "posthog"

    async def open(self):
        from posthog import Posthog as Client

        self.client = Client("phc_key", host=self.url, max_queue_size=self.capacity or 10_000)

    def track(self, customer, properties):
        self.client.capture(workload.EVENT, distinct_id=customer, properties=properties)

    async def settle(self):
        await asyncio.to_thread(self.client.flush, None)

    async def close(self):
        await asyncio.to_thread(self.client.shutdown)


class Amplitude(Contender):
    """Its flush does not wait for batches that were taken before; events are counted as it reports them."""

    distribution = "amplitude-analytics"

    async def open(self):
        from amplitude import Amplitude as Client, Config
        from amplitude.event import BaseEvent

        self._event = BaseEvent
        self.sent = self.answered = 0
        self.client = Client("key", Config(server_url=f"{self.url}/2/httpapi", callback=self._note))

    def _note(self, _event, _code, _message=None):
        self.answered += 1

    def track(self, customer, properties):
        self.sent += 1
        self.client.track(self._event(workload.EVENT, user_id=customer, event_properties=properties))

    async def settle(self):
        self.client.flush()
        until = time.monotonic() + 60
        while self.answered < self.sent and time.monotonic() < until:
            await asyncio.sleep(0.005)

    async def close(self):
        await asyncio.to_thread(self.client.shutdown)


class LaunchDarkly(Contender):
    """`LDClient.track`, custom events through its event processor; no flag, no stream, no diagnostics."""

    distribution = "launchdarkly-server-sdk"
    stall_events = 9_000  # its buffer of 10,000 also takes an event for each customer it first sees

    async def open(self):
        from ldclient import Context, LDClient
        from ldclient.config import Config, HTTPConfig

        self._customer, self._create = None, Context.create
        self._number = 0
        config = Config(
            "sdk-key",
            events_uri=self.url,
            events_max_pending=self.capacity or 10_000,
            use_ldd=True,  # flags would come from a store: nothing is fetched
            diagnostic_opt_out=True,
            http=HTTPConfig(ca_certs=self.ca),
        )
        self.client = LDClient(config)

    def track(self, customer, properties):
        if customer != self._customer:  # a context for each page view
            self._customer, self._context = customer, self._create(customer)
        self._number += 1  # the metric value: custom events have no identity
        self.client.track(workload.EVENT, self._context, properties, self._number)

    async def settle(self):
        self.client.flush()
        await asyncio.to_thread(self.client._event_processor._wait_until_inactive)

    async def close(self):
        await asyncio.to_thread(self.client.close)


class LaunchDarklyRepeated(LaunchDarkly):
    _page = workload.page()

    def prepare(self, count):
        return islice(cycle(self._page), count)


class Naive(Contender):
    """An `httpx.AsyncClient(http2=True).post` for each event, 32 at the same time."""

    distribution = "httpx"
    room = 500
    warm_up = 50
    stall_events = 500

    async def open(self):
        import httpx

        context = ssl.create_default_context(cafile=self.ca)
        self.client = httpx.AsyncClient(http2=True, verify=context, auth=("WORKSPACE", "key"), trust_env=False)
        self._slots = asyncio.Semaphore(32)
        self._tasks = set()

    def track(self, customer, properties):
        task = asyncio.get_running_loop().create_task(self._post(customer, properties))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, customer, properties):
        action = {
            "action": workload.EVENT,
            "moe_event_uuid": str(uuid.uuid4()),
            "event_time": int(time.time()),
            "platform": "web",
            "attributes": properties,
        }
        body = {"elements": [{"customer_id": customer, "actions": [action]}]}
        async with self._slots:
            (await self.client.post(f"{self.url}/v1/experiences/events", json=body)).raise_for_status()

    async def settle(self):
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self):
        await self.client.aclose()


KINDS = {
    "ours": Ours,
    "ours-repeated": OursRepeated,
    "ours-large": OursLarge,
    "ours-spool": OursSpool,
    "floor": Floor,
    "noop": Noop,
    "segment": Segment,
    "posthog": Posthog,
    "amplitude": Amplitude,
    "launchdarkly": LaunchDarkly,
    "launchdarkly-repeated": LaunchDarklyRepeated,
    "naive": Naive,
}
logging.getLogger("segment").setLevel(logging.ERROR)
logging.getLogger("ldclient").setLevel(logging.ERROR)
