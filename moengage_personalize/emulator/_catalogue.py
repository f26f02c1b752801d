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
from typing import Any

import attrs

from moengage_personalize.emulator._experiences import (
    Audience,
    Device,
    Experience,
    Network,
    Profile,
    Variation,
    Visitor,
    hexadecimal,
    share,
)


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


@attrs.define(eq=False)
class Catalogue:
    """Everything that the dashboard of the emulated workspace holds."""

    experiences: tuple[Experience, ...] = ()
    networks: tuple[Network, ...] = ()
    profiles: tuple[Profile, ...] = ()
    identity_resolution: tuple[str, ...] = ("u_em", "u_mb")
    global_control_group: float = attrs.field(default=0.0, validator=share)
    _by_key: dict[str, Experience] = attrs.field(init=False, factory=dict, repr=False)
    _compiled: dict[tuple[str, int, int], Served] = attrs.field(init=False, factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        for number, experience in enumerate(self.experiences):
            if experience.key in self._by_key:
                raise ValueError(f"experiences[{number}].key: {experience.key!r} is another experience's key")
            self._by_key[experience.key] = experience
            for place, audience in enumerate(experience.audiences):
                for which, variation in enumerate(audience.variations):
                    compiled = _compile(experience, place, audience, which, variation)
                    self._compiled[experience.key, place, which] = compiled

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


def _compile(experience: Experience, place: int, audience: Audience, number: int, variation: Variation) -> Served:
    variation_id, audience_id = str(number + 1), f"{place + 1}A"
    entry = {
        "payload": {
            name: {"value": held.value, "data_type": held.data_type} for name, held in variation.payload.items()
        },
        "experience_context": {
            "cid": f"{hexadecimal(experience.key)}_F_T_WP_AB_{variation_id}_P_0_AU_{audience_id}",
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
