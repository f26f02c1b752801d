"""What happened: impressions and clicks, and what became of the attempt to report one.

Invariant: every documented constraint on an event (api-facts.md, section 1.3) has one function here that checks it;
what passed is safe to encode. None of the messages repeats what was passed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import attrs

from ._errors import InvalidInputError
from ._experiences import Experience

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_LATEST: Final = 10**11  # the year 5138 in seconds, and 1973 in milliseconds
_PLATFORMS = ("web", "android", "ios", "tv")
MAX_TIMEZONE_OFFSET: Final = 54_000


class Action(StrEnum):
    """What MoEngage calls the two things that can be reported."""

    IMPRESSION = "MOE_PERSONALIZATION_MESSAGE_SHOWN"
    CLICK = "MOE_PERSONALIZATION_MESSAGE_CLICKED"


class Admission(StrEnum):
    """What became of an event at the door.

    A UUID that was dropped may come again; one that was accepted is a duplicate for the rest of the dedup window.
    """

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    """The bounds of the buffer are reached, and nothing less valuable could be shed."""
    UNMATCHED = "unmatched"
    """The experience was never served, so there is nothing to report."""
    REFUSED = "refused"
    """It is too large for a request, its experience came without the documented context, or `before_send` said no."""
    PAUSED = "paused"
    CLOSED = "closed"
    DISABLED = "disabled"


@attrs.frozen(kw_only=True, repr=False)
class Event:
    """One impression or click, as `AsyncPersonalizeClient.track` takes it.

    Args:
        action: What happened.
        experience: The `Experience`, or the raw `experience_context` that came back from a browser.
        customer_id: Whose it is. MoEngage creates a profile for an unknown id.
        platform: `"web"`, `"android"`, `"ios"` or `"tv"`.
        at: When, as an aware datetime or whole epoch seconds. None: now.
        event_uuid: A version 4 UUID of the caller's. None: a fresh one.
        user_attributes: Updates the customer's profile.
        user_timezone_offset: Seconds east of UTC, -54000 to 54000.
        b_id: Which of several clickable elements it was. Clicks only.
        attributes: Further attributes of a click, beside the experience context.
    """

    action: Action
    experience: Experience | Mapping[str, Any]
    customer_id: str
    platform: str = "web"
    at: datetime | int | float | None = None
    event_uuid: str | UUID | None = None
    user_attributes: Mapping[str, Any] | None = None
    user_timezone_offset: int | None = None
    b_id: str | None = None
    attributes: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Event({Action(self.action).name if self.action in set(Action) else '?'})"


def event_uuid_for(*parts: str | int) -> str:
    """Returns the same version-4-shaped UUID for the same parts, in every process.

    For handlers that may run twice: `event_uuid_for("order-mail", message_id, "home-hero")`.

    Args:
        *parts: What identifies the event. Their borders count: `("ab", "c")` differs from `("a", "bc")`.

    Raises:
        InvalidInputError: There are no parts, or one is neither text nor a whole number.
    """
    if not parts or not all(isinstance(part, str | int) for part in parts):
        raise InvalidInputError("event_uuid_for needs one or more texts or whole numbers")
    digest = hashlib.sha256(b"moengage_personalize")
    for part in parts:
        data = f"{type(part).__name__}:{part}".encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return str(UUID(bytes=digest.digest()[:16], version=4))


def check_event_uuid(event_uuid: object) -> str:
    """Returns the canonical lower-case form.

    Raises:
        InvalidInputError: It is not shaped like a version 4 UUID.
    """
    text = str(event_uuid).lower() if isinstance(event_uuid, str | UUID) else ""
    if not _UUID4.fullmatch(text):
        raise InvalidInputError("event_uuid must be a version 4 UUID, such as str(uuid.uuid4()) or event_uuid_for(…)")
    return text


def check_time(at: object) -> int:
    """Returns whole epoch seconds.

    Raises:
        InvalidInputError: It is a naive datetime, looks like milliseconds, or is no time at all.
    """
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise InvalidInputError("at must have a time zone: a naive datetime could mean any hour")
        at = at.timestamp()
    if not isinstance(at, int | float) or isinstance(at, bool) or at != at or at < 0:  # noqa: PLR0124 - NaN
        raise InvalidInputError("at must be a datetime with a time zone, or epoch seconds")
    if at >= _LATEST:
        raise InvalidInputError("at looks like milliseconds: epoch seconds are needed")
    return int(at)


def check_platform(platform: object) -> str:
    """Returns the platform in lower case.

    Raises:
        InvalidInputError: It is none of MoEngage's.
    """
    name = platform.lower() if isinstance(platform, str) else ""
    if name not in _PLATFORMS:
        raise InvalidInputError(f"platform must be one of {', '.join(_PLATFORMS)}")
    return name


def check_timezone_offset(offset: object) -> int:
    """Returns the offset in seconds.

    Raises:
        InvalidInputError: It is not a whole number from -54000 to 54000.
    """
    if not isinstance(offset, int) or isinstance(offset, bool) or abs(offset) > MAX_TIMEZONE_OFFSET:
        raise InvalidInputError("user_timezone_offset must be whole seconds from -54000 to 54000 (19800 for IST)")
    return int(offset)  # a plain one: an enum's would be as long as its name
