"""`replay` of a million lines, killed in the middle: memory stays flat, and each event has one UUID.

The server is none of ours, and counts. MOENGAGE_REPLAY_LINES sets how many lines "a million" has.
"""

import gzip
import http.client
import importlib.util
import json
import os
import pty
import random
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.certificates import Certificates
from faults.external import free_port, missing, running

from moengage_personalize.cli._progress import EVERY

pytestmark = pytest.mark.conformance

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import counting_server  # noqa: E402

MILLION = int(os.environ.get("MOENGAGE_REPLAY_LINES", "1_000_000"))
BLOCK = 5_000
MIB = 1 << 20


class Counting:
    """The counting server."""

    def __init__(self, port, certificates):
        self.url = f"https://localhost:{port}"
        self.authority = certificates.authority
        self._port = port
        self._context = ssl.create_default_context(cafile=str(certificates.authority))

    def stats(self):
        connection = http.client.HTTPSConnection("localhost", self._port, timeout=30, context=self._context)
        try:
            connection.request("GET", "/-/stats")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@pytest.fixture
def counting(tmp_path):
    if importlib.util.find_spec("granian") is None:
        missing("granian", "pip install granian")
    certificates = Certificates.create(tmp_path)
    port = free_port()
    command = [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--host", "127.0.0.1", "--port", port, "--no-ws",
        "--ssl-certificate", certificates.chain(), "--ssl-keyfile", certificates.key(), "counting_server:target",
    ]  # fmt: skip
    with running(command, port, cwd=HERE, log=tmp_path / "granian.log"):
        yield Counting(port, certificates)


class Replay:
    """The command, as a process."""

    def __init__(self, counting, path, *arguments, stderr=subprocess.PIPE):
        self.state = path.with_name(f"{path.name}.replay")
        command = [sys.executable, "-m", "moengage_personalize.cli", "replay", path, "--json", *arguments]
        credentials = {"MOENGAGE_WORKSPACE_ID": "W", "MOENGAGE_PERSONALIZE_API_KEY": "k"}
        where = {"MOENGAGE_PERSONALIZE_BASE_URL": counting.url, "SSL_CERT_FILE": str(counting.authority)}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **credentials, **where},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self.memory = []  # bytes, and how many lines were settled then

    def lines(self):
        try:
            return json.loads(self.state.read_text())["lines"]
        except FileNotFoundError:
            return 0

    def watch(self, until=None, seconds=300):
        """Notes its memory until it has settled so many lines, or ends."""
        give_up = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < give_up:
            lines = self.lines()
            if until is not None and lines >= until:
                return
            if lines and (found := re.search(r"VmRSS:\s+(\d+) kB", self._status())):
                self.memory.append((lines, int(found[1]) * 1024))
            time.sleep(0.1)
        assert self.process.poll() is not None, "it takes too long"

    def _status(self):
        try:
            return Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return ""

    def end(self, number=None):
        """Signals it, if so wished; returns status, report and what it said."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, json.loads(out) if out else None, err


def write(path, count, *, opener=open):
    """So many lines without UUIDs, numbered by their time."""
    context = (
        '{"cid":"66d55ae445921e4d35ae4368_F_T_WP_AB_2_P_0_AU_5A","experience":"Test","moe_locale_id":"0",'
        '"moe_variation_id":"2","audience_name":"All Users","audience_id":"5A","type":"Web Personalization"}'
    )
    with opener(path, "wt") as file:
        for number in range(count):
            file.write(
                f'{{"customer_id":"customer-{number % 10_007}","action":"MOE_PERSONALIZATION_MESSAGE_SHOWN",'
                f'"event_time":{counting_server.BASE + number},"platform":"web","attributes":{context}}}\n'
            )
    return path


def assert_each_once(counting, count):
    stats = counting.stats()
    assert stats["conflicts"] == 0, "an event came under two UUIDs"
    assert stats["events"] == stats["distinct"] == count, "an event is missing, or shares its UUID"
    return stats


def test_a_million_lines_killed_in_the_middle_arrive_each_under_one_uuid_in_flat_memory(counting, tmp_path):
    path = write(tmp_path / "events.ndjson", MILLION)
    began = time.monotonic()
    first = Replay(counting, path)
    first.watch(until=MILLION // 2)
    status, _, said = first.end(signal.SIGKILL)
    assert status == -signal.SIGKILL
    told = re.search(r"^[\d,]+ lines, \d+ %, [\d,]+ a second$", said, re.MULTILINE)
    assert told or time.monotonic() - began < EVERY + 2, "progress is told"
    killed_at = first.lines()
    assert MILLION // 2 <= killed_at < MILLION

    second = Replay(counting, path)
    second.watch()
    status, report, said = second.end()
    took = time.monotonic() - began
    assert (status, report["delivered"], report["lines"], report["done"]) == (0, MILLION, MILLION, True)
    assert f"going on after line {killed_at:,}" in said

    stats = assert_each_once(counting, MILLION)
    assert stats["again"] <= 2 * BLOCK, "more than what was under way was sent again"
    for run in (first, second):
        assert_flat(run.memory)
    highest = max(size for run in (first, second) for _, size in run.memory)
    print(
        f"\n{MILLION:,} lines in {took:.0f} s ({MILLION / took:,.0f} a second), killed after {killed_at:,};"
        f" {stats['again']:,} events came twice, {stats['requests']:,} requests, at most {highest / MIB:.0f} MiB"
    )


def assert_flat(memory):
    """From the first fifth on, memory grows no more."""
    begun = memory[len(memory) // 5][1]
    assert memory[-1][0] - memory[len(memory) // 5][0] > MILLION // 5, "there is something to compare"
    assert max(size for _, size in memory) < begun + 24 * MIB, memory[:: max(1, len(memory) // 20)]


@pytest.mark.parametrize("opener", [open, gzip.open], ids=["plain", "gzip"])
def test_killed_again_and_again_it_comes_to_the_end(opener, counting, tmp_path):
    count, rng = 60_000, random.Random(20261123)
    path = write(tmp_path / "events", count, opener=opener)
    for _ in range(5):
        run = Replay(counting, path)
        run.watch(until=run.lines() + 1)
        time.sleep(rng.random() * 0.4)
        if run.end(signal.SIGKILL)[0] == 0:
            break
    status, report, _ = Replay(counting, path).end()
    assert (status, report["delivered"]) == (0, count)
    assert_each_once(counting, count)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_asked_to_end_ends_in_order_and_repeats_little(number, expected, counting, tmp_path):
    path = write(tmp_path / "events.ndjson", 100_000)
    run = Replay(counting, path)
    run.watch(until=BLOCK)
    status, report, said = run.end(number)
    assert status == expected
    assert "the same command goes on from there" in said
    assert report["lines"] == report["delivered"] < 100_000
    assert Replay(counting, path).end()[0] == 0
    assert assert_each_once(counting, 100_000)["again"] <= BLOCK


def test_a_terminal_sees_a_bar(counting, tmp_path):
    path = write(tmp_path / "events.ndjson", 40_000)
    controller, terminal = pty.openpty()
    run = Replay(counting, path, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(controller, 65_536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    os.close(controller)
    assert run.end()[0] == 0
    assert "━".encode() in shown
    assert b"40,000 lines" in shown
    assert b"100 %" in shown
