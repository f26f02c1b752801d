"""A headless Chromium that is read as a person reads: by what the page shows. Needs selenium, chromium, chromedriver."""

import base64
import contextlib
import shutil
import time

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
except ImportError:
    webdriver = None

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = webdriver is None or CHROMIUM is None or DRIVER is None
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000"),
)


@contextlib.contextmanager
def chromium(profile):
    """Starts a browser with an empty profile; yields selenium's driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Window:
    """One window of a browser. Using it brings it to the front."""

    def __init__(self, driver, url):
        driver.switch_to.new_window("window")
        self._driver, self._handle = driver, driver.current_window_handle
        self.open(url)

    @property
    def driver(self):
        if self._driver.current_window_handle != self._handle:
            self._driver.switch_to.window(self._handle)
        return self._driver

    def open(self, url):
        self.driver.get(url)

    def leave(self):
        """Closes it, and goes back to the window that the browser began with."""
        self.driver.close()
        self._driver.switch_to.window(self._driver.window_handles[0])

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def attributes(self, css, name):
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map((n) => n.getAttribute(arguments[1]))", css, name
        )

    def count(self, css):
        return self.run("return document.querySelectorAll(arguments[0]).length", css)

    def click(self, css):
        self.driver.find_element("css selector", css).click()

    def press(self, css, *, within=20.0):
        """Clicks what leads to another page, and waits until that has come."""
        before = self.driver.find_element("css selector", "html")
        self.click(css)
        began = time.monotonic()
        with contextlib.suppress(WebDriverException):  # stale, or the page is being replaced at this very moment
            while before.is_enabled():
                assert time.monotonic() - began < within, f"{css} led nowhere"
                time.sleep(0.01)
        self.until(lambda: self.run("return document.readyState") == "complete", within=within)

    def shows(self, css, words, *, within=20.0):
        """Waits until an element shows some words; returns how long that took, in seconds."""
        return self.until(
            lambda: words in self.text(css),
            within=within,
            complaint=lambda: f"{css} shows {self.text(css)!r}, not {words!r}",
        )

    def until(self, holds, *, within=20.0, complaint=lambda: "it never came to be"):
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < within, complaint()
            time.sleep(0.03)
        return time.monotonic() - began

    def screen(self, width, height, *, scheme="light", scale=1):
        """Another screen: below 600 pixels a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def picture(self, path, *, quality=88):
        """Writes what is to be seen as WebP."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": quality})
        path.write_bytes(base64.b64decode(taken["data"]))
