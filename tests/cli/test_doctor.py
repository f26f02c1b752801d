"""`doctor` names the cause: each of the eight, over real TLS, and what it says when it cannot tell."""

import datetime as dt
import re
import socket
import ssl

import pytest
from cli.kit import dated
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from faults.certificates import Certificates
from faults.server import FaultServer, ServerConfig, black_hole, refused_port

from moengage_personalize.cli import _probes
from moengage_personalize.cli._diagnosis import Answer, clock, credentials, identity
from moengage_personalize.cli._way_there import Handshake, way_there
from moengage_personalize.emulator import Emulator, serve_in_thread

STEPS = [
    "configuration", "address", "connection", "tls", "http2", "workspace", "key", "data centre", "clock", "identity"
]  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def doctor(run):
    """Runs the doctor; returns its exit status, the causes, and the verdicts by step."""

    def doctor(*arguments):
        done = run("doctor", "--json", *arguments)
        report = done.json()
        steps = {step["step"]: step for step in report["steps"]}
        assert set(steps) >= set(STEPS)
        assert report["ok"] is (not report["causes"])
        assert all(step["remedy"] for step in report["steps"] if step["verdict"] == "wrong")
        return done.status, report["causes"], steps

    return doctor


def verdicts(steps):
    return {name: step["verdict"] for name, step in steps.items()}


# ── the eight ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_up_that_is_right_has_no_cause(doctor, server):
    dated(server, 0)
    status, causes, steps = doctor("--key", "home-hero", "--customer-id", "john@example.com")
    assert (status, causes) == (0, [])
    assert set(verdicts(steps).values()) == {"ok"}


def test_a_wrong_key_is_told_from_a_wrong_workspace(doctor, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", "the-key-of-another-tile")
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["wrong-key"])
    assert steps["workspace"]["verdict"] == steps["data centre"]["verdict"] == "ok"


def test_a_wrong_workspace(doctor, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", "ANOTHER_WORKSPACE")
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["wrong-workspace"])
    assert steps["key"]["verdict"] == "unknown"
    assert "--try-data-centers" in steps["data centre"]["remedy"]


def test_where_credentials_are_compared_first_it_says_that_it_may_be_either(doctor, monkeypatch):
    with serve_in_thread(Emulator("DEMO_WORKSPACE", "demo-key", identity="flat")) as server:
        for name, value in {**server.emulator.exports, "MOENGAGE_PERSONALIZE_API_KEY": "wrong"}.items():
            monkeypatch.setenv(name, value)
        status, causes, steps = doctor()
    assert (status, causes) == (1, ["wrong-key-or-workspace"])
    assert "either" in steps["key"]["evidence"]


def test_a_wrong_data_centre_if_it_may_ask_the_others(doctor, monkeypatch, tmp_path):
    authority = tmp_path / "ca.pem"
    home, here = Emulator("OURS", "our-key"), Emulator("THEIRS", "their-key")
    with serve_in_thread(home, ca_path=authority) as there, serve_in_thread(here, ca_path=authority) as wrong:
        monkeypatch.setattr(_probes, "DATA_CENTERS", {"01": wrong.base_url, "02": there.base_url})
        given = ("--workspace-id", "OURS", "--api-key", "our-key", "--base-url", wrong.base_url, "--ca-file", authority)
        assert doctor(*given)[1] == ["wrong-workspace"]
        assert home.ledger.counts.requests == 0, "nobody allowed it"
        status, causes, steps = doctor(*given, "--try-data-centers")
    assert (status, causes) == (1, ["wrong-data-center"])
    assert "MOENGAGE_DATA_CENTER=02" in steps["data centre"]["remedy"]
    assert steps["workspace"]["verdict"] == steps["key"]["verdict"] == "ok"


def test_no_http2(doctor, server):
    server._tls.set_alpn_protocols(["http/1.1"])
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["no-http2"])
    assert steps["workspace"]["verdict"] == "ok", "it works all the same"


