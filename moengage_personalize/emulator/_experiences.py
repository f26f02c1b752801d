"""What the dashboard would hold: experiences, audiences, variations, networks, profiles. Values with limits.

Theory: an experience is a list of audiences, an audience some criteria and the variations drawn for those
who meet them. Every limit that MoEngage documents is checked where the value is made, and the complaint
begins with the name of the field, so that whoever reads a file can say where it stands.
"""

import hashlib
import ipaddress
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs

from moengage_personalize.emulator._rules import DAYS, HOURS

Status = Literal["Active", "Paused", "Scheduled"]
DataType = Literal["string", "number", "boolean", "json", "float"]
Device = Literal["Mobile", "Tablet", "Desktop"]
MAX_AUDIENCES = 10
MAX_VARIATIONS = 5
MAX_OFFERINGS = 10


def hexadecimal(text: str) -> str:
    """An id that looks like one of MoEngage's: 24 digits, the same for the same text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _at_most(limit: int, what: str) -> Callable[[Any, Any, Any], None]:
    def check(_instance: object, attribute: Any, value: Any) -> None:
        if not 1 <= len(value) <= limit:
            raise ValueError(f"{attribute.name}: needs 1 to {limit} {what}, has {len(value)}")

    return check


def share(_instance: object, attribute: Any, value: float) -> None:
    """Validates a share of customers."""
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name}: must be a share between 0 and 1, is {value}")


def _weight(_instance: object, attribute: Any, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name}: must be above 0, is {value}")


def _length(low: int, high: int) -> Callable[[Any, Any, str], None]:
    def check(_instance: object, attribute: Any, value: str) -> None:
        if not low <= len(value) <= high:
            raise ValueError(f"{attribute.name}: must have {low} to {high} characters, has {len(value)}")

    return check


def _known(allowed: tuple[str, ...]) -> Callable[[Any, Any, tuple[str, ...]], None]:
    def check(_instance: object, attribute: Any, values: tuple[str, ...]) -> None:
        for value in values:
            if value not in allowed:
                raise ValueError(f"{attribute.name}: {value!r} is none of {', '.join(allowed)}")

    return check


@attrs.frozen
class Value:
    """One payload entry: what `value` and `data_type` will say on the wire."""

    value: Any
    data_type: DataType

    @classmethod
    def of(cls, value: Any) -> "Value":
        """The entry for a plain value: its `data_type` follows from its type."""
        match value:
            case Value():
                return value
            case bool():
                return cls(value, "boolean")
            case int():
                return cls(value, "number")
            case float():
                return cls(value, "float")
            case str():
                return cls(value, "string")
            case _:
                return cls(value, "json")

    @classmethod
    def offerings(cls, offers: Iterable[Mapping[str, Any]]) -> "Value":
        """What a decision policy yields: a JSON array in a string (api-facts, section 4)."""
        entries = [
            {
                "offering_content": dict(offer),
                "offering_context": {"offering_id": hexadecimal(f"{place}:{offer!r}")},
                "dp_offering_id": str(place),
            }
            for place, offer in enumerate(offers, 1)
        ]
        if len(entries) > MAX_OFFERINGS:
            raise ValueError(f"needs at most {MAX_OFFERINGS} offerings, has {len(entries)}")
        return cls(json.dumps(entries), "string")


@attrs.frozen(kw_only=True)
class Variation:
    """One content that an audience may be shown."""

    payload: Mapping[str, Value]
    weight: float = attrs.field(default=1.0, validator=_weight)

    @property
    def summary(self) -> str:
        """The first text of the payload: enough to recognise it by."""
        texts = (held.value for held in self.payload.values() if held.data_type == "string")
        return str(next(texts, ", ".join(self.payload)))[:80]


@attrs.frozen(kw_only=True)
class When:
    """What a visitor must be to belong to an audience: every criterion that is given must hold.

    With no `profile` criterion the segment is "All users", which is all that an anonymous visitor can match.
    """

    profile: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    attributes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    days: tuple[str, ...] = attrs.field(default=(), validator=_known(DAYS))
    hours: tuple[str, ...] = attrs.field(default=(), validator=_known(HOURS))
    devices: tuple[str, ...] = attrs.field(default=(), validator=_known(("Mobile", "Tablet", "Desktop")))
    countries: tuple[str, ...] = ()

    def describe(self) -> str:
        """The criteria in words; empty for all users."""
        parts = [
            *(f"{name} is {' or '.join(values)}" for name, values in self.profile.items()),
            *(f"{name} = {' or '.join(values)}" for name, values in self.attributes.items()),
            *(" or ".join(values) for values in (self.days, self.devices, self.countries) if values),
            *([f"hour {' or '.join(self.hours)}"] if self.hours else []),
        ]
        return ", ".join(parts)

    def holds(self, visitor: "Visitor") -> bool:
        """Whether this visitor belongs."""
        return (
            (not self.days or visitor.day in self.days)
            and (not self.hours or visitor.hour in self.hours)
            and (not self.devices or visitor.device in self.devices)
            and (not self.countries or visitor.country in self.countries)
            and (not self.attributes or _has(visitor.attributes, self.attributes))
            and (not self.profile or (visitor.profile is not None and _has(visitor.profile, self.profile)))
        )


def _has(actual: Mapping[str, Any], wanted: Mapping[str, tuple[str, ...]]) -> bool:
    return all(name in actual and as_text(actual[name]) in values for name, values in wanted.items())


def as_text(value: Any) -> str:
    """A value as a criterion writes it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@attrs.frozen(kw_only=True)
class Audience:
    """Some visitors, and the variations drawn for them."""

    variations: tuple[Variation, ...] = attrs.field(validator=_at_most(MAX_VARIATIONS, "variations"))
    name: str = "All Users"
    when: When = When()


@attrs.frozen(kw_only=True)
class Experience:
    """One API experience, as the dashboard would hold it."""

    key: str = attrs.field(validator=_length(5, 50))
    audiences: tuple[Audience, ...] = attrs.field(validator=_at_most(MAX_AUDIENCES, "audiences"))
    name: str = attrs.field(default=attrs.Factory(lambda self: self.key, takes_self=True), validator=_length(5, 256))
    status: Status = attrs.field(default="Active", validator=attrs.validators.in_(("Active", "Paused", "Scheduled")))
    control_group: float = attrs.field(default=0.0, validator=share)

    @classmethod
    def simple(cls, key: str, payload: Mapping[str, Any]) -> "Experience":
        """An active experience that shows one payload to everybody."""
        variation = Variation(payload={name: Value.of(value) for name, value in payload.items()})
        return cls(key=key, audiences=(Audience(variations=(variation,)),))


def _addresses(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError as error:
        raise ValueError(f"cidr: {error}") from error


@attrs.frozen
class Network:
    """A range of addresses, and the country that it stands for."""

    cidr: str
    country: str
    addresses: ipaddress.IPv4Network | ipaddress.IPv6Network = attrs.field(
        init=False, default=attrs.Factory(lambda self: _addresses(self.cidr), takes_self=True)
    )


@attrs.frozen(kw_only=True)
class Visitor:
    """Who asks, as the targeting sees them."""

    sticky_id: str | None = None
    profile: Mapping[str, Any] | None = None
    attributes: Mapping[str, Any] = attrs.field(factory=dict)
    day: str | None = None
    hour: str | None = None
    device: Device | None = None
    country: str | None = None


@attrs.frozen(kw_only=True)
class Profile:
    """A user whom the workspace knows from the start."""

    customer_id: str
    attributes: Mapping[str, Any] = attrs.field(factory=dict)
