"""One batch's way, against servers of every mood."""

from math import ceil, inf, log2

import pytest
from core.driving import ROOMY, Course, Server, batch_of
from core.kit import NOW, WALL, number_of, numbers, offer, said
from hypothesis import given, settings, strategies as st

from moengage_personalize import DropReason, RetryPolicy
from moengage_personalize.core.buffer import Buffer, Fate
from moengage_personalize.core.circuit import LOWEST_CEILING, MAX_SERVER_PAUSE, Circuit
from moengage_personalize.core.delivery import (
    Delivered,
    Delivery,
    Denied,
    Done,
    Refused,
    Send,
    Settle,
    Sleep,
    TooLarge,
    Unavailable,
)

OUTAGE = Unavailable(503)


def circuit(**how):
    return Circuit(RetryPolicy(**how), max_bytes=ROOMY.max_bytes)


# ── any mood ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MOODS = st.lists(
    st.sampled_from(
        [
            OUTAGE,
            Unavailable(500),
            Unavailable(None),
            Unavailable(408),
            Unavailable(429),
            Unavailable(429, 30.0),
            Unavailable(503, 1e9),
            Denied(401),
            Denied(403),
            Denied(0),
            Refused(400),
            Refused(422),
            TooLarge(),
            Delivered(),
        ]
    ),
    max_size=12,
)


@st.composite
def courses(draw, *, moods=MOODS, proven=None):
    count = draw(st.integers(1, 24))
    events = range(count)
    some = st.sets(st.integers(0, count - 1), max_size=4)
    server = Server(
        poison=draw(some),
        poisonous_attributes=draw(some),
        limit=draw(st.sampled_from([inf, inf, 20_000, 4_096, 1_000, 300, 0])),
        moods=draw(moods),
    )
    batch = batch_of(
        *events,
        customers=draw(st.integers(1, count)),
        attributes=draw(st.sampled_from([(), events, events[::2]])),
        padding=draw(st.sampled_from([0, 0, 1_500])),
    )
    return Course(
        batch,
        server,
        proven=draw(st.booleans()) if proven is None else proven,
        time_to_live=draw(st.sampled_from([inf, inf, 20.0, 0.3])),
        jitter=draw(st.floats(0, 1, exclude_max=True)),
    )


def check(course):
    """What is true of every course, finished or held."""
    events = set(numbers(course.batch))
    server, delivery = course.server, course.delivery
    assert set(course.fates) <= events
    assert course.met(Fate.DELIVERED) == set(server.accepted)
    assert len(server.accepted) == len(set(server.accepted)), "delivered twice"
    assert {reason for fate, reason in course.fates.values() if fate is Fate.DROPPED} <= {DropReason.EXPIRED}
    for fate in (Fate.REJECTED, Fate.DROPPED):
        assert not course.met(fate) & set(server.accepted)
    for customer in {record.lane.customer_id for record in course.batch.records}:
        mine = [number for number in server.accepted if f"customer {number % customers_of(course)}" == customer]
        assert mine == sorted(mine), "out of order"
    for number in course.met(Fate.REJECTED):
        assert [number] in server.requests, "rejected without having been sent by itself"
    assert delivery.requests == len(server.requests)


def customers_of(course):
    return len({record.lane.customer_id for record in course.batch.records})


@given(course=courses())
@settings(max_examples=400)
def test_every_event_meets_exactly_one_fate_or_is_held(course):
    course.run(requests=400)
    check(course)
    if course.done:
        assert set(course.fates) == set(numbers(course.batch))
        assert isinstance(course.delivery.next(course.now, WALL), Done)
    else:
        assert not course.circuit.proven, "only a client without any success goes on for ever"
        assert course.circuit.is_open
        assert "held" in repr(course.delivery)


@given(course=courses(moods=st.just([]), proven=True))
@settings(max_examples=300)
def test_an_honest_server_loses_nothing_but_poison_within_two_requests_a_split(course):
    course.run()
    check(course)
    server, delivery = course.server, course.delivery
    rejected = course.met(Fate.REJECTED)
    if server.limit == inf:
        assert rejected <= server.poison
        assert delivery.requests <= 2 * delivery.splits + 1 + delivery.strips
    assert course.done
    assert not course.met(Fate.DROPPED)
    assert delivery.retries == 0


@given(course=courses(proven=True))
@settings(max_examples=200)
def test_requests_are_bounded_by_splits_retries_and_tries_without_attributes(course):
    course.run()
    delivery = course.delivery
    assert delivery.requests <= 2 * delivery.splits + 1 + delivery.strips + delivery.retries
    assert delivery.splits <= course.batch.count - 1
    assert delivery.strips <= course.batch.count