@pytest.mark.parametrize(
    ("certificate", "words"),
    [("expired", "has expired"), ("wrong_ca", "unable to get local issuer"), ("wrong_host", "mismatch")],
)
def test_broken_tls(certificate, words, doctor, certificates, monkeypatch):
    config = ServerConfig(certificates=str(certificates.directory), certificate=certificate)
    with FaultServer(config) as server:
        here(monkeypatch, server.url, certificates.authority)
        status, causes, steps = doctor("--key", "home-hero")
    assert (status, causes) == (1, ["broken-tls"])
    assert words in steps["tls"]["evidence"].lower()
    assert steps["connection"]["verdict"] == "ok"
    assert steps["experience home-hero"]["verdict"] == steps["workspace"]["verdict"] == "unknown"
    assert set(server.seen.requests) <= {"/"}, "a request with credentials went to a stranger"


def test_a_server_without_tls_is_broken_tls(doctor, monkeypatch, certificates):
    with FaultServer(ServerConfig()) as server:
        here(monkeypatch, server.url.replace("http:", "https:"), certificates.authority)
        assert doctor()[1] == ["broken-tls"]
        assert server.seen.streams == 0


def test_a_server_with_old_tls_only_is_broken_tls(doctor, monkeypatch, certificates):
    with FaultServer(ServerConfig(certificates=str(certificates.directory), tls_maximum="TLSv1_1")) as server:
        here(monkeypatch, server.url, certificates.authority)
        assert doctor()[1] == ["broken-tls"]


def home_made(directory):
    """An authority and a certificate for localhost, without half of what RFC 5280 asks; the second with its key."""
    day, now = dt.timedelta(days=1), dt.datetime.now(dt.UTC)
    named = {who: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)]) for who in ("at home", "localhost")}
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in named}
    says = {
        "at home": x509.BasicConstraints(ca=True, path_length=None),
        "localhost": x509.SubjectAlternativeName([x509.DNSName("localhost")]),
    }
    for who, name in named.items():
        bare = x509.CertificateBuilder(
            named["at home"], name, keys[who].public_key(), 1 + len(who), now - day, now + day
        )
        signed = bare.add_extension(says[who], critical=False).sign(keys["at home"], hashes.SHA256())
        (directory / who).write_bytes(
            keys[who].private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + signed.public_bytes(serialization.Encoding.PEM)
        )
    return directory / "at home", directory / "localhost"


def test_a_home_made_certificate_is_refused_by_newer_pythons_only_and_they_say_why(
    doctor, server, monkeypatch, tmp_path
):
    authority, certificate = home_made(tmp_path)
    server._tls.load_cert_chain(certificate)
    here(monkeypatch, server.base_url.replace("127.0.0.1", "localhost"), authority)
    make = ssl.create_default_context
    for strictly, causes in ((False, []), (True, ["broken-tls"])):

        def context(strictly=strictly, **authorities):
            context = make(**authorities)
            lax = context.verify_flags & ~ssl.VERIFY_X509_STRICT
            context.verify_flags = lax | (ssl.VERIFY_X509_STRICT if strictly else 0)
            return context

        monkeypatch.setattr(ssl, "create_default_context", context)
        _, found, steps = doctor()
        assert found == causes
    assert "RFC 5280" in steps["tls"]["remedy"]


@pytest.mark.parametrize(("ahead", "words"), [(3_600, "behind"), (-3_600, "ahead of")])
def test_a_skewed_clock(ahead, words, doctor, server):
    dated(server, ahead)
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["clock-skewed"])
    assert words in steps["clock"]["evidence"]
    assert re.search(r"\b(3599|360[0-2]) s", steps["clock"]["evidence"])


def test_a_clock_that_is_right(doctor, server):
    _, causes, steps = doctor()
    assert causes == []
    assert (steps["clock"]["verdict"], steps["clock"]["evidence"]) == ("ok", "within 10 s of MoEngage's")


def test_a_clock_so_skewed_that_certificates_fail_is_named_too(doctor, server, certificates, monkeypatch):
    chain, key = certificates.chain("expired"), certificates.key("expired")
    server._tls.load_cert_chain(chain, key)  # to somebody whose clock is years ahead, every certificate is this one
    here(monkeypatch, server.base_url.replace("127.0.0.1", "localhost"), certificates.authority)
    dated(server, -86_400 * 400)
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["clock-skewed"])
    assert steps["tls"]["verdict"] == "wrong"
    assert server.emulator.ledger.counts.metadata_requests == 0, "credentials went out unverified"


