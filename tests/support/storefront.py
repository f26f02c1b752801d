"""`make storefront` as a process, and ten clicks in it."""

import contextlib
import re
import subprocess
import sys

import attrs
import demo
import httpx

CLICKS = (".hero .button", ".card a", ".ticket", ".card .add", ".upsell button")
REPORTED = 8  # of ten clicks: to put a thing into the cart is no click on what an experience has brought


def ten_clicks(john, asha):
    """Two people click in turns, so that both are among the events that wait for a second."""
    for css in CLICKS:
        john.press(css)
        asha.press(css)


@attrs.frozen
class Storefront:
    """What is running."""

    shop_url: str
    page_url: str

    @property
    def same_shop_url(self):
        """By another name, under which a browser has other cookies, and so another visitor."""
        return self.shop_url.replace("127.0.0.1", "localhost")

    def account(self):
        """What became of the shop's events: its `stats`, and the UUIDs that it has `accepted`."""
        return httpx.get(f"{self.shop_url}account", trust_env=False).json()

    def ledger(self):
        return httpx.get(f"{self.page_url}_emulator/ledger", trust_env=False).json()


@contextlib.contextmanager
def storefront():
    """Runs what `make storefront` runs, on free ports."""
    command = [sys.executable, demo.__file__, "--stay", "--port", "0", "--page-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline() for _ in range(3)]
            shop_url, page_url = (re.search(r"http://\S+", line)[0] for line in said[:2])
            yield Storefront(shop_url, page_url)
        finally:
            process.terminate()
            process.wait(30)
