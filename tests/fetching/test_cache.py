"""Answers that are kept: times, bounds, and what is forgotten."""

import sys

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from moengage_personalize import CachePolicy, Experience, Reason
from moengage_personalize.core.cache import OVERHEAD, Cache, weight

JOHN, JANE = b"john", b"jane"


def cache(**options):
    return Cache(CachePolicy(**{"ttl": 30.0, **options}))


def put(kept, key, now, *, value="value", context=b"context", person=JOHN, matched=True):
    kept.put(context, key, value, now, person=person, matched=matched)


def test_an_answer_is_fresh_for_its_ttl():
    kept = cache()
    put(kept, "a", 100.0)
    hit = kept.get(b"context", "a", 129.9)
    assert (hit.value, hit.fresh, hit.age) == ("value", True, pytest.approx(29.9))
    assert kept.get(b"context", "a", 130.0) is None
    assert kept.get(b"other context", "a", 100.0) is None
    assert len(kept) == 0  # met after its time


def test_stale_while_revalidate_serves_what_is_not_fresh():
    kept = cache(stale_while_revalidate=10.0)
    put(kept, "a", 100.0)
    assert not kept.get(b"context", "a", 139.9).fresh
    assert kept.get(b"context", "a", 140.0) is None


def test_stale_if_error_is_served_instead_of_an_error_only():
    kept = cache(ttl=0.0, stale_if_error=3600.0)
    put(kept, "a", 100.0)
    assert kept.get(b"context", "a", 100.0) is None
    assert kept.saved(b"context", "a", 3699.9).age == pytest.approx(3599.9)
    assert kept.saved(b"context", "a", 3700.0) is None


def test_a_no_match_is_kept_for_a_short_time_and_replaces_what_matched():
    kept = cache(negative_ttl=5.0, stale_if_error=3600.0)
    put(kept, "a", 100.0)
    put(kept, "a", 101.0, value="nothing", matched=False)
    assert kept.get(b"context", "a", 105.9).value == "nothing"
    assert kept.get(b"context", "a", 106.0) is None
    assert kept.saved(b"context", "a", 106.0) is None


def test_a_no_match_is_never_kept_longer_than_an_answer():
    kept = cache(ttl=0.0, stale_if_error=60.0)
    put(kept, "a", 100.0, matched=False)
    assert kept.get(b"context", "a", 100.0) is None


def test_a_refusal_stands_beside_the_answer_and_ends_with_it():
    kept = cache(stale_if_error=60.0)
    put(kept, "a", 100.0)
    kept.refuse(b"context", "a", "refused", 100.0, person=JOHN)
    assert kept.refusal(b"context", "a", 104.9) == "refused"
    assert kept.refusal(b"context", "a", 105.0) is None
    assert kept.get(b"context", "a", 104.9).value == "value"
    kept.refuse(b"context", "a", "refused", 110.0, person=JOHN)
    put(kept, "a", 111.0)
    assert kept.refusal(b"context", "a", 111.0) is None


def test_the_least_recently_used_goes_first():
    kept = cache(max_entries=2)
    put(kept, "a", 100.0)
    put(kept, "b", 100.0)
    kept.get(b"context", "a", 101.0)
    put(kept, "c", 102.0)
    assert [kept.get(b"context", key, 102.0) is not None for key in "abc"] == [True, False, True]


def test_bytes_are_bounded():
    kept = cache(max_bytes=3 * (OVERHEAD + weight("x" * 2000)))
    for number in range(10):
        put(kept, f"{number}", 100.0, value="x" * 2000)
    assert len(kept) == 3


def test_forget_leaves_nothing_of_a_person():
    kept = cache()
    put(kept, "a", 100.0, context=b"1")
    put(kept, "a", 100.0, context=b"2")
    put(kept, "a", 100.0, context=b"3", person=JANE)
    put(kept, "a", 100.0, context=b"4", person=None)
    assert kept.forget(JOHN) == 2
    assert kept.forget(JOHN) == 0
    assert [kept.get(context, "a", 100.0) is not None for context in (b"1", b"2", b"3", b"4")] == [0, 0, 1, 1]
    assert len(kept) == 2


def test_the_weight_is_about_what_memory_it_takes():
    value = {"Title": "x" * 500, "List": [1, 2.0, None, "é" * 100]}
    real = sys.getsizeof(value) + sum(map(sys.getsizeof, [*value, value["Title"], value["List"], *value["List"]]))
    assert 0.5 * real < weight(value) < 2 * real
    experience = Experience(key="k", reason=Reason.MATCHED, source="network", payload=value, context=value)
    assert weight(experience) == 2 * weight(value)


class Model(RuleBasedStateMachine):
    """The cache against a dictionary that forgets nothing by itself."""

    def __init__(self):
        super().__init__()
        self.policy = CachePolicy(ttl=10, stale_while_revalidate=5, stale_if_error=20, max_entries=4, max_bytes=4_096)
        self.kept = Cache(self.policy)
        self.now = 0.0
        self.truth = {}

    @rule(seconds=st.sampled_from([0.0, 3.0, 10.0, 40.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(
        context=st.sampled_from([b"1", b"2", b"3"]),
        key=st.sampled_from(["a", "b", None]),
        matched=st.booleans(),
        size=st.integers(0, 3_000),
    )
    def put(self, context, key, matched, size):
        value = f"{self.now}".ljust(size)
        self.kept.put(context, key, value, self.now, person=context[:1], matched=matched)
        self.truth[context, key] = value, self.now, matched

    @rule(context=st.sampled_from([b"1", b"2", b"3"]), key=st.sampled_from(["a", "b", None]))
    def get(self, context, key):
        hit, saved = self.kept.get(context, key, self.now), self.kept.saved(context, key, self.now)
        value, at, matched = self.truth.get((context, key), (None, -1e9, False))
        age = self.now - at
        assert hit is None or (hit.value, hit.age, hit.fresh) == (value, age, age < (10 if matched else 5))
        assert hit is None or age < (15 if matched else 5)
        assert saved is None or (saved.value, saved.age) == (value, age)
        assert saved is None or age < (30 if matched else 5)

    @rule(context=st.sampled_from([b"1", b"2", b"3"]))
    def forget(self, context):
        self.kept.forget(context)
        for key in ("a", "b", None):
            self.truth.pop((context, key), None)
            assert self.kept.get(context, key, self.now) is None

    @invariant()
    def the_bounds_hold(self):
        assert len(self.kept) <= 4
        assert self.kept.bytes <= 4_096
        assert self.kept.bytes == sum(entry.size for entry in self.kept._entries.values())
        assert sum(map(len, self.kept._persons.values())) == len(self.kept)


TestModel = Model.TestCase
