"""`make demo`: an emulator, a shop, three hundred visitors, and an account of every event.

The emulator and the shop are processes of their own; the visitors come over real HTTP. Then the shop is told to stop
(SIGTERM, as a deploy would), and what it says that it had accepted is compared with what the emulator received: every
accepted UUID exactly once, and no other. If that is not so, the exit status is 1.

    python examples/demo.py [--visitors 300]
    python examples/demo.py --stay      # `make storefront`: leaves both running
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import attrs
import httpx

HERE = Path(__file__).parent
# -P: what is installed is what runs, though this may be started beside its source.
PYTHON_M = [sys.executable, "-P", "-m"]
AT_ONCE = 4  # visitors at the same time: they share the machine with the shop and the emulator
AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
)
ADDRESSES = ("203.0.113.7", "198.51.100.7", "192.0.2.7")  # India, the United States, Germany, in the emulator's eyes


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Process:
    """A child that is read line by line, and stopped as a supervisor would.

    It has a session of its own, so that Ctrl-C reaches it through us, in order: the shop first.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify()

    def wait_for(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Returns the first match in a line of its output."""
        give_up = time.monotonic() + seconds
        with self._grown:
            while True:
                for line in self.lines:
                    if found := re.search(pattern, line):
                        return found
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit("\n".join([f"{self.name} did not start:", *self.lines]))
                self._grown.wait(0.1)

    def stop(self) -> int:
        """Asks it to stop, and returns its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._reader.join(1)


@contextlib.contextmanager
def running(name: str, command: list[str], environment: dict[str, str] | None = None) -> Iterator[Process]:
    """A process for as long as the context is open."""
    process = Process(name, command, environment)
    try:
        yield process
    finally:
        process.stop()


def emulator_command(folder: Path, page_port: int) -> list[str]:
    """Returns how the emulator is started, with a certificate authority of its own."""
    module = [*PYTHON_M, "moengage_personalize.cli", "emulator"]
    return [*module, "--port", "0", "--page-port", str(page_port), "--ca-file", str(folder / "ca.pem")]


def storefront_command(port: int) -> list[str]:
    """Returns how the shop is started."""
    uvicorn = [*PYTHON_M, "uvicorn", "--app-dir", str(HERE), "--factory", "storefront:create_app"]
    return [*uvicorn, "--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "10"]


@attrs.frozen(kw_only=True)
class World:
    """What is running."""

    shop: Process
    shop_url: str
    page_url: str
    report: Path


@contextlib.contextmanager
def world(*, port: int = 0, page_port: int = 0) -> Iterator[World]:
    """An emulator, and a shop that was pointed at it by environment variables."""
    with tempfile.TemporaryDirectory(prefix="moengage-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        emulator = stack.enter_context(running("the emulator", emulator_command(folder, page_port)))
        page_url = emulator.wait_for(r"Live page: (\S+)")[1]
        emulator.wait_for(r"Ctrl-C")
        exports = (shlex.split(line) for line in emulator.lines if line.startswith("export "))
        environment = dict(assignment.split("=", 1) for _, assignment in exports)
        report = folder / "report.json"
        environment["STOREFRONT_REPORT"] = str(report)
        shop = stack.enter_context(running("the storefront", storefront_command(port), environment))
        shop_url = shop.wait_for(r"running on (http://\S+)")[1]
        yield World(shop=shop, shop_url=shop_url, page_url=page_url, report=report)


# ── visitors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@attrs.define
class Seen:
    """What the visitors noted."""

    pages: int = 0
    clicks: int = 0
    repeated: int = 0
    """Page views and clicks that came twice, and are to be counted once."""
    waited: list[float] = attrs.field(factory=list)
    """Milliseconds that each page spent on personalisation, by its `Server-Timing`."""
    statuses: Counter[int] = attrs.field(factory=Counter)


class Visitor:
    """Somebody who looks around.

    Args:
        http: Shared by all visitors; a visitor's cookies are their own.
        dice: Decides what they do.
        seen: Where they note it.
    """

    def __init__(self, http: httpx.AsyncClient, dice: random.Random, seen: Seen) -> None:
        self._http = http
        self._dice = dice
        self._seen = seen
        self._cookies: dict[str, str] = {}
        self._headers = {"User-Agent": dice.choice(AGENTS), "X-Forwarded-For": dice.choice(ADDRESSES)}

    async def visit(self) -> None:
        """Home, something clicked there, a product, and for some the cart."""
        dice = self._dice
        persona = dice.choices(["", "john", "asha"], [94, 3, 3])[0]
        if persona:
            await self._request("POST", "/look", form={"who": persona})
        home = await self._page("/?utm_medium=email" if dice.random() < 0.3 else "/")
        await self._click(home)
        if dice.random() < 0.5:
            await self._click(await self._page("/offers"))
        product = dice.choice(["coat", "boots", "bag", "jumper"])
        await self._page(f"/product/{product}")
        if dice.random() < 0.5:
            await self._request("POST", f"/cart/{product}")
            await self._click(await self._page("/cart"), odds=0.5)

    async def _page(self, path: str) -> str:
        """Looks at a page. Now and then a proxy asks twice for it, under one request id."""
        request_id = f"{self._dice.getrandbits(64):016x}"
        times = 2 if self._dice.random() < 0.05 else 1
        text = ""
        for _ in range(times):
            answer = await self._request("GET", path, {"X-Request-ID": request_id})
            text = answer.text
            self._seen.pages += 1
            if timing := re.search(r"personalize;dur=([0-9.]+)", answer.headers.get("server-timing", "")):
                self._seen.waited.append(float(timing[1]))
        self._seen.repeated += times - 1
        return text

    async def _click(self, page: str, odds: float = 0.7) -> None:
        """Follows a personalised link; the impatient follow it twice."""
        links = [unescape(link) for link in re.findall(r'href="(/go\?[^"]+)"', page)]
        if not links or self._dice.random() > odds:
            return
        link = self._dice.choice(links)
        times = 2 if self._dice.random() < 0.15 else 1
        await asyncio.gather(*(self._request("GET", link) for _ in range(times)))
        self._seen.clicks += 1
        self._seen.repeated += times - 1

    async def _request(
        self, method: str, path: str, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = {**self._headers, **(headers or {}), "Cookie": cookie}
        answer = await self._http.request(method, path, headers=headers, data=form)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value
        self._seen.statuses[answer.status_code] += 1
        return answer


class Progress:
    """A bar on a terminal; elsewhere nothing, so that a log stays a log."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, sys.stderr.isatty()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._shown:
            filled = 30 * self._done // self._total
            end = "\n" if self._done == self._total else ""
            bar = f"{'█' * filled}{'░' * (30 - filled)}"
            print(f"\r  visitors {bar} {self._done}/{self._total}", end=end, file=sys.stderr, flush=True)


async def send_visitors(url: str, number: int) -> Seen:
    """Sends so many visitors to the shop; returns what they noted."""
    seen, progress, turn = Seen(), Progress(number), asyncio.Semaphore(AT_ONCE)

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http:

        async def one(seed: int) -> None:
            async with turn:
                await Visitor(http, random.Random(seed), seen).visit()
            progress.step()

        async with asyncio.TaskGroup() as group:
            for seed in range(number):
                group.create_task(one(seed))
    return seen


# ── the account ───────────────────────────────────────────────────────────────────────────────────────────────────────


def complaints(stats: dict[str, Any], accepted: list[str], ledger: dict[str, Any], seen: Seen) -> list[str]:
    """Returns what is wrong; nothing, if every accepted event arrived exactly once and no other did."""
    arrived = Counter(event["uuid"] for event in ledger["events"] + ledger["duplicates"])
    promised = Counter(accepted)
    counted = {
        "accepted events never arrived": len(promised.keys() - arrived.keys()),
        "events arrived that nobody had accepted": len(arrived.keys() - promised.keys()),
        "events arrived more than once": sum(times > 1 for times in arrived.values()),
        "events were accepted twice": sum(times > 1 for times in promised.values()),
        "accepted events are missing from the shop's own count": abs(stats["accepted"] - len(accepted)),
        "accepted events were not delivered, says the shop": stats["accepted"] - stats["delivered"],
        "events were dropped": stats["dropped"] + stats["dropped_at_the_door"],
        "events were refused": stats["refused"] + stats["rejected"],
        "repeated page views or clicks were not recognised": 0 if stats["duplicate"] or not seen.repeated else 1,
        "pages failed": sum(times for status, times in seen.statuses.items() if status >= 400),
        "requests of the shop failed": sum(r["status"] != 200 for r in ledger["requests"] if r["endpoint"] != "other"),
        "customers were not recognised by the emulator": ledger["counts"]["wrong_identity_forms"],
    }
    return [f"{number} {what}" for what, number in counted.items() if number]


def percentile(values: list[float], share: float) -> float:
    """Returns the value below which so large a share of them lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def print_report(stats: dict[str, Any], counts: dict[str, Any], seen: Seen) -> None:
    """Prints what happened, a line each."""
    duplicates = stats["duplicate"]
    rows = [
        ("page views", f"{seen.pages}", ""),
        ("experiences asked", f"{counts['keys_asked']}", ""),
        ("experiences served", f"{counts['experiences_served']}", "the rest: nobody's audience, control group"),
        ("fetch requests", f"{counts['fetch_requests']}", "all slots of a page in one"),
        ("events accepted", f"{counts['accepted']}", f"{counts['impressions']} shown, {counts['clicks']} clicked"),
        ("event requests", f"{counts['event_requests']}", ""),
        ("actions per request", f"{counts['received'] / max(1, counts['event_requests']):.1f}", ""),
        ("duplicates refused", f"{duplicates}", f"{seen.repeated} page views and clicks came twice"),
        ("added latency p50", f"{percentile(seen.waited, 0.5):.1f} ms", "time that a page spent in fetch and track_*,"),
        ("added latency p99", f"{percentile(seen.waited, 0.99):.1f} ms", "while all of this shared one machine"),
        ("connections opened", f"{counts['connections_opened']}", "by the shop to the emulator"),
    ]
    print()
    for name, value, note in rows:
        print(f"  {name:<22}{value:>10}   {note}".rstrip())
    print()


def demo(visitors: int) -> int:
    """Runs everything; returns the exit status."""
    started = time.monotonic()
    with world() as running_world:
        print(f"The shop is at {running_world.shop_url}, the emulator at {running_world.page_url}")
        seen = asyncio.run(send_visitors(running_world.shop_url, visitors))
        status = running_world.shop.stop()
        if not running_world.report.exists():
            raise SystemExit("\n".join([f"the storefront ended with {status}:", *running_world.shop.lines]))
        report = json.loads(running_world.report.read_text(encoding="utf-8"))
        ledger = httpx.get(f"{running_world.page_url}_emulator/ledger", trust_env=False, timeout=30).json()
    ledger["counts"]["connections_opened"] -= 1  # the one that has just read the ledger
    print_report(report["stats"], ledger["counts"], seen)
    wrong = complaints(report["stats"], report["accepted"], ledger, seen)
    took = f"({time.monotonic() - started:.1f} s)"
    if wrong:
        print(f"NOT as it should be {took}:", *wrong, sep="\n  ")
        return 1
    print(f"Every accepted event arrived exactly once, and no other did. {took}")
    return 0


def stay(port: int, page_port: int) -> int:
    """Leaves the shop and the emulator running until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the first too: a shell's background jobs ignore it
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), world(port=port, page_port=page_port) as running_world:
        print(f"The shop        {running_world.shop_url}/        try: /?utm_medium=email, or be John")
        print(f"The emulator    {running_world.page_url}        what arrives, as it arrives")
        print("Ctrl-C stops both.", flush=True)
        signal.pause()
    print("\nStopped; the shop has delivered what was waiting.")
    return 0


def main() -> int:
    """Reads the arguments; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=300, help="how many come (default: %(default)s)")
    parser.add_argument("--stay", action="store_true", help="leave the shop and the emulator running")
    parser.add_argument("--port", type=int, default=8000, help="the shop's, with --stay (default: %(default)s)")
    parser.add_argument("--page-port", type=int, default=8480, help="the emulator page's (default: %(default)s)")
    options = parser.parse_args()
    return stay(options.port, options.page_port) if options.stay else demo(options.visitors)


if __name__ == "__main__":
    sys.exit(main())
