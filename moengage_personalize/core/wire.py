"""The only file that knows a JSON key of MoEngage's API, in both directions.

Theory: what goes out is built as bytes once and joined ever after; what comes in is read tolerantly, one experience at
a time, so that one odd entry costs nothing but itself. Sources: `seeds/personalize-api.txt`, and `api-facts.md`
sections 1 to 4 where MoEngage has moved on.

Invariant: the sizes that this module predicts are the sizes that it produces, to the byte; and a context goes back
exactly as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import attrs

from .._config import Identity
from .._errors import BadReplyError, InvalidInputError
from .._events import Admission
from .._experiences import Experience, ExperienceMetadata, ExperiencesMetadata, Observer, Reason
from .._session import InSession
from .codec import encode, encode_decoded, loads

FETCH_PATH: Final = "/v1/experiences/fetch"
EVENTS_PATH: Final = "/v1/experiences/events"
METADATA_PATH: Final = "/v1/experiences/metadata"

MAX_KEY_LENGTH: Final = 50  # api-facts.md, section 1.1: 5 to 50 characters
STATUSES: Final = ("Active", "Paused", "Scheduled")

_SESSION_NAMES = {
    "day_of_week": "DAY_OF_THE_WEEK",
    "time_of_day": "TIME_OF_THE_DAY",
    "ip_address": "USER_IP_ADDRESS",
    "user_agent": "USER_AGENT",
}
_OURS = frozenset({"customer_id", "identifiers", "user_identifiers", "experience_key", *_SESSION_NAMES.values()})
_REQUIRED_CONTEXT = ("cid", "experience", "moe_locale_id", "moe_variation_id", "audience_name", "audience_id")
_required_of = itemgetter(*_REQUIRED_CONTEXT)  # or a KeyError
_UNMATCHED = Admission.UNMATCHED  # Python 3.11 takes 0.1 µs to look a member up in its enum

_NO_CONTEXT = "an Experience is needed, or the experience_context that came with one"

# ── fetch, out ───────────────────────────────────────────────────────────────────────────────────────────────────────


def check_keys(keys: Iterable[object]) -> tuple[str, ...]:
    """Returns the keys without repetitions, in order.

    Raises:
        InvalidInputError: There is none, or one is not text of 1 to 50 characters.
    """
    given = tuple(keys)
    if not given:
        raise InvalidInputError("fetch needs at least one experience key; fetch_all asks for everything")
    for key in given:
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidInputError(f"an experience key must be text of 1 to {MAX_KEY_LENGTH} characters")
        if not key.isascii():
            encode(key, "an experience key")
    return tuple(dict.fromkeys(given))  # type: ignore[arg-type]


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
        if not isinstance(value, str | int | float):
            raise InvalidInputError("the value of an in-session attribute must be text, a number or a boolean")
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
        context: From `encode_context_of_fetch`.
        keys: None asks for everything that the user qualifies for.
    """
    if keys is None:
        return context
    comma = b"" if context == b"{}" else b","
    return b'%b%b"experience_key":%b}' % (context[:-1], comma, encode(list(keys), "the experience keys"))


# ── fetch, in ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
    reply = _read_object(body)
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
        wire_context=_encode_served(context),
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


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def metadata_target(statuses: Iterable[str] | str | None) -> str:
    """Returns path and query of a metadata request.

    Raises:
        InvalidInputError: A status is none of MoEngage's; it would answer with an empty list, silently.
    """
    if statuses is None:
        return METADATA_PATH
    chosen = tuple(statuses) if isinstance(statuses, Iterable) and not isinstance(statuses, str) else (statuses,)
    if not chosen or not all(status in STATUSES for status in chosen):
        raise InvalidInputError(f"status must be one or more of {', '.join(STATUSES)}, spelled so")
    return f"{METADATA_PATH}?status={','.join(chosen)}"


@attrs.frozen
class _MetadataEntry:
    experience_name: str
    experience_key: str
    status: str


@attrs.frozen
class _Metadata:
    experiences: list[_MetadataEntry]
    count: int | None = None


@attrs.frozen
class _MetadataReply:
    metadata: _Metadata


def read_metadata(body: bytes) -> ExperiencesMetadata:
    """Reads the answer to a metadata request.

    Raises:
        BadReplyError: It has not the documented shape.
    """
    import cattrs  # 40 ms; a service asks for metadata once a day

    try:  # a converter of our own: the global one has whatever hooks the application gave it
        found = cattrs.Converter().structure(_read_object(body), _MetadataReply).metadata
    except Exception as error:
        raise BadReplyError(f"the metadata cannot be read ({type(error).__name__})") from None
    entries = {
        entry.experience_key: ExperienceMetadata(
            name=entry.experience_name, key=entry.experience_key, status=entry.status
        )
        for entry in found.experiences
    }
    return ExperiencesMetadata(entries=entries, count=len(entries) if found.count is None else found.count)


# ── events, out ──────────────────────────────────────────────────────────────────────────────────────────────────────


