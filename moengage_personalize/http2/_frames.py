"""The frame layer, as much of it as a client's hot path needs (RFC 9113, section 4).

Every frame is nine octets of header and a payload. This module cuts a byte stream into frames and builds
the five kinds that the machine writes itself. It holds no state of a connection, and the invariant is only
this: whatever the splits of the input, the frames that come out, joined, are the bytes that went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1  # DATA, HEADERS
ACK: Final = 0x1  # SETTINGS, PING
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

MAX_FRAME_SIZE: Final = 16_384
"""What we accept, in bytes: the protocol's default, which we never raise."""

_HEADER: Final = Struct(">HBBBL")  # 24 bits of length, type, flags, stream
_WORD: Final = Struct(">L")


class FrameTooLargeError(Exception):
    """The peer announced a frame longer than `MAX_FRAME_SIZE`: a connection error."""


class FrameReader:
    """Cuts what arrives into `(type, flags, stream_id, payload)`; keeps the incomplete rest."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the frames that are complete now. Whoever stops before the last gives the connection up.

        Raises:
            FrameTooLargeError: as soon as such a frame is announced, before its payload is waited for.
        """
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 9:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, start)
            length = high << 8 | low
            if length > MAX_FRAME_SIZE:
                raise FrameTooLargeError
            stop = start + 9 + length
            if stop > end:
                break
            yield kind, flags, stream_id & 0x7FFFFFFF, data[start + 9 : stop]
            start = stop
        self._rest = data[start:]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame, as bytes."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def data_header(flags: int, stream_id: int, size: int) -> bytes:
    """What stands before a DATA frame's payload, which need not be copied for it."""
    return _HEADER.pack(size >> 8, size & 0xFF, DATA, flags, stream_id)


def headers(stream_id: int, block: bytes, *, end_stream: bool) -> bytes:
    """A HEADERS frame, and CONTINUATIONs if the block does not fit in one."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= MAX_FRAME_SIZE:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + MAX_FRAME_SIZE] for at in range(0, len(block), MAX_FRAME_SIZE)]
    last = len(pieces) - 1
    return frame(HEADERS, flags, stream_id, pieces[0]) + b"".join(
        frame(CONTINUATION, END_HEADERS if at == last else 0, stream_id, pieces[at]) for at in range(1, len(pieces))
    )


def rst_stream(stream_id: int, error_code: int) -> bytes:
    """End one stream, either side."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(error_code))


def window_update(stream_id: int, increment: int) -> bytes:
    """Give the peer credit for `increment` more bytes of DATA; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def word(payload: bytes, at: int = 0) -> int:
    """The 31-bit number at `payload[at:at + 4]`, its reserved bit dropped."""
    number: int = _WORD.unpack_from(payload, at)[0]
    return number & 0x7FFFFFFF


def error_code(payload: bytes, at: int = 0) -> int:
    """The 32-bit error code at `payload[at:at + 4]`."""
    code: int = _WORD.unpack_from(payload, at)[0]
    return code


def unpadded(flags: int, payload: bytes) -> bytes | None:
    """The payload of a DATA or HEADERS frame without its padding, or None if the padding does not fit in."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        return None
    return payload[1 : len(payload) - payload[0]]
