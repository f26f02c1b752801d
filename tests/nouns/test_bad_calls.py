"""Bad input to the client's calls, with the message that a user reads. Nothing is sent, and nothing is counted."""

import math
import pickle
import traceback
import warnings
from pathlib import Path

import httpx
import pytest

from moengage_personalize import (
    Action,
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    ConfigurationError,
    Event,
    Experience,
    InSession,
    InvalidInputError,
    Reason,
    ReservedCustomerIdWarning,
)

pytestmark = pytest.mark.anyio

CONTEXT = dict.fromkeys("cid experience moe_locale_id moe_variation_id audience_name audience_id".split(), "x")
IMPRESSION = Event(action=Action.IMPRESSION, experience=CONTEXT, customer_id="john@example.com")
JSON_RULES = (
    "dicts with text keys, lists, text, finite numbers, booleans and None, no deeper than 64 levels and without lone"
    " surrogates"
)


@pytest.fixture
async def asked():
    return []


@pytest.fixture
async def client(asked):
    def answer(request):
        asked.append(request)
        return httpx.Response(200, json={"experiences": {}})

    transport = httpx.MockTransport(answer)
    async with AsyncPersonalizeClient("workspace", "key", "01", transport=transport) as client:
        yield client


def message_of(caught):
    """The message, which holds nothing of the visitor."""
    assert caught.type is InvalidInputError
    assert "secret" not in str(caught.value)
    pickle.loads(pickle.dumps(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "how", "message"),
    [
        ((), {}, "at least one experience key is needed; fetch_all asks for everything"),
        (("",), {}, "an experience key must be text of 1 to 50 characters"),
        (("k" * 51,), {}, "an experience key must be text of 1 to 50 characters"),
        ((["a", "b"],), {}, "experience keys are passed one by one: fetch(*keys), not fetch(keys)"),
        (("a",), {"customer_id": ""}, "customer_id must be text, and not empty"),
        (("a",), {"customer_id": 5}, "customer_id must be text, and not empty"),
        (
            ("a",),
            {"user_identifiers": {}},
            'user_identifiers must map names to text, such as {"u_em": "john@example.com"}',
        ),
        (("a",), {"session": {"time_of_day": "10"}}, "session must be an InSession"),
        (
            ("a",),
            {"attributes": {"customer_id": "secret"}},
            "attributes must not contain 'customer_id': it has an argument of its own",
        ),
        (("a",), {"attributes": ["secret"]}, "attributes must be a mapping of names to values"),
        (
            ("a",),
            {"attributes": {"utm": ["secret"]}},
            "the in-session attribute 'utm' must be text, a finite number or a boolean",
        ),
        (
            ("a",),
            {"attributes": {"utm": math.nan}},
            "the in-session attribute 'utm' must be text, a finite number or a boolean",
        ),
        (("a",), {"customer_id": "secret\ud800"}, f"the fetch request must be JSON: {JSON_RULES}"),
        (("a",), {"deadline": 0}, "deadline must be a number of seconds above 0"),
        (("a",), {"deadline": -1.0}, "deadline must be a number of seconds above 0"),
        (("a",), {"deadline": math.nan}, "deadline must be a number of seconds above 0"),
        (("a",), {"deadline": math.inf}, "deadline must be a number of seconds above 0"),
        (("a",), {"deadline": "1"}, "deadline must be a number of seconds above 0"),
    ],
)
async def test_a_fetch_that_cannot_be_sent(client, asked, keys, how, message):
    with pytest.raises(InvalidInputError) as caught:
        await client.fetch(*keys, **how)
    assert message_of(caught) == message
    assert not asked
    if keys == ("a",):
        with pytest.raises(InvalidInputError) as caught:
            await client.fetch_all(**how)
        assert message_of(caught) == message
    assert not asked


@pytest.mark.parametrize("on_error", ["", "Raise", True, 5, ["raise"]])
async def test_on_error_is_one_of_two_words(client, asked, on_error):
    with pytest.raises(ConfigurationError) as caught:
        await client.fetch("a", on_error=on_error)
    assert str(caught.value) == "fetch.on_error must be one of 'default', 'raise'"
    assert not asked


@pytest.mark.parametrize("status", ["active", [], 5])
async def test_metadata_of_an_unknown_status(client, asked, status):
    with pytest.raises(InvalidInputError) as caught:
        await client.metadata(status)
    assert message_of(caught) == "status must be one or more of Active, Paused, Scheduled, spelled so"
    assert not asked


