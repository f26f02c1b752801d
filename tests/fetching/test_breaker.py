"""When fetches are not sent: the breaker and the quota, on virtual time."""

import random
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, strategies as st

from moengage_personalize import FetchPolicy, ServerError
from moengage_personalize.core.breaker import Breaker, Passage, Quota, RateWindow

GO, PROBE, NO = Passage.GO, Passage.PROBE, Passage.NO
ERROR = ServerError("no", status_code=503)


def breaker(**options):
    return Breaker(FetchPolicy(**{"breaker_failures": 3, "open_for": 5.0, "denied_for": 60.0, **options}))


def opened(at=0.0, **options):
    circuit = breaker(**options)
    for _ in range(3):
        circuit.failed(at, GO, ERROR)
    return circuit


def test_it_opens_after_so_many_failures_that_are_at_least_half():
    circuit = breaker()
    for _ in range(4):
        circuit.answered(0.0, GO)
    for _ in range(3):
        circuit.failed(0.0, GO, ERROR)
    assert circuit.ask(0.0) is GO
    circuit.failed(0.0, GO, ERROR)
    assert circuit.ask(0.0) is NO
    assert circuit.cause is ERROR
    assert repr(circuit) == "<Breaker open, 0 of 0 failed>"


def test_failures_are_forgotten_after_the_window():
    circuit = breaker(breaker_window=10.0)
    circuit.failed(0.0, GO, ERROR)
    circuit.failed(0.0, GO, ERROR)
    circuit.failed(10.1, GO, ERROR)
    assert circuit.ask(10.1) is GO


def test_good_days_do_not_delay_the_opening():
    circuit = breaker()
    for _ in range(100_000):
        circuit.answered(0.0, GO)
    failures = 0
    while circuit.ask(0.1) is GO:
        circuit.failed(0.1, GO, ERROR)
        failures += 1
    assert failures == 50


def test_one_probe_goes_out_per_interval_and_its_answer_closes():
    circuit = opened()
    assert circuit.ask(4.9) is NO
    assert circuit.ask(5.0) is PROBE
    assert circuit.ask(5.0) is NO
    circuit.failed(6.0, PROBE, ERROR)
    assert circuit.ask(10.9) is NO
    assert circuit.ask(11.0) is PROBE
    circuit.answered(11.1, PROBE)
    assert circuit.ask(11.1) is GO
    assert circuit.opened == 1


def test_a_probe_that_was_called_off_costs_its_interval():
    circuit = opened()
    assert circuit.ask(5.0) is PROBE
    circuit.unknown(PROBE)
    assert circuit.ask(9.9) is NO
    assert circuit.ask(10.0) is PROBE


def test_refused_credentials_open_it_at_once_and_for_long():
    circuit = breaker()
    circuit.denied(0.0, GO, ERROR)
    circuit.denied(30.0, GO, ERROR)  # was under way
    assert circuit.ask(59.9) is NO
    assert circuit.ask(60.0) is PROBE


def test_what_was_under_way_changes_nothing_once_it_is_open():
    circuit = opened()
    circuit.answered(1.0, GO)
    circuit.failed(4.0, GO, ERROR)
    assert circuit.ask(4.9) is NO
    assert circuit.ask(5.0) is PROBE
    assert repr(circuit) == "<Breaker half-open, 0 of 0 failed>"


