# ruff: noqa: RUF001 - digits and letters of other scripts are what is tested
"""Every bad input, with the message that a user reads. No message repeats a secret, an id or a payload."""

import math
import re
import uuid
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address

import pytest
from hypothesis import example, given, strategies as st

from moengage_personalize import (
    BatchPolicy,
    ConfigurationError,
    Experiences,
    FetchPolicy,
    InSession,
    InvalidInputError,
    PersonalizeError,
    RetryPolicy,
    event_uuid_for,
)
from moengage_personalize._config import Secret, parse_base_url, parse_data_center, resolve
from moengage_personalize._credentials import current_api_key
from moengage_personalize._events import check_event_uuid, check_platform, check_time, check_timezone_offset
from moengage_personalize._session import check_customer_id, check_user_identifiers, is_reserved
from moengage_personalize.core.wire import (
    check_keys,
    encode_attributes,
    encode_click_context,
    encode_context,
    encode_context_of_fetch,
    fetch_fields,
)
from moengage_personalize.core.wire.metadata import metadata_target

CONTEXT = dict.fromkeys("cid experience moe_locale_id moe_variation_id audience_name audience_id".split(), "x")
SURROGATE = "secret\ud800"
DEEP = [[]]
for _ in range(64):
    DEEP = [DEEP]
NOT_JSON = (
    "dicts with text keys, lists, text, finite numbers, booleans and None, no deeper than 64 levels and without lone"
    " surrogates"
)


def refusal(kind, function, *args, **kwargs):
    """The message of the one error that is raised; nothing secret that was passed is in it."""
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, ValueError)
    assert isinstance(error, PersonalizeError)
    assert error.__suppress_context__ or error.__context__ is None
    message = str(error)
    assert "secret" not in message
    return message


# ── in session ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "hour", ["24", "-1", "9", "9:00", "", "00 ", "0９", "19,20", 9, 0, True, 9.0, ["10"], {}, b"10"]
)
def test_an_hour_is_two_digits_of_text(hour):
    message = 'time_of_day must be the hour in UTC as two digits of text, "00" to "23"'
    assert refusal(InvalidInputError, InSession, time_of_day=hour) == message


@pytest.mark.parametrize("day", ["monday", "MONDAY", "Mon", "Monday ", "", 0, 1, True, ["Monday"], b"Monday"])
def test_a_day_is_spelled_as_documented(day):
    message = "day_of_week must be one of Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, spelled so"
    assert refusal(InvalidInputError, InSession, day_of_week=day) == message


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4/24",
        "1.2.3.4:80",
        " 1.2.3.4",
        "[::1]",
        "fe80::1%eth0",
        "::1%\r\n",
        "01.2.3.4",
        5,
        0,
        True,
        b"1.2.3.4",
        ip_address("1.2.3.4"),
        ["::1"],
    ],
)
def test_an_address_is_one(address):
    assert refusal(InvalidInputError, InSession, ip_address=address) == "ip_address must be an IPv4 or IPv6 address"


@pytest.mark.parametrize("agent", ["", 5, b"Mozilla", ["Mozilla"], True])
def test_a_user_agent_is_text(agent):
    assert refusal(InvalidInputError, InSession, user_agent=agent) == "user_agent must be text, and not empty"


class Nowhere(tzinfo):
    def utcoffset(self, _):
        return None


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=Nowhere()), 5, None, "now"])  # noqa: DTZ001
def test_a_session_at_a_moment_needs_a_time_zone(moment):
    message = "InSession.at needs a datetime with a time zone, such as datetime.now(UTC)"
    assert refusal(InvalidInputError, InSession.at, moment) == message


# ── who ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("customer_id", ["", None, 5, b"john", ["john"], True, uuid.uuid4()])
def test_a_customer_id_is_text(customer_id):
    assert refusal(InvalidInputError, check_customer_id, customer_id) == "customer_id must be text, and not empty"


@pytest.mark.parametrize(
    "identifiers",
    [
        {},
        [],
        "u_em",
        None,
        5,
        {"u_em": ""},
        {"": "secret"},
        {"u_em": 5},
        {5: "secret"},
        {"u_em": None},
        [("u_em", "secret")],
    ],
)
def test_user_identifiers_map_text_to_text(identifiers):
    message = 'user_identifiers must map names to text, such as {"u_em": "john@example.com"}'
    assert refusal(InvalidInputError, check_user_identifiers, identifiers) == message


