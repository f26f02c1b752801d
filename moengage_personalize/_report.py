"""What was counted: stats, the delivery report, and health.

Invariant, always, under cancellation too:
`offered == accepted + duplicate + unmatched + refused + dropped_at_the_door` and
`accepted + recovered + replayed == delivered + rejected + dropped + forgotten + pending`
(`spooled` is part of `pending`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs


class DropReason(StrEnum):
    """Why an accepted event was given up."""

    OVERFLOW = "overflow"
    """An older impression made room."""
    EXPIRED = "expired"
    """Its time to live was over."""
    CLOSED = "closed"
    """The client was closed, or its event loop ended, before it could be delivered."""
    INTERNAL = "internal error"
    """A bug of ours; the log names it."""


@attrs.frozen(kw_only=True)
class DeliveryReport:
    """What became of the events, since the start.

    Attributes:
        offered: Calls of `track_*` while the client was open and not paused.
        accepted: Events taken on.
        duplicate: Calls with a UUID that was already taken on.
        unmatched: Calls for experiences that had not been served.
        refused: Calls whose event cannot be sent.
        dropped_at_the_door: Calls for which there was no room.
        recovered: Events found in the spool of an earlier process.
        replayed: Dead letters taken on again.
        delivered: Events that MoEngage acknowledged.
        rejected: Events that MoEngage refused, each by itself.
        dropped: Accepted events given up; `dropped_by_reason` says why.
        forgotten: Events removed by `forget`.
        pending: Events still waiting or in flight.
        spooled: Those of them that a restart would send.
    """

    offered: int = 0
    accepted: int = 0
    duplicate: int = 0
    unmatched: int = 0
    refused: int = 0
    dropped_at_the_door: int = 0
    recovered: int = 0
    replayed: int = 0
    delivered: int = 0
    rejected: int = 0
    dropped: int = 0
    forgotten: int = 0
    pending: int = 0
    spooled: int = 0
    dropped_by_reason: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether the two equations of the module's docstring hold."""
        at_the_door = self.accepted + self.duplicate + self.unmatched + self.refused + self.dropped_at_the_door
        taken_on = self.accepted + self.recovered + self.replayed
        settled = self.delivered + self.rejected + self.dropped + self.forgotten
        return self.offered == at_the_door and taken_on == settled + self.pending and self.spooled <= self.pending


@attrs.frozen(kw_only=True)
class Stats(DeliveryReport):
    """The report, and what it took.

    Attributes:
        pending_bytes: Bytes of the pending events' actions and attributes.
        oldest_age: Seconds since the oldest waiting event was accepted; 0.0 if none waits.
        attributes_refused: Events that were delivered without their `user_attributes`, which MoEngage had refused.
        event_requests: Requests to the events endpoint.
        fetches: Calls of `fetch` and `fetch_all`.
        fetch_requests: Requests to the fetch endpoint.
        fetches_merged: Calls that caused no request, since they shared one that had not left.
        fetches_joined: The same, with one that was in flight.
        fetches_cached: Calls that were answered from the cache alone.
        fetches_refused: Calls that caused no request, since the circuit, the quota or `max_in_flight` forbade it.
        stale_answers: Answers that were out of date, and given because MoEngage gave none.
        late_answers: Answers that arrived when nobody waited any more, and were kept.
        circuit_openings: How often the circuit opened.
        drifts: Variables whose value did not fit what the code expected.
        drifts_by_path: The same by `key.variable.…`.
        retries: Requests that repeated another.
        connections_opened: By the SDK's own transport; 0 with any other.
        paused: Calls of `track_*` while paused; not offered.
        closed: Calls of `track_*` while not open; not offered.
        disabled: Calls of `track_*` with `enabled=False`; not offered.
    """

    pending_bytes: int = 0
    oldest_age: float = 0.0
    attributes_refused: int = 0
    event_requests: int = 0
    fetches: int = 0
    fetch_requests: int = 0
    fetches_merged: int = 0
    fetches_joined: int = 0
    fetches_cached: int = 0
    fetches_refused: int = 0
    stale_answers: int = 0
    late_answers: int = 0
    circuit_openings: int = 0
    drifts: int = 0
    drifts_by_path: Mapping[str, int] = attrs.field(factory=dict)
    retries: int = 0
    connections_opened: int = 0
    paused: int = 0
    closed: int = 0
    disabled: int = 0

    @property
    def requests_saved(self) -> int:
        """Calls that were answered without a request of their own."""
        return self.fetches_merged + self.fetches_joined + self.fetches_cached


@attrs.frozen(kw_only=True)
class Forgotten:
    """What `forget` dropped, and what it came too late for.

    Attributes:
        experiences: Answers that were kept.
        events: Events that were waiting in this process.
        spooled: Events in this process's spool files beyond those.
        dead_letters: Rejected events that the spool had kept.
        other_processes: Living processes on the same spool; each forgets within its sync interval.
        fetches_in_flight: Requests under way; their answers reach who waits for them, and are not kept.
        events_in_flight: Events that had left.
    """

    experiences: int = 0
    events: int = 0
    spooled: int = 0
    dead_letters: int = 0
    other_processes: int = 0
    fetches_in_flight: int = 0
    events_in_flight: int = 0


class Condition(StrEnum):
    """How the client is doing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Their trouble: requests fail and are tried again."""
    MISCONFIGURED = "misconfigured"
    """Only a person can mend it: credentials or base URL are refused. Events are kept."""
    PAUSED = "paused"
    DISABLED = "disabled"
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class Health:
    """How the client is doing, and since when it has not been well.

    Attributes:
        condition: In one word.
        detail: In one sentence: what is wrong and what to do.
    """

    condition: Condition
    detail: str = ""