@given(course=courses())
def test_what_is_left_never_grows(course):
    """The measure of termination: unsettled events, then events in the piece on top, then troubles left."""
    left = course.batch.count
    while not course.done and course.delivery.requests < 60:
        course.step()
        pieces = [*course.delivery._stack, *course.delivery._aside]
        unsettled = sum(len(settle.records) for settle in course.delivery._settled)
        now_left = sum(piece.batch.count for piece in pieces)
        assert now_left + unsettled + len(course.fates) == course.batch.count
        assert now_left <= left
        left = now_left


# ── one poison ───────────────────────────────────────────────────────────────────────────────────────────────────────


def bound(count):
    return 2 * ceil(log2(count)) + 1


@pytest.mark.parametrize("proven", [True, False])
def test_one_poison_anywhere_costs_at_most_two_requests_a_level_and_is_the_only_loss(proven):
    for count in range(1, 65):
        for position in range(count):
            server = Server(poison=[position])
            course = Course(batch_of(*range(count), customers=7), server, proven=proven)
            if count == 1 and not proven:
                continue  # held: nothing else could tell whose fault it is
            course.run()
            assert course.met(Fate.REJECTED) == {position}
            assert course.met(Fate.DELIVERED) == set(range(count)) - {position}
            assert course.delivery.requests <= bound(count)
            assert course.delivery.retries == 0
            assert not course.sleeps


@pytest.mark.parametrize("proven", [True, False])
def test_one_poison_among_500_actions_of_50_customers_costs_at_most_21_requests(proven):
    batch = batch_of(*range(500), customers=50)
    assert len(batch.elements) == 50
    cost = []
    for position in range(0, 500, 7):
        course = Course(batch, Server(poison=[position]), proven=proven).run()
        assert course.met(Fate.REJECTED) == {position}
        assert len(course.met(Fate.DELIVERED)) == 499
        cost.append(course.delivery.requests)
    assert max(cost) <= bound(500) - 0 <= 21 - 2


@pytest.mark.parametrize("proven", [True, False])
def test_poison_in_user_attributes_loses_no_action_and_is_counted(proven):
    for count in (1, 2, 3, 8, 33):
        for position in range(count):
            batch = batch_of(*range(count), customers=5, attributes=range(count))
            course = Course(batch, Server(poisonous_attributes=[position]), proven=proven).run()
            assert course.met(Fate.DELIVERED) == set(range(count))
            assert course.delivery.attributes_refused == 1
            assert course.delivery.requests <= bound(count) + 1


def test_500_actions_with_poisonous_attributes_cost_at_most_21_requests():
    batch = batch_of(*range(500), customers=50, attributes=range(500))
    for position in (0, 1, 249, 250, 498, 499):
        course = Course(batch, Server(poisonous_attributes=[position])).run()
        assert len(course.met(Fate.DELIVERED)) == 500
        assert course.delivery.requests <= 21


def test_a_rejected_event_says_what_was_refused_and_has_been_tried_without_attributes():
    course = Course(batch_of(1, attributes=[1]), Server(poison=[1])).run()
    (settle,) = course.settled
    assert (settle.fate, settle.rejection) == (Fate.REJECTED, Refused(400, "no"))
    assert course.server.requests == [[1], [1]]
    assert course.delivery.attributes_refused == 0


def test_the_right_half_of_a_refused_piece_is_not_sent_whole_when_the_left_was_accepted():
    server = Server(poison=[7])
    Course(batch_of(*range(8)), server).run()
    assert server.requests == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5], [6], [7]]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_nothing_but_poison_after_a_success_ends_within_two_requests_an_event(count):
    course = Course(batch_of(*range(count)), Server(poison=range(count))).run()
    assert course.met(Fate.REJECTED) == set(range(count))
    assert course.delivery.requests <= 2 * count + 1


# ── before any success ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_nothing_but_refusals_before_any_success_are_held_and_probe_ever_more_rarely(count):
    course = Course(batch_of(*range(count), attributes=[0]), Server(poison=range(count)), proven=False)
    course.run(requests=60 + 2 * count)
    assert not course.fates
    assert repr(course.delivery) == f"<Delivery held, {count} actions in {len(course.delivery._stack)} pieces>"
    assert all(sleep.parked for sleep in course.sleeps)
    assert course.circuit.denied_with == 400
    assert course.sleeps[-1].until - course.sleeps[-2].until <= 10.0
    assert course.now - course.began > 60
    course.server.poison = set()  # somebody mended the configuration
    course.run()
    assert course.server.accepted == list(range(count))
    assert not course.circuit.is_open


def test_three_refused_singles_are_put_aside_and_a_success_convicts_them():
    course = Course(batch_of(*range(4), customers=4), Server(poison=[0, 2]), proven=False).run()
    assert course.met(Fate.REJECTED) == {0, 2}
    assert course.met(Fate.DELIVERED) == {1, 3}
    assert not course.sleeps
    assert {settle.rejection for settle in course.settled if settle.fate is Fate.REJECTED} == {Refused(400, "no")}