@pytest.mark.parametrize(
    "customer_id", "guest null unknown none NULL Guest n/a na true False -1 0 1 id uid user_id customer_id x é".split()
)
def test_what_moengage_reserves_is_known(customer_id):
    assert is_reserved(customer_id)


@pytest.mark.parametrize("customer_id", ["john@example.com", "guest-1", "10", "nullable", "unknowns", "ab"])
def test_what_moengage_does_not_reserve_is_not_warned_of(customer_id):
    assert not is_reserved(customer_id)


# ── fetch ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keys", [[""], ["k" * 51], ["fine", ""], [5], [None], [b"key"], [{}], [True]])
def test_a_key_is_text_of_1_to_50_characters(keys):
    assert refusal(InvalidInputError, check_keys, keys) == "an experience key must be text of 1 to 50 characters"


@pytest.mark.parametrize("keys", [["a", "b"], ("a",), {"a"}, frozenset()])
def test_keys_are_passed_one_by_one(keys):
    message = "experience keys are passed one by one: fetch(*keys), not fetch(keys)"
    assert refusal(InvalidInputError, check_keys, [keys]) == message


def test_no_key_is_not_everything():
    message = "at least one experience key is needed; fetch_all asks for everything"
    assert refusal(InvalidInputError, check_keys, ()) == message


def fields(attributes=None, *, identity="both", user_identifiers=None):
    return fetch_fields(
        customer_id=None, user_identifiers=user_identifiers, session=None, attributes=attributes, identity=identity
    )


OURS = (
    "customer_id identifiers user_identifiers experience_key DAY_OF_THE_WEEK TIME_OF_THE_DAY USER_IP_ADDRESS USER_AGENT"
).split()


@pytest.mark.parametrize("name", OURS)
def test_an_attribute_does_not_take_the_name_of_a_field_of_ours(name):
    message = f"attributes must not contain {name!r}: it has an argument of its own"
    with pytest.raises(InvalidInputError) as caught:
        fields({"fine": "x", name: "secret"})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["", 5, None, b"utm", ("a",)])
def test_an_attributes_name_is_text(name):
    message = "the name of an in-session attribute must be text, and not empty"
    assert refusal(InvalidInputError, fields, {name: "x"}) == message


@pytest.mark.parametrize(
    "value", [None, ["a"], {"a": 1}, b"x", Decimal(1), object(), ("a",), {"a"}, math.nan, -math.inf]
)
def test_an_attributes_value_is_a_scalar(value):
    message = "the in-session attribute 'utm' must be text, a finite number or a boolean"
    assert refusal(InvalidInputError, fields, {"utm": value}) == message


@pytest.mark.parametrize("attributes", [[("a", "b")], "utm", 5, {"utm"}])
def test_attributes_are_a_mapping(attributes):
    message = "attributes must be a mapping of names to values"
    assert refusal(InvalidInputError, fields, attributes) == message
    assert refusal(InvalidInputError, encode_click_context, CONTEXT, None, attributes) == message


def test_user_identifiers_have_no_place_in_the_flat_form():
    message = 'user_identifiers cannot be sent with identity="flat": use "both" or "identifiers"'
    assert refusal(InvalidInputError, fields, identity="flat", user_identifiers={"u_em": "e"}) == message


@pytest.mark.parametrize("value", [SURROGATE, 10**400])
def test_an_attribute_that_is_no_json_is_refused_when_the_request_is_built(value):
    message = refusal(InvalidInputError, encode_context_of_fetch, fields({"utm": value}))
    assert message == f"the fetch request must be JSON: {NOT_JSON}"


def test_a_key_that_is_no_unicode_is_refused_when_the_request_is_built():
    message = refusal(InvalidInputError, check_keys, [SURROGATE])
    assert message == f"an experience key must be JSON: {NOT_JSON}"


