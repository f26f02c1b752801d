"""CPU, throughput and latency of one fetch-sized exchange, over nginx (local, TLS), against everybody else.

    python benchmarks/bench_fetch.py            a few minutes
    python benchmarks/bench_fetch.py --quick    under a minute
    python benchmarks/bench_fetch.py --check    exits non-zero if a target ratio is missed

A POST of about 300 bytes, answered with 1,000 bytes of JSON that nobody parses. CPU is the client process's
own; nginx runs in another. Writes `results/bench_fetch.json` and `results/bench_fetch.svg`.
"""

# ruff: noqa: E402 - the tests' servers are found through the path that is set first
from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

import attrs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from _contenders import BODY, CONTENDERS
from _harness import Sample, alternate, environment, median, table
from _plot import bars
from faults.certificates import Certificates
from faults.nginx import nginx, version as nginx_version

OURS, STOCK, FLOOR = "ours: exchange()", "httpx http2=True", "h2 bare (floor)"
ANSWER_BYTES = 1_000
REQUESTS = {1: 400, 32: 2_000, 128: 2_000, 500: 2_500}  # by concurrency, a round
QUICK_REQUESTS = {1: 40, 32: 320, 128: 384}  # at 500, the slowest client alone would take the minute

Medians = dict[int, dict[str, Sample]]


@attrs.frozen
class Target:
    """A ratio that the design promises, at 32 concurrent."""

    what: str
    of: str
    against: str
    field: str
    at_most: float

    def measured(self, medians: Medians) -> float:
        at = medians[32]
        ratio: float = getattr(at[self.of], self.field) / getattr(at[self.against], self.field)
        return ratio


TARGETS = [
    Target("CPU per request against httpx.AsyncClient(http2=True)", OURS, STOCK, "cpu_us", 0.15),
    Target("p99 against httpx.AsyncClient(http2=True)", OURS, STOCK, "p99_ms", 0.25),
    Target("CPU per request against bare h2", OURS, FLOOR, "cpu_us", 1.0),
]


def measure(loop: str, loads: list[dict[str, int]], rounds: int, names: list[str]) -> Medians:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        certificates = Certificates.create(directory)
        # A stock client does not survive the default of 1,000 requests a connection: measured elsewhere.
        limits = "keepalive_requests 100000000; keepalive_timeout 600s;"
        with nginx(certificates, directory, directives=limits, answer_bytes=ANSWER_BYTES, logged=False) as server:
            commands: dict[str, list[str | Path]] = {
                name: [
                    sys.executable,
                    HERE / "_contenders.py",
                    name,
                    loop,
                    f"{server.url}/fetch",
                    certificates.authority,
                ]
                for name in names
            }
            samples = alternate(commands, loads, rounds, path=[ROOT, HERE])
    return {concurrency: {name: median(taken) for name, taken in by.items()} for concurrency, by in samples.items()}


def report(medians: Medians, about: str) -> str:
    parts = [about]
    for concurrency, by_name in medians.items():
        stock = by_name.get(STOCK)
        rows = [
            [name, f"{s.cpu_us:.0f}", f"{s.cpu_us / stock.cpu_us:.2f}" if stock else "-",
             f"{s.per_second:,.0f}", f"{s.p50_ms:.2f}", f"{s.p99_ms:.2f}",
             f"{s.p99_ms / stock.p99_ms:.2f}" if stock else "-", str(s.errors)]
            for name, s in by_name.items()
        ]  # fmt: skip
        head = ["", "CPU µs/req", "of stock", "req/s", "p50 ms", "p99 ms", "of stock", "errors"]
        parts.append(table(f"\n{concurrency} concurrent", head, rows))
    return "\n".join(parts)


def plot(medians: Medians, about: str) -> str:
    panels = [
        [
            (f"{concurrency} concurrent: CPU per request", {name: s.cpu_us for name, s in by_name.items()}, "µs"),
            (f"{concurrency} concurrent: p99", {name: s.p99_ms for name, s in by_name.items()}, "ms"),
            (f"{concurrency} concurrent: throughput", {name: s.per_second for name, s in by_name.items()}, "/s"),
        ]
        for concurrency, by_name in medians.items()
    ]
    return bars("One fetch-sized exchange with nginx over TLS", panels, about)


def check(medians: Medians) -> bool:
    """Print every target with what was measured; whether all were met."""
    met = True
    for target in TARGETS:
        ratio = target.measured(medians)
        met &= ratio <= target.at_most
        verdict = "met   " if ratio <= target.at_most else "MISSED"
        print(f"{verdict} {target.what}: {ratio:.3f} (at most {target.at_most})")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds, not at 500: under a minute")
    parser.add_argument("--check", action="store_true", help="exit non-zero if a target ratio is missed")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--rounds", type=int, help="rounds per load (default 5, quick 2)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"some of: {', '.join(CONTENDERS)}")
    parser.add_argument("--concurrency", type=int, nargs="*", help="some of 1, 32, 128, 500")
    parser.add_argument("--output", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nginx and the workers end with us

    loads = [
        {"concurrency": concurrency, "requests": requests}
        for concurrency, requests in (QUICK_REQUESTS if options.quick else REQUESTS).items()
        if not options.concurrency or concurrency in options.concurrency
    ]
    versions = environment(["httpx", "httpcore", "h2", "hpack", "aiohttp", "pyreqwest", "uvloop"])
    versions |= {"nginx": nginx_version(), "loop": options.loop}
    medians = measure(
        options.loop, loads, options.rounds or (2 if options.quick else 5), options.only or list(CONTENDERS)
    )

    about = (
        f"POST of {len(BODY)} bytes, answer of {ANSWER_BYTES} bytes of JSON, not parsed (no orjson), "
        "TLS; " + ", ".join(f"{name} {value}" for name, value in versions.items())
    )
    print(report(medians, about))
    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "versions": versions,
        "payload": {"request_bytes": len(BODY), "response_bytes": ANSWER_BYTES, "json_parsed": False},
        "medians": {str(c): {name: attrs.asdict(s) for name, s in by_name.items()} for c, by_name in medians.items()},
    }
    (options.output / "bench_fetch.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / "bench_fetch.svg").write_text(plot(medians, about))
    print(f"\nwritten: {options.output}/bench_fetch.json, {options.output}/bench_fetch.svg\n")
    complete = 32 in medians and {OURS, STOCK, FLOOR} <= medians[32].keys()
    return 1 if complete and not check(medians) and options.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as missing:  # what the tests say of a server that is not here
        sys.exit(str(missing))
