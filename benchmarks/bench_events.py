"""Events, from the call that reports one to the server's acknowledgement, beside five peers.

    python benchmarks/bench_events.py [--quick] [--check] [--out results]

What is measured, for each contender in a process of its own, against one local server over TLS:

* CPU per event: of the whole process, all threads, from the first call to the last acknowledgement. The contender
  tracks 100 events in a turn of the loop and flushes whenever 5,000 are outstanding, so that nobody has to drop any.
* Throughput; requests; bytes, in bodies and on the wire.
* What the caller of one event waits, how late other tasks of its event loop are while everything pending is flushed,
  and the memory of a pending event.

Nothing is taken on trust: the server counts the events and their identities. Rounds alternate; medians are reported,
ratios are medians of the rounds' ratios; whether the cost is flat is read from turns that run one size after the other.
`--check` exits with 1 if a number of design.md, section 6, is missed.
"""

import argparse
import sys

from _events.conductor import ContenderError, Process, Progress
from _events.contenders import OursSpool
from _events.relay import Relay
from _events.report import bars, checks, environment, middle, save, table
from _events.server import Server

CONTENDERS = [  # label, kind, with orjson
    ("ours", "ours", True),
    ("ours, one experience", "ours-repeated", True),
    ("ours, 1 MB requests", "ours-large", True),
    ("ours, stdlib json", "ours", False),
    ("ours, spool", "ours-spool", True),
    ("segment", "segment", True),
    ("posthog", "posthog", True),
    ("amplitude", "amplitude", True),
    ("launchdarkly", "launchdarkly", True),
    ("launchdarkly, one experience", "launchdarkly-repeated", True),
    ("the bytes alone (floor)", "floor", True),
    ("naive httpx", "naive", True),
]
PEERS = ("segment", "posthog", "amplitude")
REFERENCE = 10_000  # events, for ratios
SMALL = 1_000


