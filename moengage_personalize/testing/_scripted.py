"""The SDK's own client, with a script in MoEngage's place.

Theory: nothing of the client is imitated. A transport answers as the script says, and the three ways to track are
watched; so input is checked, fetches are merged and events admitted as they are in production.

Invariant: no network, no disk, no credentials.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from uuid import uuid4

import anyio
import attrs
import httpx

from moengage_personalize import (
    Action,
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    CachePolicy,
    Event,
    FetchPolicy,
    Loss,
    RetryPolicy,
)

from ._record import Asked, Record, Tracked
from ._script import Script

P = ParamSpec("P")
SWITCH = "MOENGAGE_PERSONALIZE_DISABLED"


@attrs.frozen
class Stage:
    """A script, and the record of what came of it. Many clients may play on one."""

    script: Script
    record: Record


class ScriptedTransport(httpx.AsyncBaseTransport):
    """MoEngage, as the script has it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.pausing = 0  # answers that are being waited for

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        match request.url.path.rpartition("/")[2]:
            case "fetch":
                return await self._fetch(json.loads(request.content))
            case "metadata":
                return httpx.Response(200, json=_metadata(self._stage.script.keys()))
            case _:
                return httpx.Response(200, json={"status": "success", "message": "accepted", "req_id": "fake"})

    async def _fetch(self, body: Mapping[str, Any]) -> httpx.Response:
        asked = Asked.of(body)
        keys = asked.keys or None
        self._stage.record.note_question(asked)
        trouble = self._stage.script.meet(keys, asked.customer_id)
        if trouble is not None:
            if trouble.times_out:
                raise httpx.ReadTimeout("as the script has it", request=None)
            if trouble.status is not None:
                after = {} if trouble.retry_after is None else {"retry-after": str(trouble.retry_after)}
                said = {"title": "Scripted Error", "description": "as the script has it"}
                return httpx.Response(trouble.status, json=said, headers=after)
            await self._pause(trouble.seconds)
        return httpx.Response(200, json=self._stage.script.answer(keys, asked.customer_id))

    async def _pause(self, seconds: float) -> None:
        self.pausing += 1
        try:
            await anyio.sleep(seconds)
        finally:
            self.pausing -= 1


def _metadata(keys: list[str]) -> dict[str, Any]:
    entries = [{"experience_name": key, "experience_key": key, "status": "Active"} for key in keys]
    return {"metadata": {"count": len(entries), "experiences": entries}}


def _watched(
    method: Callable[Concatenate[AsyncPersonalizeClient, P], Admission], action: Action | None
) -> Callable[Concatenate[ScriptedClient, P], Admission]:
    """The method, with its event and its answer recorded."""

    @wraps(method)
    def track(self: ScriptedClient, /, *args: P.args, **kwargs: P.kwargs) -> Admission:
        self.seen = None
        admission = method(self, *args, **kwargs)
        event = _complete(self.seen or _event(action, *args, **kwargs))
        if isinstance(event, Event):  # a client that is paused or closed takes a look at nothing
            self.stage.record.note(Tracked.of(event, admission))
        return admission

    return track


def _event(action: Action | None, /, *args: Any, **kwargs: Any) -> Any:
    """What was to be tracked, of a call that the client did not look into, since it is paused, say."""
    if action is None:
        return args[0] if args else kwargs["event"]
    return Event(action=action, **dict(zip(("experience",), args, strict=False)), **kwargs)


class ScriptedClient(AsyncPersonalizeClient):
    """The client on a stage.

    It asks once, so that an answer which is scripted for one request is the answer to one call.

    Args:
        stage: The script and the record.
        enabled: As for the client; `MOENGAGE_PERSONALIZE_DISABLED` is not read.
        fetching: As for the client, but for `attempts`.
        batching: As for the client.
        retrying: As for the client.
        caching: As for the client.
        before_send: As for the client; what it lets through is what is recorded.
        on_dropped: As for the client.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        enabled: bool = True,
        fetching: FetchPolicy = FetchPolicy(),  # noqa: B008 - frozen
        batching: BatchPolicy = BatchPolicy(),  # noqa: B008
        retrying: RetryPolicy = RetryPolicy(),  # noqa: B008
        caching: CachePolicy = CachePolicy(),  # noqa: B008
        before_send: Callable[[Event], Event | None] | None = None,
        on_dropped: Callable[[Loss], None] | None = None,
    ) -> None:
        self.stage = stage
        self.seen: Event | None = None
        self.transport = ScriptedTransport(stage)
        self._consent = before_send
        with _without_the_switch():
            super().__init__(
                "fake",
                "fake",
                "01",
                enabled=enabled,
                fetching=attrs.evolve(fetching, attempts=1),
                batching=batching,
                retrying=retrying,
                caching=caching,
                before_send=self._see,
                on_dropped=on_dropped,
                transport=self.transport,
            )

    def _see(self, event: Event) -> Event | None:
        agreed = event if self._consent is None else self._consent(event)
        self.seen = _complete(event if agreed is None else agreed)
        return None if agreed is None else self.seen

    def expect(self, *keys: str) -> None:
        super().expect(*keys)
        self.stage.script.list_keys(keys)

    track_impression = _watched(AsyncPersonalizeClient.track_impression, Action.IMPRESSION)
    track_click = _watched(AsyncPersonalizeClient.track_click, Action.CLICK)
    track = _watched(AsyncPersonalizeClient.track, None)


def _complete(event: Any) -> Any:
    """The event with the time and the UUID that the client would give it."""
    if not isinstance(event, Event):
        return event
    at = time.time() if event.at is None else event.at
    return attrs.evolve(event, at=at, event_uuid=event.event_uuid or str(uuid4()))


@contextmanager
def _without_the_switch() -> Iterator[None]:
    """A test suite that switches personalisation off by the environment can use a fake all the same."""
    was = os.environ.pop(SWITCH, None)
    try:
        yield
    finally:
        if was is not None:
            os.environ[SWITCH] = was
