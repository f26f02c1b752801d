"""A scripted MoEngage behind httpx's transport interface, and shorthands for what tests say again and again."""

import json
from collections import Counter

import anyio
import httpx

from moengage_personalize import AsyncPersonalizeClient, Effects

from .context import CONTEXT


def served(**variables):
    """One served experience, as MoEngage writes it."""
    payload = {name: {"value": value, "data_type": "string"} for name, value in variables.items()}
    return {"payload": payload, "experience_context": CONTEXT}


def serving(**experiences):
    return httpx.Response(200, json={"experiences": experiences})


def accepted():
    return httpx.Response(200, json={"status": "success", "message": "accepted", "req_id": "1"})


def error(status, description="no", **headers):
    body = {"title": "Request Error", "description": description}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


class MoEngage(httpx.AsyncBaseTransport):
    """Records what arrives and plays what was scripted.

    `events` and `fetch` are called with the decoded body and return a response, an exception to raise, or a number of
    seconds to hang for; they may be async. Default: everything is accepted, and every key is served.
    """

    def __init__(self, *, events=None, fetch=None, metadata=None):
        self.events = events or (lambda body: accepted())
        self.fetch = fetch or (
            lambda body: serving(**{key: served(Title=f"for {key}") for key in body.get("experience_key", ["all"])})
        )
        self.metadata = metadata or (
            lambda body: httpx.Response(200, json={"metadata": {"count": 0, "experiences": []}})
        )
        self.requests = []  # (path, decoded body)
        self.times = []
        self.bodies = []
        self.headers = []
        self.under_way = 0
        self.closed = False

    async def handle_async_request(self, request):
        body = json.loads(request.content) if request.content else None
        path = request.url.path.rsplit("/", 1)[-1]
        self.requests.append((path, body))
        self.times.append(anyio.current_time())
        self.bodies.append(request.content)
        self.headers.append(request.headers)
        self.under_way += 1
        try:
            answer = getattr(self, path)(body)
            if hasattr(answer, "__await__"):
                answer = await answer
            if isinstance(answer, int | float):
                await anyio.sleep(answer)
                raise httpx.ReadTimeout("late")
            if isinstance(answer, Exception):
                raise answer
            await anyio.sleep(0)
            return answer
        finally:
            self.under_way -= 1

    async def aclose(self):
        self.closed = True

    def count(self, path):
        return sum(1 for each, _ in self.requests if each == path)

    @property
    def elements(self):
        """All elements of accepted-or-not event requests, in order of arrival."""
        return [element for path, body in self.requests if path == "events" for element in body["elements"]]

    @property
    def actions(self):
        return [(element["customer_id"], action) for element in self.elements for action in element["actions"]]

    @property
    def uuids(self):
        return [action["moe_event_uuid"] for _, action in self.actions]

    def by_customer(self):
        """Each customer's UUIDs, in order of arrival."""
        found = {}
        for customer, action in self.actions:
            found.setdefault(customer, []).append(action["moe_event_uuid"])
        return found

    def repeated(self):
        return {uuid: count for uuid, count in Counter(self.uuids).items() if count > 1}


def make_client(transport=None, **options):
    """A client of a scripted MoEngage, without chance: its jitter is one half."""
    options.setdefault("effects", Effects(jitter=lambda: 0.5))
    return AsyncPersonalizeClient(
        "WORKSPACE", "personalize-key", "01", transport=transport if transport is not None else MoEngage(), **options
    )
