"""What an application asked, showed and reported clicks of; and what an assertion says when that is not what was meant.

Theory: an event is recorded at the door, with the client's own verdict on it, so that a test sees it at once. Only what
the client accepted was tracked; the rest was turned away, and is listed where it explains a failure.

Invariant: a record only grows, until it is cleared. It holds people's ids and content in plain text: a test's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from moengage_personalize import Action, Admission, Event, Experience

MOST_TOLD = 10


@attrs.frozen(kw_only=True)
class Tracked:
    """One impression or click, as the client took it.

    Attributes:
        action: Which of the two.
        key: The experience key. For a context that no fake has served, its `experience`.
        customer_id: Whose.
        variation: The context's `moe_variation_id`.
        b_id: Which clickable element.
        attributes: What else was said of a click.
        platform: Where.
        at: When, in epoch seconds.
        event_uuid: The one under which it travels.
        user_attributes: What was said of the person.
        user_timezone_offset: The person's, in seconds.
        context: The experience context that travels.
        admission: The client's answer.
    """

    action: Action
    key: str
    customer_id: str
    variation: str
    b_id: str | None
    attributes: Mapping[str, Any]
    platform: str
    at: float
    event_uuid: str
    user_attributes: Mapping[str, Any]
    user_timezone_offset: int | None
    context: Mapping[str, Any] = attrs.field(repr=False)
    admission: Admission

    @classmethod
    def of(cls, event: Event, admission: Admission) -> Tracked:
        """What the client said to an event that has its time and its UUID."""
        experience = event.experience
        context = experience.context if isinstance(experience, Experience) else dict(experience or {})
        at = event.at
        return cls(
            action=Action(event.action),
            key=experience.key if isinstance(experience, Experience) else str(context.get("experience", "")),
            customer_id=event.customer_id,
            variation=str(context.get("moe_variation_id", "")),
            b_id=event.b_id,
            attributes=dict(event.attributes or {}),
            platform=event.platform,
            at=float(at if isinstance(at, int | float) else at.timestamp() if at else 0),
            event_uuid=str(event.event_uuid),
            user_attributes=dict(event.user_attributes or {}),
            user_timezone_offset=event.user_timezone_offset,
            context=context,
            admission=admission,
        )

    def __str__(self) -> str:
        what = "impression" if self.action is Action.IMPRESSION else "click"
        more = f", variation {self.variation!r}" if self.variation else ""
        more += f", b_id {self.b_id!r}" if self.b_id is not None else ""
        more += f", attributes {dict(self.attributes)!r}" if self.attributes else ""
        return f"{what} of {self.key!r} by {self.customer_id!r}{more}"


@attrs.frozen(kw_only=True)
class Asked:
    """One request for experiences, as MoEngage would have seen it.

    Attributes:
        keys: Which; empty: everything.
        customer_id: Whose; None: anonymous.
        user_identifiers: For Identity Resolution.
        attributes: The in-session attributes by MoEngage's names: `USER_AGENT`, `utm_medium`, …
    """

    keys: tuple[str, ...]
    customer_id: str | None
    user_identifiers: Mapping[str, str]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Asked:
        """Reads a request's body, in whichever form the identity has."""
        identifiers = body.get("identifiers", {})
        ours = {"identifiers", "customer_id", "experience_key"}
        return cls(
            keys=tuple(body.get("experience_key", ())),
            customer_id=identifiers.get("customer_id", body.get("customer_id")),
            user_identifiers=identifiers.get("user_identifiers", {}),
            attributes={name: value for name, value in body.items() if name not in ours},
        )


def _text(variation: str | int | None) -> str | None:
    return None if variation is None else str(variation)


