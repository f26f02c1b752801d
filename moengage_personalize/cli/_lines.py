"""A line of a file to replay: one event, in MoEngage's own words.

Theory: a line is the action as it travels, and beside its members those of its element: `customer_id`, and if wanted
`user_attributes` and `user_timezone_offset`. So what `spool show --json --reveal` prints is a line as well; its member
`spool` is passed over.

Invariant: a line becomes the same event each time it is read: one without `moe_event_uuid` gets one that follows from
the file's first line, its own number and its own text. No complaint repeats what a line says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from moengage_personalize import Action, Event, event_uuid_for

_ACTIONS = {action.value: action for action in Action}
_MEMBERS: Final = frozenset(
    "customer_id action moe_event_uuid event_time platform attributes user_attributes user_timezone_offset"
    " spool".split()
)
_REQUIRED = ("customer_id", "action", "event_time", "attributes")


class BadLineError(ValueError):
    """A line that is no event. Its message is for the operator."""


def _decoder() -> Callable[[bytes], Any]:
    try:
        import orjson  # an extra
    except ImportError:
        return json.loads
    return orjson.loads


_loads = _decoder()


def event_of(text: bytes, number: int, identity: str) -> Event:
    """Reads a line.

    Args:
        text: The line, without its end.
        number: Its number, from 1.
        identity: Of its file.

    Raises:
        BadLineError: It is no event. (That the client refuses one is another matter.)
    """
    try:
        found = _loads(text)
    except (ValueError, RecursionError):
        raise BadLineError("it is not JSON") from None
    if not isinstance(found, dict):
        raise BadLineError("it is not an object")
    if not found.keys() <= _MEMBERS:
        raise BadLineError(f"it has a member that no event has; an event's are {', '.join(sorted(_MEMBERS))}")
    if missing := [name for name in _REQUIRED if name not in found]:
        raise BadLineError(f"{', '.join(missing)} is missing")
    action = found["action"]
    if not isinstance(action, str) or action not in _ACTIONS:
        raise BadLineError(f"action must be {' or '.join(_ACTIONS)}")
    time = found["event_time"]
    if not isinstance(time, int) or isinstance(time, bool):
        raise BadLineError("event_time must be whole epoch seconds")
    return Event(
        action=_ACTIONS[action],
        experience=found["attributes"],  # whole: what belongs to a click is in it
        customer_id=found["customer_id"],
        platform=found.get("platform", "web"),
        at=time,
        event_uuid=found.get("moe_event_uuid") or event_uuid_for("replay", identity, number, text.decode()),
        user_attributes=found.get("user_attributes"),
        user_timezone_offset=found.get("user_timezone_offset"),
    )
