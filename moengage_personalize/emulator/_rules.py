"""The documented rules on request bodies, as functions from a body to a checked value.

Theory: a rule either holds, or the whole request is refused with MoEngage's 400 and nothing of it is kept
(the documented example names one element's field and no index, so there is no partial success). What
MoEngage would swallow in silence though it is surely a mistake is no refusal but a *note*, which the
ledger shows.

Source of every rule: MoEngage's OpenAPI description and the help-centre page that preceded it; where the two
disagree, `Reading` says which one is being enforced.
"""

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs

from moengage_personalize.emulator._messages import Refusal
from moengage_personalize.emulator._reading import RawAction, read_object

MAX_KEYS = 25
MAX_ELEMENTS = 100
MAX_OFFSET = 54_000  # seconds, inclusive
SHOWN = "MOE_PERSONALIZATION_MESSAGE_SHOWN"
CLICKED = "MOE_PERSONALIZATION_MESSAGE_CLICKED"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = tuple(f"{hour:02}" for hour in range(24))
PLATFORMS = ("web", "android", "ios", "tv")
CONTEXT_FIELDS = ("cid", "experience", "moe_locale_id", "moe_variation_id", "audience_name", "audience_id")
STATUSES = ("Active", "Paused", "Scheduled")
_FIXED = frozenset(
    ("identifiers", "experience_key", "DAY_OF_THE_WEEK", "TIME_OF_THE_DAY", "USER_IP_ADDRESS", "USER_AGENT")
)
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE).fullmatch
_ISO_8601 = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?").fullmatch
_RESERVED = frozenset(
    [
        *("unknown", "guest", "null", "none", "na", "n/a", "true", "false", "0", "1", "-1"),
        *("id", "customer_id", "uid", "user_id"),
    ]
)  # the Data API rejects these; whether Personalize does is not documented, so here they are noted
_FAR_FUTURE = 86_400  # seconds; further ahead than any clock skew


class Reading(enum.Enum):
    """Which document the emulator enforces where two of MoEngage's own disagree."""

    CURRENT = "identifiers"
    """The OpenAPI description: `identifiers`; a top-level `customer_id` is one more custom attribute."""
    SEED = "flat"
    """The older help-centre page: a top-level `customer_id`; `identifiers` is one more custom attribute."""
    EITHER = "either"
    """Both identity forms are honoured, `identifiers` first."""


@attrs.frozen(kw_only=True)
class FetchQuestion:
    """A fetch body that broke no rule."""

    keys: tuple[str, ...] | None
    beyond: tuple[str, ...]
    """Keys after the twenty-fifth, which are not served."""
    customer_id: str | None
    user_identifiers: Mapping[str, Any]
    day: str | None
    hour: str | None
    ip_address: str | None
    user_agent: str | None
    attributes: Mapping[str, Any]
    wrong_form: bool
    """There was an identity, in a form that this reading ignores."""
    notes: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Element:
    """One element of an events body that broke no rule."""

    customer_id: str
    user_attributes: Mapping[str, Any] | None
    user_timezone_offset: int | None
    actions: tuple[RawAction, ...]


@attrs.frozen
class EventsReport:
    """An events body that broke no rule."""

    elements: tuple[Element, ...]
    notes: tuple[str, ...]


def fetch_question(body: bytes, reading: Reading) -> FetchQuestion:
    """Reads a body of `POST /v1/experiences/fetch`.

    Raises:
        Refusal: 400, with the first rule that it breaks.
    """
    members = read_object(body)
    customer_id, user_identifiers = _identity(members, reading)
    notes: list[str] = []
    ignored = _ignored_identity(members, reading)
    wrong_form = ignored is not None and customer_id is None and not user_identifiers
    if wrong_form:
        notes.append(f"identity in {ignored} is ignored: answered as anonymous")
    keys = _keys(members, reading)
    beyond = () if keys is None else keys[MAX_KEYS:]
    if beyond:
        notes.append(f"asked {MAX_KEYS + len(beyond)} keys: only the first {MAX_KEYS} are served")
    identity_fields = {"customer_id"} if reading is not Reading.CURRENT else set()
    return FetchQuestion(
        keys=None if keys is None else keys[:MAX_KEYS],
        beyond=beyond,
        customer_id=customer_id,
        user_identifiers=user_identifiers,
        day=_one_of(members, "DAY_OF_THE_WEEK", DAYS),
        hour=_one_of(members, "TIME_OF_THE_DAY", HOURS),
        ip_address=_text(members, "USER_IP_ADDRESS"),
        user_agent=_text(members, "USER_AGENT"),
        attributes={
            name: value for name, value in members.items() if name not in _FIXED and name not in identity_fields
        },
        wrong_form=wrong_form,
        notes=tuple(notes),
    )


def _identity(members: Mapping[str, Any], reading: Reading) -> tuple[str | None, Mapping[str, Any]]:
    """Who is asking, by the identity forms that this reading honours."""
    customer_id: str | None = None
    user_identifiers: Mapping[str, Any] = {}
    nested = members.get("identifiers")
    if nested is not None and reading is not Reading.SEED:
        if not isinstance(nested, dict):
            raise Refusal.invalid("identifiers must be an object")
        customer_id = _text(nested, "customer_id", "identifiers.customer_id")
        found = nested.get("user_identifiers")
        if found is not None and not isinstance(found, dict):
            raise Refusal.invalid("identifiers.user_identifiers must be an object")
        user_identifiers = found or {}
    if customer_id is None and reading is not Reading.CURRENT:
        customer_id = _text(members, "customer_id")
    return customer_id or None, user_identifiers


