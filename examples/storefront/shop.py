"""What the shop sells. Invented; the emulator's demo experiences speak of the same things."""

import attrs


@attrs.frozen
class Product:
    """One thing to buy; `name` and `price` are what the page shows, `hue` colours its picture."""

    key: str
    name: str
    price: int
    hue: int


PRODUCTS = {
    product.key: product
    for product in (
        Product("coat", "Harbour coat", 240, 210),
        Product("boots", "Fell boots", 190, 25),
        Product("scarf", "Ember scarf", 55, 10),
        Product("bag", "Field bag", 130, 95),
        Product("jumper", "Moss jumper", 95, 140),
        Product("jeans", "Slate jeans", 110, 230),
        Product("shirt", "Linen shirt", 80, 45),
        Product("hat", "River hat", 40, 190),
    )
}
