"""The emulator as a command and as fixtures: what it prints, how it ends, and what a restart keeps."""

import signal
import subprocess
import sys
import time
import urllib.error

import httpx
import pytest
from emulator.kit import action, element, events, uuid4

from moengage_personalize.emulator import EmulatorProcess

pytestmark = pytest.mark.conformance


def client(server, **options):
    return httpx.Client(
        base_url=server.base_url,
        verify=server.ssl_context(),
        auth=("DEMO_WORKSPACE", "demo-key"),
        headers={"MOE-APPKEY": "DEMO_WORKSPACE"},
        trust_env=False,
        **options,
    )


def report(server, *actions, http2=True):
    with client(server, http2=http2) as http:
        return http.post("/v1/experiences/events", json=events(element(*actions)))


def test_a_synchronous_test_meets_the_emulator_in_a_thread(personalize_emulator, personalize_emulator_server):
    assert report(personalize_emulator_server, action()).status_code == 200
    assert personalize_emulator.ledger.counts.accepted == 1
    personalize_emulator.trouble(status=503)
    assert report(personalize_emulator_server, action()).status_code == 503


def test_trouble_from_the_thread_of_the_test_reaches_the_server(personalize_emulator, personalize_emulator_server):
    personalize_emulator.trouble(outage=True, duration=0.3)
    while not personalize_emulator_server.is_out:
        time.sleep(0.01)
    with pytest.raises(httpx.ConnectError):
        report(personalize_emulator_server, action())
    while personalize_emulator_server.is_out:
        time.sleep(0.02)
    assert report(personalize_emulator_server, action()).status_code == 200


def test_an_emulator_in_a_process_is_read_and_troubled_from_outside(personalize_emulator_process):
    assert personalize_emulator_process.environment["MOENGAGE_WORKSPACE_ID"] == "DEMO_WORKSPACE"
    assert report(personalize_emulator_process, action()).status_code == 200
    assert personalize_emulator_process.counts()["accepted"] == 1
    assert len(personalize_emulator_process.ledger()["events"]) == 1
    personalize_emulator_process.trouble(status=503)
    assert report(personalize_emulator_process, action()).status_code == 503
    personalize_emulator_process.calm()
    assert report(personalize_emulator_process, action()).status_code == 200


def test_a_killed_emulator_comes_back_with_its_ledger_its_port_and_its_authority(tmp_path):
    once = action(moe_event_uuid=uuid4())
    arguments = ("--journal", tmp_path / "ledger.ndjson", "--ca-file", tmp_path / "ca.pem")
    with EmulatorProcess(*map(str, arguments)) as process:
        assert report(process, once).status_code == 200
        authority, port = process.ca_path.read_bytes(), process.base_url
        process.kill()
        with pytest.raises(urllib.error.URLError):
            process.counts()
        process.restart()
        assert (process.base_url, process.ca_path.read_bytes()) == (port, authority)
        assert report(process, once).status_code == 200
        counts = process.counts()
        assert (counts["accepted"], counts["duplicates_identical"], counts["event_requests"]) == (1, 1, 2)
    assert (tmp_path / "ca.pem.key").stat().st_mode & 0o077 == 0


def test_flags_make_trouble_from_the_start():
    with (
        EmulatorProcess("--trouble", "status = 503, endpoints = 'events'", "--no-tls") as process,
        httpx.Client(base_url=process.base_url, auth=("DEMO_WORKSPACE", "demo-key"), trust_env=False) as http,
    ):
        http.headers["MOE-APPKEY"] = "DEMO_WORKSPACE"
        assert http.post("/v1/experiences/events", json=events()).status_code == 503
        assert http.get("/v1/experiences/metadata").status_code == 200


def test_a_flag_makes_answers_say_why_an_experience_is_absent():
    with EmulatorProcess("--failures") as process, client(process) as http:
        answer = http.post("/v1/experiences/fetch", json={"experience_key": ["winter-sale"]}).json()
        assert answer["failures"] == [{"reason": "EXPERIENCE_NOT_ACTIVE", "experienceKeys": ["winter-sale"]}]


def test_an_edited_file_is_picked_up_while_it_runs(tmp_path):
    path = tmp_path / "experiences.toml"
    path.write_text("")
    with EmulatorProcess("--experiences", str(path)) as process, client(process) as http:
        assert http.get("/v1/experiences/metadata").json()["metadata"]["count"] == 0
        path.write_text("[[experience]]\nkey = 'home-hero'\n[[experience.audience]]\nvariation = [{payload.a = 1}]\n")
        for _ in range(100):
            if http.get("/v1/experiences/metadata").json()["metadata"]["count"]:
                break
            time.sleep(0.05)
        assert http.get("/v1/experiences/metadata").json()["metadata"]["count"] == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_politely(ending):
    with EmulatorProcess() as process:
        process._process.send_signal(ending)
        assert process._process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--experiences", "/nowhere/at.toml"), "No such file"),
        (("--trouble", "status = 200"), "status: must be between 400 and 599"),
        (("--trouble", "status"), "--trouble 'status':"),
        (("--port", "1", "--host", "203.0.113.1"), "203.0.113.1"),
    ],
)
def test_a_command_that_cannot_start_says_why_in_one_line(arguments, words):
    command = [sys.executable, "-m", "moengage_personalize.emulator", "--page-port", "-1", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_importing_the_package_imports_none_of_its_parts():
    command = "import sys, moengage_personalize.emulator; print(*(m for m in sys.modules if 'emulator' in m))"
    listed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["moengage_personalize.emulator"]
