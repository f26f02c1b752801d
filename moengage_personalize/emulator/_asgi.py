"""The ASGI application: carries requests to the emulator, and carries out what trouble has planned for them.

Theory: ASGI has no words for "reset this stream" or "say GOAWAY". A server that has them announces the
extension `moengage_personalize.emulator` and takes messages of the type `emulator.<outcome>`; ours does.
Under any other server, and in `httpx.ASGITransport`, such a request fails with `ConnectionResetError`
instead.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from moengage_personalize.emulator._messages import Reply, Request, Streamed
from moengage_personalize.emulator._trouble import UNTROUBLED, Plan

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EXTENSION = "moengage_personalize.emulator"
MAX_READ = 8_388_608  # bytes; more than any rule here tells apart


class Application:
    """One ASGI application over an emulator's state.

    Args:
        emulator: Whose requests these are.
    """

    def __init__(self, emulator: "Emulator") -> None:
        self._emulator = emulator

    def __repr__(self) -> str:
        return f"<Application of {self._emulator!r}>"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        if request is None:
            return
        if not request.path.startswith("/v1/"):
            from moengage_personalize.emulator._control import control  # late: most processes never ask for it

            reply = control(self._emulator, request)
            if isinstance(reply, Streamed):
                await _stream(reply, send, self._emulator)
            else:
                await _answer(reply, send, 0.0, self._emulator)
            return
        await self._experience(request, scope, receive, send)

    async def _experience(self, request: Request, scope: Message, receive: Receive, send: Send) -> None:
        """A request to one of MoEngage's endpoints."""
        emulator = self._emulator
        if emulator.troubles.outage(emulator.effects.now()):  # our own server lets no request come this far
            raise ConnectionRefusedError("the emulator was told to be down")
        plan = emulator.plan(request)
        if plan is UNTROUBLED:
            await _answer(emulator.handle(request), send, 0.0, emulator)
            return
        if plan.delay:
            await emulator.effects.sleep(plan.delay)
        if plan.outcome is None:
            await _answer(emulator.handle(request, plan), send, plan.drip, emulator)
        elif plan.outcome == "hang":
            emulator.unanswered(request, plan)
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await self._misbehave(plan, request, scope, send)

    async def _misbehave(self, plan: Plan, request: Request, scope: Message, send: Send) -> None:
        """What only the connection itself can do."""
        emulator, able = self._emulator, EXTENSION in (scope.get("extensions") or {})
        if plan.outcome == "drain":
            if able:
                await send({"type": "emulator.drain"})
            await _answer(emulator.handle(request, plan), send, plan.drip, emulator)
            return
        if plan.outcome == "lose":
            emulator.handle(request, plan)
        else:
            emulator.unanswered(request, plan)
        if not able:
            raise ConnectionResetError(f"the emulator was told to {plan.outcome} this request")
        await send({"type": f"emulator.{plan.outcome}"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read(scope: Message, receive: Receive) -> Request | None:
    """The whole request; None if the client left before its end."""
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_READ:
            break
    if message["type"] == "http.disconnect":
        return None
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"],
        headers=dict(scope["headers"]),
        body=body,
    )


async def _stream(reply: Streamed, send: Send, emulator: "Emulator") -> None:
    """Sends chunk by chunk, and lets others have a turn after each."""
    await send({"type": "http.response.start", "status": 200, "headers": list(reply.headers)})
    for chunk in reply.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await emulator.effects.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def _answer(reply: Reply, send: Send, drip: float, emulator: "Emulator") -> None:
    now = int(emulator.effects.now())
    headers = [*reply.headers, (b"date", _date(now)), (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if drip:
        for place in range(len(reply.body)):
            await send({"type": "http.response.body", "body": reply.body[place : place + 1], "more_body": True})
            await emulator.effects.sleep(drip)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": reply.body})


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")