@pytest.mark.parametrize(
    "status", ["active", "", [], (), ["Active", "paused"], 5, True, [[]], "Active,Paused", b"Active"]
)
def test_a_status_is_one_of_moengages(status):
    message = "status must be one or more of Active, Paused, Scheduled, spelled so"
    assert refusal(InvalidInputError, metadata_target, status) == message


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

NO_UUID = "event_uuid must be a version 4 UUID, such as str(uuid.uuid4()) or event_uuid_for(…)"


@pytest.mark.parametrize(
    "event_uuid",
    [
        "",
        "x",
        5,
        None,
        b"aa886712-4537-47c1-b126-2686efda2e26",
        True,
        "aa886712-4537-17c1-b126-2686efda2e26",  # version 1
        "aa886712-4537-77c1-b126-2686efda2e26",  # version 7
        "aa886712-4537-47c1-7126-2686efda2e26",  # no RFC variant
        "aa886712-4537-47c1-c126-2686efda2e26",
        "aa886712453747c1b1262686efda2e26",
        "{aa886712-4537-47c1-b126-2686efda2e26}",
        "urn:uuid:aa886712-4537-47c1-b126-2686efda2e26",
        "aa886712-4537-47c1-b126-2686efda2e26\n",
        "aa886712-4537-47c1-b126-2686efda2e2g",
        "aa88671٢-4537-47c1-b126-2686efda2e26",
        uuid.uuid1(),
        uuid.uuid5(uuid.NAMESPACE_DNS, "x"),
        uuid.UUID(int=0),
    ],
)
def test_a_uuid_is_shaped_like_version_4(event_uuid):
    assert refusal(InvalidInputError, check_event_uuid, event_uuid) == NO_UUID


@pytest.mark.parametrize("parts", [(), (1.5,), (None,), (b"x",), ("a", ["b"])])
def test_a_made_uuid_is_made_of_texts_and_whole_numbers(parts):
    assert (
        refusal(InvalidInputError, event_uuid_for, *parts) == "event_uuid_for needs one or more texts or whole numbers"
    )


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=Nowhere())])  # noqa: DTZ001
def test_a_naive_time_is_refused(at):
    message = "at must have a time zone: a naive datetime could mean any hour"
    assert refusal(InvalidInputError, check_time, at) == message


@pytest.mark.parametrize("at", [1_725_258_666_000, 1e11, 1_725_258_666_000.5, math.inf, 10**400])
def test_milliseconds_are_refused(at):
    assert refusal(InvalidInputError, check_time, at) == "at looks like milliseconds: epoch seconds are needed"


@pytest.mark.parametrize(
    "at",
    [
        math.nan,
        -1,
        -0.5,
        -math.inf,
        True,
        None,
        "1725258666",
        "2026-01-01T00:00:00Z",
        Decimal(5),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC).date(),
        [5],
    ],
)
def test_what_is_no_time_is_refused(at):
    message = "at must be a datetime with a time zone, or epoch seconds"
    assert refusal(InvalidInputError, check_time, at) == message


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (0, 0),
        (1_725_258_666, 1_725_258_666),
        (1_725_258_666.9, 1_725_258_666),
        (datetime(2024, 9, 2, 6, 31, 6, tzinfo=UTC), 1_725_258_666),
        (datetime(2024, 9, 2, 12, 1, 6, 900_000, tzinfo=timezone(timedelta(hours=5, minutes=30))), 1_725_258_666),
    ],
)
def test_a_time_is_whole_seconds(at, seconds):
    assert check_time(at) == seconds
    assert type(check_time(at)) is int


@pytest.mark.parametrize("platform", ["", "Unknown", "mweb", "web ", "ＷＥＢ", 5, None, b"web", ["web"], True])
def test_a_platform_is_one_of_four(platform):
    assert refusal(InvalidInputError, check_platform, platform) == "platform must be one of web, android, ios, tv"


@pytest.mark.parametrize("platform", ["web", "Android", "iOS", "TV"])
def test_a_platform_is_sent_in_lower_case(platform):
    assert check_platform(platform) == platform.lower()


@pytest.mark.parametrize("offset", [54_001, -54_001, 10**30, True, False, 1.5, 19_800.0, math.nan, "19800", None, [0]])
def test_an_offset_is_whole_seconds_within_15_hours(offset):
    message = "user_timezone_offset must be whole seconds from -54000 to 54000 (19800 for IST)"
    assert refusal(InvalidInputError, check_timezone_offset, offset) == message