def test_an_unknown_experience_key_and_the_nearest_that_exists(doctor, server):
    status, causes, steps = doctor("--key", "home-hero", "--key", "Home-hero")
    assert (status, causes) == (1, ["unknown-experience-key"])
    assert steps["experience home-hero"]["verdict"] == "ok"
    assert "home-hero" in steps["experience Home-hero"]["remedy"]


def test_a_key_that_is_paused_or_scheduled(doctor, server):
    _, causes, steps = doctor("--key", "summer-sale", "--key", "winter-sale")
    assert causes == ["inactive-experience-key"]
    assert "paused" in steps["experience summer-sale"]["evidence"]


def test_a_wrong_identity_form(doctor, server):
    status, causes, steps = doctor("--customer-id", "john@example.com", "--key", "home-hero", "--identity", "flat")
    assert (status, causes) == (1, ["wrong-identity-form"])
    assert "as flat the customer is served what anybody is served" in steps["identity"]["evidence"]
    assert doctor("--customer-id", "john@example.com", "--identity", "identifiers")[1] == []


def test_the_older_document_has_it_the_other_way_round(doctor, monkeypatch):
    with serve_in_thread(Emulator(identity="flat")) as server:
        for name, value in server.emulator.exports.items():
            monkeypatch.setenv(name, value)
        given = ("--customer-id", "john@example.com", "--key", "home-hero", "--identity")
        assert doctor(*given, "identifiers")[1] == ["wrong-identity-form"]
        assert doctor(*given, "flat")[1] == doctor(*given, "both")[1] == []


def test_of_a_customer_who_qualifies_for_nothing_it_cannot_tell(doctor, server):
    status, causes, steps = doctor("--customer-id", "nobody@example.com", "--identity", "flat")
    assert (status, causes) == (0, [])
    assert steps["identity"]["verdict"] == "unknown"
    assert "qualifies" in steps["identity"]["remedy"]


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def here(monkeypatch, url, authority):
    monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", "DEMO_WORKSPACE")
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", "demo-key")
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))


def test_without_configuration_it_says_what_is_missing(doctor):
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["configuration"])
    assert "MOENGAGE_WORKSPACE_ID" in steps["configuration"]["evidence"]


def test_a_disabled_client_is_a_matter_of_configuration(doctor, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_DISABLED", "1")
    _, causes, steps = doctor()
    assert causes == ["configuration"]
    assert "DISABLED" in steps["configuration"]["evidence"]


def test_a_port_where_nobody_listens(doctor, monkeypatch, certificates):
    here(monkeypatch, f"https://localhost:{refused_port()}", certificates.authority)
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["unreachable"])
    assert (steps["address"]["verdict"], steps["connection"]["verdict"]) == ("ok", "wrong")


def test_a_host_that_swallows_connections(doctor, monkeypatch, certificates):
    monkeypatch.setattr(_probes, "PATIENCE", 0.2)
    with black_hole() as port:
        here(monkeypatch, f"https://127.0.0.1:{port}", certificates.authority)
        _, causes, steps = doctor()
    assert causes == ["unreachable"]
    assert "within 0.2 s" in steps["connection"]["evidence"]


def test_a_handshake_that_never_ends(doctor, monkeypatch, certificates):
    monkeypatch.setattr(_probes, "PATIENCE", 0.2)
    never = ServerConfig(certificates=str(certificates.directory), greeting="stalled_handshake")
    with FaultServer(never) as server:
        here(monkeypatch, server.url, certificates.authority)
        _, causes, steps = doctor()
    assert causes == ["broken-tls"]
    assert "within 0.2 s" in steps["tls"]["evidence"]


def test_a_host_that_has_no_address(doctor, monkeypatch, certificates):
    def nowhere(*_args, **_named):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("uvloop.new_event_loop", __import__("asyncio").SelectorEventLoop)  # it asks the system itself
    here(monkeypatch, "https://sdk.moengage.invalid", certificates.authority)
    status, causes, steps = doctor()
    assert (status, causes) == (1, ["unreachable"])
    assert steps["address"]["verdict"] == "wrong"