LACKING = (
    "the experience context lacks experience, moe_locale_id, moe_variation_id, audience_name, audience_id:"
    " MoEngage would refuse the event"
)
EVENTS = [
    ({"customer_id": ""}, "customer_id must be text, and not empty"),
    ({"customer_id": None}, "customer_id must be text, and not empty"),
    ({"customer_id": "secret\ud800"}, f"customer_id must be JSON: {JSON_RULES}"),
    ({"platform": "mweb"}, "platform must be one of web, android, ios, tv"),
    ({"at": 1_725_258_666_000}, "at looks like milliseconds: epoch seconds are needed"),
    ({"at": -1}, "at must be a datetime with a time zone, or epoch seconds"),
    ({"event_uuid": "secret"}, "event_uuid must be a version 4 UUID, such as str(uuid.uuid4()) or event_uuid_for(…)"),
    (
        {"user_timezone_offset": 54_001},
        "user_timezone_offset must be whole seconds from -54000 to 54000 (19800 for IST)",
    ),
    ({"user_attributes": ["secret"]}, "user_attributes must be a mapping with names of text"),
    ({"user_attributes": {"secret": math.nan}}, f"user_attributes must be JSON: {JSON_RULES}"),
    (
        {"experience": "secret"},
        "an Experience is needed (page['home-hero'], not the page), or the experience_context that came with one",
    ),
    ({"experience": {"cid": "secret"}}, LACKING),
    ({"experience": CONTEXT | {"x": b"secret"}}, f"the experience context must be JSON: {JSON_RULES}"),
]


@pytest.mark.parametrize(("how", "message"), EVENTS)
async def test_an_event_that_cannot_be_sent(client, how, message):
    how = {"experience": CONTEXT, "customer_id": "john@example.com"} | how
    for call in (client.track_impression, client.track_click):
        with pytest.raises(InvalidInputError) as caught:
            call(how["experience"], **{name: value for name, value in how.items() if name != "experience"})
        assert message_of(caught) == message
    with pytest.raises(InvalidInputError) as caught:
        client.track(Event(action=Action.CLICK, **how))
    assert message_of(caught) == message
    stats = client.stats()
    assert (stats.offered, stats.pending, stats.balanced) == (0, 0, True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"b_id": ""}, "b_id must be text, and not empty"),
        ({"b_id": 5}, "b_id must be text, and not empty"),
        ({"attributes": {"cid": "secret"}}, "attributes must not contain 'cid': it has a meaning of its own"),
        ({"attributes": {"b_id": "secret"}}, "attributes must not contain 'b_id': it has a meaning of its own"),
        ({"attributes": ["secret"]}, "attributes must be a mapping of names to values"),
        ({"attributes": {"x": b"secret"}}, f"attributes must be JSON: {JSON_RULES}"),
    ],
)
async def test_a_click_that_cannot_be_sent(client, how, message):
    experience = Experience(key="hero", reason=Reason.MATCHED, source="network", context=CONTEXT)
    for what in (CONTEXT, experience):
        with pytest.raises(InvalidInputError) as caught:
            client.track_click(what, customer_id="john@example.com", **how)
        assert message_of(caught) == message
    assert client.stats().offered == 0


@pytest.mark.parametrize("event", [None, {}, CONTEXT, Event(action="shown", experience=CONTEXT, customer_id="john")])
async def test_what_is_no_event(client, event):
    with pytest.raises(InvalidInputError) as caught:
        client.track(event)
    assert message_of(caught) == "track needs an Event with an Action"


@pytest.mark.parametrize("how", [{"b_id": "x"}, {"attributes": {"x": 1}}])
async def test_what_belongs_to_clicks_belongs_to_clicks(client, how):
    event = Event(action=Action.IMPRESSION, experience=CONTEXT, customer_id="john@example.com", **how)
    with pytest.raises(InvalidInputError) as caught:
        client.track(event)
    assert message_of(caught) == "b_id and attributes belong to clicks"


RESERVED = (
    "customer_id is a value that MoEngage reserves (guest, null, unknown, 0, one character, …):"
    " its events may be refused or lost"
)


@pytest.mark.parametrize("customer_id", ["guest", "null", "x", "Customer_ID"])
async def test_a_reserved_customer_id_warns_at_the_callers_line_and_is_sent(client, asked, customer_id):
    for call in (
        lambda: client.track_impression(CONTEXT, customer_id=customer_id),
        lambda: client.track(Event(action=Action.CLICK, experience=CONTEXT, customer_id=customer_id)),
    ):
        with pytest.warns(ReservedCustomerIdWarning) as caught:
            assert call() is Admission.ACCEPTED
        assert str(caught[0].message) == RESERVED
        assert customer_id not in str(caught[0].message) or customer_id in RESERVED
        assert (caught[0].filename, caught[0].lineno) == (__file__, call.__code__.co_firstlineno)
    with pytest.warns(ReservedCustomerIdWarning) as caught:
        await client.fetch("a", customer_id=customer_id)
    assert (str(caught[0].message), caught[0].filename) == (RESERVED, __file__)
    assert len(asked) == 1


