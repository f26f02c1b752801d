"""`fetch`, `metadata`, `impression`, `click`: against the emulator, over TLS and HTTP/2."""

import contextlib
import os
import pty
import sys

import pytest

from moengage_personalize.cli import main
from moengage_personalize.emulator import Catalogue


def test_fetch_shows_what_is_served(run, server):
    done = run("fetch", "home-hero", "--customer-id", "john@example.com", "--json")
    hero = done.json()["experiences"]["home-hero"]
    assert (done.status, done.err) == (0, "")
    assert (hero["matched"], hero["context"]["audience_name"]) == (True, "Gold members")
    assert hero["payload"]["Discount"] in (15, 20)


def test_what_is_not_served_is_a_negative_answer(run, server):
    done = run("fetch", "home-hero", "no-such-key", "--json")
    assert done.status == 1
    assert done.json()["experiences"]["no-such-key"] == {
        "matched": False, "reason": "no match", "payload": {}, "undecodable": {}, "context": {}
    }  # fmt: skip


def test_the_situation_is_passed_on(run, server):
    given = ("--attribute", "utm_medium=email", "--day", "Sunday", "--hour", "19", "--user-agent", "iPhone", "--ip")
    done = run("fetch", "home-hero", "home-offers", "evening-banner", "--json", *given, "203.0.113.7")
    served = done.json()["experiences"]
    audiences = {key: each["context"]["audience_name"] for key, each in served.items()}
    assert audiences["home-offers"] == "From an email"
    assert audiences["evening-banner"] == "Evening visitors"
    assert done.status == 0


def test_user_identifiers_stand_in_for_a_customer(run, server):
    done = run("fetch", "home-hero", "--user-identifier", "u_em=john@example.com", "--json")
    assert done.json()["experiences"]["home-hero"]["context"]["audience_name"] == "Gold members"


def test_the_identity_form_is_chosen(run, server):
    done = run("fetch", "home-hero", "--customer-id", "john@example.com", "--identity", "flat", "--json")
    assert done.json()["experiences"]["home-hero"]["context"]["audience_name"] == "All Users"


def test_everything_that_somebody_qualifies_for(run, server):
    done = run("fetch", "--all", "--json")
    assert (done.status, "home-hero" in done.json()["experiences"]) == (0, True)
    assert run("fetch").status == run("fetch", "home-hero", "--all").status == 2


def test_it_explains(run, server):
    assert "audience" in run("fetch", "home-hero", "--explain").out
    found = run("fetch", "home-hero", "--explain", "--json").json()
    assert "MoEngage served it" in found["experiences"]["home-hero"]["explanation"]


def test_a_pipe_gets_lines_with_tabs(run, server):
    lines = run("fetch", "home-hero", "no-such-key").out.splitlines()
    assert lines[0] == "matched\thome-hero"
    assert "variable\tvalue" in lines
    assert lines[-1] == "no match\tno-such-key"


@pytest.mark.parametrize(
    ("trouble", "status", "kind"),
    [
        ({"status": 503}, 3, "ServerError"),
        ({"status": 401}, 2, "AuthenticationError"),
        ({"outcome": "hang"}, 3, "Dead"),
    ],
)
def test_trouble_is_told_on_stderr_and_by_the_status(trouble, status, kind, run, server):
    server.emulator.trouble(endpoints=("fetch",), **trouble)
    done = run("fetch", "home-hero", "--deadline", "0.5", "--json")
    assert done.status == status
    assert done.json()["error"]["kind"].startswith(kind)
    assert kind in done.err


def test_input_that_cannot_be_sent_is_a_usage_error(run, server):
    assert run("fetch", "home-hero", "--hour", "24").status == 2
    assert run("fetch", "home-hero", "--attribute", "nonsense").status == 2
    assert run("fetch", "home-hero", "--attribute", "customer_id=x").status == 2
    assert server.emulator.ledger.counts.requests == 0


