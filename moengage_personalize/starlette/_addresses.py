"""Whose request it is, behind proxies that anybody may pretend to be.

Theory: an address is believed if it is the connection's own, or if somebody who is trusted reported it. Every proxy
notes, to the right of what it was told, who spoke to it. So the hops are walked from the right, for as long as each is
trusted; the first who is not is the visitor.

Invariants: what stands left of the visitor is never read, so it may be forged at will. Where a trusted proxy says
nothing that can be read, nobody is the visitor, rather than somebody further left. Nothing here raises but the making.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import attrs

from moengage_personalize import ConfigurationError

Address = IPv4Address | IPv6Address

UNIX = "unix"  # who came through a Unix socket has no address
_HINT = "trusted_proxies must name addresses and networks, such as '10.0.0.0/8', or 'unix' for a Unix socket"
# Addresses come bare, with a port, in brackets, in brackets with a port, and IPv6 also with a zone.
_HOST = re.compile(
    r"\[([\da-f:.]+)(?:%[^\]]*)?\](?::\w+)? | ([\d.]+)(?::\w+)? | ([\da-f:.]+)(?:%\S*)?",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
# RFC 7239, section 4; a value may also hold brackets and colons unquoted, since some proxies write them so. What it has
# matched it never goes back on, since a visitor chooses what is read here.
_PAIR = re.compile(
    r"""\s*+ (?: ([\w!#$%&'*+.^`|~-]++) = (?: "((?:[^"\\]|\\.)*+)" | ([^\s",;]*+) ) \s*+ )? ([,;]|\Z)""",
    re.ASCII | re.VERBOSE,
)
MAX_LINE = 2_048  # characters of `Forwarded`, which cannot be read from the right
# Documentation's own: nobody has them, and tests and demonstrations do (RFC 5737, RFC 3849).
_EXAMPLES = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))


def read_address(text: str) -> Address | None:
    """Returns the address that a hop names, or None if it names none."""
    if not (found := _HOST.fullmatch(text.strip())):
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None  # a socket for both kinds shows both so
    return mapped or address


def says_where(address: Address) -> bool:
    """Whether it can tell a place: addresses of somebody's own network, or of none, cannot, and stay here."""
    public = address.is_global and not address.is_multicast
    return public or any(address in network for network in _EXAMPLES)


@attrs.frozen
class Proxies:
    """Who is believed.

    Attributes:
        networks: Where trusted proxies are.
        unix: Whether whoever comes through a Unix socket is one.
        header: Where they write, in lower case. `forwarded` is read by RFC 7239, any other as a list of addresses.
    """

    networks: tuple[IPv4Network | IPv6Network, ...]
    unix: bool
    header: bytes

    @classmethod
    def of(cls, trusted: Iterable[str], header: str) -> Proxies:
        """Reads what was configured.

        Raises:
            ConfigurationError: It names no network, or everybody.
        """
        if isinstance(trusted, str):
            raise ConfigurationError(f"{_HINT}: several of them, not one text")
        named = list(trusted)
        networks = tuple(_network(text) for text in named if text != UNIX)
        return cls(networks, UNIX in named, header.lower().encode("ascii"))

    def visitor(self, scope: Mapping[str, Any]) -> Address | None:
        """Returns the address of the first who is not trusted, from the right; None if it is not known."""
        address, trusted = self._peer(scope)
        hops = self._hops(scope.get("headers", ()))
        while trusted and (hop := next(hops, None)) is not None:
            address = read_address(hop)
            trusted = self._trusts(address)
        return address

    def overlooked(self, scope: Mapping[str, Any]) -> bool:
        """Whether a proxy spoke that nobody named: its header was there, and was not read."""
        _, trusted = self._peer(scope)
        return not trusted and any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope.get("headers", ()))

    def _peer(self, scope: Mapping[str, Any]) -> tuple[Address | None, bool]:
        host = (scope.get("client") or ("",))[0]
        if not host:
            return None, self.unix
        address = read_address(host)
        return address, self._trusts(address)

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self.networks)

    def _hops(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
        """Yields who is said to have spoken, the nearest first; a header may have several lines."""
        for line in [value.decode("latin-1") for name, value in headers if name == self.header][::-1]:
            yield from reversed(_forwarded(line) if self.header == b"forwarded" else line.split(","))


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ConfigurationError(f"{_HINT}; not {text!r}") from None
    if not network.prefixlen:
        raise ConfigurationError(f"{_HINT}; {text!r} is everybody, and then anybody may say where they are")
    return network


def _forwarded(line: str) -> list[str]:
    """Returns the `for` of each hop. A line that breaks the grammar, or is too long, is one hop whom nobody knows."""
    hops: list[str] = []
    named: list[str] = []
    position = 0
    while len(line) <= MAX_LINE and (pair := _PAIR.match(line, position)):
        name, quoted, token, end = pair.groups()
        if name and name.lower() == "for":
            named.append(token if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        if end != ";":
            hops.append(named[0] if len(named) == 1 else "")
            named = []
        if not end:
            return hops
        position = pair.end()
    return [""]
