"""From a request to what is sent along: everything that can be sent, and never an error."""

import logging

import pytest
from hypothesis import given, strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware

from moengage_personalize import ConfigurationError, current_request
from moengage_personalize.core.wire import fetch_context
from moengage_personalize.starlette import PersonalizeMiddleware
from moengage_personalize.starlette._middleware import MAX_AGENT, MAX_PARAMETERS, MAX_VALUE

pytestmark = pytest.mark.anyio
VISITOR = ("203.0.113.7", 4711)


def seen(query=b"", headers=(), client=VISITOR, **options):
    """What a request adds to a fetch."""
    middleware = PersonalizeMiddleware(None, **options)
    scope = {"type": "http", "client": client, "headers": list(headers), "query_string": query}
    return middleware._context(scope).fields


def parameters(query, **options):
    return seen(query, client=None, **options)


async def test_the_application_sees_it_and_nobody_afterwards():
    contexts = []

    async def app(scope, receive, send):
        contexts.append(current_request.get())

    middleware = PersonalizeMiddleware(app)
    for kind in ("http", "websocket"):
        await middleware({"type": kind, "client": VISITOR, "headers": [], "query_string": b"utm_a=1"}, None, None)
    await middleware({"type": "lifespan"}, None, None)
    assert [context and context.fields for context in contexts] == [
        {"USER_IP_ADDRESS": "203.0.113.7", "utm_a": "1"}
    ] * 2 + [None]
    assert current_request.get() is None


async def test_an_error_passes_and_leaves_nothing_behind():
    async def app(scope, receive, send):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await PersonalizeMiddleware(app)({"type": "http", "headers": [], "query_string": b""}, None, None)
    assert current_request.get() is None


async def test_a_request_that_says_nothing_does_not_inherit_what_another_said():
    async def app(scope, receive, send):
        scope["found"] = current_request.get().fields

    middleware = PersonalizeMiddleware(app)
    for query, expected in ((b"utm_a=1", {"utm_a": "1"}), (b"", {})):
        scope = {"type": "http", "client": None, "headers": [], "query_string": query}
        token = current_request.set(middleware._context({**scope, "query_string": b"utm_leaked=1"}))
        await middleware(scope, None, None)
        current_request.reset(token)
        assert scope["found"] == expected


class TestTheUserAgent:
    @pytest.mark.parametrize("agent", [b"Mozilla/5.0 (iPhone)", "Bräu/1".encode(), b"a" * MAX_AGENT])
    def test_is_sent(self, agent):
        assert seen(headers=[(b"user-agent", agent)], client=None) == {"USER_AGENT": agent.decode()}

    @pytest.mark.parametrize("agent", [b"", b"a\r\nb", b"a\0", b"\xff", "a\x85".encode(), b"a" * (MAX_AGENT + 1)])
    def test_is_left_out_where_it_cannot_be_sent(self, agent):
        assert seen(headers=[(b"user-agent", agent)], client=None) == {}

    def test_is_the_first_of_several(self):
        assert seen(headers=[(b"user-agent", b"a"), (b"user-agent", b"b")], client=None) == {"USER_AGENT": "a"}


