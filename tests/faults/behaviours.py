"""What each path of the fault server does: one coroutine a path, parameters in the query (numbers; times in
milliseconds).

`cell=` names a request in the counts. Every behaviour that is a fault *for one stream* leaves the connection
in order; the others say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

if TYPE_CHECKING:
    from faults.server import Exchange

Behaviour = Callable[["Exchange"], Awaitable[None]]
_TABLE: dict[str, Behaviour] = {}
FOREVER = 3600.0
GREATEST_STREAM = 2**31 - 1


def behaviour(path: str) -> Callable[[Behaviour], Behaviour]:
    def register(function: Behaviour) -> Behaviour:
        _TABLE[path] = function
        return function

    return register


async def behave(exchange: Exchange) -> None:
    """Dispatch on the path; an unknown one is a 404, as everywhere."""
    await _TABLE.get(exchange.path, _missing)(exchange)


async def _missing(exchange: Exchange) -> None:
    await exchange.answer(404)


def _first_visits(exchange: Exchange, limit: int) -> bool:
    """Whether this is among the first `limit` requests of this name."""
    visits = exchange.connection.link.server.keys
    visits[exchange.name] += 1
    return visits[exchange.name] <= limit


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


@behaviour("/ok")
async def ok(exchange: Exchange) -> None:
    """Read the body, wait `ms`, answer with `bytes` of JSON."""
    await exchange.whole.wait()
    await asyncio.sleep(exchange.seconds("ms"))
    await exchange.answer(200, b'"' + b"x" * max(0, exchange.number("bytes", 2) - 2) + b'"')


@behaviour("/echo")
async def echo(exchange: Exchange) -> None:
    """What arrived, as length and digest, so that a client can be checked byte for byte."""
    await exchange.whole.wait()
    report = {"length": len(exchange.body), "sha256": hashlib.sha256(exchange.body).hexdigest()}
    await exchange.answer(200, json.dumps(report).encode())


@behaviour("/status")
async def status(exchange: Exchange) -> None:
    await exchange.whole.wait()
    headers = [("retry-after", exchange.query["retry"])] if "retry" in exchange.query else []
    await exchange.answer(exchange.number("code", 200), b"{}", *headers)


@behaviour("/empty")
async def empty(exchange: Exchange) -> None:
    await exchange.whole.wait()
    exchange.start(exchange.number("code", 204), end=True)


@behaviour("/informational")
async def informational(exchange: Exchange) -> None:
    await exchange.whole.wait()
    for code in (103, 100, 103):
        exchange.start(code)
    await exchange.answer()


@behaviour("/trailers")
async def trailers(exchange: Exchange) -> None:
    await exchange.whole.wait()
    exchange.start(200)
    await exchange.send(b"{}")
    exchange.connection.send(lambda h2: h2.send_headers(exchange.stream_id, [("x-checksum", "1")], end_stream=True))


@behaviour("/early")
async def early(exchange: Exchange) -> None:
    """A final answer before the body was read (`code`), and no credit for the rest; then RST(NO_ERROR) if
    `rst`.
    """
    exchange.credit = False
    await exchange.answer(exchange.number("code", 413), b'{"error": "too large"}')
    if exchange.number("rst", 0):
        exchange.reset(0)


@behaviour("/malformed-json")
async def malformed_json(exchange: Exchange) -> None:
    await exchange.whole.wait()
    await exchange.answer(200, b'{"a": ')


@behaviour("/deep-json")
async def deep_json(exchange: Exchange) -> None:
    await exchange.whole.wait()
    await exchange.answer(200, b"[" * 50_000 + b"]" * 50_000)


@behaviour("/wrong-type")
async def wrong_type(exchange: Exchange) -> None:
    await exchange.whole.wait()
    exchange.start(200, ("content-type", "text/html"))
    await exchange.send(b"<html>", end=True)


# ── answers that are late, or never ──────────────────────────────────────────────────────────────


@behaviour("/hang")
async def hang(exchange: Exchange) -> None:
    await asyncio.sleep(FOREVER)


@behaviour("/hang-after-headers")
async def hang_after_headers(exchange: Exchange) -> None:
    exchange.start(200, ("content-length", "10"))
    await asyncio.sleep(FOREVER)


@behaviour("/hang-in-body")
async def hang_in_body(exchange: Exchange) -> None:
    """`bytes` of the body, and never the end."""
    exchange.start(200)
    await exchange.send(b"x" * exchange.number("bytes", 10))
    await asyncio.sleep(FOREVER)


@behaviour("/drip-body")
async def drip_body(exchange: Exchange) -> None:
    exchange.start(200)
    for _ in range(exchange.number("n", 20)):
        await asyncio.sleep(exchange.seconds("ms", 100))
        await exchange.send(b"x")
    await exchange.send(b"", end=True)


@behaviour("/drip-headers")
async def drip_headers(exchange: Exchange) -> None:
    """HEADERS byte by byte: nothing else can pass on this connection meanwhile."""
    connection = exchange.connection
    connection.flush()
    connection.h2.send_headers(exchange.stream_id, [(":status", "200"), ("x-filler", "!" * 40)], end_stream=True)
    await connection.drip(connection.h2.data_to_send(), exchange.seconds("ms", 20))


@behaviour("/withhold")
async def withhold(exchange: Exchange) -> None:
    """Take the body in, but give no credit back: neither for the stream nor for the connection."""
    exchange.credit = False
    await exchange.whole.wait()
    await exchange.answer()


# ── bodies and headers that are wrong ────────────────────────────────────────────────────────────


@behaviour("/truncated")
async def truncated(exchange: Exchange) -> None:
    exchange.start(200, ("content-length", "1000"))
    await exchange.send(b"x" * 500, end=True)


@behaviour("/too-long")
async def too_long(exchange: Exchange) -> None:
    exchange.start(200, ("content-length", "10"))
    await exchange.send(b"x" * 500, end=True)


@behaviour("/huge")
async def huge(exchange: Exchange) -> None:
    """A body of `kb` KiB without a content-length."""
    exchange.start(200)
    for _ in range(exchange.number("kb", 2048) // 16):
        await exchange.send(b"x" * 16_384)
    await exchange.send(b"", end=True)


@behaviour("/huge-declared")
async def huge_declared(exchange: Exchange) -> None:
    size = exchange.number("kb", 2048) * 1024
    exchange.start(200, ("content-length", str(size)))
    await exchange.send(b"x" * size, end=True)


@functools.cache
def _compressed(kilobytes: int, layers: int) -> bytes:
    body = b"\0" * (kilobytes * 1024)
    for _ in range(layers):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = packer.compress(body) + packer.flush()
    return body


@behaviour("/gzip")
async def gzip(exchange: Exchange) -> None:
    """`kb` KiB of zeros, compressed `layers` times."""
    layers = exchange.number("layers", 1)
    body = await asyncio.to_thread(_compressed, exchange.number("kb", 1), layers)
    await exchange.whole.wait()
    await exchange.answer(200, body, ("content-encoding", ", ".join(["gzip"] * layers)))


@behaviour("/bad-gzip")
async def bad_gzip(exchange: Exchange) -> None:
    await exchange.whole.wait()
    await exchange.answer(200, b"this is not gzip", ("content-encoding", "gzip"))


@behaviour("/big-header")
async def big_header(exchange: Exchange) -> None:
    """A header list of `kb` KiB, in many small fields (hpack's Huffman encoder is quadratic in one field's
    length).
    """
    fields = [(f"x-{number}", "v" * 990) for number in range(exchange.number("kb", 200))]
    exchange.start(200, *fields, end=True)


def _only_headers(exchange: Exchange, headers: list[tuple[str, str]]) -> None:
    """HEADERS that `h2` would not send; to keep its books right it answers into the void first (with a field
    of the static table).
    """
    connection = exchange.connection
    connection.flush()
    connection.h2.send_headers(exchange.stream_id, [(":status", "200")], end_stream=True)
    connection.h2.clear_outbound_data_buffer()
    block = connection.h2.encoder.encode(headers)
    _raw(exchange, HeadersFrame(exchange.stream_id, data=block, flags=["END_HEADERS", "END_STREAM"]))


@behaviour("/no-status")
async def no_status(exchange: Exchange) -> None:
    _only_headers(exchange, [("content-type", "text/plain")])


@behaviour("/bad-status")
async def bad_status(exchange: Exchange) -> None:
    _only_headers(exchange, [(":status", "two hundred")])


# ── streams and connections that end early ───────────────────────────────────────────────────────


@behaviour("/refuse")
async def refuse(exchange: Exchange) -> None:
    """REFUSED_STREAM for the first `times` visits."""
    if _first_visits(exchange, exchange.number("times", 1)):
        exchange.reset(7)
    else:
        await ok(exchange)


@behaviour("/reset")
async def reset(exchange: Exchange) -> None:
    """RST_STREAM with `code`: before anything, after the headers, or in the body (`at` = 0, 1, 2), or after a
    full answer (3).
    """
    at = exchange.number("at", 0)
    if at == 3:
        await exchange.whole.wait()
        await exchange.answer()
        _raw(exchange, RstStreamFrame(exchange.stream_id, error_code=exchange.number("code", 0)))
        return
    if at:
        exchange.start(200, ("content-length", "100"))
    if at == 2:
        await exchange.send(b"x" * 50)
    exchange.reset(exchange.number("code", 2))


@behaviour("/goaway")
async def goaway(exchange: Exchange) -> None:
    """GOAWAY on the first `times` visits of this name (1).

    `last`: "this" (this request is the last that is served), "zero" (nothing was), "max" (a warning;
    everything is served), "before" (this one is not served, the earlier ones are). `code` as given. What is
    served is answered after `ms`; then the connection is closed.
    """
    if not _first_visits(exchange, exchange.number("times", 1)):
        await ok(exchange)
        return
    connection = exchange.connection
    last = {"this": exchange.stream_id, "zero": 0, "max": GREATEST_STREAM, "before": max(0, exchange.stream_id - 2)}[
        exchange.query.get("last", "this")
    ]
    _raw(exchange, GoAwayFrame(0, last_stream_id=last, error_code=exchange.number("code", 0)))
    connection.ignore_above = last
    for stream_id, other in list(connection.exchanges.items()):
        if stream_id > last and other is not exchange and other.task is not None:
            other.task.cancel()
    if exchange.stream_id <= last:
        await ok(exchange)
    others = [e.task for i, e in connection.exchanges.items() if i <= last and e is not exchange and e.task is not None]
    if others:
        await asyncio.wait(others, timeout=10)
    # A body that was not read by then would make the end a reset, and the GOAWAY would be lost with it.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(exchange.whole.wait(), 0.05)
    connection.link.close()


@behaviour("/shutdown")
async def shutdown(exchange: Exchange) -> None:
    """The graceful two steps of RFC 9113, 6.8: a warning with the greatest id, a round trip later the true
    last id; all are served.
    """
    connection = exchange.connection
    _raw(exchange, GoAwayFrame(0, last_stream_id=GREATEST_STREAM))
    await asyncio.sleep(0.02)
    _raw(exchange, GoAwayFrame(0, last_stream_id=connection.highest_seen))
    connection.ignore_above = connection.highest_seen
    await ok(exchange)
    others = [e.task for e in connection.exchanges.values() if e is not exchange and e.task is not None]
    if others:
        await asyncio.wait(others, timeout=10)
    connection.link.close()


@behaviour("/close")
async def close(exchange: Exchange) -> None:
    """End the connection, before (`at` = 0), between headers and body (1), or in the body (2); `rst` chooses
    a TCP reset.
    """
    if exchange.number("at", 0):
        exchange.start(200, ("content-length", "100"))
    if exchange.number("at", 0) == 2:
        await exchange.send(b"x" * 50)
    await asyncio.sleep(0.005)  # so that what was written leaves before a reset would drop it
    link = exchange.connection.link
    (link.abort if exchange.number("rst", 0) else link.close)()


@behaviour("/close-inside-headers")
async def close_inside_headers(exchange: Exchange) -> None:
    """The connection ends within a HEADERS frame."""
    block = exchange.connection.h2.encoder.encode([(":status", "200"), ("x-filler", "!" * 40)])
    frame = HeadersFrame(exchange.stream_id, data=block, flags=["END_HEADERS", "END_STREAM"]).serialize()
    exchange.connection.raw(frame[: len(frame) // 2])
    await asyncio.sleep(0.005)
    exchange.connection.link.close()


@behaviour("/close-later")
async def close_later(exchange: Exchange) -> None:
    """Answer; `ms` later end the idle connection: `how` = fin, rst or goaway."""
    await exchange.whole.wait()
    await exchange.answer()
    await asyncio.sleep(exchange.seconds("ms", 50))
    how = exchange.query.get("how", "fin")
    if how == "goaway":
        _raw(exchange, GoAwayFrame(0, last_stream_id=exchange.stream_id))
    (exchange.connection.link.abort if how == "rst" else exchange.connection.link.close)()


# ── settings, floods and broken frames ───────────────────────────────────────────────────────────


@behaviour("/settings")
async def settings(exchange: Exchange) -> None:
    """Change the settings in the query (`streams`, `window`, `table`, `frame`), then answer after `ms`."""
    codes = {
        "streams": SettingCodes.MAX_CONCURRENT_STREAMS,
        "window": SettingCodes.INITIAL_WINDOW_SIZE,
        "table": SettingCodes.HEADER_TABLE_SIZE,
        "frame": SettingCodes.MAX_FRAME_SIZE,
    }
    changes: dict[SettingCodes | int, int] = {
        codes[key]: int(value) for key, value in exchange.query.items() if key in codes
    }
    await exchange.whole.wait()
    await exchange.connection.settled.wait()  # h2 takes the first acknowledgement that comes for the latest change
    exchange.connection.settled.clear()
    exchange.connection.send(lambda h2: h2.update_settings(changes))
    await asyncio.sleep(exchange.seconds("ms"))
    await exchange.answer()


@behaviour("/flood")
async def flood(exchange: Exchange) -> None:
    """`n` frames of a `kind` that cost the receiver more than the sender, then an answer."""
    stream = exchange.stream_id
    kinds: dict[str, Callable[[int], Frame]] = {
        "ping": lambda number: PingFrame(0, opaque_data=number.to_bytes(8, "big")),
        "settings": lambda _: SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 65_535}),
        "empty-data": lambda _: DataFrame(stream, data=b""),
        "window": lambda _: WindowUpdateFrame(stream, window_increment=1),
        "priority": lambda _: PriorityFrame(stream, depends_on=0),
        "reset": lambda _: RstStreamFrame(stream, error_code=8),
    }
    if exchange.query["kind"] == "empty-data":
        exchange.start(200)
    if exchange.query["kind"] == "continuation":
        block = exchange.connection.h2.encoder.encode([(":status", "200")])
        _raw(exchange, HeadersFrame(stream, data=block))
        made: Callable[[int], Frame] = lambda _: ContinuationFrame(stream, data=b"")  # noqa: E731
    else:
        made = kinds[exchange.query["kind"]]
    for start in range(0, exchange.number("n", 20_000), 500):
        exchange.connection.raw(b"".join(made(number).serialize() for number in range(start, start + 500)))
        await asyncio.sleep(0)
    await exchange.answer()


@behaviour("/broken")
async def broken(exchange: Exchange) -> None:
    """One frame, or some bytes, that break the protocol for the whole connection (all but `unknown`, which
    must be ignored).
    """
    stream = exchange.stream_id
    kinds: dict[str, bytes] = {
        "garbage": b"\xff" * 400,
        "data-on-zero": b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x",
        "oversize-frame": b"\xff\xff\xff\x00\x00" + stream.to_bytes(4, "big"),
        "bad-hpack": HeadersFrame(stream, data=b"\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
        "even-stream": HeadersFrame(
            2, data=exchange.connection.h2.encoder.encode([(":status", "200")]), flags=["END_HEADERS"]
        ).serialize(),
        "idle-stream": DataFrame(stream + 1000, data=b"x").serialize(),
        "window-overflow": WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2,
        "zero-increment": b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        "bad-settings": SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 2**31}).serialize(),
        "push": PushPromiseFrame(stream, promised_stream_id=2, data=b"", flags=["END_HEADERS"]).serialize(),
        "headers-interleaved": HeadersFrame(stream, data=b"").serialize()
        + PingFrame(0, opaque_data=b"12345678").serialize(),
        "unknown": b"\x00\x00\x06\xee\xff\x00\x00\x00\x00grease",
    }
    await exchange.whole.wait()
    exchange.connection.raw(kinds[exchange.query["kind"]])
    if exchange.query["kind"] == "unknown":
        await exchange.answer()
    else:
        await asyncio.sleep(FOREVER)


def _raw(exchange: Exchange, frame: Frame) -> None:
    exchange.connection.flush()
    exchange.connection.frame(frame)