def test_a_million_fetches_in_an_outage_cause_one_probe_per_interval_plus_what_opens_it():
    circuit, now, sent, probes = Breaker(FetchPolicy()), 0.0, 0, []
    chance = random.Random(7)
    out = []  # requests under way: (end, passage)
    for _ in range(1_000_000):
        now += 0.001
        while out and out[0][0] <= now:
            circuit.failed(*out.pop(0), ERROR)
        passage = circuit.ask(now)
        if passage is not NO:
            sent += 1
            out.append((now + chance.uniform(0.0001, 0.002), passage))
            out.sort(key=lambda one: one[0])
            probes += [now] * (passage is PROBE)
    assert all(later - sooner >= 5.0 for sooner, later in pairwise(probes))
    assert 190 < len(probes) <= 1_000 / 5.0
    assert sent - len(probes) <= 20 + 2  # `breaker_failures`, and what was under way then
    circuit.answered(*out.pop(0)) if out else None
    while circuit.ask(now) is not PROBE:
        now += 0.001
    circuit.answered(now, PROBE)
    assert circuit.ask(now) is GO


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from("answered failed denied unknown ask".split())), max_size=200)
)
def test_two_probes_are_never_closer_than_an_interval(steps):
    circuit, now, probes, flying = breaker(), 0.0, [], []
    for seconds, step in steps:
        now += seconds
        if step == "ask":
            passage = circuit.ask(now)
            if passage is PROBE:
                assert PROBE not in flying
                probes.append(now)
            if passage is not NO:
                flying.append(passage)
        elif flying:
            passage = flying.pop(0)
            if step == "unknown":
                circuit.unknown(passage)
            elif step == "answered":
                circuit.answered(now, passage)
                probes = [] if passage is PROBE else probes  # closed: the next opening counts anew
            else:
                getattr(circuit, step)(now, passage, ERROR)
    assert all(later - sooner >= 5.0 for sooner, later in pairwise(probes))


# ── the quota ────────────────────────────────────────────────────────────────────────────────────────────────────────


def leave(window, now, most=20_000):
    """Sends as many as it may; returns how many."""
    sent = 0
    while sent < most and window.wait(now) == 0:
        window.leaving()
        sent += 1
    return sent


def test_nothing_leaves_when_nothing_remains_until_the_reset():
    window = RateWindow(1.0)
    window.observe(Quota(10_000, 3, 20.0), 100.0)
    assert leave(window, 100.0) == 3
    assert window.wait(110.0) == pytest.approx(10.0)
    assert window.wait(120.0) == 0.0


def test_what_is_under_way_is_counted_before_its_reply_says_so():
    window = RateWindow(1.0)
    window.observe(Quota(10_000, 10, 20.0), 100.0)
    assert leave(window, 100.0, 6) == 6
    window.observe(Quota(10_000, 9, 20.0), 100.1)  # of the first of them
    assert leave(window, 100.1) == 4


@pytest.mark.parametrize(
    ("share", "limit", "allowed"), [(0.1, 10_000, 1_000), (0.5, 30, 15), (0.0001, 100, 1), (1.0, 50, 50)]
)
def test_a_process_uses_no_more_than_its_share(share, limit, allowed):
    window = RateWindow(share)
    assert leave(window, 100.0, 1) == 1
    window.observe(Quota(limit, limit - 1, 60.0), 100.1)
    assert leave(window, 100.2) == allowed - 1
    assert leave(window, 160.2) == allowed  # the next window


def test_a_share_is_of_the_documented_quota_until_told_and_the_whole_is_not_bounded():
    assert leave(RateWindow(0.1), 100.0) == 1_000
    assert leave(RateWindow(1.0), 100.0) == 20_000


def test_the_servers_word_is_obeyed_and_its_typing_errors_are_not():
    window = RateWindow(1.0)
    window.throttled(30.0, 100.0)
    assert window.wait(129.0) == pytest.approx(1.0)
    window.throttled(1e9, 100.0)
    assert window.wait(100.0) == 300.0
    window.observe(Quota(1, 0, 1e9), 100.0)
    assert window.wait(400.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=50), st.integers(10, 1_000))
def test_no_window_sees_more_than_the_share(asks, limit):
    window, now, used, ends = RateWindow(0.5), 0.0, 0, -inf
    for seconds, count in asks:
        now += seconds
        if now >= ends:
            used, ends = 0, now + 60.0
        used += leave(window, now, count)
        window.observe(Quota(limit, limit, ends - now), now)
        assert used <= max(50, limit * 0.5)  # the first may leave before the limit is known
