"""Trouble on request: what goes wrong, for whom, from when until when. Pure values and one plan per request.

Theory: a `Trouble` is a wish ("answer a third of the events requests 503 for ten seconds"). All that are
in force are asked about each request in the order in which they were wished for; delays add up, and the
first that has an outcome decides it. The shell carries the plan out; it decides nothing.

Invariant: `Troubles` reads no clock and rolls no dice: both are arguments.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs

Outcome = Literal[
    "hang",  # take the request and never answer
    "reset",  # reset the stream with INTERNAL_ERROR, unprocessed
    "refuse",  # reset the stream with REFUSED_STREAM: promised to be unprocessed
    "lose",  # process the request, then reset its stream: the answer is lost
    "goaway",  # say GOAWAY with this stream unprocessed; let older streams finish, then close
    "drain",  # answer this one, say GOAWAY, let everything finish, then close
    "disconnect",  # cut the connection
]
OUTCOMES: tuple[str, ...] = ("hang", "reset", "refuse", "lose", "goaway", "drain", "disconnect")
ENDPOINTS: tuple[str, ...] = ("fetch", "events", "metadata")


def _positive(_instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name}: must be 0 or more, is {value}")


def _share(_instance: object, attribute: Any, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name}: must be a share between 0 and 1, is {value}")


def _error_status(_instance: object, attribute: Any, value: int | None) -> None:
    if value is not None and not 400 <= value <= 599:
        raise ValueError(f"{attribute.name}: must be between 400 and 599, is {value}")


def _endpoints(_instance: object, attribute: Any, value: tuple[str, ...]) -> None:
    unknown = [name for name in value if name not in ENDPOINTS]
    if unknown or not value:
        raise ValueError(f"{attribute.name}: must name some of {', '.join(ENDPOINTS)}")


@attrs.frozen(kw_only=True)
class Trouble:
    """One wish. Every time is in seconds.

    Attributes:
        endpoints: Which endpoints meet it.
        share: Which share of their requests.
        latency: Fixed delay before the request is processed; with `sigma` the median of a log-normal one.
        sigma: Shape of the log-normal delay; 0 is a fixed one.
        outcome: What happens instead of an answer.
        status: Answer with this status instead.
        retry_after: `Retry-After` on that answer.
        drip: Pause between the bytes of the answer.
        max_body: Answer 413 above so many bytes of body.
        poison: Answer 400 to a request in which an action's `attributes`, or an element's
            `user_attributes`, has this name.
        outage: Refuse connections, and cut those that there are.
        after: Begins so long from now.
        duration: Ends so long after it began; None lasts until it is cleared.
        name: What pages and ledgers call it.
    """

    endpoints: tuple[str, ...] = attrs.field(default=ENDPOINTS, validator=_endpoints)
    share: float = attrs.field(default=1.0, validator=_share)
    latency: float = attrs.field(default=0.0, validator=_positive)
    sigma: float = attrs.field(default=0.0, validator=_positive)
    outcome: Outcome | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.in_(OUTCOMES))
    )
    status: int | None = attrs.field(default=None, validator=_error_status)
    retry_after: float | None = attrs.field(default=None, validator=_positive)
    drip: float = attrs.field(default=0.0, validator=_positive)
    max_body: int | None = attrs.field(default=None, validator=_positive)
    poison: str | None = None
    outage: bool = False
    after: float = attrs.field(default=0.0, validator=_positive)
    duration: float | None = attrs.field(default=None, validator=_positive)
    name: str = ""

    def __attrs_post_init__(self) -> None:
        if not any(
            (self.latency, self.outcome, self.status, self.drip, self.max_body is not None, self.poison, self.outage)
        ):
            raise ValueError("a trouble must do something: latency, outcome, status, drip, max_body, poison or outage")

    @property
    def label(self) -> str:
        """Its name, or what it does."""
        if self.name:
            return self.name
        wishes = {
            "outage": self.outage,
            self.outcome or "": self.outcome,
            f"status {self.status}": self.status,
            f"latency {self.latency:g} s": self.latency,
            f"drip {self.drip:g} s": self.drip,
            f"413 above {self.max_body} bytes": self.max_body is not None,
            f"poison {self.poison!r}": self.poison,
        }
        return ", ".join(label for label, wished in wishes.items() if wished)

    def delay(self, random: Callable[[], float]) -> float:
        """How long one request waits, in seconds."""
        if not self.latency or not self.sigma:
            return self.latency
        # Box and Muller: a normal variable from two uniform ones
        normal = math.sqrt(-2 * math.log(1 - random())) * math.cos(2 * math.pi * random())
        return self.latency * math.exp(self.sigma * normal)


@attrs.frozen(kw_only=True)
class Plan:
    """What happens to one request."""

    delay: float = 0.0
    drip: float = 0.0
    outcome: Outcome | None = None
    status: int | None = None
    retry_after: float | None = None
    poison: str | None = None
    label: str | None = None


UNTROUBLED = Plan()


@attrs.frozen(kw_only=True)
class Active:
    """A wish with its place on the clock; `ends` may be infinite."""

    number: int
    trouble: Trouble
    begins: float
    ends: float

    def in_force(self, now: float) -> bool:
        """Whether it is on."""
        return self.begins <= now < self.ends


class Troubles:
    """The wishes that are in force or still to come."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._wishes: list[Active] = []
        self._number = 0
        self.changed = changed
        """Called after every change, so that a server can look at the outage again."""

    def __repr__(self) -> str:
        return f"<Troubles {[wish.trouble.label for wish in self._wishes]}>"

    def add(self, trouble: Trouble, now: float) -> Active:
        """Wishes for one more."""
        self._number += 1
        begins = now + trouble.after
        ends = math.inf if trouble.duration is None else begins + trouble.duration
        wish = Active(number=self._number, trouble=trouble, begins=begins, ends=ends)
        self._wishes.append(wish)
        self.changed()
        return wish

    def play(self, scenario: Iterable[Trouble], now: float) -> None:
        """Replaces everything by a timeline: each wish's `after` counts from now."""
        self._wishes.clear()
        for trouble in scenario:
            self.add(trouble, now)
        self.changed()

    def clear(self, number: int | None = None) -> None:
        """Ends one wish, or all of them."""
        self._wishes = [wish for wish in self._wishes if number is not None and wish.number != number]
        self.changed()

    def current(self, now: float) -> tuple[Active, ...]:
        """What is on or still to come."""
        self._wishes = [wish for wish in self._wishes if now < wish.ends]
        return tuple(self._wishes)

    def outage(self, now: float) -> bool:
        """Whether connections are refused."""
        return any(wish.trouble.outage and wish.in_force(now) for wish in self._wishes)

    def next_change(self, now: float) -> float:
        """Seconds until some wish begins or ends; infinite if none will."""
        moments = [moment for wish in self._wishes for moment in (wish.begins, wish.ends) if moment > now]
        return min(moments, default=math.inf) - now

    def plan(self, endpoint: str, size: int, now: float, random: Callable[[], float]) -> Plan:
        """What happens to a request of `size` bytes to this endpoint."""
        if not self._wishes:
            return UNTROUBLED
        plan = UNTROUBLED
        for wish in self.current(now):
            trouble = wish.trouble
            if not wish.in_force(now) or endpoint not in trouble.endpoints or trouble.outage:
                continue
            if trouble.share < 1 and random() >= trouble.share:
                continue
            if trouble.max_body is not None and size <= trouble.max_body:
                continue
            plan = _more(plan, trouble, random)
        return plan


def _more(plan: Plan, trouble: Trouble, random: Callable[[], float]) -> Plan:
    """This plan with one more trouble in it; what was decided stays."""
    decided = plan.outcome is not None or plan.status is not None
    status = 413 if trouble.max_body is not None else trouble.status
    return Plan(
        delay=plan.delay + trouble.delay(random),
        drip=max(plan.drip, trouble.drip),
        outcome=plan.outcome if decided else trouble.outcome,
        status=plan.status if decided else status,
        retry_after=plan.retry_after if decided else trouble.retry_after,
        poison=plan.poison or trouble.poison,
        label=plan.label or trouble.label,
    )


def wishes_json(wishes: Iterable[Active], now: float) -> list[Mapping[str, Any]]:
    """Wishes as JSON-ready values; times are seconds from now, and an endless one has no `ends_in`."""
    return [
        {
            "number": wish.number,
            "label": wish.trouble.label,
            "begins_in": max(0.0, round(wish.begins - now, 3)),
            "ends_in": None if wish.ends == math.inf else round(wish.ends - now, 3),
            "trouble": attrs.asdict(wish.trouble),
        }
        for wish in wishes
    ]
