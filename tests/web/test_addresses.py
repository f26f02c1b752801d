"""Whose request it is: believed are the connection, and whom it is told to believe; nobody else."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given, strategies as st

from moengage_personalize import ConfigurationError
from moengage_personalize.starlette._addresses import MAX_LINE, Proxies, read_address, says_where

LOAD_BALANCER, CDN, VISITOR = "10.0.0.1", "192.0.2.9", "203.0.113.7"
TRUSTED = ["10.0.0.0/8", "192.0.2.9", "2001:db8:ffff::/48"]


def visitor(*lines, peer=LOAD_BALANCER, trusted=TRUSTED, header="X-Forwarded-For"):
    client = None if peer is None else (peer, 4711)
    headers = [(b"host", b"shop"), *((header.lower().encode(), line.encode("latin-1")) for line in lines)]
    found = Proxies.of(trusted, header).visitor({"client": client, "headers": headers})
    return None if found is None else str(found)


class TestXForwardedFor:
    def test_nobody_is_trusted_who_was_not_named(self):
        assert visitor("1.2.3.4", trusted=[]) == LOAD_BALANCER
        assert visitor("1.2.3.4", peer=VISITOR) == VISITOR

    def test_a_trusted_proxy_says_for_whom_it_speaks(self):
        assert visitor(VISITOR) == VISITOR
        assert visitor() == LOAD_BALANCER, "it speaks for itself"

    def test_what_a_visitor_forged_is_to_the_left_and_not_read(self):
        assert visitor(f"1.2.3.4, {VISITOR}") == VISITOR
        assert visitor(f"10.0.0.9, 10.0.0.8, {VISITOR}") == VISITOR, "not by naming a trusted one either"

    def test_a_chain_of_trusted_proxies_is_followed(self):
        assert visitor(f"1.2.3.4, {VISITOR}, {CDN}, 10.9.9.9") == VISITOR

    def test_the_first_untrusted_from_the_right_is_the_visitor(self):
        assert visitor(f"{VISITOR}, 198.51.100.1, 10.9.9.9") == "198.51.100.1"

    def test_where_all_are_trusted_it_is_the_first_of_them(self):
        assert visitor("10.0.0.3, 10.0.0.2") == "10.0.0.3"

    def test_several_lines_are_one_list(self):
        assert visitor("1.2.3.4", f"{VISITOR}, {CDN}") == VISITOR
        assert visitor(VISITOR, CDN) == VISITOR

    @pytest.mark.parametrize("junk", ["", " ", "unknown", "unix:", "1.2.3", "1.2.3.4.5", "::g", "[::1", "a" * 9_000])
    def test_what_a_trusted_proxy_said_and_cannot_be_read_is_nobody(self, junk):
        assert visitor(f"{VISITOR}, {junk}") is None
        assert visitor(f"{VISITOR}, {junk}, {CDN}") is None

    def test_junk_to_the_left_harms_nobody(self):
        assert visitor(f'\xff\x00,,;"for=, {VISITOR}') == VISITOR

    def test_another_header_may_be_the_one_that_the_proxy_writes(self):
        assert visitor(VISITOR, header="CF-Connecting-IP") == VISITOR
        proxies = Proxies.of(TRUSTED, "X-Real-IP")
        scope = {
            "client": (LOAD_BALANCER, 1),
            "headers": [(b"x-forwarded-for", b"1.2.3.4"), (b"x-real-ip", b"8.8.8.8")],
        }
        assert str(proxies.visitor(scope)) == "8.8.8.8"


class TestForwarded:
    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("for=203.0.113.7", VISITOR),
            ("For=203.0.113.7;proto=https;by=10.0.0.1", VISITOR),
            ("proto=https ; FOR=203.0.113.7", VISITOR),
            ('for="203.0.113.7:4711"', VISITOR),
            ("for=203.0.113.7:4711", VISITOR),
            ('for="[2001:db8::7]:4711"', "2001:db8::7"),
            ('for="[2001:db8::7]";by=_secret', "2001:db8::7"),
            (r'for="203.0.113\.7"', VISITOR),
            ("for=1.2.3.4, for=203.0.113.7;proto=https, for=192.0.2.9", VISITOR),
            ('for=1.2.3.4;by="a,b;c\\"",for=203.0.113.7;', VISITOR),
            ("for=203.0.113.7,for=unknown", None),
            ("for=203.0.113.7,for=_hidden", None),
            ("for=203.0.113.7,proto=https", None),
            ("for=203.0.113.7,for=1.2.3.4;for=8.8.8.8", None),
            ("for=203.0.113.7,", None),
            ("", None),
            ("203.0.113.7", None),
            ("for=203.0.113.7 for=8.8.8.8", None),
            ("for = 203.0.113.7", None),
            (f"for=203.0.113.7;x={'a' * MAX_LINE}", None),
        ],
    )
    def test_it_is_read_by_its_grammar_or_not_at_all(self, line, found):
        assert visitor(line, header="Forwarded") == found

    def test_the_other_header_is_not_read_since_its_proxy_passes_it_on(self):
        headers = [(b"x-forwarded-for", b"1.2.3.4"), (b"forwarded", b"for=203.0.113.7")]
        scope = {"client": (LOAD_BALANCER, 1), "headers": headers}
        assert str(Proxies.of(TRUSTED, "Forwarded").visitor(scope)) == VISITOR
        assert str(Proxies.of(TRUSTED, "X-Forwarded-For").visitor(scope)) == "1.2.3.4"

    def test_a_line_of_the_visitors_own_cannot_swallow_the_proxys(self):
        assert visitor('for="', "for=203.0.113.7", header="Forwarded") == VISITOR

    @given(st.text('forby=;,"\\ 1.[]:_', max_size=40), st.booleans())
    @example('for="', False)
    @example('for=1.1.1.1, x="', True)
    def test_whatever_a_visitor_writes_before_it_they_are_who_the_proxy_saw_or_nobody(self, forged, quoted):
        seen = '"[2001:db8::7]:4711"' if quoted else VISITOR
        expected = "2001:db8::7" if quoted else VISITOR
        assert visitor(f"{forged}, for={seen};proto=https", header="Forwarded") in {expected, None}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("203.0.113.7", VISITOR),
        (" 203.0.113.7 ", VISITOR),
        ("203.0.113.7:4711", VISITOR),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.7", VISITOR),
        ("[::ffff:203.0.113.7]:80", VISITOR),
        ("203.0.113.07", None),
        ("203.0.113.7:", None),
        ("203.0.113.7, 1.2.3.4", None),
        ("2001:db8::7]:80", None),
        ("٢٠٣.0.113.7", None),
        ("testclient", None),
        ("", None),
    ],
)
def test_an_address_is_read_in_every_form_that_proxies_write(text, found):
    assert read_address(text) == (found and ip_address(found))


@given(st.text(max_size=60) | st.from_regex(r"[\[\]0-9a-f:.%]{0,40}"), st.ip_addresses())
def test_reading_never_fails(text, peer):
    read_address(text)
    assert read_address(str(peer)) in {peer, getattr(peer, "ipv4_mapped", None)}
    visitor(text.encode("utf-8", "replace").decode("latin-1"))


@given(st.lists(st.ip_addresses(v=4), max_size=6), st.ip_addresses(v=4, network="203.0.113.0/24"), st.integers(0, 3))
def test_whatever_is_forged_the_visitor_is_who_spoke_to_the_first_trusted_proxy(forged, real, proxies):
    line = ", ".join(map(str, [*forged, real, *["10.0.0.2"] * proxies]))
    assert visitor(line) == str(real)


class TestWhoIsTrusted:
    @pytest.mark.parametrize("peer", [None, ""])
    def test_a_unix_socket_has_to_be_named_too(self, peer):
        assert visitor(VISITOR, peer=peer) is None
        assert visitor(VISITOR, peer=peer, trusted=["unix"]) == VISITOR
        assert visitor(peer=peer, trusted=["unix"]) is None

    def test_naming_it_trusts_nobody_else(self):
        assert visitor("1.2.3.4", trusted=["unix"]) == LOAD_BALANCER
        assert visitor("1.2.3.4", peer="testclient", trusted=["unix"]) is None

    def test_a_socket_for_both_kinds_shows_an_address_in_both_forms(self):
        assert visitor(VISITOR, peer="::ffff:10.0.0.1") == VISITOR
        assert visitor(VISITOR, peer="2001:db8:ffff::1") == VISITOR

    @pytest.mark.parametrize(
        "nonsense", [["*"], ["0.0.0.0/0"], ["::/0"], ["10.0.0.1/8"], ["proxy"], "10.0.0.0/8", [""]]
    )
    def test_nonsense_is_refused_at_once_and_so_is_everybody(self, nonsense):
        with pytest.raises(ConfigurationError, match="trusted_proxies must name"):
            Proxies.of(nonsense, "X-Forwarded-For")


@pytest.mark.parametrize(
    ("address", "does"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *[(str(next(ip_network(network).hosts())), True) for network in ("192.0.2.0/24", "203.0.113.0/24")],
        ("2001:db8::1", True),
        *[(local, False) for local in ("10.1.2.3", "192.168.0.1", "172.16.0.1", "127.0.0.1", "169.254.0.1", "0.0.0.0")],
        *[(local, False) for local in ("100.64.0.1", "224.0.0.251", "255.255.255.255", "::1", "fe80::1", "fd00::1")],
        ("ff0e::1", False),
    ],
)
def test_an_address_of_somebodys_own_network_says_nothing_and_stays_there(address, does):
    assert says_where(ip_address(address)) is does
