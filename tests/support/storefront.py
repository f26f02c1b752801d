"""`make storefront` as a process, and ten clicks in it."""

import contextlib
import re
import subprocess
import sys

import attrs
import demo
import httpx

TEN_CLICKS = (  # three people within the second that events wait for company
    "[value=john]",
    ".hero .button",
    "[value=asha]",
    ".hero .button",
    ".card a",
    "[value=john]",
    ".ticket",
    ".card .add",
    ".upsell button",
    ".card a",
)
REPORTED = 6  # of them are clicks on what an experience has brought


@attrs.frozen
class Storefront:
    """What is running."""

    shop_url: str
    page_url: str

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
