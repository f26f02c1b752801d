"""Header blocks, and the memory that spares compressing the same ones again.

HPACK (RFC 7541) is stateful: what a block means depends on the dynamic table, and most blocks change the
table. But a block whose encoding (or decoding) left the table exactly as it was means the same for as long
as the table stays so, and may be sent (or understood) again without doing the work again. A request's
constant headers reach that state the second time they are encoded, when each of them is an index into the
table.

The invariants, on either side:

1. The memory holds only blocks that left the table untouched, and it is emptied when the table changes.
2. While a change of the table's size is still to be announced, nothing comes from the memory: the
   announcement has to stand at the front of the next block.
3. What varies from request to request (`content-length`, `traceparent`), and what is secret, never enters
   the table: it is appended as literals, which leave the table alone. Secrets are marked "never indexed"
   for the proxies on the way, and hpack's own debug log never sees them.

A response's block is checked when it is first seen; the memory holds the verdict. A block over the limit is
still decoded to its end, within a bound, since the table is the connection's: the error is that one
request's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import hpack
from attrs import field, frozen
from hpack.table import HeaderTable

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

MAX_HEADER_LIST: Final = 65_536
"""What we announce and accept, in bytes as RFC 7541 (4.1) counts them: 32 a field beside name and value."""

HARD_HEADER_LIST: Final = 262_144
"""Beyond this, in either form, we stop, at the connection's cost: few bytes can ask for gigabytes."""

_OUR_TABLE: Final = 4096
"""The largest dynamic table that we keep for our own blocks, in bytes, however much the peer would allow."""

_REMEMBERED: Final = 256
_MAX_VALUE: Final = 16_384

SECRET: Final = frozenset((b"authorization", b"cookie", b"moe-appkey", b"proxy-authorization"))
VARYING: Final = frozenset(
    (b"baggage", b"content-length", b"date", b"idempotency-key", b"traceparent", b"tracestate", b"x-request-id")
)
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te")
)
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_STATIC: Final = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}


class HeaderError(ValueError):
    """A request's header that must not be sent; the message names it and never shows its value."""


@frozen(eq=False)
class Route:
    """Where requests of one kind go, and the headers that they share: encoded once, then remembered.

    Compared by identity, so that looking its block up costs one hash of a pointer.

    Args:
        head: Pseudo-headers, then the constant headers, lower-case.
        literals: The secret ones, already encoded, appended to each block.
        headers: All of them, for HTTP/1.1.
        method: The request's method.
        url: Its address.
    """

    head: Headers = field(repr=False)
    literals: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    method: bytes
    url: str = field(repr=False)