def test_the_third_refused_single_holds_the_delivery_in_order():
    course = Course(batch_of(*range(8), customers=8), Server(poison=[0, 1, 2]), proven=False).run(requests=7)
    assert not course.fates
    assert course.circuit.is_open
    assert [piece.batch.count for piece in course.delivery._stack][-3:] == [1, 1, 1]
    course.server.poison = set()
    course.run()
    assert course.server.accepted == list(range(8))


def test_a_held_delivery_asks_with_another_customer_each_time_and_a_success_convicts_the_poison():
    server = Server(poison=[0, 1, 2])
    course = Course(batch_of(*range(8), customers=8), server, proven=False).run()
    assert server.requests[7:11] == [[0], [1], [2], [3]]
    assert course.met(Fate.REJECTED) == {0, 1, 2}
    assert course.met(Fate.DELIVERED) == {3, 4, 5, 6, 7}
    assert course.now - course.began < 60


def test_a_held_delivery_of_one_customer_keeps_his_order():
    server = Server(poison=[0, 1, 2])
    course = Course(batch_of(*range(8)), server, proven=False).run(requests=30)
    assert not course.fates
    assert set(map(tuple, server.requests[7:])) == {(0,)}
    course.circuit.succeeded()  # another customer's
    course.run()
    assert course.met(Fate.REJECTED) == {0, 1, 2}
    assert course.met(Fate.DELIVERED) == {3, 4, 5, 6, 7}


def test_attributes_that_were_taken_off_come_back_when_the_event_is_held():
    course = Course(batch_of(1, attributes=[1]), Server(poison=[1]), proven=False).run(requests=4)
    assert course.delivery._stack[-1].batch.has_attributes
    course.server.poison = set()
    course.run()
    assert course.delivery.attributes_refused == 0
    assert course.met(Fate.DELIVERED) == {1}


def test_what_was_put_aside_is_not_forgotten_when_the_rest_is_too_large():
    server = Server(moods=[Refused(400), Refused(400), TooLarge()], poison=[0])
    course = Course(batch_of(0, 1), server, proven=False).run(requests=8)
    assert course.met(Fate.REJECTED) == {1}
    assert not course.done
    server.poison = set()
    assert course.run().met(Fate.DELIVERED) == {0}


def test_what_was_put_aside_is_not_forgotten_when_the_rest_expires():
    buffer = Buffer(ROOMY)
    offer(buffer, 0, "ann", wall=WALL + 50)
    offer(buffer, 1, "bob")
    server = Server(moods=[Refused(400), Refused(400), Unavailable(503, 30.0)], poison=[0])
    course = Course(buffer.take(WALL), server, proven=False, time_to_live=20.0).run(requests=6)
    assert course.met(Fate.DROPPED) == {1}
    assert not course.done
    server.poison = set()
    assert course.run().met(Fate.DELIVERED) == {0}


def test_what_was_put_aside_is_sent_again_when_another_delivery_has_succeeded():
    server = Server(poison=[0, 1])
    course = Course(batch_of(0, 1, customers=2), server, proven=False)
    while server.requests != [[0, 1], [0]]:
        course.step()
    course.circuit.succeeded()
    course.run()
    assert course.met(Fate.REJECTED) == {0, 1}
    assert course.done


# ── too large ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_that_is_too_large_is_split_and_the_ceiling_remembered():
    batch = batch_of(*range(64), padding=500)
    server = Server(limit=batch.size / 3)
    course = Course(batch, server, circuit=Circuit(RetryPolicy(), max_bytes=49_152)).run()
    assert course.server.accepted == list(range(64))
    assert course.delivery.requests <= 8
    assert course.circuit.ceiling < batch.size / 3
    again = Course(batch_of(*range(100, 164), padding=500), server, circuit=course.circuit).run()
    assert again.delivery.requests == again.delivery.splits + 1, "the second batch is split before it is sent"
    assert course.server.accepted == [*range(64), *range(100, 164)]


def test_the_ceiling_never_falls_below_4_kib_and_recovers_slowly():
    max_bytes = 49_152
    known = Circuit(RetryPolicy(), max_bytes=max_bytes)
    for size in (40_000, 20_000, 9_000, 100):
        known.too_large(size)
    assert known.ceiling == LOWEST_CEILING == 4_096
    known.too_large(1_000_000)
    assert known.ceiling == 4_096
    known.succeeded()
    assert known.ceiling == 4_096 + max_bytes // 256
    for _ in range(1_000):
        known.succeeded()
    assert known.ceiling == max_bytes


