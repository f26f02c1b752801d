"""Clients that others wrote: curl in both protocols, and h2load for the load that a benchmark needs."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from moengage_personalize.emulator import EmulatorProcess

pytestmark = pytest.mark.conformance

CREDENTIALS = base64.b64encode(b"DEMO_WORKSPACE:demo-key").decode()
HEADERS = (
    *("-H", "MOE-APPKEY: DEMO_WORKSPACE"),
    *("-H", "Content-Type: application/json"),
    *("-H", f"Authorization: Basic {CREDENTIALS}"),
)
BODY = {"identifiers": {"customer_id": "john@example.com"}, "experience_key": ["home-hero", "home-offers"]}


def need(command):
    if shutil.which(command) is None:
        pytest.skip(f"needs {command}")


@pytest.mark.parametrize(("flag", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_curl_fetches_in_either_protocol(flag, version):
    need("curl")
    with EmulatorProcess() as process:
        url = f"{process.base_url}/v1/experiences/fetch"
        command = ["curl", "-sS", flag, "--cacert", str(process.ca_path), *HEADERS, "-d", json.dumps(BODY)]
        command += ["-w", "\n%{http_version} %{http_code}", url]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    body, _, outcome = said.rpartition("\n")
    assert outcome == f"{version} 200"
    assert set(json.loads(body)["experiences"]) == {"home-hero", "home-offers"}


def cpu_seconds(pid):
    """User and system time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("flags", [("-c", "4", "-m", "16"), ("--h1", "-c", "16")], ids=["HTTP/2", "HTTP/1.1"])
def test_a_request_costs_less_than_a_two_thousandth_of_a_second(flags, tmp_path):
    """CPU time, so that a busy machine does not decide: one core has room for 2,000 requests a second."""
    need("h2load")
    body = tmp_path / "body.json"
    body.write_text(json.dumps(BODY))
    with EmulatorProcess("--rate-limit", "0") as process:
        before = cpu_seconds(process.pid)
        command = ["h2load", "-n", "6000", *flags, "-d", str(body), *HEADERS]
        command.append(f"{process.base_url}/v1/experiences/fetch")
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        spent = (cpu_seconds(process.pid) - before) / 6000
        assert process.counts()["by_status"] == {"fetch 200": 6000}
    assert re.search(r"6000 succeeded, 0 failed, 0 errored, 0 timeout", said)
    assert spent < 1 / 2000, f"{spent * 1e6:.0f} µs a request"