def test_an_offset_at_the_bounds_is_fine_and_a_plain_number():
    class Zone(int, Enum):
        IST = 19_800

    assert [check_timezone_offset(offset) for offset in (-54_000, 0, 54_000)] == [-54_000, 0, 54_000]
    assert str(check_timezone_offset(Zone.IST)) == "19800"


@pytest.mark.parametrize("attributes", [[], "secret", 5, {"": 1}, {5: 1}, {None: 1}, [("a", 1)]])
def test_user_attributes_are_a_mapping(attributes):
    message = "user_attributes must be a mapping with names of text"
    assert refusal(InvalidInputError, encode_attributes, attributes) == message


@pytest.mark.parametrize(
    "value", [math.nan, -math.inf, SURROGATE, {SURROGATE: 1}, {1: 2}, b"x", {1}, object(), DEEP, 10**400, 1j]
)
def test_what_is_no_json_is_refused(value):
    for function, what in [
        (lambda: encode_attributes({"a": value}), "user_attributes"),
        (lambda: encode_context(CONTEXT | {"a": value}), "the experience context"),
        (lambda: encode_click_context(CONTEXT, None, {"a": value}), "attributes"),
    ]:
        assert refusal(InvalidInputError, function) == f"{what} must be JSON: {NOT_JSON}"
    assert refusal(InvalidInputError, encode_attributes, {SURROGATE: 1}) == f"user_attributes must be JSON: {NOT_JSON}"


@pytest.mark.parametrize("context", [None, "cid", 5, [], ["cid"], object(), Experiences(entries={})])
def test_a_context_is_a_mapping(context):
    message = "an Experience is needed (page['home-hero'], not the page), or the experience_context that came with one"
    assert refusal(InvalidInputError, encode_context, context) == message
    assert refusal(InvalidInputError, encode_click_context, context, "secret id", None) == message


def test_a_context_has_what_moengage_requires():
    message = "the experience context lacks cid, audience_id: MoEngage would refuse the event"
    partial = {name: "x" for name in CONTEXT if name not in ("cid", "audience_id")}
    assert refusal(InvalidInputError, encode_context, partial) == message
    assert refusal(InvalidInputError, encode_click_context, partial, None, {"a": 1}) == message


@pytest.mark.parametrize("name", ["cid", "b_id", "audience_name"])
def test_a_clicks_attribute_does_not_take_the_name_of_a_context_field(name):
    message = f"attributes must not contain {name!r}: it has a meaning of its own"
    with pytest.raises(InvalidInputError) as caught:
        encode_click_context(CONTEXT, None, {name: "secret"})
    assert str(caught.value) == message


@pytest.mark.parametrize("b_id", ["", 5, b"x", ["x"], True])
def test_a_b_id_is_text(b_id):
    assert refusal(InvalidInputError, encode_click_context, CONTEXT, b_id, None) == "b_id must be text, and not empty"


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────

FITS = "must be 1 to 512 printable ASCII characters without spaces (it becomes part of a header)"
BAD_HEADERS = [
    "",
    " ",
    "secret key",
    "secret\r\nX-Evil: 1",
    "secret\n",
    "secret\r",
    "secret\x00",
    "sécret",
    "secret\x7f",
    "s" * 513,
    SURROGATE,
    5,
    b"secret",
    ["x"],
]


def settled(workspace_id="ws", api_key="key", data_center="01", *, base_url=None, enabled=True, environ=None):
    def sealed(value):
        return value if value is None or callable(value) else Secret.of(value)

    return resolve(
        sealed(workspace_id), sealed(api_key), data_center, base_url=base_url, enabled=enabled, environ=environ or {}
    )


@pytest.mark.parametrize("value", BAD_HEADERS)
def test_credentials_fit_a_header(value):
    assert refusal(ConfigurationError, settled, workspace_id=value) == f"workspace_id {FITS}, and no colon"
    assert refusal(ConfigurationError, settled, api_key=value) == f"api_key {FITS}"