@pytest.mark.parametrize("proven", [True, False])
def test_a_single_event_that_is_too_large_is_rejected_after_a_try_without_attributes(proven):
    course = Course(batch_of(1, attributes=[1]), Server(limit=0), proven=proven).run()
    assert course.server.requests == [[1], [1]]
    assert course.met(Fate.REJECTED) == {1}
    assert course.settled[0].rejection == TooLarge()
    assert course.circuit.ceiling == ROOMY.max_bytes


def test_a_single_event_whose_attributes_are_too_large_is_delivered_without_them():
    batch = batch_of(1, attributes=[1])
    course = Course(batch, Server(limit=batch.size - 1)).run()
    assert (course.met(Fate.DELIVERED), course.delivery.attributes_refused) == ({1}, 1)


# ── trouble that passes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [None, 408, 429, 500, 503])
def test_an_outage_costs_retries_and_nothing_else(status):
    server = Server(moods=[Unavailable(status)] * 20)
    course = Course(batch_of(*range(10)), server).run()
    assert course.server.accepted == list(range(10))
    assert course.delivery.requests == 21
    assert course.delivery.retries == 20
    assert all(request == list(range(10)) for request in server.requests)
    assert not course.circuit.failing


@given(jitter=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 40))
def test_pauses_have_full_jitter_under_a_doubling_bound(jitter, failures):
    course = Course(batch_of(1), Server(moods=[OUTAGE] * failures), jitter=jitter)
    pauses, before = [], course.now
    while course.delivery.requests < failures + 1:
        course.step()
        if course.now > before:
            pauses.append(course.now - before)
            before = course.now
    bounds = [min(10.0, 0.25 * 2**n) for n in range(failures)]
    if jitter > 1e-3:
        assert pauses == [pytest.approx(jitter * longest) for longest in bounds]
    assert sum(pauses) <= sum(bounds)


def test_a_success_starts_the_pauses_anew():
    batch = batch_of(0, 1, padding=3_000)
    server = Server(limit=batch.size - 1, moods=[OUTAGE] * 5)
    course = Course(batch, server, jitter=0.999)
    while not server.accepted:
        course.step()
    server.moods = [OUTAGE]
    before = len(course.sleeps)
    began = course.now
    course.run()
    assert [sleep.until - began for sleep in course.sleeps[before:]] == [pytest.approx(0.25, rel=0.01)]


@given(jitters=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2), asked=st.floats(0, 1e6))
def test_whoever_is_asked_to_wait_the_same_time_returns_at_another_one(jitters, asked):
    pauses = []
    for jitter in jitters:
        course = Course(batch_of(1), Server(moods=[Unavailable(429, asked)]), jitter=jitter)
        course.step()
        pauses.append(course.delivery.ready_at(NOW) - NOW)
    assert min(pauses) >= min(asked, MAX_SERVER_PAUSE) - 1e-9
    spread = min(10.0, max(0.25, asked))
    assert abs(pauses[0] - pauses[1]) == pytest.approx(abs(jitters[0] - jitters[1]) * spread, abs=1e-6)


@pytest.mark.parametrize(("asked", "waited"), [(3.0, 3.0), (40.0, 40.0), (1e9, MAX_SERVER_PAUSE)])
@pytest.mark.parametrize("status", [429, 503, 408])
def test_retry_after_is_a_minimum_capped_and_everybody_waits(status, asked, waited):
    course = Course(batch_of(1), Server(moods=[Unavailable(status, asked)]), jitter=0.5)
    course.step()
    other = Delivery(batch_of(2), course.circuit, RetryPolicy(), time_to_live=inf)
    (mine, theirs) = course.delivery.next(NOW, WALL), other.next(NOW, WALL)
    assert mine == theirs == Sleep(NOW + waited + 0.5 * min(10.0, waited), parked=False)


def test_429_makes_everybody_wait_without_retry_after_too():
    course = Course(batch_of(1), Server(moods=[Unavailable(429)]))
    course.step()
    assert course.circuit.ready_at(NOW) > NOW


def test_an_outage_without_retry_after_is_each_deliverys_own_matter():
    course = Course(batch_of(1), Server(moods=[OUTAGE]))
    course.step()
    assert course.circuit.ready_at(NOW) == NOW
    assert course.delivery.ready_at(NOW) > NOW
    assert course.circuit.failing


def test_a_longer_pause_is_not_shortened_by_a_shorter_one():
    known = circuit()
    known.throttled(NOW + 60)
    known.throttled(NOW + 1)
    assert known.ready_at(NOW) == NOW + 60