def test_their_trouble_is_no_fault_of_the_set_up(doctor, server):
    server.emulator.trouble(status=503)
    status, causes, steps = doctor("--key", "home-hero")
    assert (status, causes) == (3, [])
    assert steps["experience home-hero"]["verdict"] == "unknown"


def test_what_is_no_answer_of_moengages_is_a_wrong_base_url(doctor, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_BASE_URL", f"{server.base_url}/elsewhere")
    assert doctor()[:2] == (1, ["wrong-base-url"])


def test_plain_http_to_this_machine_has_no_tls_to_look_at(doctor, monkeypatch):
    with serve_in_thread(Emulator(), tls=False) as server:
        for name, value in server.emulator.exports.items():
            monkeypatch.setenv(name, value)
        status, causes, steps = doctor()
    assert (status, causes) == (0, [])
    assert verdicts(steps)["tls"] == "unknown"


def test_it_shows_neither_id_nor_key(run, server, monkeypatch):
    monkeypatch.setenv("MOENGAGE_PERSONALIZE_API_KEY", "canary-key")
    done = run("doctor", "--customer-id", "canary-customer", "--key", "home-hero")
    assert "canary" not in done.out + done.err
    assert "DEMO_WORKSPACE" not in done.out + done.err
    assert done.out.splitlines()[0].startswith("ok\tconfiguration\t")


# ── the judgement alone ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ours", "invented", "causes"),
    [
        (200, None, [None, None, None]),
        (400, 400, ["wrong-workspace", None, None]),
        (401, 400, [None, "wrong-key", None]),
        (401, 401, [None, "wrong-key-or-workspace", None]),
        (401, None, [None, "wrong-key-or-workspace", None]),
        (403, 401, [None, "not-allowed", None]),
        (400, 401, [None, "not-allowed", None]),
        (404, None, ["wrong-base-url", None, None]),
        (429, None, [None, None, None]),
        (503, None, [None, None, None]),
        (None, None, [None, None, None]),
    ],
)
def test_what_the_answers_say_of_the_credentials(ours, invented, causes):
    found = credentials(
        Answer(status=ours, words="said"),
        None if invented is None else Answer(status=invented),
        {},
        asked_elsewhere=False,
    )
    assert [finding.cause for finding in found] == causes
    assert [finding.step for finding in found] == ["workspace", "key", "data centre"]
    assert any(finding.trouble for finding in found) is (ours in (429, 503, None))


def test_that_no_other_data_centre_knows_them_is_said():
    *_, last = credentials(Answer(status=400), Answer(status=400), {"02": Answer(status=400)}, asked_elsewhere=True)
    assert "no other" in last.evidence


@pytest.mark.parametrize(
    ("skew", "verdict"), [(None, "unknown"), (0.4, "ok"), (-9.0, "ok"), (11, "wrong"), (-11, "wrong")]
)
def test_seconds_that_a_date_cannot_tell_are_no_skew(skew, verdict):
    assert clock(skew).verdict == verdict


def test_what_alpn_chose_is_named():
    *_, last = way_there("host", Handshake(stage="done", protocol=None, tls="TLSv1.3"))
    assert "nothing" in last.evidence


ALL, GOLD = {"a": frozenset({"all"})}, {"a": frozenset({"gold"})}


def test_a_form_that_is_heard_is_right_whatever_the_others_are():
    served = {"both": GOLD, "identifiers": ALL, "flat": ALL}
    assert identity("both", ALL, served).verdict == "ok"
    assert identity("flat", ALL, served).cause == "wrong-identity-form"


def test_to_be_in_a_control_group_is_no_sign_of_being_heard():
    assert identity("both", ALL, {"both": {}, "identifiers": {}, "flat": ALL}).verdict == "unknown"


def test_to_be_served_what_nobody_else_is_served_is_one():
    assert identity("both", {}, {"both": GOLD, "identifiers": GOLD, "flat": {}}).verdict == "ok"