def test_a_workspace_id_has_no_colon_and_is_no_callable():
    assert refusal(ConfigurationError, settled, workspace_id="secret:x") == f"workspace_id {FITS}, and no colon"
    assert refusal(ConfigurationError, settled, workspace_id=lambda: "ws") == f"workspace_id {FITS}, and no colon"
    assert settled(api_key="a:b").api_key.reveal() == "a:b"


@pytest.mark.parametrize("value", BAD_HEADERS)
def test_credentials_of_the_environment_are_checked_too(value):
    if not isinstance(value, str) or not value:
        return
    environ = {"MOENGAGE_WORKSPACE_ID": value, "MOENGAGE_PERSONALIZE_API_KEY": "key"}
    with pytest.raises(ConfigurationError) as caught:
        settled(None, None, environ=environ)
    assert str(caught.value) == f"workspace_id {FITS}, and no colon"


def test_what_is_missing_is_named_with_its_variable():
    message = "workspace_id is missing: pass it, or set MOENGAGE_WORKSPACE_ID"
    assert refusal(ConfigurationError, settled, None) == message
    message = "api_key is missing: pass it, or set MOENGAGE_PERSONALIZE_API_KEY"
    assert refusal(ConfigurationError, settled, "ws", None) == message
    assert refusal(ConfigurationError, settled, "ws", "key", None) == (
        "data_center (01 to 06, or 101; the number in the address of your MoEngage dashboard) is missing:"
        " pass it, or set MOENGAGE_DATA_CENTER"
    )


def supplied(api_key):
    """Drives `current_api_key` without an event loop."""
    try:
        current_api_key(api_key).send(None)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("value", [*BAD_HEADERS, None])
def test_what_a_callable_supplies_fits_a_header_or_is_refused(value):
    async def later():
        return value

    for api_key in (lambda: value, later):
        with pytest.raises(ConfigurationError) as caught:
            supplied(api_key)
        assert str(caught.value) == f"what the api_key callable returns {FITS}"


def test_a_callable_that_fails_is_named_by_its_error_and_not_by_its_words():
    def api_key():
        raise LookupError("secret")

    with pytest.raises(ConfigurationError) as caught:
        supplied(api_key)
    assert str(caught.value) == "the api_key callable raised LookupError"
    assert caught.value.__suppress_context__


def test_a_key_is_supplied_as_it_is_now():
    keys = iter(["one", "two"])
    assert [supplied(lambda: next(keys)).reveal() for _ in range(2)] == ["one", "two"]
    assert supplied(Secret.of("three")).reveal() == "three"


# ── where to ─────────────────────────────────────────────────────────────────────────────────────────────────────────

NO_DATA_CENTER = "data_center is none of MoEngage's: use 01 to 06, or 101 (1 and 'dc-01' are accepted)"


@pytest.mark.parametrize(
    ("data_center", "parsed"),
    [
        *((f"0{n}", f"0{n}") for n in range(1, 7)),
        *((n, f"0{n}") for n in range(1, 7)),
        *((f"{n}", f"0{n}") for n in range(1, 7)),
        ("101", "101"),
        (101, "101"),
        ("dc-03", "03"),
        ("DC03", "03"),
        ("dc_101", "101"),
        ("DC 1", "01"),
    ],
)
def test_the_data_centers_that_there_are(data_center, parsed):
    assert parse_data_center(data_center) == parsed
    assert settled(data_center=data_center).base_url == f"https://sdk-{parsed}.moengage.com"


@pytest.mark.parametrize(
    "data_center",
    [
        "01.evil.com#",
        "1@evil",
        "01@evil.com",
        "０１",
        "٠١",
        "¹",
        "[::1]",
        "::1",
        "01:443",
        "01/",
        "01/../x",
        "..",
        "01..",
        "01\r\n",
        "01\n",
        "\n01",
        " 01",
        "01 ",
        "01\x00",
        "0",
        "00",
        "000",
        "07",
        "7",
        "99",
        "100",
        "102",
        "1010",
        "-1",
        "+1",
        "1.0",
        "1e0",
        "0x1",
        "sdk-01",
        "dc--01",
        "dc",
        "",
        "https://sdk-01.moengage.com",
        "eu",
        "dc-01.evil.com",
        "ⅰ",
        True,
        False,
        0,
        7,
        100,
        -1,
        1.0,
        b"01",
        ["01"],
        None,
        Decimal("1.0"),
    ],
)
def test_a_data_center_that_is_none_is_refused(data_center):
    assert refusal(ConfigurationError, parse_data_center, data_center) == NO_DATA_CENTER


