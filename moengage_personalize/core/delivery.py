"""One batch's way to MoEngage: send, sleep, split, bisect, settle.

Theory. A delivery is a stack of pieces, at first the whole batch. Its driver asks `next` what to do, does it, and
reports what came of a request to `answered`; the machine never acts by itself::

    2xx                      the piece is delivered
    400, 422                  two or more: bisect. One: once more without its user attributes, then rejected
    413                       two or more: split, and remember the ceiling. One: as above
    401, 403, unexpected      the circuit opens; the piece stays
    408, 429, 5xx, no answer  sleep, and again; 429 and Retry-After make everybody sleep
    twice, others succeed     split and park (429 apart): it holds no sender any more. One: other customers go first

A refused piece whose left half was accepted has its culprit in the right half: that is bisected without being sent (a
bisection with memory). Every single event is sent by itself before it is rejected. As long as these credentials never
had a success, the cause of a refusal may be configuration: up to three refused singles are put aside, and either a
success among the rest convicts them, or the whole delivery is *held* and probes as the circuit allows, one customer
after the other. A probe that is answered 400 or 413 has told nothing of the credentials: the same pause again.

An event that outlives its time here hands its user attributes to its customer's next event, in this delivery, or else
in the buffer (by keeping them: see `Buffer.settle`).

Invariants: every record of the batch is settled exactly once, or dropped with the buffer at the end. A customer's
records leave in their order. Requests ≤ 2 · splits + 1, plus retries; one bad action among n costs ≤ 2⌈log₂ n⌉ + 1
requests (one more if it has attributes) and is the only loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, assert_never

import attrs

from .._config import RetryPolicy
from .._report import DropReason
from .batch import Batch, Record
from .buffer import Fate
from .circuit import MAX_SERVER_PAUSE, Circuit
from .wire import Attributes

PARK_AFTER: Final = 2
HOLD_AFTER: Final = 3

# ── what is asked of the driver ──────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Send:
    """Send this, and report to `answered`; a probe asks for the credentials anew."""

    batch: Batch
    probe: bool = False


@attrs.frozen
class Sleep:
    """Ask again at `until` (monotonic seconds), or when anything changed; parked: without holding a sender."""

    until: float
    parked: bool


@attrs.frozen
class Settle:
    """These records have met their fate."""

    records: tuple[Record, ...]
    fate: Fate
    reason: DropReason | None = None
    rejection: Refused | TooLarge | None = None


@attrs.frozen
class Done:
    """Every record has met its fate."""


Command = Send | Sleep | Settle | Done

# ── what the driver reports ──────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Delivered:
    """2xx."""


@attrs.frozen
class Refused:
    """400 or 422: something in the request is not acceptable."""

    status: int
    description: str | None = None


@attrs.frozen
class TooLarge:
    """413."""

    status: int = 413
    description: str | None = None


@attrs.frozen
class Denied:
    """401, 403, or a status that only a wrong configuration explains."""

    status: int


@attrs.frozen
class Unavailable:
    """408, 429, 5xx, or no answer at all (status None); `retry_after` in seconds if the server named it."""

    status: int | None = None
    retry_after: float | None = None


Answer = Delivered | Refused | TooLarge | Denied | Unavailable


@attrs.define(eq=False)
class _Piece:
    batch: Batch
    sibling: _Piece | None = None  # the right half, if this is the left half of a refused piece
    guilty: bool = False  # a refused piece's culprit must be here, since it is not in the other half
    whole: Batch | None = None  # with the user attributes that were taken off
    refusal: Refused | None = None
    failures: int = 0
    successes_then: int = 0


class Delivery:
    """The machine. See the module's docstring."""

    def __init__(
        self,
        batch: Batch,
        circuit: Circuit,
        retrying: RetryPolicy,
        *,
        time_to_live: float,
        spooled_time_to_live: float = inf,
    ) -> None:
        self._stack = [_Piece(batch)]
        self._settled: deque[Settle] = deque()
        self._circuit = circuit
        self._retrying = retrying
        self._time_to_live = time_to_live
        self._spooled_time_to_live = spooled_time_to_live
        self._failures = 0
        self._wake_at = 0.0
        self._parked = False
        self._aside: list[_Piece] = []
        self._held = False
        self._is_probe = False
        self.requests = 0
        self.retries = 0
        self.attributes_refused = 0

    def next(self, now: float, wall: float) -> Command:
        """Returns what to do now.

        Args:
            now: Monotonic seconds.
            wall: Epoch seconds.
        """
        self._prepare(wall)
        if self._settled:
            return self._settled.popleft()
        if not self._stack:
            return Done()
        wake_at = self.ready_at(now)
        if wake_at > now:
            return Sleep(wake_at, self._parked or self._held)
        self._held = self._held and not self._circuit.proven
        self._is_probe = self._circuit.leaving()
        self.requests += 1
        return Send(self._stack[-1].batch, self._is_probe)

    def ready_at(self, now: float) -> float:
        """Returns when the next request may leave, in monotonic seconds; `inf`: not before something changes."""
        return max(self._wake_at, self._circuit.ready_at(now))

    def answered(self, answer: Answer, now: float, jitter: float) -> None:
        """Takes note of what came of the last `Send`.

        Args:
            answer: What came.
            now: Monotonic seconds.
            jitter: A number in [0, 1).
        """
        if self._is_probe:
            self._circuit.probed()
            if isinstance(answer, Refused | TooLarge):
                self._circuit.undecided(now, jitter)
        piece = self._stack[-1]
        match answer:
            case Delivered():
                self._delivered(piece)
            case Refused():
                self._refused(piece, answer, now, jitter)
            case TooLarge():
                self._too_large(piece, answer)
            case Denied(status):
                self._circuit.refused(status, now, jitter)
                self.retries += 1
            case Unavailable():
                self._unavailable(piece, answer, now, jitter)
            case _:
                assert_never(answer)

    def forget(self, is_forgotten: Callable[[Record], bool]) -> None:
        """Gives up what is not to be sent again; to be called between an answer and the next request."""
        for piece in (*self._stack, *self._aside):
            forgotten = tuple(filter(is_forgotten, piece.batch.records))
            if forgotten:
                piece.batch = piece.batch.only(set(piece.batch.records) - set(forgotten))
                piece.sibling = None  # what is left is not what was refused
                self._settled.append(Settle(forgotten, Fate.FORGOTTEN))
        self._aside = [piece for piece in self._aside if piece.batch.elements]

    # ── before a request ─────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, wall: float) -> None:
        while self._stack or self._aside:
            if not self._stack:  # no success convicted them, and none will
                self._hold()
            piece = self._stack[-1]
            if piece.batch.elements:  # none, if everybody in it was forgotten
                self._expire(piece, wall)
            if not piece.batch.elements:
                self._stack.pop()
            elif piece.batch.count > 1 and (piece.guilty or piece.batch.size > self._circuit.ceiling):
                self._split(piece, guilty=piece.guilty)
            else:
                return

    def _expire(self, piece: _Piece, wall: float) -> None:
        if wall - piece.batch.oldest <= min(self._time_to_live, self._spooled_time_to_live):
            return
        expired = tuple(record for record in piece.batch.records if self._is_expired(record, wall))
        if expired:
            piece.batch = piece.batch.only(set(piece.batch.records) - set(expired))
            piece.sibling = None  # what is left is not what was refused
            for record in reversed(expired):
                if piece.whole is not None:
                    record.attributes = None  # they are under suspicion
                elif record.attributes:
                    self._hand_on(record, record.attributes)
            self._settled.append(Settle(expired, Fate.DROPPED, DropReason.EXPIRED))

    def _hand_on(self, record: Record, attributes: Attributes) -> None:
        """Gives its attributes to its customer's next event here; if there is none, the record keeps them."""
        for piece in reversed(self._stack):
            heir = next((each for each in piece.batch.records if each.lane is record.lane), None)
            if heir is not None and piece.whole is None:
                heir.attributes = attributes | (heir.attributes or {})
                record.attributes = None
                piece.batch = piece.batch.afresh()
                return

    def _is_expired(self, record: Record, wall: float) -> bool:
        lifetime = self._time_to_live if record.ticket is None else self._spooled_time_to_live
        return wall - record.accepted_wall > lifetime

    def _split(self, piece: _Piece, *, guilty: bool = False) -> None:
        self._stack.pop()
        left, right = piece.batch.halves()
        other = _Piece(right)
        self._stack += [other, _Piece(left, sibling=other if guilty else None)]

    # ── after an answer ──────────────────────────────────────────────────────────────────────────────────────────────

    def _delivered(self, piece: _Piece) -> None:
        self._stack.pop()
        self._circuit.succeeded()
        self._failures = 0
        if piece.sibling is not None:
            piece.sibling.guilty = True
        self.attributes_refused += piece.whole is not None
        self._settled.append(Settle(tuple(piece.batch.records), Fate.DELIVERED))
        for convicted in self._aside:
            self._settled.append(Settle(tuple(convicted.batch.records), Fate.REJECTED, rejection=convicted.refusal))
        self._aside.clear()

    def _refused(self, piece: _Piece, answer: Refused, now: float, jitter: float) -> None:
        if self._held:
            self._circuit.refused(answer.status, now, jitter)
        if piece.batch.count > 1:
            self._split(piece, guilty=True)
        elif not self._stripped(piece):
            if self._circuit.proven:
                self._reject(piece, answer)
            else:
                self._put_aside(piece, answer, now, jitter)

    def _too_large(self, piece: _Piece, answer: TooLarge) -> None:
        if piece.batch.count > 1:
            self._circuit.too_large(piece.batch.size)
            self._split(piece)
        elif not self._stripped(piece):
            self._reject(piece, answer)

    def _stripped(self, piece: _Piece) -> bool:
        """Takes the user attributes off, if there are any, for one more try."""
        if not piece.batch.has_attributes:
            return False
        piece.whole, piece.batch = piece.batch, piece.batch.without_attributes()
        return True

    def _reject(self, piece: _Piece, answer: Refused | TooLarge) -> None:
        self._stack.pop()
        self._settled.append(Settle(tuple(piece.batch.records), Fate.REJECTED, rejection=answer))

    def _put_aside(self, piece: _Piece, answer: Refused, now: float, jitter: float) -> None:
        piece.batch, piece.whole, piece.refusal = piece.whole or piece.batch, None, answer
        self._aside.append(self._stack.pop())
        if self._held or len(self._aside) == HOLD_AFTER or not self._stack:
            if not self._held:
                self._circuit.refused(answer.status, now, jitter)
            self._hold()

    def _hold(self) -> None:
        self._stack += reversed(self._aside)
        self._aside.clear()
        if self._held:
            self._give_way()  # the next probe is another customer's: it may be this event's own fault
        self._held = True

    def _unavailable(self, piece: _Piece, answer: Unavailable, now: float, jitter: float) -> None:
        self._circuit.failing |= not self._parked  # a parked one fails while others succeed: that is its own trouble
        self.retries += 1
        longest = min(self._retrying.maximum, self._retrying.initial * 2 ** min(self._failures, 30))
        self._failures += 1
        pause = jitter * longest
        if answer.retry_after is not None:  # a minimum, and as much chance again, lest everybody returns at once
            asked = min(answer.retry_after, MAX_SERVER_PAUSE)
            pause = asked + jitter * min(self._retrying.maximum, max(asked, longest))
        self._wake_at = now + max(pause, self._circuit.budget.spend(now))
        if answer.status == 429 or answer.retry_after is not None or self._is_probe:
            self._circuit.throttled(self._wake_at)
        if answer.status != 429:  # that one is nobody's fault in particular
            self._consider_parking(piece)

    def _consider_parking(self, piece: _Piece) -> None:
        if not piece.failures:
            piece.successes_then = self._circuit.successes
        piece.failures += 1
        if piece.failures >= PARK_AFTER and self._circuit.successes > piece.successes_then:
            self._parked = True
            piece.failures = 0
            if piece.batch.count > 1:
                self._split(piece)
            else:
                self._give_way()

    def _give_way(self) -> None:
        """Puts the piece on top behind all that hold no event of its customer, lest they wait for its time to live."""
        late, early = [self._stack.pop()], list[_Piece]()
        lanes = {record.lane for record in late[0].batch.records}
        for piece in reversed(self._stack):
            own = {record.lane for record in piece.batch.records}
            if lanes & own:
                late.append(piece)
                lanes |= own
            else:
                early.append(piece)
        self._stack = [*reversed(late), *reversed(early)]

    def __repr__(self) -> str:
        state = "held" if self._held else "parked" if self._parked else "under way"
        return f"<Delivery {state}, {sum(p.batch.count for p in self._stack)} actions in {len(self._stack)} pieces>"
