# ruff: noqa: INP001
"""Takes the documentation's pictures of the storefront and of the emulator's live page, with a headless Chromium.

    PYTHONPATH=tests:examples python docs/screenshots.py [directory]

It starts what `make storefront` starts, clicks ten times, and writes WebP. Day and hour are chosen, so that every run
shows the same variations.
"""

import sys
import tempfile
from pathlib import Path

from support.chromium import Window, chromium
from support.storefront import Storefront, storefront, ten_clicks

NIGHT = "document.querySelector('[name=hour]').value = '23'"
DAY = "document.querySelector('[name=day]').value = 'Tuesday', document.querySelector('[name=hour]').value = '10'"
SETTLED = "Promise.all(document.getAnimations().map((a) => a.finished))"


def main() -> None:
    """Writes all of them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    with storefront() as world, tempfile.TemporaryDirectory() as profile, chromium(profile) as driver:
        shop = Window(driver, world.shop_url)
        photograph_shop(shop, folder)
        other = Window(driver, world.same_shop_url)
        shop.press("[value=john]")
        other.press("[value=asha]")
        photograph_live_page(shop, other, Window(driver, world.page_url), world, folder)


def photograph_shop(shop: Window, folder: Path) -> None:
    """The same page for two people, by day, by night, and on a phone."""
    shop.screen(1440, 1140)
    shop.run(DAY)
    shop.press("[value=john]")
    shop.picture(folder / "storefront-light.webp")
    shop.screen(1440, 1140, scheme="dark")
    shop.run(NIGHT)
    shop.press("[value=asha]")
    shop.press("[value=email]")
    shop.picture(folder / "storefront-dark.webp")
    shop.screen(390, 844, scale=2)
    shop.run(DAY)
    shop.press(".when button")
    shop.picture(folder / "storefront-phone.webp")
    shop.screen(1440, 1140)


def photograph_live_page(john: Window, asha: Window, live: Window, world: Storefront, folder: Path) -> None:
    """What ten clicks have left on it."""
    live.screen(1400, 1250)
    ten_clicks(john, asha)
    live.shows("#accepted", str(len(world.account()["accepted"])))
    live.run(f"return {SETTLED}")
    live.picture(folder / "emulator-light.webp")
    live.screen(1400, 1250, scheme="dark")
    live.picture(folder / "emulator-dark.webp")


if __name__ == "__main__":
    main()