def test_expired_events_are_dropped_on_the_way_and_the_rest_arrives():
    buffer = Buffer(ROOMY)
    for number in range(6):
        offer(buffer, number, f"customer {number % 3}", wall=WALL + 10 * number)
    course = Course(buffer.take(WALL), Server(moods=[Unavailable(503, 50.0)]), time_to_live=30.0).run()
    assert course.met(Fate.DROPPED) == {0, 1, 2}
    assert course.met(Fate.DELIVERED) == {3, 4, 5}
    assert {reason for _, reason in course.fates.values()} == {None, DropReason.EXPIRED}


def aging(*events):
    """One customer's events, of which each is (number, seconds younger, attributes)."""
    buffer = Buffer(ROOMY)
    for number, later, attributes in events:
        offer(buffer, number, wall=WALL + later, attributes=attributes)
    return buffer, buffer.take(WALL)


def test_an_event_that_expires_on_the_way_hands_its_attributes_on():
    _, batch = aging((0, 0, {"a": 0, "b": 0, "c": 0}), (1, 1, {"b": 1}), (2, 60, {"c": 2}), (3, 60, None))
    bodies = []
    course = Course(batch, Server(moods=[Unavailable(503, 50.0)]), time_to_live=30.0)
    server = course.server
    course.server = lambda request: bodies.append(said(request)) or server(request)
    course.run()
    assert course.met(Fate.DROPPED) == {0, 1}
    ((element,),) = bodies[1:]
    assert element["user_attributes"] == {"a": 0, "b": 1, "c": 2}
    assert server.requests[-1] == [2, 3]


def test_attributes_are_handed_on_to_another_piece_of_the_delivery_too():
    _, batch = aging((0, 0, {"a": 0}), (1, 0, None), (2, 60, None), (3, 60, None))
    server = Server(moods=[TooLarge(), Unavailable(503, 50.0)])
    course = Course(batch, server, time_to_live=30.0).run()
    assert server.requests == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert [record.attributes for record in batch.records] == [None, None, {b'"a"': b"0"}, None]
    assert course.met(Fate.DELIVERED) == {2, 3}


def test_attributes_find_their_way_to_an_event_that_still_waits():
    buffer, batch = aging((0, 0, {"a": 0, "b": 0}))
    offer(buffer, 1, wall=WALL + 60, attributes={"b": 1})
    course = Course(batch, Server(moods=[Unavailable(503, 50.0)]), time_to_live=30.0).run()
    for settle in course.settled:
        buffer.settle(settle.records, settle.fate, settle.reason)
    (element,) = said(buffer.take(WALL + 60))
    assert element["user_attributes"] == {"a": 0, "b": 1}


def test_attributes_that_were_refused_are_not_handed_on():
    _, batch = aging((0, 0, {"a": 0}), (1, 60, None))
    server = Server(poisonous_attributes=[], moods=[Refused(400), Refused(400), Unavailable(503, 50.0)])
    course = Course(batch, server, time_to_live=30.0).run()
    assert server.requests == [[0, 1], [0], [0], [1]]
    assert course.met(Fate.DROPPED) == {0}
    assert not any(record.attributes for record in batch.records)


def test_a_half_that_lost_its_poison_to_time_accuses_nobody():
    buffer = Buffer(ROOMY)
    for number in range(4):
        offer(buffer, number, wall=WALL + 40 * (number > 0))
    server = Server(moods=[Refused(400), Unavailable(503, 35.0)])
    course = Course(buffer.take(WALL), server, time_to_live=30.0).run()
    assert server.requests == [[0, 1, 2, 3], [0, 1], [1], [2, 3]]
    assert course.met(Fate.DROPPED) == {0}


@given(course=courses(), steps=st.integers(0, 40), forgotten=st.sets(st.integers(0, 23), max_size=6))
@settings(max_examples=300)
def test_what_is_forgotten_on_the_way_is_never_sent_again_and_the_rest_goes_on(course, steps, forgotten):
    for _ in range(steps):
        course.step()
        if course.done or course.now == inf:
            break
    course.settle_down()
    forgotten = forgotten & set(numbers(course.batch)) - set(course.fates)
    before = len(course.server.requests)
    course.delivery.forget(lambda record: number_of(record.event_uuid) in forgotten)
    course.delivery.forget(lambda record: number_of(record.event_uuid) in forgotten)  # again: there is nothing left
    course.run(requests=400)
    check(course)
    assert course.met(Fate.FORGOTTEN) == forgotten
    assert not any(forgotten & set(request) for request in course.server.requests[before:])
    if course.done:
        assert set(course.fates) == set(numbers(course.batch))


def test_a_half_whose_poison_was_forgotten_accuses_nobody():
    course = Course(batch_of(0, 1, 2, 3), Server(poison=[3], moods=[Refused(400), Unavailable(503)]))
    while len(course.server.requests) < 2:
        course.step()
    course.delivery.forget(lambda record: number_of(record.event_uuid) == 0)
    course.delivery.forget(lambda record: number_of(record.event_uuid) == 3)
    course.run()
    assert course.server.requests == [[0, 1, 2, 3], [0, 1], [1], [2]]
    assert (course.met(Fate.DELIVERED), course.met(Fate.FORGOTTEN)) == ({1, 2}, {0, 3})