class Benchmark:
    def __init__(self, options):
        self._options = options
        self.runs = []  # of cpu
        self.found = {}  # label → measure → values of all rounds
        self.failures = []

    def run(self):
        contenders = [each for each in CONTENDERS if each[1] != "ours-spool" or OursSpool.exists()]
        with Server() as self._server, Relay(self._server.port) as self._relay:
            self._processes = [Process(label, kind, self._server, orjson=orjson) for label, kind, orjson in contenders]
            try:
                plan = list(self._plan())
                progress = Progress(len(plan))
                for process, what, arguments in plan:
                    progress.step(f"{process.label}: {what} {arguments}")
                    self._step(process, what, **arguments)
                progress.end()
            finally:
                for process in self._processes:
                    process.end()
        self.versions = {process.label: process.version for process in self._processes}

    def _plan(self):
        """Every step, in an order that alternates contenders."""
        options = self._options
        for turn in range(options.rounds):
            for process in self._processes:
                if process.kind != "naive":
                    yield process, "cpu", {"events": SMALL, "repeat": 5, "turn": turn}
                    yield process, "cpu", {"events": REFERENCE, "turn": turn}
                else:
                    yield process, "cpu", {"events": SMALL, "turn": turn}
                yield process, "caller", {"events": SMALL if process.kind == "naive" else 4_000}
                yield process, "stall", {}
        for _ in range(1 if options.quick else options.rounds):
            for process in self._processes:
                if process.kind != "naive" or not options.quick:
                    yield process, "busy", {"events": 500 if process.kind == "naive" else options.busy_events}
        ours = next(process for process in self._processes if process.label == "ours")
        for turn in range(options.rounds):
            for events in (SMALL, REFERENCE, *options.sizes):
                if events <= 100_000 or turn < options.long_rounds:
                    repeat = max(1, REFERENCE // events)
                    yield ours, "cpu", {"events": events, "repeat": repeat, "turn": turn, "flat": True}
        for events in options.sizes:
            for turn in range(1 if options.quick else 2):
                for process in self._processes:
                    if self._worth(process, events):
                        yield process, "cpu", {"events": events, "turn": turn}
        for process in self._processes:
            if process.label == "ours":
                yield process, "memory", {"events": 10_000, "steps": 2}
            elif process.kind != "floor" and not (
                options.quick and process.kind in {"ours", "ours-repeated", "ours-large", "naive"}
            ):
                yield process, "memory", {"events": options.memory_events, "steps": 1}
            yield process, "wire", {"events": SMALL if process.kind == "naive" else 5_000}

    def _worth(self, process, events):
        """Peers go as far as was asked, ours with a spool to the end; without, its long runs were the flat ones."""
        if process.kind == "ours-spool":
            return not self._options.quick
        return process.label != "ours" and process.kind != "naive" and events <= self._options.peers_to

    def _step(self, process, what, **arguments):
        try:
            getattr(self, f"_{what}")(process, **arguments)
        except ContenderError as error:
            self.failures.append(str(error))

    def _note(self, process, measure, value):
        self.found.setdefault(process.label, {}).setdefault(measure, []).append(value)

    def _deliver(self, process, command, **arguments):
        self._server.ask("clear")
        answer = process.tell(command, **arguments)
        stats = self._server.stats_after(answer["events"])
        lost, doubled = answer["events"] - stats["unique"], stats["events"] - stats["unique"]
        self._note(process, "lost", lost)
        self._note(process, "doubled", doubled)
        if lost or doubled:
            self.failures.append(f"{process.label}: of {answer['events']} events {lost} lost, {doubled} sent twice")
        return answer, stats

    def _cpu(self, process, events, turn, repeat=1, *, flat=False):
        answer, stats = self._deliver(process, "cpu", events=events, repeat=repeat)
        self.runs.append(
            {
                "label": process.label,
                "events": events,
                "turn": turn,
                "flat": flat,
                "cpu": answer["cpu"],
                "wall": answer["wall"],
                "requests": stats["requests"] / repeat,
                "body_bytes": stats["body_bytes"] / answer["events"],
                "server_cpu": stats["cpu"] / answer["events"] * 1e6,
                "spoken": "+".join(stats["spoken"]),
            }
        )

    def _busy(self, process, events):
        answer, _ = self._deliver(process, "cpu", events=events, busy=True)
        self._note(process, "busy_cpu", answer["cpu"])
        self._note(process, "busy_wall", answer["wall"])

    def _caller(self, process, events):
        answer, _ = self._deliver(process, "caller", events=events)
        for measure in ("p50", "p99", "timer"):
            self._note(process, f"caller_{measure}", answer[measure])

    def _stall(self, process):
        answer, _ = self._deliver(process, "stall")
        for measure in ("late_max", "late_p999", "own_max", "own_p999"):
            self._note(process, f"stall_{measure}", answer[measure])

    def _memory(self, process, events, steps):
        self._server.ask("clear")
        self._server.ask("hold")
        try:
            answer = process.tell("memory", events=events, steps=steps)
        finally:
            self._server.ask("release")
        process.tell("release")
        self._note(process, "memory", max(answer["bytes"]))
        self._note(process, "memory_steps", answer["bytes"])

    def _wire(self, process, events):
        self._relay.take()
        self._deliver(process, "wire", url=self._relay.url, events=events)
        up, down = self._relay.take()
        self._note(process, "wire", (up + down) / events)

    # ── what it comes to ─────────────────────────────────────────────────────────────────────────────────────────────

    def median(self, label, measure):
        return middle(self.found.get(label, {}).get(measure, []))

    def cost(self, label, events, measure="cpu"):
        return middle([run[measure] for run in self.runs if run["label"] == label and run["events"] == events])

    def ratio(self, label, others):
        """Median over rounds of our CPU per event against the best of the others in the same round."""
        by_turn = {}
        for run in self.runs:
            if run["events"] == REFERENCE and not run["flat"]:
                by_turn.setdefault(run["turn"], {})[run["label"]] = run["cpu"]
        return middle(
            [
                costs[label] / min(costs[other] for other in others if other in costs)
                for costs in by_turn.values()
                if label in costs and any(other in costs for other in others)
            ]
        )

    def flatness(self):
        """How far the cost of one event strays with their number: of a turn's ratios to `REFERENCE`, the medians."""
        turns = {}
        for run in self.runs:
            if run["flat"]:
                turns.setdefault(run["turn"], {})[run["events"]] = run["cpu"]
        ratios = {}
        for costs in turns.values():
            for events, cost in costs.items():
                if REFERENCE in costs:
                    ratios.setdefault(events, []).append(cost / costs[REFERENCE])
        medians = [middle(found) for found in ratios.values()]
        return max(medians) / min(medians) - 1 if len(medians) > 1 else None

    def claims(self):
        return [
            ("CPU per event / best of segment, posthog, amplitude", self.ratio("ours", PEERS), 0.12),
            ("CPU per event / launchdarkly", self.ratio("ours", ("launchdarkly",)), 0.33),
            ("event-loop stall, own, ms", self.median("ours", "stall_own_max"), 2.0),
            ("memory per pending event, bytes", self.median("ours", "memory"), 900.0),
            ("cost per event, 1,000 to the largest: spread", self.flatness(), 0.15),
            ("events of ours lost or sent twice", self._ours_wrong(), 0),
        ]

    def _ours_wrong(self):
        return sum(
            sum(found.get("lost", [])) + sum(found.get("doubled", []))
            for label, found in self.found.items()
            if label.startswith("ours")
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="under 90 seconds: up to 100,000 events, peers to 10,000")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--rounds", type=int, default=None, help="of alternation: 5, or 2 with --quick")
    parser.add_argument("--peers-to", type=int, default=None, help="largest run of a peer: 100000, or 10000")
    parser.add_argument("--out", default="results", help="where JSON and SVG go")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.peers_to = options.peers_to or (REFERENCE if options.quick else 100_000)
    options.sizes = (100_000,) if options.quick else (100_000, 1_000_000)
    options.long_rounds = 3  # that a million events are in
    options.busy_events = 1_000 if options.quick else 5_000
    options.memory_events = 2_000 if options.quick else 5_000

    about = environment()
    benchmark = Benchmark(options)
    benchmark.run()
    holds = show(benchmark, about, options)
    sys.exit(1 if options.check and not holds else 0)


def show(benchmark, about, options):
    labels = list(benchmark.versions)
    print(f"\n{about['python']}; {about['openssl']}; {about['machine']}; load {about['load']:.1f} at the start")
    spoken = {run["label"]: run["spoken"] for run in benchmark.runs}
    print("TLS 1.3 to Granian on loopback, verified; medians over", options.rounds, "alternating rounds\n")
    table(
        ("contender", "version", "speaks", "CPU µs/event", "events/s", "requests", "body B/event", "wire B/event",
         "server CPU µs/event", "lost", "twice"),
        [
            (
                label, benchmark.versions[label], spoken.get(label),
                benchmark.cost(label, size), (wall := benchmark.cost(label, size, "wall")) and int(1e6 / wall),
                int(benchmark.cost(label, size, "requests") or 0), benchmark.cost(label, size, "body_bytes"),
                benchmark.median(label, "wire"), benchmark.cost(label, size, "server_cpu"),
                sum(benchmark.found[label].get("lost", [])), sum(benchmark.found[label].get("doubled", [])),
            )
            for label in labels
            for size in [SMALL if label == "naive httpx" else REFERENCE]
        ],
    )  # fmt: skip
    table(
        ("contender", "caller p50 µs", "p99 µs", "stall max ms", "of it own", "memory B/pending",
         "CPU beside a busy thread", "wall beside it"),
        [
            (label, *(benchmark.median(label, measure) for measure in (
                "caller_p50", "caller_p99", "stall_late_max", "stall_own_max", "memory", "busy_cpu", "busy_wall")))
            for label in labels
        ],
    )  # fmt: skip
    sizes = sorted({run["events"] for run in benchmark.runs})
    table(
        ("CPU µs per event, by number of events", *(f"{size:,}" for size in sizes)),
        [(label, *(benchmark.cost(label, size) for size in sizes)) for label in labels],
    )
    floor = benchmark.ratio("the bytes alone (floor)", ("launchdarkly",))
    print(f"the bytes alone / launchdarkly: {floor or 0:.2f}")
    print(f"{REFERENCE:,} events unless said otherwise ({SMALL:,} for naive httpx); a reading of the clock is in caller"
          f" times: {benchmark.median(labels[0], 'caller_timer') or 0:.2f} µs\n")  # fmt: skip
    for failure in benchmark.failures:
        print("failed:", failure)
    holds = checks(benchmark.claims())
    found = {
        "environment": about, "versions": benchmark.versions, "runs": benchmark.runs, "found": benchmark.found,
        "failures": benchmark.failures, "claims": [list(claim) for claim in benchmark.claims()],
    }  # fmt: skip
    chart = [(label, benchmark.cost(label, REFERENCE)) for label in labels]
    save(options.out, "events", found, bars("CPU per event, accepted to acknowledged", "µs", chart))
    return holds


if __name__ == "__main__":
    main()
