"""The words of the connection machine: its states, what it puts up with, and what it counts."""

from __future__ import annotations

from enum import IntEnum

from attrs import define, frozen


class State(IntEnum):
    """How far the connection is in its life."""

    CONNECTING = 0
    SERVING = 1
    DRAINING = 2  # opens no streams; those that are open may finish
    CLOSED = 3


@frozen(kw_only=True)
class Limits:
    """What we put up with, and what we ask of the peer."""

    response_bytes: int = 1_048_576  # one body, as it is on the wire
    connection_window: int = 16 * 1_048_576  # credit for 16 such bodies before any has to come back
    resets: float = 500  # at once: servers on nghttp2 end a connection at about 1,000 …
    resets_per_second: float = 15  # … or 33 a second
    oddities: float = 2_000  # frames at once that carry nothing for us: SETTINGS, PING, empty DATA, strays
    oddities_per_second: float = 200
    # What is opened before the peer's SETTINGS say how many may be: RFC 9113 (6.5.2) names 100 as what servers should
    # allow at least. One that allows fewer refuses the rest, which are sent again.
    streams_at_first: int = 100


@define(kw_only=True)
class Counters:
    """What happened, over all connections that share it."""

    connections_opened: int = 0
    handshakes: int = 0
    streams_opened: int = 0
    resets_sent: int = 0
    retransmitted: int = 0
    goaways: int = 0
    pings: int = 0