def test_a_batch_of_which_everybody_was_forgotten_is_done():
    assert Course(batch_of(1, 2).only(set()), Server()).run().done


def test_everything_may_expire_on_the_way():
    course = Course(batch_of(0, 1, 2), Server(moods=[OUTAGE] * 1_000), time_to_live=60.0).run()
    assert course.met(Fate.DROPPED) == {0, 1, 2}
    assert course.now - course.began >= 60


# ── parking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [500, 503, 408, None])
def test_a_batch_that_fails_twice_while_another_succeeds_is_split_and_parked(status):
    course = Course(batch_of(*range(4)), Server(moods=[Unavailable(status)] * 2))
    course.step()
    course.circuit.succeeded()
    course.step()
    course.step()
    assert course.sleeps == [Sleep(course.now, parked=False)]
    assert repr(course.delivery) == "<Delivery parked, 4 actions in 2 pieces>"
    assert course.delivery.next(course.now, WALL) == Sleep(course.delivery.ready_at(course.now), parked=True)
    course.run()
    assert course.server.requests == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [2, 3]]
    assert course.server.accepted == [0, 1, 2, 3]


def test_a_request_that_is_told_to_come_later_twice_while_another_succeeds_is_parked_too():
    course = Course(batch_of(*range(4)), Server(moods=[Unavailable(503, 1.0)] * 2))
    while course.delivery.requests < 2:
        course.step()
        course.circuit.succeeded()
    assert repr(course.delivery) == "<Delivery parked, 4 actions in 2 pieces>"


def test_what_fails_by_itself_does_not_speak_for_the_way_to_moengage():
    course = Course(batch_of(1), Server(moods=[Unavailable(500)] * 5))
    failing = []
    while not course.done:
        course.step()
        failing.append(course.circuit.failing)
        course.circuit.succeeded()
    assert failing.count(True) == 2, "twice, and then it is parked"


def test_too_many_requests_are_nobodys_fault_in_particular():
    course = Course(batch_of(*range(4)), Server(moods=[Unavailable(429)] * 9))
    while not course.done:
        course.step()
        course.circuit.succeeded()
    assert course.delivery.splits == 0


def test_a_batch_that_fails_while_everything_fails_is_neither_split_nor_parked():
    course = Course(batch_of(*range(4)), Server(moods=[Unavailable(500)] * 9)).run()
    assert course.delivery.splits == 0
    assert not any(sleep.parked for sleep in course.sleeps)


def test_a_single_event_that_fails_while_others_succeed_is_parked_and_tried_on():
    course = Course(batch_of(1), Server(moods=[Unavailable(500)] * 5))
    while not course.done:
        course.step()
        course.circuit.succeeded()
    assert course.delivery.splits == 0
    assert [sleep.parked for sleep in course.sleeps] == [False, True, True, True, True]
    assert course.met(Fate.DELIVERED) == {1}


def test_an_event_that_fails_for_ever_keeps_only_its_own_customer_waiting():
    class Server500(Server):
        def __call__(self, batch):
            answer = super().__call__(batch)
            return Unavailable(500) if 0 in self.requests[-1] else answer

    server = Server500()
    course = Course(batch_of(*range(16), customers=4), server, time_to_live=3_600.0)
    while course.now < NOW + 600 and not course.done:
        course.step()
        course.circuit.succeeded()
    assert course.met(Fate.DELIVERED) == set(range(16)) - {0, 4, 8, 12}
    assert not course.met(Fate.DROPPED)
    course.run()
    assert course.met(Fate.DROPPED) >= {0}
    assert set(course.fates) == set(range(16))


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refused_credentials_keep_everything_and_recover_without_a_restart():
    course = Course(batch_of(*range(5)), Server(moods=[Denied(401)] * 30), jitter=0.0).run()
    assert course.server.accepted == list(range(5))
    assert (course.delivery.requests, course.delivery.retries, course.delivery.splits) == (31, 30, 0)
    pauses = [after.until - before.until for before, after in zip(course.sleeps, course.sleeps[1:], strict=False)]
    assert pauses[:3] == [0.25, 0.5, 1.0]
    assert max(pauses) == 5.0
    assert not course.circuit.is_open


@given(refusals=st.integers(1, 200), jitter=st.floats(0, 1, exclude_max=True))
def test_pauses_between_probes_stay_within_half_of_and_the_whole_bound(refusals, jitter):
    known = circuit()
    for refusal in range(refusals):
        known.refused(401, NOW, jitter)
        pause = known.ready_at(NOW) - NOW
        longest = min(10.0, 0.25 * 2**refusal)
        assert longest / 2 <= pause + 1e-9
        assert pause <= longest + 1e-9