@attrs.frozen(kw_only=True)
class Wanted:
    """What an assertion looks for. None: anything."""

    action: Action
    key: str | None = None
    customer_id: str | None = None
    variation: str | None = attrs.field(default=None, converter=_text)
    b_id: str | None = None
    attributes: Mapping[str, Any] | None = None

    def differences(self, event: Tracked) -> list[str]:
        """Returns the names of what is not as wanted; attributes may be more than are wanted."""
        found = [
            name
            for name in ("action", "key", "customer_id", "variation", "b_id")
            if (wanted := getattr(self, name)) is not None and wanted != getattr(event, name)
        ]
        missing = any(event.attributes.get(name) != value for name, value in (self.attributes or {}).items())
        return [*found, "attributes"] if missing else found

    def distance(self, event: Tracked) -> tuple[bool, int]:
        """Returns how far an event is from what is wanted; another action is far."""
        return event.action is not self.action, len(self.differences(event))

    def __str__(self) -> str:
        what = "impression" if self.action is Action.IMPRESSION else "click"
        parts = [f" of {self.key!r}" if self.key else "", f" by {self.customer_id!r}" if self.customer_id else ""]
        parts += [
            f", {name} {value!r}"
            for name in ("variation", "b_id", "attributes")
            if (value := getattr(self, name)) is not None
        ]
        return what + "".join(parts)


class Record:
    """What happened, in order.

    Args:
        most: How many events and questions are kept, the newest; None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._tracked: deque[Tracked] = deque(maxlen=most)
        self._turned_away: deque[Tracked] = deque(maxlen=most)
        self._asked: deque[Asked] = deque(maxlen=most)

    @property
    def tracked(self) -> list[Tracked]:
        return list(self._tracked)

    @property
    def turned_away(self) -> list[Tracked]:
        return list(self._turned_away)

    @property
    def asked(self) -> list[Asked]:
        return list(self._asked)

    def clear(self) -> None:
        """Forgets everything."""
        for each in (self._tracked, self._turned_away, self._asked):
            each.clear()

    def note(self, event: Tracked) -> None:
        """Takes down an event."""
        (self._tracked if event.admission is Admission.ACCEPTED else self._turned_away).append(event)

    def note_question(self, question: Asked) -> None:
        """Takes down a request for experiences."""
        self._asked.append(question)

    def find(self, wanted: Wanted) -> list[Tracked]:
        """Returns the tracked events that are as wanted."""
        return [event for event in self.tracked if not wanted.differences(event)]

    def expect(self, wanted: Wanted, times: int | None) -> None:
        """Raises unless there are so many of these events; None: at least one.

        Raises:
            AssertionError: It lists what was tracked instead, the nearest first.
        """
        __tracebackhide__ = True
        found = len(self.find(wanted))
        if found == times or (times is None and found):
            return
        count = f"{times} times" if times is not None else "at least once"
        raise AssertionError("\n".join([f"expected {count}, found {found} times: {wanted}", *self._story(wanted)]))

    def expect_nothing(self) -> None:
        """Raises if anything was tracked.

        Raises:
            AssertionError: It lists what was.
        """
        __tracebackhide__ = True
        if tracked := self.tracked:
            raise AssertionError("\n".join(["expected that nothing is tracked", *_listed("tracked", tracked)]))

    def _story(self, wanted: Wanted) -> list[str]:
        nearest, away = sorted(self.tracked, key=wanted.distance), sorted(self.turned_away, key=wanted.distance)
        if not nearest and not away:
            return ["nothing was tracked at all"]
        return [
            *_listed("tracked, the nearest first", nearest, wanted),
            *_listed("turned away by the client", away, wanted),
        ]


def _listed(title: str, events: Iterable[Tracked], wanted: Wanted | None = None) -> list[str]:
    every = list(events)
    lines = [f"{title}:"] if every else []
    for event in every[:MOST_TOLD]:
        differences = wanted.differences(event) if wanted else []
        why = "" if event.admission is Admission.ACCEPTED else f": {event.admission.value}"
        lines.append(f"  {event}{why}" + (f"   <- other {', '.join(differences)}" if differences else ""))
    return [*lines, f"  ... and {len(every) - MOST_TOLD} more"] if len(every) > MOST_TOLD else lines
