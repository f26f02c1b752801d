"""The personalised parts of a page: the page's own defaults, and what an experience may replace in them.

Invariant: whatever MoEngage answers, or does not, a template gets a complete value of a type that it knows.
"""

import re
from typing import Any

import attrs

from moengage_personalize import Experience


@attrs.frozen
class Hero:
    """The first thing that a visitor sees."""

    title: str = "Good things, made to last"
    subtitle: str = "Wool, linen and leather from makers whom we know by name."
    cta: str = "See the collection"
    colour: str = "#3b4a54"
    discount: int = 0

    @property
    def accent(self) -> str:
        """The colour, if it is one: it stands in a style, where escaping HTML is no protection."""
        return self.colour if re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour) else Hero().colour


@attrs.frozen
class Offer:
    """One offer of several; `code` tells clicks apart."""

    title: str
    code: str


@attrs.frozen
class Offers:
    """A box of offers."""

    heading: str = "Always"
    offers: list[Offer] = attrs.field(factory=lambda: [Offer("Free returns for 30 days", "RETURNS")])


@attrs.frozen
class Upsell:
    """A line in the cart."""

    text: str
    price: float
    enabled: bool = True


@attrs.frozen
class Recommendation:
    """One product of the row; MoEngage's offerings call its content so."""

    name: str
    price: int
    image: str


@attrs.frozen
class Recommendations:
    """A row of products."""

    heading: str = "Our favourites"
    items: tuple[Recommendation, ...] = (
        Recommendation("Harbour coat", 240, "coat"),
        Recommendation("Linen shirt", 80, "shirt"),
        Recommendation("Field bag", 130, "bag"),
    )


def recommendations(experience: Experience) -> Recommendations:
    """Reads a row of offerings."""
    default = Recommendations()
    try:
        offerings: list[Any] = experience.get("Items", default=[])
        contents = [offering["offering_content"] for offering in offerings]
        items = tuple(Recommendation(str(c["name"]), int(c["price"]), str(c["image"])) for c in contents)
    except (ValueError, TypeError, KeyError):
        items = ()
    return Recommendations(experience.get("Heading", default=default.heading), items) if items else default


def content(experience: Experience) -> Any:
    """Returns what the slot of this key shows; None leaves it out of the page."""
    match experience.key:
        case "home-hero":
            return experience.decode(Hero, default=Hero())
        case "home-offers":
            return experience.decode(Offers, default=Offers())
        case "recommendations":
            return recommendations(experience)
        case "cart-upsell":
            upsell = experience.decode(Upsell, default=Upsell(text="", price=0.0, enabled=False))
            return upsell if upsell.enabled else None
        case _:
            return experience.get("Text", default="") or None
