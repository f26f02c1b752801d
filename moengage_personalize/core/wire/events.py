"""Events, out: built as bytes once and joined ever after.

Invariant: the sizes that this module predicts are the sizes that it produces, to the byte; and a context goes back
exactly as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final

from ..._errors import InvalidInputError
from ..._events import Admission
from ..._experiences import Experience, Experiences
from ..codec import encode, encode_decoded

EVENTS_PATH: Final = "/v1/experiences/events"

_REQUIRED_CONTEXT = ("cid", "experience", "moe_locale_id", "moe_variation_id", "audience_name", "audience_id")
_required_of = itemgetter(*_REQUIRED_CONTEXT)  # or a KeyError
_UNMATCHED = Admission.UNMATCHED  # Python 3.11 takes 0.1 µs to look a member up in its enum

_UUID = b'"moe_event_uuid":"'  # before anything that a page or a server chose

_NO_CONTEXT = "an Experience is needed (page['home-hero'], not the page), or the experience_context that came with one"


def encode_context(context: Mapping[str, Any]) -> str:
    """Returns an experience context as JSON text.

    Raises:
        InvalidInputError: A field is missing that MoEngage documents as required, or it is no JSON.
    """
    if not isinstance(context, Mapping) or isinstance(context, Experiences):
        raise InvalidInputError(_NO_CONTEXT)
    if missing := [name for name in _REQUIRED_CONTEXT if name not in context]:
        raise InvalidInputError(f"the experience context lacks {', '.join(missing)}: MoEngage would refuse the event")
    return encode(dict(context), "the experience context").decode()


def encode_served(context: Mapping[str, Any]) -> str | Admission:
    """Encodes a context that came in a reply: decoded JSON, so that only its fields are in doubt."""
    try:
        _required_of(context)
        return encode_decoded(context)
    except (KeyError, ValueError):  # MoEngage's reply lacks what MoEngage's document requires: not the page's fault
        return Admission.REFUSED


def context_of(experience: Experience) -> str | Admission:
    """Returns an experience's context as JSON text, or why there is nothing to report.

    What came in a reply has its text already: it is encoded where it is decoded, while it is in the processor's cache,
    once for all who share the answer.
    """
    found = encode_served(experience.served_context) if experience.matched else _UNMATCHED
    object.__setattr__(experience, "wire_context", found)
    return found


def encode_click_context(context: Mapping[str, Any], b_id: str | None, attributes: Mapping[str, Any] | None) -> str:
    """Returns an experience context with what belongs to one click beside it.

    Raises:
        InvalidInputError: An attribute's name is in the context already, or is `b_id`; or something is no JSON.
    """
    if not isinstance(context, Mapping) or isinstance(context, Experiences):
        raise InvalidInputError(_NO_CONTEXT)
    if attributes is not None and not isinstance(attributes, Mapping):
        raise InvalidInputError("attributes must be a mapping of names to values")
    merged = dict(context)
    for name, value in (attributes or {}).items():
        if name in merged or name == "b_id":
            raise InvalidInputError(f"attributes must not contain {name!r}: it has a meaning of its own")
        merged[name] = value
    if attributes:
        encode(dict(attributes), "attributes")  # lest what is wrong with them be said of the context
    if b_id is not None:
        if not isinstance(b_id, str) or not b_id:
            raise InvalidInputError("b_id must be text, and not empty")
        merged["b_id"] = b_id
    return encode_context(merged)


def encode_action(action: str, event_uuid: str, event_time: int, platform: str, context: str) -> bytes:
    """Returns one action as it will travel, now and in every retry. All arguments are known to be safe."""
    before, between = around_uuid(action, event_time, platform)
    return f"{before}{event_uuid}{between}{context}}}".encode()


def around_uuid(action: str, event_time: int, platform: str) -> tuple[str, str]:
    """Returns the parts of an action before its UUID, and from there to its context; `}` ends it."""
    return (
        f'{{"action":"{action}","moe_event_uuid":"',
        f'","event_time":{event_time},"platform":"{platform}","attributes":',
    )


def uuid_in(action: bytes) -> str:
    """Returns the UUID that an action was given by `encode_action`, here or in an earlier process."""
    start = action.index(_UUID) + len(_UUID)
    return action[start : start + 36].decode()


Attributes = dict[bytes, bytes]
"""A person's attributes: encoded names with encoded values, so that merging is a dict's and sizes are sums."""


def encode_attributes(attributes: Mapping[str, Any]) -> Attributes:
    """Encodes user attributes name by name.

    Raises:
        InvalidInputError: They are no mapping of text to JSON.
    """
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) and name for name in attributes):
        raise InvalidInputError("user_attributes must be a mapping with names of text")
    return {encode(name, "user_attributes"): encode(value, "user_attributes") for name, value in attributes.items()}


def pack_attributes(attributes: Attributes) -> bytes:
    """Frames attributes for a journal. JSON escapes tabs and newlines, so that they can separate."""
    return b"\n".join(b"%b\t%b" % pair for pair in attributes.items())


def unpack_attributes(packed: bytes) -> Attributes:
    """Undoes `pack_attributes`."""
    lines = (line.partition(b"\t") for line in packed.split(b"\n"))
    return {name: value for name, _, value in lines}


def attributes_size(attributes: Attributes | None) -> int:
    """Returns what the attributes add to an element, in bytes."""
    if not attributes:
        return 0
    return (
        len(b',"user_attributes":{}')
        + sum(map(len, attributes))
        + sum(map(len, attributes.values()))
        + (2 * len(attributes) - 1)
    )


def element_size(customer: bytes, offset: int | None) -> int:
    """Returns the size of an element without its actions and attributes, in bytes."""
    return (
        len(b'{"customer_id":,"actions":[]}')
        + len(customer)
        + (0 if offset is None else len(b',"user_timezone_offset":') + len(str(offset)))
    )


REQUEST_SIZE: Final = len(b'{"elements":[]}')


def encode_element(
    customer: bytes, attributes: Attributes | None, offset: int | None, actions: Iterable[bytes]
) -> bytes:
    """Joins one customer's actions into an element."""
    parts = [b'{"customer_id":', customer]
    if attributes:
        parts += [b',"user_attributes":{', b",".join(b"%b:%b" % pair for pair in attributes.items()), b"}"]
    if offset is not None:
        parts.append(b',"user_timezone_offset":%d' % offset)
    parts += [b',"actions":[', b",".join(actions), b"]}"]
    return b"".join(parts)


def encode_events(elements: Iterable[bytes]) -> bytes:
    """Joins elements into the body of an events request."""
    return b'{"elements":[' + b",".join(elements) + b"]}"