async def test_a_package_whose_name_begins_like_ours_is_the_caller_too(client):
    call = compile("\n\ntrack(CONTEXT, customer_id='guest')", "their_shop.py", "exec")
    with pytest.warns(ReservedCustomerIdWarning) as caught:
        exec(call, {"__package__": "moengage_personalize_shop", "track": client.track_impression, "CONTEXT": CONTEXT})
    assert (caught[0].filename, caught[0].lineno) == ("their_shop.py", 3)


async def test_an_ordinary_customer_id_warns_of_nothing(client):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.track_impression(CONTEXT, customer_id="john@example.com")
        await client.fetch("a", customer_id="john@example.com", session=InSession(time_of_day="23"))


FITS = "must be 1 to 512 printable ASCII characters without spaces (it becomes part of a header)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("secret\r\nX: 1", "key", "01"), f"workspace_id {FITS}, and no colon"),
        ((lambda: "secret", "key", "01"), f"workspace_id {FITS}, and no colon"),
        (("workspace", "secret\x00", "01"), f"api_key {FITS}"),
        (("workspace", 5, "01"), f"api_key {FITS}"),
        (
            ("workspace", "key", "01.evil.com#"),
            "data_center is none of MoEngage's: use 01 to 06, or 101 (1 and 'dc-01' are accepted)",
        ),
        ((None, "key", "01"), "workspace_id is missing: pass it, or set MOENGAGE_WORKSPACE_ID"),
        (("workspace", None, "01"), "api_key is missing: pass it, or set MOENGAGE_PERSONALIZE_API_KEY"),
    ],
)
def test_a_client_that_cannot_be_made(monkeypatch, arguments, message):
    for name in ("WORKSPACE_ID", "PERSONALIZE_API_KEY", "DATA_CENTER", "PERSONALIZE_BASE_URL", "PERSONALIZE_DISABLED"):
        monkeypatch.delenv(f"MOENGAGE_{name}", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        AsyncPersonalizeClient(*arguments)
    assert str(caught.value) == message
    assert "secret" not in held_by(caught.tb)


def held_by(tb):
    """What the package's frames hold, as tools show it that print local variables."""
    ours = (frame for frame, _ in traceback.walk_tb(tb) if "/moengage_personalize/" in frame.f_code.co_filename)
    return repr([{name: value for name, value in frame.f_locals.items() if name != "self"} for frame in ours])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batching": {"linger": 1}}, "batching must be a BatchPolicy, such as BatchPolicy()"),
        ({"fetching": BatchPolicy()}, "fetching must be a FetchPolicy, such as FetchPolicy()"),
        ({"caching": None}, "caching must be a CachePolicy, such as CachePolicy()"),
        ({"retrying": 3}, "retrying must be a RetryPolicy, such as RetryPolicy()"),
        ({"enabled": "false"}, "enabled must be True or False"),
        ({"spool": "/var/spool/shop"}, "spool must be a spool, such as DiskSpool(directory)"),
        ({"spool": Path("/var/spool/shop")}, "spool must be a spool, such as DiskSpool(directory)"),
        ({"proxy": "secret.example:3128"}, "proxy must look like http://host:port (or https, socks5, socks5h)"),
        ({"proxy": "http://john:secret@"}, "proxy must look like http://host:port (or https, socks5, socks5h)"),
        ({"proxy": "http://[secret"}, "proxy must look like http://host:port (or https, socks5, socks5h)"),
        (
            {"proxy": "ftp://john:secret@proxy.example"},
            "proxy must look like http://host:port (or https, socks5, socks5h)",
        ),
    ],
)
def test_what_would_fail_when_the_client_is_opened_fails_when_it_is_made(options, message):
    with pytest.raises(ConfigurationError) as caught:
        AsyncPersonalizeClient("workspace", "key", "01", **options)
    assert str(caught.value) == message
    assert "secret" not in held_by(caught.tb)


def test_a_socks_proxy_without_its_package_says_which(monkeypatch):
    monkeypatch.setattr("moengage_personalize._client._speaks_socks", lambda: False)
    with pytest.raises(
        ConfigurationError, match=r"^a SOCKS proxy needs one package more: pip install 'httpx\[socks\]'$"
    ):
        AsyncPersonalizeClient("workspace", "key", "01", proxy="socks5://john:secret@proxy.example:1080")
    monkeypatch.setattr("moengage_personalize._client._speaks_socks", lambda: True)
    AsyncPersonalizeClient("workspace", "key", "01", proxy="socks5://john:secret@proxy.example:1080")


async def test_certificates_that_are_not_there_are_named_with_the_variable(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/ca.pem")
    with pytest.raises(ConfigurationError) as caught:
        await AsyncPersonalizeClient("workspace", "key", "01").__aenter__()
    assert str(caught.value) == "SSL_CERT_FILE names no file of certificates that can be read: /no/such/ca.pem"


async def test_an_empty_variable_names_no_certificates(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "")
    async with AsyncPersonalizeClient("workspace", "key", "01") as client:
        assert client.health().condition == "healthy"
