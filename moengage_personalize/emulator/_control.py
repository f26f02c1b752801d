"""The endpoints that MoEngage does not have: the ledger, trouble, and the rest of what a developer asks.

Everything lives under `/_emulator/`, which no MoEngage path begins with. There is no authentication,
since there is nothing real to guard; but a page of another origin may not press the buttons.
"""

import contextlib
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from moengage_personalize.emulator._live import live, story
from moengage_personalize.emulator._messages import Refusal, Reply, Request, Streamed, json_reply
from moengage_personalize.emulator._reading import read_object
from moengage_personalize.emulator._trouble import wishes_json

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator

_TYPES = {
    "html": (b"content-type", b"text/html; charset=utf-8"),
    "css": (b"content-type", b"text/css; charset=utf-8"),
    "js": (b"content-type", b"text/javascript; charset=utf-8"),
    "svg": (b"content-type", b"image/svg+xml"),
}
_PAGE_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
NDJSON_HEADER = (b"content-type", b"application/x-ndjson")


def control(emulator: "Emulator", request: Request) -> Reply | Streamed:
    """Answers one request to the emulator itself."""
    try:
        if request.method != "GET":
            _same_origin(request)
        return _route(emulator, request)
    except Refusal as refusal:
        return refusal.reply()


def _same_origin(request: Request) -> None:
    origin = request.headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != request.headers.get(b"host"):
        raise Refusal(403, "Request Error", "A page of another origin may not change the emulator")


def _route(emulator: "Emulator", request: Request) -> Reply | Streamed:
    match request.method, request.path:
        case "GET", "/_emulator/ledger":
            if parse_qs(request.query).get(b"format") == [b"ndjson"]:
                return Streamed(emulator.ledger.as_ndjson(), (NDJSON_HEADER,))
            return Streamed(emulator.ledger.as_json())
        case "GET", "/_emulator/counts":
            return json_reply(emulator.ledger.counts_json())
        case "GET", "/_emulator/openapi.json":
            return Reply(200, _shipped("openapi.json"))
        case "GET", "/":
            return Reply(200, _shipped("page/index.html"), (*_PAGE_HEADERS, _TYPES["html"]))
        case "GET", "/_emulator/page/app.js" | "/_emulator/page/style.css" | "/_emulator/page/icon.svg":
            name = request.path.rpartition("/")[2]
            return Reply(200, _shipped(f"page/{name}"), (*_PAGE_HEADERS, _TYPES[name.rpartition(".")[2]]))
        case "GET", "/_emulator/live":
            return json_reply(live(emulator, _number(request, b"since")))
        case "GET", "/_emulator/story":
            customer = parse_qs(request.query).get(b"customer", [b""])[0].decode("utf-8", "replace")
            return json_reply(story(emulator, customer))
        case "POST", "/_emulator/reset":
            emulator.reset()
            return json_reply({"reset": True})
        case "GET", "/_emulator/trouble":
            return _troubles(emulator)
        case "POST", "/_emulator/trouble":
            return _add_trouble(emulator, request)
        case "POST", "/_emulator/scenario":
            return _play(emulator, request)
        case "DELETE", "/_emulator/trouble":
            emulator.troubles.clear(_number(request, b"number") or None)
            return _troubles(emulator)
        case "POST", "/_emulator/key":
            api_key = read_object(request.body).get("api_key")
            if not isinstance(api_key, str) or not api_key:
                raise Refusal.invalid("api_key must be a string")
            emulator.regenerate_key(api_key)
            return json_reply({"regenerated": True})
        case _:
            raise Refusal(404, "Request Error", "No such endpoint")


def _shipped(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _number(request: Request, name: bytes) -> int:
    """A whole number from the query; 0 if there is none."""
    value = parse_qs(request.query).get(name, [b""])[0]
    return int(value) if value.isdigit() else 0


def _troubles(emulator: "Emulator") -> Reply:
    now = emulator.effects.now()
    return json_reply({"troubles": wishes_json(emulator.troubles.current(now), now)})


def _add_trouble(emulator: "Emulator", request: Request) -> Reply:
    from moengage_personalize.emulator._toml import trouble_of  # late: it brings cattrs

    with _as_refusals():
        emulator.troubles.add(trouble_of(read_object(request.body)), emulator.effects.now())
    return _troubles(emulator)


def _play(emulator: "Emulator", request: Request) -> Reply:
    from moengage_personalize.emulator._toml import scenario_of  # late: it brings cattrs

    with _as_refusals():
        emulator.play(scenario_of(request.body.decode()))
    return _troubles(emulator)


@contextlib.contextmanager
def _as_refusals() -> Iterator[None]:
    """A wish that makes no sense is a 400 that says why."""
    try:
        yield
    except ValueError as error:
        raise Refusal.invalid(str(error)) from error
