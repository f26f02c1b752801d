"""A fetch, out: the one body that says who, in which situation, and which keys.

Invariant: equal questions give equal bytes, so that bytes can stand for the question where answers are shared or kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, assert_never

from ..._config import Identity
from ..._errors import InvalidInputError
from ..._session import InSession
from ..codec import encode, encode_decoded

FETCH_PATH: Final = "/v1/experiences/fetch"
MAX_KEY_LENGTH: Final = 50  # api-facts.md, section 1.1: 5 to 50 characters

_SESSION_NAMES = {
    "day_of_week": "DAY_OF_THE_WEEK",
    "time_of_day": "TIME_OF_THE_DAY",
    "ip_address": "USER_IP_ADDRESS",
    "user_agent": "USER_AGENT",
}
_OURS = frozenset({"customer_id", "identifiers", "user_identifiers", "experience_key", *_SESSION_NAMES.values()})


def check_keys(keys: Iterable[object]) -> tuple[str, ...]:
    """Returns the keys without repetitions, in order.

    Raises:
        InvalidInputError: There is none, or one is not text of 1 to 50 characters.
    """
    given = tuple(keys)
    if not given:
        raise InvalidInputError("at least one experience key is needed; fetch_all asks for everything")
    for key in given:
        if isinstance(key, list | tuple | set | frozenset):
            raise InvalidInputError("experience keys are passed one by one: fetch(*keys), not fetch(keys)")
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidInputError(f"an experience key must be text of 1 to {MAX_KEY_LENGTH} characters")
        if not key.isascii():
            encode(key, "an experience key")
    return tuple(dict.fromkeys(given))  # type: ignore[arg-type]


def fetch_context(
    *,
    customer_id: str | None,
    user_identifiers: Mapping[str, str] | None,
    session: InSession | None,
    attributes: Mapping[str, Any] | None,
    identity: Identity,
    below: Mapping[str, Any] | None = None,
) -> bytes:
    """Returns everything of a fetch body but its keys, so that equal questions give equal bytes.

    Args:
        customer_id: Left out: anonymous.
        user_identifiers: For Identity Resolution.
        session: The four in-session attributes.
        attributes: Custom in-session attributes.
        identity: Where the ids go.
        below: Members that are sent where the others say nothing.

    Raises:
        InvalidInputError: See `fetch_fields`; or it is no JSON.
    """
    if not below and session is None and not attributes and user_identifiers is None and customer_id is not None:
        known = encode(customer_id, "the fetch request")  # the usual question, without the detour
        match identity:
            case "both":
                return b'{"customer_id":%b,"identifiers":{"customer_id":%b}}' % (known, known)
            case "flat":
                return b'{"customer_id":%b}' % known
            case "identifiers":
                return b'{"identifiers":{"customer_id":%b}}' % known
            case _:
                assert_never(identity)
    fields = fetch_fields(
        customer_id=customer_id,
        user_identifiers=user_identifiers,
        session=session,
        attributes=attributes,
        identity=identity,
    )
    return encode_context_of_fetch({**below, **fields} if below else fields)


def fetch_fields(
    *,
    customer_id: str | None,
    user_identifiers: Mapping[str, str] | None,
    session: InSession | None,
    attributes: Mapping[str, Any] | None,
    identity: Identity,
) -> dict[str, Any]:
    """Returns everything of a fetch body but its keys.

    Raises:
        InvalidInputError: An attribute's name is one of MoEngage's own, or its value is no JSON scalar; or
            `user_identifiers` meets `identity="flat"`, whose document has no place for them.
    """
    fields: dict[str, Any] = {}
    if user_identifiers is not None and identity == "flat":
        raise InvalidInputError('user_identifiers cannot be sent with identity="flat": use "both" or "identifiers"')
    if customer_id is not None and identity != "identifiers":
        fields["customer_id"] = customer_id
    if identity != "flat" and (customer_id is not None or user_identifiers is not None):
        given = {"customer_id": customer_id, "user_identifiers": user_identifiers}
        fields["identifiers"] = {name: value for name, value in given.items() if value is not None}
    fields.update(_custom_attributes(attributes) if attributes else {})
    if session is not None:
        for attribute, name in _SESSION_NAMES.items():
            if (value := getattr(session, attribute)) is not None:
                fields[name] = value
    return fields


def _custom_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(attributes, Mapping):
        raise InvalidInputError("attributes must be a mapping of names to values")
    for name, value in attributes.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError("the name of an in-session attribute must be text, and not empty")
        if name in _OURS:
            raise InvalidInputError(f"attributes must not contain {name!r}: it has an argument of its own")
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not isfinite(value)):
            raise InvalidInputError(f"the in-session attribute {name!r} must be text, a finite number or a boolean")
    return attributes


def encode_context_of_fetch(fields: Mapping[str, Any]) -> bytes:
    """Returns everything of a fetch body but its keys, so that equal fields give equal bytes.

    Raises:
        InvalidInputError: It is no JSON.
    """
    ordered = {name: fields[name] for name in sorted(fields)}
    identifiers = ordered.get("identifiers", {}).get("user_identifiers")
    if identifiers is not None:  # the only place where the caller chose an order
        ordered["identifiers"] = {**ordered["identifiers"], "user_identifiers": dict(sorted(identifiers.items()))}
    return encode(ordered, "the fetch request")


def fetch_body(context: bytes, keys: Sequence[str] | None) -> bytes:
    """Returns the body of one fetch.

    Args:
        context: From `fetch_context`.
        keys: From `check_keys`; None asks for everything that the user qualifies for.
    """
    if keys is None:
        return context
    comma = b"" if context == b"{}" else b","
    return b'%b%b"experience_key":%b}' % (context[:-1], comma, encode_decoded(list(keys)).encode())
