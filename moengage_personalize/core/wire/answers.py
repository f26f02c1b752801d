"""A fetch, in: tolerant, one experience at a time, so that one odd entry costs nothing but itself.

Invariant: each key that was asked gets an entry, matched only if MoEngage's context came with it; and the context is
kept exactly as it came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..._errors import BadReplyError
from ..._experiences import Experience, Observer, Reason
from ..codec import loads
from .events import encode_served

_FAILURES = {  # the native SDKs' names (api-facts.md, section 1.2); unknown ones mean PERSONALIZATION_FAILED there too
    "USER_IN_CAMPAIGN_CONTROL_GROUP": Reason.CAMPAIGN_CONTROL_GROUP,
    "USER_IN_GLOBAL_CONTROL_GROUP": Reason.GLOBAL_CONTROL_GROUP,
    "USER_NOT_IN_SEGMENT": Reason.NOT_IN_SEGMENT,
    "INVALID_EXPERIENCE_KEY": Reason.INVALID_KEY,
    "IN_VALID_EXPERIENCE_KEY": Reason.INVALID_KEY,
    "MAX_LIMIT_BREACHED": Reason.LIMIT_BREACHED,
    "EXPERIENCE_NOT_ACTIVE": Reason.NOT_ACTIVE,
    "EXPERIENCE_EXPIRED": Reason.EXPIRED,
}


def read_experiences(body: bytes, keys: Sequence[str] | None, drifts: Observer | None = None) -> dict[str, Experience]:
    """Reads the answer to a fetch.

    Args:
        body: The body of a 200.
        keys: What was asked; each gets an entry. None: an entry for each that came.
        drifts: Who counts what does not fit.

    Raises:
        BadReplyError: The body is not a JSON object with an object `experiences`.
    """
    reply = read_object(body)
    served = reply.get("experiences")
    if not isinstance(served, dict):
        raise BadReplyError("the reply has no experiences")
    failures = _failures(reply.get("failures"))
    wanted = keys if keys is not None else [key for key in served if isinstance(key, str)]
    return {key: _experience(key, served.get(key), failures.get(key, Reason.NO_MATCH), drifts) for key in wanted}


def _failures(failures: Any) -> dict[str, Reason]:
    found: dict[str, Reason] = {}
    for failure in failures if isinstance(failures, list) else ():
        keys = failure.get("experienceKeys") if isinstance(failure, dict) else None
        for key in keys if isinstance(keys, list) else ():
            if isinstance(key, str):
                found[key] = _FAILURES.get(str(failure.get("reason")), Reason.PERSONALIZATION_FAILED)
    return found


def _experience(key: str, served: Any, otherwise: Reason, drifts: Observer | None) -> Experience:
    context = served.get("experience_context") if isinstance(served, dict) else None
    payload = served.get("payload") if isinstance(served, dict) else None
    if not isinstance(context, dict) or not isinstance(payload, dict) or not (context or payload):
        strange = served is not None and not (isinstance(served, dict) and not payload and not context)
        return Experience(key=key, reason=Reason.DECODE_ERROR if strange else otherwise, source="network")
    values: dict[str, Any] = {}
    undecodable: dict[str, str] = {}
    for name, variable in payload.items():
        try:
            values[name] = _value(variable)
        except (ValueError, RecursionError) as error:
            undecodable[name] = str(error) if type(error) is _UndecodableError else "not JSON"
            if drifts is not None:
                drifts.saw(key, name, "its data_type")
    return Experience(
        key=key,
        reason=Reason.MATCHED,
        source="network",
        payload=values,
        undecodable=undecodable,
        context=context,
        wire_context=encode_served(context),
        drifts=drifts,
    )


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)


class _UndecodableError(ValueError):
    """Its message is ours, and shows nothing."""


def _value(variable: Any) -> Any:
    if not isinstance(variable, dict) or "value" not in variable:
        raise _UndecodableError("no value")
    value, data_type = variable["value"], variable.get("data_type")
    match data_type:
        case "string" | None:
            return value
        case "number" | "float":
            return _number(value, data_type)
        case "boolean":
            if isinstance(value, str):
                value = {"true": True, "false": False}.get(value.strip().lower())
            if not isinstance(value, bool):
                raise _UndecodableError("not a boolean")
            return value
        case "json":
            return loads(value) if isinstance(value, str) else value
        case _:  # a data_type that MoEngage added since
            return value


def _number(value: Any, data_type: str) -> int | float:
    if isinstance(value, str):
        value = loads(value) if _NUMBER.fullmatch(value := value.strip()) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _UndecodableError(f"not a {data_type}")
    return float(value) if data_type == "float" else value


def read_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object that a reply is.

    Raises:
        BadReplyError: It is something else.
    """
    try:
        reply = loads(body)
    except (ValueError, RecursionError):
        raise BadReplyError("the reply is not JSON") from None
    if not isinstance(reply, dict):
        raise BadReplyError("the reply is not a JSON object")
    return reply
