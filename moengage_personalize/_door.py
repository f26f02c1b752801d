"""Where events come in: checked, asked about, encoded once, and left with the buffer.

Theory: everything here is synchronous and runs in a page's turn of the loop, so it does no more than it must: a context
is encoded once per `Experience`, and an `Event` object exists only if a hook wants to see one.

Invariants: bad input raises and changes nothing; trouble of ours, theirs or a hook's never raises. What is offered to
the buffer is bytes that are safe to send. Only `owner`'s thread comes in; others are the caller's to turn away.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from types import FrameType
from typing import Any
from uuid import UUID

from ._config import BatchPolicy
from ._effects import Effects
from ._errors import InvalidInputError
from ._events import Action, Admission, Event, check_event_uuid, check_platform, check_time, check_timezone_offset
from ._experiences import Experience
from ._session import ReservedCustomerIdWarning, check_customer_id, is_reserved
from .core.buffer import Buffer
from .core.wire import around_uuid, context_of, encode_action, encode_attributes, encode_click_context, encode_context

log = logging.getLogger("moengage_personalize")
BeforeSend = Callable[[Event], Event | None]
_IMPRESSION, _CLICK = Action.IMPRESSION.value, Action.CLICK.value
_LONGEST_RESERVED = 11  # characters; longer ids need no look


class Door:
    """See the module's docstring.

    Args:
        buffer: Where accepted events wait.
        effects: The wall clock and fresh UUIDs.
        before_send: Sees every event first, and may change or refuse it.
    """

    def __init__(self, buffer: Buffer, effects: Effects, before_send: BeforeSend | None) -> None:
        self._buffer = buffer
        self._effects = effects
        self._wall, self._uuid4 = effects.wall, effects.uuid4
        self._second = -1  # in which the last impression on the web came, and the text that all of those share
        self._until, self._before, self._between = 0, "", ""
        self._before_send = before_send
        self._hook_failed = False
        self.enter = self.admit if before_send is None else self._ask_and_admit  # what most events come in by
        self.owner = 0  # the thread that may come in, while open and not paused
        self.now: Callable[[], float] = lambda: 0.0
        self.wake: Callable[[], None] = lambda: None

    def admit(
        self,
        impression: bool,  # noqa: FBT001 - the hot path passes by position
        experience: Experience | Mapping[str, Any],
        customer_id: str,
        platform: str,
        at: datetime | float | None,
        event_uuid: str | UUID | None,
        user_attributes: Mapping[str, Any] | None,
        user_timezone_offset: int | None,
        b_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Admission:
        """Takes an event in. The arguments are those of `AsyncPersonalizeClient.track_click`.

        Raises:
            InvalidInputError: Something cannot be sent.
        """
        buffer, wall = self._buffer, self._wall()
        if (
            event_uuid is None
            and at is None
            and user_attributes is None
            and user_timezone_offset is None
            and impression
            and platform == "web"
            and type(experience) is Experience
            and type(context := experience.wire_context) is str
            and type(customer_id) is str
            and len(customer_id) > _LONGEST_RESERVED
        ):  # what most events are
            if not self._second <= wall < self._until:
                self._second = int(wall)
                self._until = self._second + 1
                self._before, self._between = around_uuid(_IMPRESSION, self._second, "web")
            uuid = self._uuid4()
            action = f"{self._before}{uuid}{self._between}{context}}}".encode()
            admission = buffer.report(customer_id, uuid, action, self.now(), wall)
        else:
            admission = self._admit_with_care(
                impression, experience, customer_id, platform, at, event_uuid, user_attributes, user_timezone_offset,
                b_id, attributes, wall,
            )  # fmt: skip
        if buffer.stirred:
            buffer.stirred = False
            self.wake()
        return admission

    def _admit_with_care(
        self,
        impression: bool,  # noqa: FBT001 - as `admit`
        experience: Experience | Mapping[str, Any],
        customer_id: str,
        platform: str,
        at: datetime | float | None,
        event_uuid: str | UUID | None,
        user_attributes: Mapping[str, Any] | None,
        user_timezone_offset: int | None,
        b_id: str | None,
        attributes: Mapping[str, Any] | None,
        wall: float,
    ) -> Admission:
        context: object
        if isinstance(experience, Experience):
            context = experience.wire_context or context_of(experience)
            if type(context) is not str:
                return self._nothing_to_report(context)
            if b_id is not None or attributes:
                context = encode_click_context(experience.context, b_id, attributes)
        elif b_id is not None or attributes:
            context = encode_click_context(experience, b_id, attributes)
        else:
            context = encode_context(experience)
        if type(customer_id) is not str or len(customer_id) <= _LONGEST_RESERVED:
            warn_if_reserved(check_customer_id(customer_id))
        uuid = self._uuid4() if event_uuid is None else check_event_uuid(event_uuid)
        action = encode_action(
            _IMPRESSION if impression else _CLICK,
            uuid,
            int(wall) if at is None else check_time(at),
            check_platform(platform),
            context,
        )
        return self._buffer.offer(
            customer_id,
            uuid,
            action,
            impression,
            None if user_attributes is None else encode_attributes(user_attributes),
            None if user_timezone_offset is None else check_timezone_offset(user_timezone_offset),
            self.now(),
            wall,
            event_uuid is not None,
        )

    def consider(self, event: Event) -> Admission:
        """Takes an event in, if the hook agrees.

        Raises:
            InvalidInputError: It is no event that can be sent.
        """
        if self._before_send is None:
            return self.admit(*_taken_apart(event))
        return self._admit_agreed(event)

    def _ask_and_admit(
        self,
        impression: bool,  # noqa: FBT001 - as `admit`
        experience: Experience | Mapping[str, Any],
        customer_id: str,
        platform: str,
        at: datetime | float | None,
        event_uuid: str | UUID | None,
        user_attributes: Mapping[str, Any] | None,
        user_timezone_offset: int | None,
        b_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Admission:
        """`admit`, if the hook agrees."""
        return self._admit_agreed(
            Event(
                action=Action.IMPRESSION if impression else Action.CLICK,
                experience=experience,
                customer_id=customer_id,
                platform=platform,
                at=at,
                event_uuid=event_uuid,
                user_attributes=user_attributes,
                user_timezone_offset=user_timezone_offset,
                b_id=b_id,
                attributes=attributes,
            )
        )

    def _admit_agreed(self, event: Event) -> Admission:
        """Takes in what the hook makes of an event. What the page did wrong raises; what the hook did is logged."""
        assert self._before_send is not None  # noqa: S101 - the caller looked
        try:
            agreed = self._before_send(event)
        except Exception as error:  # a hook of the user's must not break a page
            return self._refuse_for_hook(f"raised {type(error).__name__}")
        if agreed is None:
            self._buffer.refused += 1
            return Admission.REFUSED
        try:
            return self.admit(*_taken_apart(agreed))
        except InvalidInputError:
            # It is the page's fault if it would have been so without the hook: ask a door that leads nowhere.
            Door(Buffer(BatchPolicy()), self._effects, None).admit(*_taken_apart(event))
            return self._refuse_for_hook("returned what cannot be sent")

    def _refuse_for_hook(self, what: str) -> Admission:
        if not self._hook_failed:
            log.warning("before_send %s: events are refused while it does", what)
        self._hook_failed = True
        self._buffer.refused += 1
        return Admission.REFUSED

    def _nothing_to_report(self, admission: object) -> Admission:
        if admission is Admission.UNMATCHED:
            self._buffer.unmatched += 1
            return Admission.UNMATCHED
        self._buffer.refused += 1
        return Admission.REFUSED


def _taken_apart(event: Event) -> tuple[Any, ...]:
    """Returns what `admit` takes.

    Raises:
        InvalidInputError: It is no event that can be sent.
    """
    if not isinstance(event, Event) or event.action not in (_IMPRESSION, _CLICK):
        raise InvalidInputError("track needs an Event with an Action")
    impression = event.action == _IMPRESSION
    if impression and (event.b_id is not None or event.attributes):
        raise InvalidInputError("b_id and attributes belong to clicks")
    return (
        impression,
        event.experience,
        event.customer_id,
        event.platform,
        event.at,
        event.event_uuid,
        event.user_attributes,
        event.user_timezone_offset,
        event.b_id,
        event.attributes,
    )


def warn_if_reserved(customer_id: str) -> None:
    """Warns of an id that MoEngage's Data API documents as reserved, at the line that called the package."""
    if not is_reserved(customer_id):
        return
    level = 1
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - `skip_file_prefixes` came with Python 3.12
    while frame is not None and f"{frame.f_globals.get('__package__')}.".startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "customer_id is a value that MoEngage reserves (guest, null, unknown, 0, one character, …):"
        " its events may be refused or lost",
        ReservedCustomerIdWarning,
        stacklevel=level,
    )
