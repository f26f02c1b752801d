"""A MoEngage with moods, which keeps a ledger of what it read and what it took on."""

import json
from math import inf

import anyio
import attrs
import httpx

from support.moengage import accepted, error

_DECODER = json.JSONDecoder()


@attrs.frozen
class Mood:
    """How requests are answered.

    Attributes:
        name: For the falsifying example.
        status: Of the answer; None: there is none.
        headers: Of the answer; a callable is given the wall clock.
        takes: Whether the events are taken on, whatever is answered.
        delay: Seconds before the answer.
        limit: Bytes above which a request is too large.
        drip: Seconds between the bytes of the answer.
        only: The customer whose requests this is about; all others are served.
    """

    name: str
    status: int | None = 200
    headers: dict = attrs.field(factory=dict)
    takes: bool = False
    delay: float = 0.0
    limit: float = inf
    drip: float = 0.0
    only: str | None = None


OK = Mood("ok")


class Dripping(httpx.AsyncByteStream):
    def __init__(self, seconds):
        self._seconds = seconds

    async def __aiter__(self):
        for byte in b'{"status":"success"}':
            await anyio.sleep(self._seconds)
            yield bytes([byte])


@attrs.frozen
class Read:
    """One request as it was read: each customer's element, and the bytes of each action by UUID."""

    elements: list
    actions: dict

    @classmethod
    def of(cls, content):
        elements, actions, at = json.loads(content)["elements"], {}, 0
        text = content.decode()
        for element in elements:
            at = text.index('"actions":[', at) + len('"actions":[')
            for action in element["actions"]:
                _, end = _DECODER.raw_decode(text, at)
                actions[action["moe_event_uuid"]] = text[at:end]
                at = end + 1
        return cls(elements, actions)


class Moody(httpx.AsyncBaseTransport):
    """See the module's docstring.

    Attributes:
        mood: As it is now.
        key: The `authorization` that is accepted; None: any.
        poison: UUIDs that are refused wherever they are.
        wall: Epoch seconds.
        taken: UUIDs in order of their first acceptance.
        bytes_of: What each UUID looked like, whether it was taken or not.
        alone: UUIDs that were refused by themselves.
        violations: What a client must never do, and did.
    """

    def __init__(self, wall):
        self.wall = wall
        self.mood = OK
        self.key = None
        self.poison = set()
        self.healed = False
        self.taken = {}
        self.bytes_of = {}
        self.alone = set()
        self.flying = set()
        self.violations = []
        self.requests = 0
        self.on_request = lambda read: None

    def heal(self):
        """From now on everything is accepted."""
        self.mood, self.healed = OK, True
        self.poison.clear()

    async def handle_async_request(self, request):
        self.requests += 1
        try:
            read = Read.of(request.content)
            mine = {element["customer_id"] for element in read.elements}
            self._look(read, mine)
            self.on_request(read)
        except Exception as trouble:
            self.violations.append(f"a request that cannot be read: {trouble!r}")
            raise
        self.flying |= mine
        try:
            return await self._answer(request, read, self.mood)
        except httpx.TransportError:
            raise
        except Exception as trouble:
            self.violations.append(f"a request that cannot be answered: {trouble!r}")
            raise
        finally:
            self.flying -= mine

    async def aclose(self):
        pass

    def _look(self, read, mine):
        if len(mine) != len(read.elements):
            self.violations.append("two elements of one customer in a request")
        if mine & self.flying:
            self.violations.append("two requests of one customer at the same time")
        for event_uuid, action in read.actions.items():
            if self.bytes_of.setdefault(event_uuid, action) != action:
                self.violations.append(f"{event_uuid} with other bytes")

    async def _answer(self, request, read, mood):
        if mood.only is not None and mood.only not in {element["customer_id"] for element in read.elements}:
            mood = OK
        if mood.takes:
            self._take(read)
        await anyio.sleep(mood.delay)
        if mood.status is None:
            raise httpx.ConnectError("refused") if not mood.delay else httpx.ReadError("lost")
        if self.key is not None and request.headers["authorization"] != self.key:
            return error(401)
        if mood.status != 200:
            self._refuse(read, mood.status)
            headers = mood.headers(self.wall()) if callable(mood.headers) else mood.headers
            return error(mood.status, **headers)
        if len(request.content) > mood.limit:
            self._refuse(read, 413)
            return error(413)
        attributes = any("poison" in element.get("user_attributes", {}) for element in read.elements)
        if self.poison & read.actions.keys() or (attributes and not self.healed):
            self._refuse(read, 400)
            return error(400)
        self._take(read)
        return httpx.Response(200, stream=Dripping(mood.drip)) if mood.drip else accepted()

    def _take(self, read):
        self.taken.update(dict.fromkeys(each for each in read.actions if each not in self.taken))

    def _refuse(self, read, status):
        if status in (400, 413, 422) and len(read.actions) == 1:
            self.alone |= read.actions.keys()
