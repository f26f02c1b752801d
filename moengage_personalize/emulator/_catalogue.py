"""Experiences, their audiences and variations, and who is shown which: pure values and one decision.

Theory: an experience is a list of audiences; the first one that matches wins; within it a variation is
drawn by weight. The draw is a hash of experience, audience and customer, so the same customer meets the
same variation in every process and after every restart; a visitor without any identity has no hash and is
drawn by dice.
A control group is such a draw too: its members are answered as if nothing matched.

Invariant: `Catalogue` compiles every possible answer once, to bytes; serving joins them.
"""

import hashlib
import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from moengage_personalize.emulator._rules import DAYS, HOURS

Status = Literal["Active", "Paused", "Scheduled"]
DataType = Literal["string", "number", "boolean", "json", "float"]
Device = Literal["Mobile", "Tablet", "Desktop"]
MAX_AUDIENCES = 10
MAX_VARIATIONS = 5
MAX_OFFERINGS = 10


def _at_most(limit: int, what: str) -> Callable[[Any, Any, Any], None]:
    def check(_instance: object, _attribute: object, value: Any) -> None:
        if not 1 <= len(value) <= limit:
            raise ValueError(f"needs 1 to {limit} {what}, has {len(value)}")

    return check


def _share(_instance: object, _attribute: object, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be a share between 0 and 1, is {value}")


def _length(low: int, high: int) -> Callable[[Any, Any, str], None]:
    def check(_instance: object, _attribute: object, value: str) -> None:
        if not low <= len(value) <= high:
            raise ValueError(f"must have {low} to {high} characters, has {len(value)}")

    return check


def _known(allowed: tuple[str, ...]) -> Callable[[Any, Any, tuple[str, ...]], None]:
    def check(_instance: object, _attribute: object, values: tuple[str, ...]) -> None:
        for value in values:
            if value not in allowed:
                raise ValueError(f"{value!r} is none of {', '.join(allowed)}")

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
                "offering_context": {"offering_id": _hexadecimal(f"{place}:{offer!r}")},
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
    weight: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    name: str = ""


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
    control_group: float = attrs.field(default=0.0, validator=_share)

    @classmethod
    def simple(cls, key: str, payload: Mapping[str, Any]) -> "Experience":
        """An active experience that shows one payload to everybody."""
        variation = Variation(payload={name: Value.of(value) for name, value in payload.items()})
        return cls(key=key, audiences=(Audience(variations=(variation,)),))


@attrs.frozen
class Network:
    """A range of addresses, and the country that it stands for."""

    cidr: str
    country: str
    addresses: ipaddress.IPv4Network | ipaddress.IPv6Network = attrs.field(
        init=False, default=attrs.Factory(lambda self: ipaddress.ip_network(self.cidr), takes_self=True)
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


@attrs.frozen
class Served:
    """One experience as it goes out."""

    key: str
    name: str
    audience: str
    variation: str
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Unserved:
    """One experience that does not, and why, in the words of MoEngage's native SDKs."""

    key: str
    reason: str


@attrs.frozen(kw_only=True)
class Profile:
    """A user whom the workspace knows from the start."""

    customer_id: str
    attributes: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Catalogue:
    """Everything that the dashboard of the emulated workspace holds."""

    experiences: tuple[Experience, ...] = ()
    networks: tuple[Network, ...] = ()
    profiles: tuple[Profile, ...] = ()
    identity_resolution: tuple[str, ...] = ("u_em", "u_mb")
    global_control_group: float = attrs.field(default=0.0, validator=_share)
    _by_key: dict[str, Experience] = attrs.field(init=False, factory=dict, repr=False)
    _compiled: dict[tuple[str, int, int], Served] = attrs.field(init=False, factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        for experience in self.experiences:
            if experience.key in self._by_key:
                raise ValueError(f"two experiences have the key {experience.key!r}")
            self._by_key[experience.key] = experience
            for place, audience in enumerate(experience.audiences):
                for number, variation in enumerate(audience.variations):
                    self._compiled[experience.key, place, number] = _compile(
                        experience, place, audience, number, variation
                    )

    def __iter__(self) -> Iterator[Experience]:
        return iter(self.experiences)

    @classmethod
    def of(cls, given: "Catalogue | Iterable[Experience] | Mapping[str, Mapping[str, Any]]") -> "Catalogue":
        """A catalogue from what is handy: itself, experiences, or `{key: {name: value}}` for everybody."""
        match given:
            case Catalogue():
                return given
            case Mapping():
                return cls(tuple(Experience.simple(key, payload) for key, payload in given.items()))
            case _:
                return cls(tuple(given))

    def active_keys(self) -> tuple[str, ...]:
        """What a fetch without `experience_key` asks for."""
        return tuple(experience.key for experience in self.experiences if experience.status == "Active")

    def country_of(self, ip_address: str | None) -> str | None:
        """The country that an address stands for; None for an address nobody can place."""
        if not ip_address or not self.networks:
            return None
        try:
            address = ipaddress.ip_address(ip_address)
        except ValueError:
            return None
        return next((network.country for network in self.networks if address in network.addresses), None)

    def serve(self, key: str, visitor: Visitor, random: Callable[[], float]) -> Served | Unserved:
        """Decides what this visitor is shown for this key."""
        experience = self._by_key.get(key)
        if experience is None:
            return Unserved(key, "INVALID_EXPERIENCE_KEY")
        if experience.status != "Active":
            return Unserved(key, "EXPERIENCE_NOT_ACTIVE")
        if self.global_control_group and _draw(random, visitor, "global control") < self.global_control_group:
            return Unserved(key, "USER_IN_GLOBAL_CONTROL_GROUP")
        if experience.control_group and _draw(random, visitor, "control", key) < experience.control_group:
            return Unserved(key, "USER_IN_CAMPAIGN_CONTROL_GROUP")
        for place, audience in enumerate(experience.audiences):
            if audience.when.holds(visitor):
                return self._compiled[key, place, _vary(audience, _draw(random, visitor, key, str(place)))]
        return Unserved(key, "USER_NOT_IN_SEGMENT")


def _draw(random: Callable[[], float], visitor: Visitor, *what: str) -> float:
    """A number in [0, 1) that is the same whenever the same customer is drawn for the same thing."""
    if visitor.sticky_id is None:
        return random()
    text = "\0".join((*what, visitor.sticky_id)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / (1 << 48)


def _vary(audience: Audience, drawn: float) -> int:
    """The variation that a drawn number falls on, by weight."""
    rest = drawn * sum(variation.weight for variation in audience.variations)
    for number, variation in enumerate(audience.variations):
        rest -= variation.weight
        if rest < 0:
            return number
    return 0


def _hexadecimal(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _compile(experience: Experience, place: int, audience: Audience, number: int, variation: Variation) -> Served:
    variation_id, audience_id = str(number + 1), f"{place + 1}A"
    entry = {
        "payload": {
            name: {"value": held.value, "data_type": held.data_type} for name, held in variation.payload.items()
        },
        "experience_context": {
            "cid": f"{_hexadecimal(experience.key)}_F_T_WP_AB_{variation_id}_P_0_AU_{audience_id}",
            "experience": experience.name,
            "moe_locale_id": "0",
            "moe_variation_id": variation_id,
            "audience_name": audience.name,
            "audience_id": audience_id,
            "type": "Web Personalization",
            "experience_type": "API based Experience",
        },
    }
    text = f"{json.dumps(experience.key)}:{json.dumps(entry, separators=(',', ':'))}"
    return Served(experience.key, experience.name, audience.name, variation_id, text.encode())


def device_of(user_agent: str | None) -> Device | None:
    """The device class that a browser's `User-Agent` claims."""
    if not user_agent:
        return None
    if "iPad" in user_agent or "Tablet" in user_agent or ("Android" in user_agent and "Mobile" not in user_agent):
        return "Tablet"
    return "Mobile" if "Mobi" in user_agent or "iPhone" in user_agent else "Desktop"
