"""What the shop sells. Invented; the emulator's demo experiences speak of the same things."""

import attrs


@attrs.frozen
class Product:
    """One thing to buy.

    Attributes:
        key: Its name in addresses, and of its picture in `templates/art.html`.
        name: Its name for people.
        price: In euros.
        hue: Colours its picture; degrees.
        story: A sentence for its page.
    """

    key: str
    name: str
    price: int
    hue: int
    story: str = ""


PRODUCTS = {
    product.key: product
    for product in (
        Product("coat", "Harbour coat", 240, 212, "Boiled wool, horn buttons, a collar that stands up to the wind."),
        Product("boots", "Fell boots", 190, 26, "Stitched, not glued, so that any cobbler can give them new soles."),
        Product("scarf", "Ember scarf", 55, 8, "Two metres of lambswool. Long enough to share."),
        Product("bag", "Field bag", 130, 88, "Waxed canvas that looks better with every year and every scratch."),
        Product("jumper", "Moss jumper", 95, 146, "Knitted in one piece, with no seam to come undone."),
        Product("jeans", "Slate jeans", 110, 228, "Heavy denim, woven slowly. They take a winter to become yours."),
        Product("shirt", "Linen shirt", 80, 42, "Washed linen that has never seen an iron, and needs none."),
        Product("hat", "River hat", 40, 186, "Ribbed, warm, and made of what the jumpers leave over."),
    )
}
EXTRAS = {
    extra.key: extra
    for extra in (
        Product("care", "Wool care", 9, 168),
        Product("cedar", "Cedar blocks", 7, 24),
        Product("balm", "Leather balm", 12, 34),
        Product("wrap", "Gift wrap", 4, 340),
    )
}
THINGS = PRODUCTS | EXTRAS
"""Whatever can be in a cart."""
