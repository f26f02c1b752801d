"""One request and its one end.

An `Exchange` goes through QUEUED → OPEN → ENDED, or straight from QUEUED to ENDED, and it gets its outcome
on the way into ENDED, exactly once. Only the machine moves it. Between OPEN and ENDED it may be ABANDONED:
its caller has gone, and its stream is left to finish because the budget of resets is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum, auto
from math import inf
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ._headers import Headers, Route


class Lane(IntEnum):
    """Whose DATA goes first."""

    INTERACTIVE = 0
    BULK = 1


class Phase(Enum):
    """Where an exchange stands."""

    QUEUED = auto()
    OPEN = auto()
    ABANDONED = auto()
    ENDED = auto()


class Why(Enum):
    """Why an exchange ended without a response. The transport turns each into one of httpx's exceptions."""

    NOT_CONNECTED = auto()  # the attempt to connect failed
    NOT_HTTP2 = auto()  # connected, and the server speaks HTTP/1.1 only
    CONNECT_TIMEOUT = auto()
    POOL_TIMEOUT = auto()  # no stream became free in time
    WRITE_TIMEOUT = auto()
    READ_TIMEOUT = auto()
    MOVED = auto()  # never sent: to be sent on another connection
    UNPROCESSED = auto()  # sent, and the server says that it did not look at it (GOAWAY, REFUSED_STREAM)
    STALE = auto()  # sent on a reused idle connection that turned out to be closed
    LOST = auto()  # the connection ended, or fell silent
    RESET = auto()  # the server ended this stream
    MALFORMED = auto()  # the response breaks the protocol
    TOO_LARGE = auto()  # the response exceeds a limit of ours
    CANCELLED = auto()  # the caller left
    CLOSED = auto()  # our side closed the transport


@frozen
class Response:
    """A complete response: `body` as it came, before its content coding is undone."""

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class Failure:
    """No response. `detail` is for people and holds nothing of the request's or the response's content."""

    why: Why
    detail: str
    cause: BaseException | None = field(default=None, repr=False)


Outcome: TypeAlias = Response | Failure


@frozen
class Patience:
    """httpx's four timeouts, in seconds; each counts from the last progress within its phase."""

    connect: float = inf
    pool: float = inf
    write: float = inf
    read: float = inf


PATIENT: Final = Patience()


@define(eq=False, repr=False, kw_only=True)
class Exchange:
    """One request on its way through one connection.

    Args:
        route: Where to, and the headers that never change.
        varying: The headers that do, encoded by `literals`.
        body: The request's body.
        lane: Whose DATA goes first.
        deadline: The total deadline, on the clock that the machine is given, in seconds.
        patience: What httpx's timeouts say.
        ended: The shell's own: told the outcome, once.
        is_back: Whether it has waited on another connection before.
    """

    route: Route
    varying: bytes = b""
    body: bytes = b""
    lane: Lane = Lane.INTERACTIVE
    deadline: float = inf
    patience: Patience = PATIENT
    ended: Callable[[Outcome], None] | None = None
    is_back: bool = False

    # The machine's own from here.
    phase: Phase = Phase.QUEUED
    outcome: Outcome | None = None
    stream_id: int = 0
    timer: int = 0  # the key of its entry among the machine's timers; 0: none
    expires: float = inf
    abandoned_at: float = inf
    answered: bool = False  # the peer has ended its side
    sent: int = 0  # bytes of the body
    window: int = 0  # how many more the peer takes on this stream
    status: int = 0
    headers: Headers = ()
    expected: int | None = None  # content-length
    received: int = 0
    room: int = 0  # how many more bytes of DATA the peer may send on this stream
    chunks: list[bytes] = field(factory=list)

    @property
    def uploading(self) -> bool:
        """Whether some of the body is still to be sent."""
        return self.sent < len(self.body)

    def again(self) -> Exchange:
        """The same request, to be sent anew."""
        return Exchange(
            route=self.route,
            varying=self.varying,
            body=self.body,
            lane=self.lane,
            deadline=self.deadline,
            patience=self.patience,
            is_back=True,
        )

    def __repr__(self) -> str:
        return f"<Exchange {self.phase.name.lower()} stream={self.stream_id} sent={self.sent}/{len(self.body)}>"