HOSTS = {f"https://sdk-{name}.moengage.com" for name in ("01", "02", "03", "04", "05", "06", "101")}


@given(
    data_center=st.text()
    | st.text(st.sampled_from("dcDC-_ 0123456①１١.@#/:\\\r\n[]%?"))
    | st.integers()
    | st.floats()
    | st.booleans()
)
@example(data_center="01.evil.com#")
def test_whatever_is_passed_as_a_data_center_credentials_go_to_moengage(data_center):
    try:
        base_url = settled(data_center=data_center).base_url
    except ConfigurationError as error:
        assert str(error) == NO_DATA_CENTER  # noqa: PT017
    else:
        assert base_url in HOSTS


NO_URL = "base_url must look like https://host[:port][/path], without user name, query, fragment or spaces"


@pytest.mark.parametrize(
    ("base_url", "parsed"),
    [
        ("https://gateway.example.com", "https://gateway.example.com"),
        ("https://gateway.example.com/", "https://gateway.example.com"),
        ("https://gateway.example.com:8443/moe/v2/", "https://gateway.example.com:8443/moe/v2"),
        ("HTTPS://Gateway.Example.COM/Path", "https://gateway.example.com/Path"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://LOCALHOST", "http://localhost"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
    ],
)
def test_base_urls_that_are_accepted(base_url, parsed):
    assert parse_base_url(base_url) == parsed


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "/",
        "gateway.example.com",
        "//gateway.example.com",
        "https://",
        "https:///path",
        "https:gateway.example.com",
        "ftp://a.example",
        "https://user@a.example",
        "https://user:secret@a.example",
        "https://@a.example",
        "https://a.example?x=1",
        "https://a.example/?",
        "https://a.example?",
        "https://a.example#f",
        "https://a.example#",
        "https://a.example/#",
        "https://a.example\\@evil.com",
        "https:\\\\a.example",
        "https://a.example /",
        " https://a.example",
        "https://a.example ",
        "https://a.exa mple",
        "https://a.example\n",
        "https://a.exam\tple",
        "https://a.example\r\nX: 1",
        "https://a.example\x00",
        "\x00https://a.example",
        "https://a.example:",
        "https://a.example:99999",
        "https://a.example:0",
        "https://a.example:-1",
        "https://a.example:x",
        "https://a.example:0443",
        "https://a.example:８０",
        "https://a..example",
        "https://.a.example",
        "https://a.example.",
        "https://-a.example",
        "https://a_b.example",
        "https://é.example",
        "https://a.example/é",
        "https://a.example/a%20b",
        "https://a.example/a b",
        "https://a.example//b",
        "https://a.example/../b",
        "https://a.example/b/..",
        "https://a.example/./b",
        "https://a.example/b;c",
        "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://[::1",
        "https://::1",
        "https://[1.2.3.4]",
        "https://[v1.a:b]",
        "https://[::zz]",
        "http://user@localhost",
        "https://a.example,b.example",
        "https://a.example&b",
        "https://ⓐ.example",
        "https://a。example",
        "ｈttps://a.example",
        "https://*.example",
        5,
        b"https://a.example",
        ["https://a.example"],
        True,
    ],
)
def test_base_urls_that_are_refused(base_url):
    assert refusal(ConfigurationError, parse_base_url, base_url) == NO_URL


@pytest.mark.parametrize(
    "base_url",
    [
        "http://a.example",
        "http://sdk-01.moengage.com",
        "http://10.0.0.1",
        "http://0.0.0.0:8080",
        "http://[::]",
        "http://[2001:db8::1]",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "http://127.1",
        "http://2130706433",
        "HTTP://A.example",
    ],
)
def test_plain_http_is_for_loopback_alone(base_url):
    message = "base_url must be https: plain http is for loopback addresses only"
    assert refusal(ConfigurationError, parse_base_url, base_url) == message