def _ignored_identity(members: Mapping[str, Any], reading: Reading) -> str | None:
    """The identity form that is there though this reading takes it for a custom attribute."""
    ignored = {Reading.CURRENT: "customer_id", Reading.SEED: "identifiers"}
    name = ignored.get(reading)
    return None if name is None or members.get(name) is None else f"top-level `{name}`"


def _keys(members: Mapping[str, Any], reading: Reading) -> tuple[str, ...] | None:
    keys = members.get("experience_key")
    if keys is None and reading is Reading.SEED:
        raise Refusal.invalid("experience_key is mandatory")
    if keys is None or keys == []:
        return None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refusal.invalid("experience_key must be a list of strings")
    return tuple(dict.fromkeys(keys))


def _text(members: Mapping[str, Any], name: str, shown: str | None = None) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal.invalid(f"{shown or name} must be a string")
    return value


def _one_of(members: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = members.get(name)
    if value is not None and value not in allowed:
        raise Refusal.invalid(f"{name} must be one of {allowed[0]}, ..., {allowed[-1]} (case-sensitive)")
    return value


def events_report(body: bytes, reading: Reading, now: float) -> EventsReport:
    """Reads a body of `POST /v1/experiences/events`.

    Raises:
        Refusal: 400, with the first rule that any of its elements breaks.
    """
    elements = read_object(body, events=True).get("elements")
    if not isinstance(elements, list) or not elements:
        raise Refusal.invalid("elements must be a non-empty list")
    if len(elements) > MAX_ELEMENTS:
        raise Refusal.invalid(f"elements must hold at most {MAX_ELEMENTS} entries")
    notes: dict[str, None] = {}
    return EventsReport(tuple(_element(element, reading, now, notes) for element in elements), tuple(notes))


def broken(field: str) -> Refusal:
    """The refusal of an element: the one example that is documented names the field and no index."""
    return Refusal.invalid(f"elements - Validators Failed : Validator: Element, Errored Field: {field}")


def _element(element: Any, reading: Reading, now: float, notes: dict[str, None]) -> Element:
    if not isinstance(element, dict):
        raise Refusal.invalid("elements must hold objects")
    customer_id = element.get("customer_id")
    if not isinstance(customer_id, str) or not customer_id:
        raise broken("customer_id")
    if customer_id.lower() in _RESERVED or len(customer_id) == 1:
        notes["a customer_id that MoEngage's Data API reserves"] = None
    user_attributes = element.get("user_attributes")
    if user_attributes is not None and not isinstance(user_attributes, dict):
        raise broken("user_attributes")
    offset = element.get("user_timezone_offset")
    if offset is not None and (type(offset) is not int or abs(offset) > MAX_OFFSET):
        raise broken("user_timezone_offset")
    actions = element.get("actions")
    if not isinstance(actions, list) or not actions:
        raise broken("actions")
    for action in actions:
        _check_action(action.value, reading, now, notes)
    return Element(
        customer_id=customer_id, user_attributes=user_attributes, user_timezone_offset=offset, actions=tuple(actions)
    )


def _check_action(action: Any, reading: Reading, now: float, notes: dict[str, None]) -> None:
    if not isinstance(action, dict):
        raise broken("actions")
    if action.get("action") not in (SHOWN, CLICKED):
        raise broken("action")
    uuid = action.get("moe_event_uuid")
    if not isinstance(uuid, str) or not _UUID4(uuid):
        raise broken("moe_event_uuid")
    _check_time(action.get("event_time"), reading, now, notes)
    platform = action.get("platform")
    if platform is None:
        notes["no platform: recorded as Unknown"] = None
    elif not isinstance(platform, str) or platform.lower() not in PLATFORMS:
        raise broken("platform")
    attributes = action.get("attributes")
    if not isinstance(attributes, dict) or any(name not in attributes for name in CONTEXT_FIELDS):
        raise broken("attributes")
    for holder in (action, attributes):
        if "b_id" in holder and not isinstance(holder["b_id"], str):
            raise broken("b_id")


def _check_time(moment: Any, reading: Reading, now: float, notes: dict[str, None]) -> None:
    if type(moment) is int and moment >= 0:
        if moment > now + _FAR_FUTURE:
            notes["an event_time in the future (milliseconds?)"] = None
    elif not (reading is not Reading.CURRENT and isinstance(moment, str) and _ISO_8601(moment)):
        raise broken("event_time")


def metadata_statuses(query: bytes) -> frozenset[str] | None:
    """The statuses that `?status=` asks for; None when it is absent, which means all.

    A wrong or wrongly written status is kept: it matches nothing, in silence, as documented.
    """
    from urllib.parse import parse_qs  # late: metadata is asked for once a day

    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("status")
    return None if values is None else frozenset(status.strip() for value in values for status in value.split(","))
