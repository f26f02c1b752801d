"""The demo's account: it must notice each way in which events can go wrong."""

import re
import signal
import subprocess
import sys
from collections import Counter

import demo
import httpx
import pytest

STATS = {"accepted": 2, "delivered": 2, "dropped": 0, "dropped_at_the_door": 0, "refused": 0, "rejected": 0}


def told(*, accepted=("a", "b"), arrived=("a", "b"), again=(), statuses=(200,), answers=(200,), wrong=0, **stats):
    ledger = {
        "events": [{"uuid": uuid} for uuid in arrived],
        "duplicates": [{"uuid": uuid} for uuid in again],
        "requests": [{"endpoint": "events", "status": status} for status in answers],
        "counts": {"wrong_identity_forms": wrong},
    }
    seen = demo.Seen(repeated=1, statuses=Counter(statuses))
    return demo.complaints({**STATS, "duplicate": 1, **stats}, list(accepted), ledger, seen)


def test_a_run_in_which_all_is_well_has_no_complaint():
    assert told() == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"arrived": ["a"]}, "1 accepted events never arrived"),
        ({"arrived": ["a", "b", "c"]}, "1 events arrived that nobody had accepted"),
        ({"again": ["a"]}, "1 events arrived more than once"),
        ({"accepted": ["a", "b", "b"], "accepted_count": 3}, "1 events were accepted twice"),
        ({"delivered": 1}, "1 accepted events were not delivered, says the shop"),
        ({"dropped": 1}, "1 events were dropped"),
        ({"rejected": 1}, "1 events were refused"),
        ({"duplicate": 0}, "1 repeated page views or clicks were not recognised"),
        ({"statuses": [200, 500]}, "1 pages failed"),
        ({"answers": [200, 503]}, "1 requests of the shop failed"),
        ({"wrong": 1}, "1 customers were not recognised by the emulator"),
    ],
)
def test_it_complains_of(changes, complaint):
    assert complaint in told(**changes)


def test_a_share_of_the_pages_waited_no_longer():
    assert demo.percentile([float(n) for n in range(100)], 0.99) == 99.0
    assert demo.percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert demo.percentile([], 0.5) == 0.0


@pytest.mark.conformance
def test_the_demo_loses_nothing_and_behaves_without_a_terminal():
    done = subprocess.run(
        [sys.executable, demo.__file__, "--visitors", "40"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every accepted event arrived exactly once" in done.stdout
    assert done.stderr == ""


@pytest.mark.conformance
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_left_running_it_says_where_to_look_and_stops_both_when_told(number):
    command = [sys.executable, demo.__file__, "--stay", "--port", "0", "--page-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = [process.stdout.readline() for _ in range(3)]
        shop, emulator = (re.search(r"http://\S+", line)[0] for line in said[:2])
        assert httpx.get(shop, trust_env=False).status_code == 200
        assert httpx.get(emulator, trust_env=False).headers["content-type"].startswith("text/html")
        assert httpx.get(f"{emulator}_emulator/counts", trust_env=False).json()["fetch_requests"] == 1
        process.send_signal(number)
        assert process.wait(20) == 0
    for gone in (shop, emulator):
        with pytest.raises(httpx.ConnectError):
            httpx.get(gone, trust_env=False)
