"""What the doctor does to find out: connects, shakes hands, asks.

Theory: requests are the client's own, through a transport that looks on; so what is seen is what an application meets.
Connecting is tried by hand first, a step at a time, because the client rightly says only that it failed.

Invariants: credentials travel through the client only, so to a verified origin only. What is asked without verifying a
certificate carries none, and only its Date is believed. Nothing takes longer than `PATIENCE` seconds a step.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from moengage_personalize import AsyncPersonalizeClient, ConfigurationError, FetchPolicy, PersonalizeError

from ._diagnosis import Answer, Audiences
from ._options import Visitor
from ._way_there import Handshake

PATIENCE: Final = 10.0
DATA_CENTERS = {name: f"https://sdk-{name}.moengage.com" for name in ("01", "02", "03", "04", "05", "06", "101")}


class _Map(httpx.AsyncBaseTransport):
    """Sends nothing, and remembers where it would have gone."""

    url: httpx.URL | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.url = request.url
        raise httpx.ConnectError("this is a rehearsal")


async def destination(settings: Mapping[str, Any]) -> httpx.URL:
    """Returns where the client would go with these settings. Raises `ConfigurationError`."""
    rehearsal = _Map()
    async with AsyncPersonalizeClient(**settings, transport=rehearsal) as client:
        with suppress(PersonalizeError):
            await client.metadata()
    if rehearsal.url is None:
        raise ConfigurationError("MOENGAGE_PERSONALIZE_DISABLED is set: nothing is asked, and nothing sent")
    return rehearsal.url


async def shake_hands(url: httpx.URL, context: ssl.SSLContext) -> Handshake:
    """Looks the host up, connects, and agrees on TLS and HTTP."""
    host, port = url.host, url.port or 443
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().getaddrinfo(host, port)
    except OSError as error:
        return Handshake(stage="address", error=_said(error, "no answer from the resolver"))
    try:
        await _close(await _connect(host, port, None))
    except OSError as error:
        return Handshake(stage="connection", error=_said(error, f"no connection within {PATIENCE:g} s"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        connection = await _connect(host, port, context)
    except ssl.SSLCertVerificationError as error:
        skew = await _unverified_skew(host, port) if error.verify_code in (9, 10) else None
        return Handshake(stage="tls", error=error.verify_message, code=error.verify_code, skew=skew)
    except OSError as error:
        return Handshake(stage="tls", error=_said(error, f"no handshake within {PATIENCE:g} s"))
    session: ssl.SSLObject = connection[1].get_extra_info("ssl_object")
    found = Handshake(stage="done", protocol=session.selected_alpn_protocol(), tls=session.version())
    await _close(connection)
    return found


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> _Connection:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.open_connection(host, port, ssl=context)


async def _close(connection: _Connection) -> None:
    connection[1].transport.abort()


def _said(error: OSError, late: str) -> str:
    return late if isinstance(error, TimeoutError) else error.strerror or str(error) or type(error).__name__


async def _unverified_skew(host: str, port: int) -> float | None:
    """By how much our clock is ahead, says a server whose certificate we cannot judge for that very reason."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        reader, writer = connection = await _connect(host, port, anybody)
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode("ascii"))
        async with asyncio.timeout(PATIENCE):
            head = await reader.read(16_384)
        await _close(connection)
    except (OSError, UnicodeError):
        return None
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return _skew(next((value.decode("latin-1") for name, _, value in lines if name.lower() == b"date"), None), None)


class Witness(httpx.AsyncBaseTransport):
    """Carries requests by httpx, and remembers of the newest answer what the client does not tell."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._transport = httpx.AsyncHTTPTransport(verify=context, http2=True, trust_env=False)
        self.status: int | None = None
        self.skew: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        self.status = response.status_code
        self.skew = _skew(response.headers.get("date"), response.headers.get("age"))
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def _skew(date: str | None, age: str | None) -> float | None:
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return time.time() - there - (int(age) if age and age.isascii() and age.isdigit() else 0)


async def ask(settings: Mapping[str, Any], context: ssl.SSLContext) -> Answer:
    """Asks for the list of experiences."""
    witness = Witness(context)
    async with AsyncPersonalizeClient(**settings, transport=witness) as client:
        try:
            found = await client.metadata(deadline=PATIENCE)
        except PersonalizeError as error:
            return Answer(status=witness.status, words=str(error), skew=witness.skew)
    statuses = {entry.key: entry.status for entry in found.values()}
    return Answer(status=witness.status, statuses=statuses, skew=witness.skew)


async def audiences(
    settings: Mapping[str, Any],
    context: ssl.SSLContext,
    visitor: Visitor,
    keys: tuple[str, ...],
    form: Any,
    *,
    times: int = 1,
) -> Audiences:
    """Asks, so many times, what audiences a visitor is in. Raises `PersonalizeError`."""
    given = {**settings, "ssl_context": context}
    seen: dict[str, set[str]] = {}
    async with AsyncPersonalizeClient(**given, fetching=FetchPolicy(identity=form)) as client:
        for _ in range(times):
            found = (await visitor.ask(client, keys)).raise_for_error()
            for key, each in found.items():
                if each.matched:
                    seen.setdefault(key, set()).add(str(each.context.get("audience_id")))
    return {key: frozenset(ids) for key, ids in seen.items()}