def test_one_probe_at_a_time_and_one_a_pause():
    known = circuit()
    known.refused(401, NOW, 0.5)
    one, other = (Delivery(batch_of(n), known, RetryPolicy(), time_to_live=inf) for n in (1, 2))
    ready = known.ready_at(NOW)
    assert NOW < ready < NOW + 1
    assert one.next(NOW, WALL) == other.next(NOW, WALL) == Sleep(ready, parked=False)
    assert isinstance(one.next(ready, WALL), Send)
    assert other.next(ready, WALL) == Sleep(inf, parked=False)
    one.answered(Denied(401), ready, 0.5)
    assert other.next(ready, WALL).until > ready
    again = known.ready_at(ready)
    assert isinstance(other.next(again, WALL), Send)
    other.answered(Delivered(), again, 0.5)
    assert isinstance(one.next(again, WALL), Send)
    assert not known.is_open


def test_a_late_answer_to_an_old_request_does_not_let_a_second_probe_out():
    known = circuit()
    slow, probe, third = (Delivery(batch_of(n), known, RetryPolicy(), time_to_live=inf) for n in (1, 2, 3))
    assert isinstance(slow.next(NOW, WALL), Send)
    assert isinstance(probe.next(NOW, WALL), Send)
    probe.answered(Denied(401), NOW, 0.5)
    ready = known.ready_at(NOW)
    assert isinstance(probe.next(ready, WALL), Send)
    slow.answered(OUTAGE, ready, 0.5)
    assert third.next(ready + 60, WALL) == Sleep(inf, parked=False)


def test_a_probe_without_an_answer_is_a_probe_of_that_pause():
    known = circuit()
    known.refused(401, NOW, 0.5)
    ready = known.ready_at(NOW)
    one, other = (Delivery(batch_of(n), known, RetryPolicy(), time_to_live=inf) for n in (1, 2))
    assert isinstance(one.next(ready, WALL), Send)
    one.answered(OUTAGE, ready, 0.5)
    assert isinstance(other.next(ready, WALL), Sleep)


@pytest.mark.parametrize("answer", [Refused(400), Refused(422), TooLarge()])
def test_a_probe_that_is_refused_for_its_content_is_a_probe_of_that_pause(answer):
    known = circuit()
    known.succeeded()
    for _ in range(9):
        known.refused(401, NOW, 0.5)
    ready = known.ready_at(NOW)
    one, other = (Delivery(batch_of(n, n + 1), known, RetryPolicy(), time_to_live=inf) for n in (1, 3))
    assert one.next(ready, WALL) == Send(one._stack[-1].batch, probe=True)
    one.answered(answer, ready, 0.5)
    for delivery in (one, other):
        assert delivery.next(ready, WALL) == Sleep(ready + 7.5, parked=False)
    assert known.denied_with == 401


def test_poison_in_a_probe_costs_a_pause_a_level_and_the_rest_arrives():
    known = circuit()
    known.succeeded()
    known.refused(401, NOW, 0.5)
    course = Course(batch_of(*range(64)), Server(poison=[0]), circuit=known).run()
    assert course.met(Fate.REJECTED) == {0}
    assert course.delivery.requests <= bound(64)
    assert len(course.sleeps) <= 8


def test_new_credentials_are_tried_at_once_and_have_proven_nothing():
    known = circuit()
    known.succeeded()
    for _ in range(9):
        known.refused(401, NOW, 0.5)
    known.new_credentials()
    assert known.ready_at(NOW) <= NOW
    assert (known.proven, known.is_open) == (False, True)
    course = Course(batch_of(1), Server(poison=[1]), circuit=known, proven=False).run(requests=3)
    assert not course.fates


def test_a_pause_stops_everybody_until_it_is_over():
    known = circuit()
    known.paused = True
    delivery = Delivery(batch_of(1), known, RetryPolicy(), time_to_live=inf)
    assert delivery.next(NOW, WALL) == Sleep(inf, parked=False)
    known.paused = False
    assert isinstance(delivery.next(NOW, WALL), Send)


# ── several deliveries ───────────────────────────────────────────────────────────────────────────────────────────────


