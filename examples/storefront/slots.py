"""The personalised parts of a page, each a component: it fetches its own experience, and has its own default.

A page is a list of components, and nobody has to collect keys. Those that are awaited together ask within one turn of
the event loop, and the client makes one request of it.

Invariant: whatever MoEngage answers, or does not, a template gets a complete value of a type that it knows.
"""

import re
from typing import Any

import attrs

from moengage_personalize import Experience

from .shop import EXTRAS
from .visits import Slot, Visit


@attrs.frozen
class Hero:
    """The first thing that a visitor sees; variables and fields meet by name, in any case."""

    title: str = "Good things, made to last"
    subtitle: str = "Wool, linen and leather from makers whom we know by name."
    cta: str = "See the collection"
    colour: str = "#33505a"
    scene: str = "harbour"
    discount: int = 0

    @property
    def accent(self) -> str:
        """The colour, if it is one: it stands in a style, where escaping HTML is no protection."""
        return self.colour if re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour) else Hero().colour


async def hero(visit: Visit) -> Slot[Hero]:
    """The large picture on top."""
    experience = await visit.fetch("home-hero")
    return visit.slot(experience, experience.decode(Hero, default=Hero()))


@attrs.frozen
class Offer:
    """One offer of several; `code` tells clicks apart."""

    title: str
    code: str


@attrs.frozen
class Offers:
    """A row of offers."""

    heading: str = "Always"
    offers: list[Offer] = attrs.field(
        factory=lambda: [
            Offer("Free returns for 30 days", "RETURNS"),
            Offer("Repairs at cost, for ever", "MEND"),
            Offer("Delivered by bicycle in town", "SPOKES"),
        ]
    )


async def offers(visit: Visit) -> Slot[Offers]:
    """What is cheaper just now."""
    experience = await visit.fetch("home-offers")
    return visit.slot(experience, experience.decode(Offers, default=Offers()))


@attrs.frozen
class Recommendation:
    """One product of the row."""

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
        Recommendation("Fell boots", 190, "boots"),
    )


async def recommendations(visit: Visit) -> Slot[Recommendations]:
    """Products for this visitor."""
    experience = await visit.fetch("recommendations")
    return visit.slot(experience, row_of(experience))


def row_of(experience: Experience) -> Recommendations:
    """Reads offerings: a list in which the content of each stands below `offering_content`."""
    default = Recommendations()
    try:
        offerings: list[Any] = experience.get("Items", default=[])
        contents = [offering["offering_content"] for offering in offerings]
        items = tuple(Recommendation(str(c["name"]), int(c["price"]), str(c["image"])) for c in contents)
    except (ValueError, TypeError, KeyError):
        items = ()
    return Recommendations(experience.get("Heading", default=default.heading), items) if items else default


@attrs.frozen
class Upsell:
    """One more thing for the cart."""

    text: str
    product: str
    price: float
    enabled: bool = True


async def upsell(visit: Visit) -> Slot[Upsell | None]:
    """What goes with the cart. Without an answer nothing does: a shop need not always want something."""
    experience = await visit.fetch("cart-upsell")
    found = experience.decode(Upsell, default=Upsell("", "", 0.0, enabled=False))
    wanted = found.enabled and found.product in EXTRAS and found.product not in visit.cart
    return visit.slot(experience, found if wanted else None)


async def banner(visit: Visit) -> Slot[str | None]:
    """A line above everything, if there is something to say."""
    experience = await visit.fetch("evening-banner")
    return visit.slot(experience, experience.get("Text", default="") or None)