@given(
    base_url=st.text()
    | st.text(st.sampled_from("htps:/@.?#\\ [](%)127.0localhost:é\n"))
    | st.text().map("https://".__add__)
    | st.text().map("http://localhost".__add__)
)
def test_whatever_is_passed_as_a_base_url_what_is_accepted_is_plain(base_url):
    try:
        found = parse_base_url(base_url)
    except ConfigurationError:
        return
    host = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    assert re.fullmatch(rf"https?://{host}(?::[1-9][0-9]{{0,4}})?(?:/[A-Za-z0-9._~-]+)*", found, re.ASCII)
    if found.startswith("http:"):
        assert re.match(r"http://(localhost|127\.|\[)", found)


# ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────────────

INF, NAN = math.inf, math.nan
NOT_NUMBERS = [NAN, -INF, "1", None, True, False, [1], 1j, Decimal(1)]
NOT_WHOLE = [1.0, 1.5, NAN, INF, "1", None, True, [1]]


@pytest.mark.parametrize(
    ("policy", "name", "values", "rule"),
    [
        (FetchPolicy, "deadline", [0, -1, 0.0, INF], "a finite number above 0"),
        (FetchPolicy, "attempts", [0, 11, -1], "a whole number from 1 to 10"),
        (FetchPolicy, "max_keys", [0, 26], "a whole number from 1 to 25"),
        (BatchPolicy, "linger", [-0.1], "a number from 0"),
        (BatchPolicy, "max_elements", [0, 101], "a whole number from 1 to 100"),
        (BatchPolicy, "max_actions", [0, 100_001], "a whole number from 1 to 100000"),
        (BatchPolicy, "max_bytes", [4_095, (1 << 30) + 1], "a whole number from 4096 to 1073741824"),
        (BatchPolicy, "max_pending", [0, (1 << 30) + 1], "a whole number from 1 to 1073741824"),
        (BatchPolicy, "max_pending_bytes", [4_095, (1 << 40) + 1], "a whole number from 4096 to 1099511627776"),
        (BatchPolicy, "senders", [0, 101], "a whole number from 1 to 100"),
        (BatchPolicy, "dedup_window", [-1, (1 << 30) + 1], "a whole number from 0 to 1073741824"),
        (BatchPolicy, "grace", [-1], "a number from 0"),
        (BatchPolicy, "time_to_live", [0, -1], "a number above 0"),
        (RetryPolicy, "initial", [0, -1, INF], "a finite number above 0"),
        (RetryPolicy, "maximum", [0, -1, INF], "a finite number above 0"),
        (RetryPolicy, "budget", [0, 1_000_001], "a whole number from 1 to 1000000"),
    ],
)
def test_a_policy_that_exists_works(policy, name, values, rule):
    for value in [*values, *(NOT_WHOLE if "whole" in rule else NOT_NUMBERS)]:
        with pytest.raises(ConfigurationError) as caught:
            policy(**{name: value})
        assert str(caught.value) == f"{policy.__name__}.{name} must be {rule}"


@pytest.mark.parametrize("value", ["", "Default", "raises", None, True, ["raise"], 5])
def test_words_of_policies_are_given_ones(value):
    message = "FetchPolicy.on_error must be one of 'default', 'raise'"
    assert refusal(ConfigurationError, FetchPolicy, on_error=value) == message
    message = "FetchPolicy.identity must be one of 'both', 'identifiers', 'flat'"
    assert refusal(ConfigurationError, FetchPolicy, identity=value) == message


def test_a_buffer_has_room_for_a_request():
    message = "BatchPolicy.max_pending_bytes must not be below max_bytes"
    assert refusal(ConfigurationError, BatchPolicy, max_pending_bytes=49_151) == message
    assert BatchPolicy(max_pending_bytes=49_152).max_bytes == 49_152


def test_the_bounds_themselves_are_accepted():
    FetchPolicy(deadline=1e-9, attempts=10, max_keys=1)
    BatchPolicy(linger=INF, grace=0, time_to_live=INF, dedup_window=0, max_bytes=4_096, max_elements=1, senders=100)
    RetryPolicy(initial=1e-9, maximum=5, budget=1)