def test_credentials_come_from_options_files_and_stdin(run, server, monkeypatch, tmp_path):
    ca_path, key = os.environ["SSL_CERT_FILE"], tmp_path / "key"
    for name in list(os.environ):
        if name.startswith("MOENGAGE_") or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)
    key.write_text("demo-key\n")
    given = ("metadata", "--workspace-id", "DEMO_WORKSPACE", "--base-url", server.base_url, "--ca-file", ca_path)
    assert run(*given).status == 2
    assert run(*given, "--api-key-file", key).status == 0
    assert run(*given, "--api-key", "demo-key").status == 0
    monkeypatch.setattr(sys, "stdin", key.open())
    assert run(*given, "--api-key-file", "-").status == 0
    sys.stdin.close()


def test_a_wrong_key_is_never_shown(run, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", "canary-key")
    done = run("metadata")
    assert done.status == 2
    assert "canary" not in done.out + done.err


def test_metadata_lists_experiences(run, server):
    done = run("metadata", "--status", "Paused", "--status", "Scheduled", "--json")
    assert {each["key"] for each in done.json()["experiences"]} == {"summer-sale", "winter-sale"}
    assert run("metadata").out.splitlines()[0] == "key\tstatus\tname"


def test_a_workspace_without_experiences_is_a_negative_answer(run, server):
    server.emulator.catalogue = Catalogue.of({})
    done = run("metadata", "--json")
    assert (done.status, done.json()) == (1, {"count": 0, "experiences": []})


def test_an_impression_is_delivered_before_the_command_ends(run, server):
    done = run("impression", "home-hero", "--customer-id", "customer-1", "--json")
    counts = server.emulator.ledger.counts
    assert (done.status, done.json()["fate"], counts.impressions, counts.clicks) == (0, "delivered", 1, 0)
    (event,) = server.emulator.ledger.events
    assert done.json()["event_uuid"] in event.raw


def test_a_click_carries_its_b_id_and_the_uuid_that_was_given(run, server):
    uuid = "aa886712-4537-47c1-b126-000000000001"
    given = ("--customer-id", "customer-1", "--b-id", "cta", "--event-uuid", uuid, "--platform", "ios")
    assert run("click", "home-hero", *given).out == f"ok\tdelivered as {uuid}\n"
    (event,) = server.emulator.ledger.events
    assert '"b_id":"cta"' in event.raw
    assert uuid in event.raw
    assert '"platform":"ios"' in event.raw


def test_what_was_not_served_is_not_reported(run, server):
    done = run("impression", "no-such-key", "--customer-id", "customer-1")
    assert (done.status, done.out) == (1, "wrong\tnothing to report: no-such-key was not served (no match)\n")
    assert server.emulator.ledger.counts.event_requests == 0


def test_an_event_that_cannot_be_delivered_is_told(run, server, monkeypatch):
    server.emulator.trouble(endpoints=("events",), status=503)
    done = run("impression", "home-hero", "--customer-id", "customer-1", "--deadline", "0.3", "--json")
    assert (done.status, done.json()["fate"]) == (3, "dropped")
    assert "given up" in done.err


def test_their_trouble_with_the_fetch_of_a_click_is_told(run, server):
    server.emulator.trouble(endpoints=("fetch",), status=500)
    done = run("click", "home-hero", "--customer-id", "customer-1", "--deadline", "0.5")
    assert (done.status, done.out) == (3, "")


@pytest.mark.parametrize("no_color", [None, "1"])
def test_a_terminal_gets_a_table_and_no_colour_if_it_wants_none(no_color, server, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color) if no_color else monkeypatch.delenv("NO_COLOR", raising=False)
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["fetch", "home-hero", "no-such-key"]) == 1
    seen = b""
    with contextlib.suppress(OSError):  # its other end is closed
        while piece := os.read(controller, 65_536):
            seen += piece
    os.close(controller)
    shown = seen.decode()
    assert "no-such-key" in shown
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in shown
    assert ("\x1b[3" in shown or "\x1b[1;3" in shown) is (no_color is None)