class TestTheAddress:
    @pytest.mark.parametrize("client", [None, ("", 0), ("testclient", 50_000), ("127.0.0.1", 1), ("10.0.0.1", 1)])
    def test_is_left_out_where_it_says_nothing(self, client):
        assert seen(client=client) == {}

    def test_a_forged_header_changes_nothing_unless_its_proxy_was_trusted(self):
        forged = [(b"x-forwarded-for", b"8.8.8.8"), (b"forwarded", b"for=8.8.8.8"), (b"x-real-ip", b"8.8.8.8")]
        assert seen(headers=forged) == {"USER_IP_ADDRESS": "203.0.113.7"}
        assert seen(headers=forged, trusted_proxies=["10.0.0.0/8"]) == {"USER_IP_ADDRESS": "203.0.113.7"}
        assert seen(headers=forged, trusted_proxies=["203.0.113.0/24"]) == {"USER_IP_ADDRESS": "8.8.8.8"}

    def test_a_proxy_that_nobody_named_is_pointed_out_once_and_without_an_address(self, caplog):
        middleware = PersonalizeMiddleware(None)
        scope = {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", b"8.8.8.8")], "query_string": b""}
        with caplog.at_level(logging.WARNING, "moengage_personalize"):
            for _ in range(3):
                middleware._context(scope)
        (record,) = caplog.records
        assert "trusted_proxies" in record.getMessage()
        assert "10.0.0.1" not in record.getMessage()
        assert "8.8.8.8" not in record.getMessage()

    @pytest.mark.parametrize(
        ("client", "header", "trusted"),
        [
            (("10.0.0.1", 1), (b"x-forwarded-for", b"unknown"), ["10.0.0.0/8"]),
            (("10.0.0.1", 1), (b"accept", b"*/*"), []),
            (VISITOR, (b"x-forwarded-for", b"1.2.3.4"), []),
        ],
    )
    def test_nothing_is_pointed_out_where_nothing_was_overlooked(self, caplog, client, header, trusted):
        seen(headers=[header], client=client, trusted_proxies=trusted)
        assert caplog.records == []


class TestQueryParameters:
    def test_are_those_of_campaigns_unless_others_are_named(self):
        query = b"utm_source=mail&page=2&UTM_MEDIUM=x&utm=1&my_utm_x=1"
        assert parameters(query) == {"utm_source": "mail"}
        assert parameters(query, query_parameters=["page", "UTM_*"]) == {"page": "2", "UTM_MEDIUM": "x"}
        assert parameters(query, query_parameters=[]) == {}

    def test_are_decoded(self):
        assert parameters(b"utm%5Fa=%C3%A9+%26%2B&utm_b=1=2&utm_\xc3\xa9=x") == {
            "utm_a": "é &+",
            "utm_b": "1=2",
            "utm_é": "x",
        }

    def test_of_several_with_one_name_the_first_counts_sendable_or_not(self):
        assert parameters(b"utm_a=1&utm_a=2&utm_b=%00&utm_b=2&utm_c=&utm_c=3") == {"utm_a": "1"}

    @pytest.mark.parametrize("value", [b"", b"%0d%0aX", b"%00", b"%FF", b"%ED%A0%80", b"%7F", b"a" * (MAX_VALUE + 1)])
    def test_are_left_out_where_they_cannot_be_sent(self, value):
        assert parameters(b"utm_a=" + value + b"&utm_b=2") == {"utm_b": "2"}

    @pytest.mark.parametrize("name", ["customer_id", "identifiers", "experience_key", "USER_IP_ADDRESS", "", "a" * 65])
    def test_never_have_a_name_that_is_moengages_own_or_cannot_be_one(self, name):
        assert parameters(f"{name}=x&page=2".encode(), query_parameters=["*"]) == {"page": "2"}

    def test_are_bounded_in_number(self):
        many = b"&".join(b"utm_%d=x" % number for number in range(1_000))
        assert len(parameters(many)) == MAX_PARAMETERS
        assert parameters(b"a=1&" * 300 + b"utm_a=1") == {}


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.sampled_from([b"user-agent", b"x-forwarded-for", b"forwarded"]), st.binary(max_size=80))),
    st.sampled_from(["X-Forwarded-For", "Forwarded"]),
)
def test_whatever_a_request_says_it_does_not_fail_and_what_it_adds_can_be_sent(query, headers, header):
    found = seen(
        query, headers, ("10.0.0.1", 1), query_parameters=["*"], trusted_proxies=["10.0.0.0/8"], forwarded_header=header
    )
    attributes = {name: value for name, value in found.items() if not name.startswith("USER_")}
    fetch_context(customer_id=None, user_identifiers=None, session=None, attributes=attributes, identity="both")


async def test_a_scope_that_leaves_out_what_it_may_is_served():
    async def app(scope, receive, send):
        assert current_request.get().fields == {}

    await PersonalizeMiddleware(app, trusted_proxies=["unix"])({"type": "websocket"}, None, None)


def test_one_text_instead_of_several_patterns_is_refused_since_its_letters_would_match_anything():
    with pytest.raises(ConfigurationError, match="query_parameters"):
        PersonalizeMiddleware(None, query_parameters="utm_*")


def test_a_configuration_that_cannot_work_fails_when_the_application_starts():
    app = Starlette(middleware=[Middleware(PersonalizeMiddleware, trusted_proxies=["everybody"])])
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        app.build_middleware_stack()
