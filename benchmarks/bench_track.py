"""What the caller of `track_impression` waits, beside posthog's `capture` and segment's `track`.

    python benchmarks/bench_track.py [--quick] [--check] [--out results]

Every call is timed by itself, on the event loop, as an application would meet it: a hundred calls in a turn of the
loop, five of each customer, and between the turns the SDK delivers to a local server over TLS, which is what the caches
hold when the next hundred begin. The garbage collector runs. Every fifth call meets a customer of whom nothing is
waiting, which costs us twice as much as the others; every hundredth wakes the delivery. `fresh` is what a web handler
does: an Experience that was just fetched is reported once, so that its context is encoded within the call. `repeated`
reports the same few experiences again and again. Then the same beside a thread that computes without a pause: there,
a no-op is measured too, and what is reported is the time beyond it.

Nothing is subtracted from the times of the idle runs: they contain one reading of the clock and one function of the
benchmark's own around the call; the row `no-op` says how much that is. p50 and p99 are of all calls of a round, and of
the rounds the median is reported.

Each contender has a process of its own; rounds alternate. The machine's speed changes by a factor of two within
minutes, so each round also times a fixed piece of plain Python, the yardstick, after every turn: a call's p50 in
yardsticks is comparable between runs, its microseconds are not. `--check` exits with 1 if a number of design.md,
section 6, is missed; the claims are about microseconds as measured, in whatever minute.
"""

import argparse
import sys

from _events.conductor import ContenderError, Process, Progress
from _events.contenders import OursSpool
from _events.report import bars, checks, environment, middle, save, table
from _events.server import Server

NOOP = "no-op"
CONTENDERS = [  # label, kind, with orjson
    (NOOP, "noop", True),
    ("ours, orjson, repeated", "ours-repeated", True),
    ("ours, orjson, fresh", "ours", True),
    ("ours, stdlib, repeated", "ours-repeated", False),
    ("ours, stdlib, fresh", "ours", False),
    ("ours, orjson, fresh, spool", "ours-spool", True),
    ("segment track", "segment", True),
    ("posthog capture", "posthog", True),
]
MEASURES = ("p50", "p99", "p999", "mean")


def measure(options):
    """Returns label → (busy, measure) → values of the rounds, versions, and what failed."""
    found, failures = {}, []
    contenders = [each for each in CONTENDERS if each[1] != "ours-spool" or OursSpool.exists()]
    with Server() as server:
        processes = [Process(label, kind, server, orjson=orjson) for label, kind, orjson in contenders]
        try:
            progress = Progress(2 * options.rounds * len(processes))
            for _ in range(options.rounds):
                for busy in (False, True):
                    for process in processes:
                        progress.step(f"{process.label}{' beside a busy thread' if busy else ''}")
                        try:
                            answer = process.tell("caller", events=options.calls // (4 if busy else 1), busy=busy)
                        except ContenderError as error:
                            failures.append(str(error))
                            continue
                        for name in (*MEASURES, "max", "timer", "yardstick"):
                            found.setdefault(process.label, {}).setdefault((busy, name), []).append(answer[name])
            progress.end()
        finally:
            for process in processes:
                process.end()
    return found, {process.label: process.version for process in processes}, failures


def added(found, label, name):
    """The median over rounds of what a call takes beside a busy thread, beyond what a no-op takes there."""
    pairs = zip(found[label].get((True, name), []), found[NOOP].get((True, name), []), strict=False)
    return middle([own - none for own, none in pairs])


def in_yardsticks(found, label):
    """The median over rounds of a call's p50, as a multiple of the yardstick in the same round."""
    rounds = zip(found[label][False, "p50"], found[label][False, "yardstick"], strict=True)
    return middle([call / stick for call, stick in rounds])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="under 30 seconds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--rounds", type=int, default=None, help="of alternation: 9, or 3 with --quick")
    parser.add_argument("--calls", type=int, default=None, help="in a round: 10000, or 4000; a fourth of it when busy")
    parser.add_argument("--out", default="results", help="where JSON and SVG go")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.calls = options.calls or (4_000 if options.quick else 10_000)

    about = environment()
    found, versions, failures = measure(options)

    def median(label, name, *, busy=False):
        return middle(found.get(label, {}).get((busy, name), []))

    print(f"\n{about['python']}; {about['machine']}; load {about['load']:.1f} at the start; context of 7 fields;")
    print(
        f"{options.rounds} rounds of {options.calls:,} calls; a reading of the clock: {median(NOOP, 'timer'):.2f} µs\n"
    )
    table(
        ("µs per call", "version", "p50", "p99", "p99.9", "mean", "yardstick", "p50 in yardsticks", "busy: p50",
         "added p50", "added p99"),
        [
            (label, versions[label], *(median(label, name) for name in (*MEASURES, "yardstick")),
             in_yardsticks(found, label), median(label, "p50", busy=True),
             *(added(found, label, name) for name in ("p50", "p99")))
            for label in versions
        ],
    )  # fmt: skip
    for failure in failures:
        print("failed:", failure)
    claims = [
        ("orjson, repeated: p50 µs", median("ours, orjson, repeated", "p50"), 2.5),
        ("orjson, repeated: p99 µs", median("ours, orjson, repeated", "p99"), 12.0),
        ("orjson, fresh: p50 µs", median("ours, orjson, fresh", "p50"), 2.5),
        ("orjson, fresh: p99 µs", median("ours, orjson, fresh", "p99"), 12.0),
        ("without orjson, fresh: p50 µs", median("ours, stdlib, fresh", "p50"), 10.0),
        ("busy thread, fresh: added p50 µs", added(found, "ours, orjson, fresh", "p50"), 4.0),
        ("busy thread, fresh: added p99 µs", added(found, "ours, orjson, fresh", "p99"), 25.0),
    ]
    if (spool := "ours, orjson, fresh, spool") in versions:
        claims += [
            ("spool, fresh: p50 µs", median(spool, "p50"), 4.0),
            ("spool, fresh: p99 µs", median(spool, "p99"), 25.0),
            ("spool, busy thread, fresh: added p99 µs", added(found, spool, "p99"), 25.0),
        ]
    holds = checks(claims)
    rounds = {
        label: {f"{'busy ' if busy else ''}{name}": values for (busy, name), values in measures.items()}
        for label, measures in found.items()
    }
    result = {"environment": about, "versions": versions, "rounds": rounds, "failures": failures, "claims": claims}
    chart = [(label, median(label, "p50")) for label in versions]
    save(options.out, "track", result, bars("Caller's p50 of one event", "µs", chart))
    sys.exit(1 if options.check and not holds else 0)


if __name__ == "__main__":
    main()
