"""Short words for the emulator's tests: valid bodies to spoil, and a way to ask without a network."""

import base64
import itertools
import json
from collections.abc import Mapping
from typing import Any

import attrs

from moengage_personalize.emulator import Effects, Emulator
from moengage_personalize.emulator._messages import Reply, Request

CONTEXT = {
    "cid": "66d55ae445921e4d35ae4368_F_T_WP_AB_2_P_0_AU_5A",
    "experience": "Test Server side experience",
    "moe_locale_id": "0",
    "moe_variation_id": "2",
    "audience_name": "All Users",
    "audience_id": "5A",
    "type": "Web Personalization",
}
SHOWN = "MOE_PERSONALIZATION_MESSAGE_SHOWN"
CLICKED = "MOE_PERSONALIZATION_MESSAGE_CLICKED"
NOW = 1_795_459_200.0  # a whole minute
_numbers = itertools.count(1)


def uuid4(number: int | None = None) -> str:
    """A v4-shaped UUID; another one at each call unless numbered."""
    return f"aa886712-4537-47c1-b126-{next(_numbers) if number is None else number:012x}"


def action(**changes: Any) -> dict[str, Any]:
    """One valid action; a change to `...` takes the member away."""
    whole = {
        "action": SHOWN,
        "moe_event_uuid": uuid4(),
        "event_time": int(NOW),
        "platform": "web",
        "attributes": CONTEXT,
    }
    return spoiled(whole, changes)


def element(*actions: Any, **changes: Any) -> dict[str, Any]:
    """One valid element."""
    return spoiled({"customer_id": "john@example.com", "actions": list(actions) or [action()]}, changes)


def events(*elements: Any) -> dict[str, Any]:
    """One valid events body."""
    return {"elements": list(elements) or [element()]}


def spoiled(whole: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**whole, **changes}.items() if value is not ...}


@attrs.define
class World:
    """A clock that moves when told to, dice that show what they are told, and sleeps that are only noted."""

    now: float = NOW
    dice: float = 0.0
    slept: list[float] = attrs.field(factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def effects(self) -> Effects:
        return Effects(now=lambda: self.now, random=lambda: self.dice, req_id=lambda: "req-1", sleep=self.sleep)


def emulator(experiences: Any = None, *, world: World | None = None, **options: Any) -> Emulator:
    """An emulator with a still clock."""
    given = {"home-hero": {"Title": "Hi"}} if experiences is None else experiences
    return Emulator(experiences=given, effects=(world or World()).effects(), **options)


def authorization(workspace_id: str = "DEMO_WORKSPACE", api_key: str = "demo-key") -> dict[bytes, bytes]:
    credentials = base64.b64encode(f"{workspace_id}:{api_key}".encode())
    return {b"authorization": b"Basic " + credentials, b"moe-appkey": workspace_id.encode()}


_HEADERS = {**authorization(), b"content-type": b"application/json"}


def request(path: str, body: Any = None, *, method: str | None = None, **headers: bytes | None) -> Request:
    """A request with good credentials; a header of None is left out."""
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    path, _, query = path.partition("?")
    return Request(
        method=method or ("GET" if body is None else "POST"),
        path=path if path.startswith("/") else f"/v1/experiences/{path}",
        query=query.encode(),
        headers={name: value for name, value in {**_HEADERS, **named}.items() if value is not None},
        body=b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


def ask(asked: Emulator, path: str, body: Any = None, **rest: Any) -> Reply:
    """What the emulator answers."""
    return asked.handle(request(path, body, **rest))


def said(reply: Reply) -> Any:
    """The JSON in an answer."""
    return json.loads(reply.body)


def served(asked: Emulator, body: Any) -> dict[str, Any]:
    """`experiences` of a fetch that must succeed."""
    reply = ask(asked, "fetch", body)
    assert reply.status == 200, reply.body
    return said(reply)["experiences"]


def refused(asked: Emulator, path: str, body: Any, *, status: int = 400) -> str:
    """The description of a request that must be refused, and must leave no trace."""
    before = (len(asked.ledger.events), len(asked.profiles))
    reply = ask(asked, path, body)
    assert reply.status == status, reply.body
    answer = said(reply)
    assert set(answer) <= {"title", "description", "code"}
    assert answer["title"]
    assert (len(asked.ledger.events), len(asked.profiles)) == before
    return answer["description"]
