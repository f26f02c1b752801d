"""What `import moengage_personalize`, and a client made, take beyond `import httpx`.

    python benchmarks/bench_import.py            21 rounds
    python benchmarks/bench_import.py --quick    9 rounds
    python benchmarks/bench_import.py --check    exits non-zero if a target is missed

Each import happens in a fresh process, with its bytecode cached; contenders take turns. The process measures itself,
from its first line to its last: the interpreter's own start and end are nobody's. CPU time is printed beside wall time,
since the latter counts what others do on the machine; the targets are read off the least CPU time of each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

TARGET_MS = 60.0
HTTPX, ASYNCIO, OURS, CLIENT = (
    "import httpx",
    "import httpx, asyncio",
    "import moengage_personalize",
    "and a client made",
)
CODE = {
    HTTPX: "import httpx",
    ASYNCIO: "import httpx, asyncio",
    OURS: "import httpx; from moengage_personalize import AsyncPersonalizeClient",  # they load late
    CLIENT: "import httpx, moengage_personalize as m; m.AsyncPersonalizeClient('WORKSPACE', 'key', '01')",
}
MEASURED = (
    "import time; wall, cpu = time.perf_counter(), time.process_time()\n"
    "{code}\n"
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)


def measure(name: str, cached: str) -> tuple[float, float]:
    """Milliseconds of wall and of CPU time, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-P", "-c", MEASURED.format(code=CODE[name])]
    run = subprocess.run(
        command, env=environment | {"PYTHONPYCACHEPREFIX": cached}, capture_output=True, text=True, check=True
    )
    wall, cpu = map(float, run.stdout.split())
    return wall * 1e3, cpu * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="9 rounds instead of 21")
    parser.add_argument("--check", action="store_true", help="exit non-zero if a target is missed")
    options = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CODE}
    with tempfile.TemporaryDirectory() as cached:
        for number in range(-1, 9 if options.quick else 21):  # the first writes the bytecode
            for name, times in taken.items():
                sample = measure(name, cached)
                if number >= 0:
                    times.append(sample)
    print(f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, {len(taken[HTTPX])} rounds; ms")
    print(f"{'':28} {'wall min':>9} {'median':>7} {'CPU min':>9} {'median':>7} {'beyond httpx':>13} {'median':>7}")
    theirs = [cpu for _, cpu in taken[HTTPX]]
    beyond = {}
    for name, times in taken.items():
        wall, cpu = ([each[which] for each in times] for which in (0, 1))
        beyond[name] = min(cpu) - min(theirs)
        columns = min(wall), statistics.median(wall), min(cpu), statistics.median(cpu), beyond[name]
        more = statistics.median(one - other for one, other in zip(cpu, theirs, strict=True))
        print(f"{name:28} {{:9.0f}} {{:7.0f}} {{:9.0f}} {{:7.0f}} {{:13.0f}} {more:7.0f}".format(*columns))
    for name in (OURS, CLIENT):
        verdict = "met   " if beyond[name] <= TARGET_MS else "MISSED"
        print(f"{verdict} {name}: {beyond[name]:.0f} ms of CPU beyond httpx (at most {TARGET_MS:.0f})")
    return int(options.check and any(beyond[name] > TARGET_MS for name in (OURS, CLIENT)))


if __name__ == "__main__":
    sys.exit(main())