def encode_context(context: Mapping[str, Any]) -> str:
    """Returns an experience context as JSON text.

    Raises:
        InvalidInputError: A field is missing that MoEngage documents as required, or it is no JSON.
    """
    if not isinstance(context, Mapping):
        raise InvalidInputError(_NO_CONTEXT)
    if missing := [name for name in _REQUIRED_CONTEXT if name not in context]:
        raise InvalidInputError(f"the experience context lacks {', '.join(missing)}: MoEngage would refuse the event")
    return encode(dict(context), "the experience context").decode()


def _encode_served(context: Mapping[str, Any]) -> str | Admission:
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
    found = _encode_served(experience.served_context) if experience.matched else _UNMATCHED
    object.__setattr__(experience, "wire_context", found)
    return found


def encode_click_context(context: Mapping[str, Any], b_id: str | None, attributes: Mapping[str, Any] | None) -> str:
    """Returns an experience context with what belongs to one click beside it.

    Raises:
        InvalidInputError: An attribute's name is in the context already, or is `b_id`; or something is no JSON.
    """
    if not isinstance(context, Mapping):
        raise InvalidInputError(_NO_CONTEXT)
    if attributes is not None and not isinstance(attributes, Mapping):
        raise InvalidInputError("attributes must be a mapping of names to values")
    merged = dict(context)
    for name, value in (attributes or {}).items():
        if name in merged or name == "b_id":
            raise InvalidInputError(f"attributes must not contain {name!r}: it has a meaning of its own")
        merged[name] = value
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


# ── errors, in ───────────────────────────────────────────────────────────────────────────────────────────────────────

_WORD = re.compile(r"[^\s\"'`:;,<>()\[\]{}=]+")
_PART = re.compile(r"\w+")
_VOCABULARY = frozenset(
    "elements actions action attributes customer_id identifiers user_identifiers experience_key user_attributes "
    "user_timezone_offset moe_event_uuid event_time platform experience_context experience cid moe_locale_id "
    "moe_variation_id audience_name audience_id type b_id DAY_OF_THE_WEEK TIME_OF_THE_DAY USER_IP_ADDRESS USER_AGENT "
    "MOE_PERSONALIZATION_MESSAGE_SHOWN MOE_PERSONALIZATION_MESSAGE_CLICKED".split()
)


@attrs.frozen(kw_only=True)
class ErrorText:
    """What MoEngage says of an error, masked."""

    title: str | None = None
    description: str | None = None
    code: str | None = None


def read_error(body: bytes, sent: bytes, *, secrets: Iterable[str] = ()) -> ErrorText:
    """Reads an error body in its documented shape, or in one of the shapes of MoEngage's gateways; never raises.

    Args:
        body: The body, whatever it is.
        sent: The request's body. A word of the error of which the request carried a part is masked, since it may be
            somebody's: in another case, between other quotes, cut off or percent-encoded.
        secrets: Further texts to mask.
    """
    try:
        reply = loads(body)
    except (ValueError, RecursionError):
        return ErrorText()
    if not isinstance(reply, dict):
        return ErrorText()
    inner = reply.get("error")
    nested = inner if isinstance(inner, dict) else {}
    found = {
        "title": reply.get("title")
        or nested.get("type")
        or nested.get("target")
        or (inner if isinstance(inner, str) else None),
        "description": reply.get("description") or nested.get("message") or reply.get("message"),
        "code": reply.get("code") or nested.get("code"),
    }
    carried = f"{_carried(sent)}{' '.join(secrets).casefold()} "
    return ErrorText(**{name: _masked(text, carried) for name, text in found.items() if isinstance(text, str)})


def _carried(sent: bytes) -> str:
    """Returns every text and number that the request carried, but the API's own vocabulary."""
    words: list[str] = []
    left: list[Any] = [loads(sent)] if sent else []
    while left:
        match left.pop():
            case dict() as members:
                left += members.values()
                words += (name for name in members if name not in _VOCABULARY)
            case list() as items:
                left += items
            case leaf:
                words += [] if leaf in _VOCABULARY else [str(leaf)]
    return f" {' '.join(words).casefold()} "


def _masked(text: str, carried: str) -> str:
    def mask(found: re.Match[str]) -> str:
        return "***" if found[0] not in _VOCABULARY and _is_carried(found[0].casefold(), carried) else found[0]

    return _WORD.sub(mask, "".join(c if c.isprintable() else " " for c in text[:400]))


def _is_carried(word: str, carried: str) -> bool:
    """Whether a part of the word was in the request: a whole word there, or a piece of four characters or more."""
    parts = [word] if not word.isascii() else []
    parts += _PART.findall(word)
    return any(part in carried if len(part) > 3 else _has_word(part, carried) for part in parts)


def _has_word(part: str, carried: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", carried) is not None


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        reply = loads(body)
    except (ValueError, RecursionError):
        raise BadReplyError("the reply is not JSON") from None
    if not isinstance(reply, dict):
        raise BadReplyError("the reply is not a JSON object")
    return reply