def route(method: bytes, scheme: bytes, authority: bytes, path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Route:
    """Check and sort the headers of a request.

    `host` and the hop-by-hop headers of HTTP/1.1 are left out: the pseudo-headers and the framing say the
    same.

    Raises:
        HeaderError: a name or value that HTTP/2 forbids, or a value longer than 16 KiB.
    """
    constant: list[tuple[bytes, bytes]] = []
    secret: list[tuple[bytes, bytes]] = []
    for name, value in checked(headers):
        if name not in _HOP_BY_HOP:
            (secret if name in SECRET else constant).append((name, value))
    pseudo = ((b":method", method), (b":authority", authority), (b":scheme", scheme), (b":path", path))
    for name, value in pseudo:
        if not value or len(value) > _MAX_VALUE or re.search(rb"[\x00-\x20\x7f]", value):
            raise HeaderError(f"the request's {name.decode()} is empty, too long, or has a forbidden character")
    return Route(
        head=(*pseudo, *constant),
        literals=literals(secret, never_indexed=True),
        headers=(*constant, *secret),
        method=method,
        url=f"{scheme.decode()}://{authority.decode()}{path.decode()}",
    )


def checked(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The same headers with lower-case names.

    Raises:
        HeaderError: a name or value that HTTP/2 forbids (RFC 9113, 8.2.1), or a value longer than 16 KiB.
    """
    result = []
    for raw_name, raw_value in headers:
        name, value = raw_name.lower(), raw_value.strip(b" \t")
        if not _NAME.fullmatch(name):
            raise HeaderError("a header's name has a forbidden character")
        if len(value) > _MAX_VALUE or not _VALUE.fullmatch(value):
            raise HeaderError(f"the value of {name.decode()} is too long or has a forbidden character")
        result.append((name, value))
    return result


def literals(headers: Sequence[tuple[bytes, bytes]], *, never_indexed: bool = False) -> bytes:
    """Encode headers as literals that leave the dynamic table alone (RFC 7541, 6.2.2 and 6.2.3)."""
    out = bytearray()
    for name, value in headers:
        index = _STATIC.get(name, 0)
        out += _integer(index, 4, 0x10 if never_indexed else 0x00)
        if not index:
            out += _integer(len(name), 7) + name
        out += _integer(len(value), 7) + value
    return bytes(out)


def _integer(number: int, prefix_bits: int, pattern: int = 0) -> bytes:
    """RFC 7541, 5.1."""
    limit = (1 << prefix_bits) - 1
    if number < limit:
        return bytes((pattern | number,))
    out = bytearray((pattern | limit,))
    number -= limit
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class RememberingEncoder(hpack.Encoder):
    """hpack's encoder, with the memory above in front of it."""

    def __init__(self) -> None:
        super().__init__()
        self._memory: dict[Route, bytes] = {}

    def block(self, to: Route, varying: bytes = b"") -> bytes:
        """The block of one request: the constant part, the secrets, then `varying` (from `literals`)."""
        constant = None if self.table_size_changes else self._memory.get(to)
        if constant is None:
            constant = self._encode(to)
        return constant + to.literals + varying

    def _encode(self, to: Route) -> bytes:
        announcing = bool(self.table_size_changes)
        before = tuple(self.header_table.dynamic_entries)
        block: bytes = self.encode(to.head)
        if before != tuple(self.header_table.dynamic_entries):
            self._memory.clear()
        elif not announcing:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            self._memory[to] = block
        return block

    @property
    def header_table_size(self) -> int:
        """The size of the dynamic table, in bytes; a change is announced in the next block."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, _OUR_TABLE)
        if size == self.header_table.maxsize:
            return  # set again, hpack would forget to announce a change that is still pending
        self._memory.clear()
        hpack.Encoder.header_table_size.fset(self, size)  # type: ignore[attr-defined]
        # The smallest size and the last are announced (RFC 7541, 4.2); hpack would announce them all, and one
        # in between may be more than the peer allows by now.
        smallest = min(self.table_size_changes)
        self.table_size_changes = [smallest, size] if smallest < size else [size]


@frozen
class Head:
    """A checked block of response headers.

    Args:
        status: The status code; 0 for trailers.
        headers: What came after the pseudo-header, as sent.
        content_length: The announced length of the body, in bytes, or None.
        problem: Why this block ends its request, or None.
        too_large: Whether the problem is its size.
    """

    status: int
    headers: Headers = field(repr=False)
    content_length: int | None = None
    problem: str | None = None
    too_large: bool = False


class RememberingDecoder(hpack.Decoder):
    """hpack's decoder, with the same memory: a block of bytes to the checked headers that it means."""

    def __init__(self) -> None:
        super().__init__(max_header_list_size=HARD_HEADER_LIST)
        self._memory: dict[bytes, Head] = {}

    def head(self, block: bytes) -> Head:
        """What this block says.

        Raises:
            hpack.HPACKError: the block cannot be decoded; the connection is lost with its table.
        """
        head = self._memory.get(block)
        if head is not None:
            return head
        before = tuple(self.header_table.dynamic_entries), self.header_table.maxsize
        head = _check(self.decode(block, raw=True))
        if before != (tuple(self.header_table.dynamic_entries), self.header_table.maxsize):
            self._memory.clear()
        elif len(block) <= 1024:  # an ordinary response
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            self._memory[block] = head
        return head


def _check(decoded: Iterable[tuple[bytes, bytes]]) -> Head:
    """Apply RFC 9113, 8.2 and 8.3.2; a malformed block is its request's problem, not the connection's."""
    headers = tuple((name, value) for name, value in decoded)
    if sum(len(name) + len(value) + 32 for name, value in headers) > MAX_HEADER_LIST:
        return Head(0, (), problem=f"its header list is larger than {MAX_HEADER_LIST} bytes", too_large=True)
    status, rest = 0, headers
    if headers and headers[0][0] == b":status":
        if not re.fullmatch(rb"[1-9][0-9][0-9]", headers[0][1]):
            return Head(0, (), problem="its :status is not a status code")
        status, rest = int(headers[0][1]), headers[1:]
    lengths = set()
    for name, value in rest:
        if not _NAME.fullmatch(name) or (name in _HOP_BY_HOP and name != b"host") or not _VALUE.fullmatch(value):
            return Head(0, (), problem="it has a header that HTTP/2 forbids")
        if name == b"content-length":
            lengths.add(value)
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", value) for value in lengths):
        return Head(0, (), problem="its content-length is not one number")
    return Head(status, rest, int(lengths.pop()) if lengths else None)
