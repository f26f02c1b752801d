"""From the peer's bytes to what it said: the syntax of HTTP/2, stream by stream identical and stateless.

Frames are cut, header blocks put together and decoded, SETTINGS and PING handed to the control channel.
What a frame means for its stream is `_machine`'s business; here is decided only what is well-formed. The
invariant: whatever the bytes and their splits, the same events come out in the same order, or
`ViolationError` once, which ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from attrs import define
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import HPACKError

from . import _frames as wire
from ._control import ControlChannel, PeerSettings, Pong, SettingsTaken
from ._headers import HARD_HEADER_LIST, Head, RememberingDecoder

_MOST_CONTINUATIONS = 64


class ViolationError(Exception):
    """The peer broke the protocol in a way that ends the connection.

    Args:
        code: What a GOAWAY says about it.
        detail: What people read about it.
    """

    def __init__(self, code: ErrorCodes, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@define
class DataCame:
    """DATA: `size` is what flow control counts, padding included."""

    stream_id: int
    data: bytes
    size: int
    ended: bool


@define
class HeadersCame:
    """A whole header block, with its CONTINUATIONs."""

    stream_id: int
    head: Head
    ended: bool


@define
class StreamReset:
    """RST_STREAM."""

    stream_id: int
    code: int


@define
class CreditCame:
    """WINDOW_UPDATE; stream 0 is the connection."""

    stream_id: int
    increment: int


@define
class Goodbye:
    """GOAWAY: streams above `last_id` were not and will not be processed."""

    last_id: int
    code: int


@define
class ControlCame:
    """SETTINGS or PING: the news in it, and the answer that the protocol demands."""

    news: list[PeerSettings | SettingsTaken | Pong]
    answer: bytes


@define
class Oddity:
    """A frame that means nothing to us: PRIORITY, or an extension."""


Event: TypeAlias = DataCame | HeadersCame | StreamReset | CreditCame | Goodbye | ControlCame | Oddity


class Inbound:
    """See the module.

    Args:
        control: Who understands SETTINGS and PING.
        decoder: Who understands header blocks.
    """

    def __init__(self, control: ControlChannel, decoder: RememberingDecoder) -> None:
        self._control = control
        self._decoder = decoder
        self._reader = wire.FrameReader()
        self._introduced = False  # the peer's SETTINGS came
        self._block: _Block | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """What these bytes say.

        Raises:
            ViolationError: the peer broke the protocol; do not come back.
        """
        try:
            for kind, flags, stream_id, payload in self._reader.feed(data):
                event = self._event(kind, flags, stream_id, payload)
                if event is not None:
                    yield event
        except wire.FrameTooLargeError:
            raise ViolationError(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too large") from None
        except HPACKError:
            raise ViolationError(ErrorCodes.COMPRESSION_ERROR, "a header block cannot be decoded") from None
        except ProtocolError as error:
            detail = "a SETTINGS or PING frame is malformed"
            raise ViolationError(ErrorCodes(error.error_code), detail) from None

    def _event(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Event | None:
        if self._block is not None or kind == wire.CONTINUATION:
            return self._continued(kind, flags, stream_id, payload)
        if not self._introduced:
            if kind != wire.SETTINGS or flags & wire.ACK:
                raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "it did not begin with SETTINGS")
            self._introduced = True
        if kind == wire.DATA:
            data = wire.unpadded(flags, payload) if flags & wire.PADDED else payload
            if data is None:
                raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "padding is longer than its frame")
            return DataCame(stream_id, data, len(payload), bool(flags & wire.END_STREAM))
        if kind == wire.HEADERS:
            return self._headers(flags, stream_id, payload)
        if kind == wire.WINDOW_UPDATE:
            return CreditCame(stream_id, wire.word(_exactly(4, payload)))
        if kind == wire.RST_STREAM:
            return StreamReset(stream_id, wire.error_code(_exactly(4, payload)))
        if kind in {wire.SETTINGS, wire.PING}:
            return ControlCame(*self._control.receive(kind, flags, stream_id, payload))
        if kind == wire.GOAWAY:
            if stream_id or len(payload) < 8:
                raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "a GOAWAY is malformed")
            return Goodbye(wire.word(payload), wire.error_code(payload, 4))
        if kind == wire.PUSH_PROMISE:
            raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "it pushed, although we do not allow it")
        return Oddity()

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> HeadersCame | None:
        block = wire.unpadded(flags, payload)
        if block is not None and flags & wire.PRIORITIZED:
            block = block[5:] if len(block) >= 5 else None
        if block is None:
            raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "padding is longer than its frame")
        ended = bool(flags & wire.END_STREAM)
        if flags & wire.END_HEADERS:
            return HeadersCame(stream_id, self._decoder.head(block), ended)
        self._block = _Block(stream_id, ended, bytearray(block))
        return None

    def _continued(self, kind: int, flags: int, stream_id: int, payload: bytes) -> HeadersCame | None:
        block = self._block
        if block is None or kind != wire.CONTINUATION or stream_id != block.stream_id:
            raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "a header block was interrupted")
        block.data += payload
        block.pieces += 1
        if len(block.data) > HARD_HEADER_LIST or block.pieces > _MOST_CONTINUATIONS:
            raise ViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "a header block does not end")
        if not flags & wire.END_HEADERS:
            return None
        self._block = None
        return HeadersCame(stream_id, self._decoder.head(bytes(block.data)), block.ended)


@define
class _Block:
    """A header block that is not complete yet."""

    stream_id: int
    ended: bool
    data: bytearray
    pieces: int = 0


def _exactly(size: int, payload: bytes) -> bytes:
    if len(payload) != size:
        raise ViolationError(ErrorCodes.FRAME_SIZE_ERROR, f"a frame is not {size} bytes long, as it must be")
    return payload