@given(data=st.data())
@settings(max_examples=150)
def test_deliveries_side_by_side_keep_the_circuits_rules(data):
    """Senders whose answers arrive in any order: at most one probe is out, and the next one not without a pause."""
    known = circuit()
    servers = [
        Server(moods=data.draw(MOODS), poison=data.draw(st.sets(st.integers(0, 3), max_size=1))) for _ in range(3)
    ]
    deliveries = [Delivery(batch_of(*range(4)), known, RetryPolicy(), time_to_live=inf) for _ in servers]
    out: dict[int, object] = {}
    probes: set[int] = set()
    fates = [0] * 3
    now, last_refused_probe = NOW, -inf
    for _ in range(80):
        index = data.draw(st.integers(0, 2))
        delivery = deliveries[index]
        if index in out:
            answer = out.pop(index)
            delivery.answered(answer, now, data.draw(st.sampled_from([0.1, 0.5, 0.9])))
            if index in probes and isinstance(answer, Denied | Unavailable):
                last_refused_probe = now
            probes.discard(index)
            continue
        opened = known.is_open
        match delivery.next(now, WALL):
            case Send(batch):
                if opened:
                    assert not probes, "two probes are out"
                    probes.add(index)
                    assert now > last_refused_probe, "two probes in a pause"
                out[index] = servers[index](batch)
            case Settle(records):
                fates[index] += len(records)
            case Sleep(until):
                now = now if until == inf or data.draw(st.booleans()) else until
            case Done():
                assert fates[index] == 4
        assert LOWEST_CEILING <= known.ceiling <= ROOMY.max_bytes


def test_a_probe_that_is_still_out_is_remembered_when_the_circuit_closed_and_opened_meanwhile():
    known = circuit()
    older, third, probe, late = (Delivery(batch_of(n), known, RetryPolicy(), time_to_live=inf) for n in range(4))
    assert isinstance(older.next(NOW, WALL), Send)
    assert isinstance(third.next(NOW, WALL), Send)
    known.refused(401, NOW, 0.5)
    now = known.ready_at(NOW)
    assert isinstance(probe.next(now, WALL), Send)
    older.answered(Delivered(), now, 0.5)
    assert isinstance(late.next(now, WALL), Send), "closed, so everybody may"
    third.answered(Denied(401), now, 0.5)
    assert known.ready_at(now + 60) == inf, "the probe is still out"
    probe.answered(Delivered(), now + 60, 0.5)
    assert known.ready_at(now + 60) <= now + 60


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(capacity=st.integers(1, 50), spends=st.integers(1, 300))
def test_retries_are_bounded_by_the_budget_and_time_and_never_starve(capacity, spends):
    budget = circuit(budget=capacity).budget
    waits = [budget.spend(NOW) for _ in range(spends)]
    assert waits == [max(0, n + 1 - capacity) for n in range(spends)]
    assert budget.spend(NOW + 10_000) == 0.0


def test_a_success_gives_back_a_tenth_and_no_more_than_the_capacity():
    budget = circuit(budget=2).budget
    budget.give_back()
    assert [budget.try_spend(NOW) for _ in range(3)] == [True, True, False]
    for _ in range(9):
        budget.give_back()
    assert not budget.try_spend(NOW)
    for _ in range(2):
        budget.give_back()
    assert budget.try_spend(NOW)
    assert not budget.try_spend(NOW + 0.9)
    assert budget.try_spend(NOW + 1.0)
    assert not budget.try_spend(NOW - 50), "a clock that goes back gives nothing"


def test_an_exhausted_budget_slows_retries_to_one_a_second():
    course = Course(batch_of(1), Server(moods=[OUTAGE] * 60), retrying=RetryPolicy(budget=10, maximum=0.25), jitter=0.0)
    course.run()
    assert course.met(Fate.DELIVERED) == {1}
    assert course.now - course.began == pytest.approx(50, abs=1)


# ── what it shows ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reprs_are_states():
    known = circuit()
    assert repr(known) == f"<Circuit closed, unproven, ceiling {ROOMY.max_bytes} bytes>"
    known.succeeded()
    known.refused(401, NOW, 0.0)
    assert repr(known) == f"<Circuit open after 1 refusals, proven, ceiling {ROOMY.max_bytes} bytes>"
    delivery = Delivery(batch_of(1, 2), known, RetryPolicy(), time_to_live=inf)
    assert repr(delivery) == "<Delivery under way, 2 actions in 1 pieces>"


def test_every_request_carries_the_bytes_that_were_accepted():
    batch = batch_of(*range(8), customers=3)
    accepted = {record.event_uuid: record.action for record in batch.records}
    sent: dict[str, set[bytes]] = {}

    class Recorder(Server):
        def __call__(self, request):
            for element in said(request):
                for each in element["actions"]:
                    action = next(r.action for r in request.records if r.event_uuid == each["moe_event_uuid"])
                    sent.setdefault(each["moe_event_uuid"], set()).add(action)
                    assert action in request.encode()
            return super().__call__(request)

    Course(batch, Recorder(moods=[OUTAGE, Denied(401), TooLarge()], poison=[5])).run()
    assert sent == {event_uuid: {action} for event_uuid, action in accepted.items()}
