"""The buffer's sentences, one by one. The state machine beside this file plays them all at once."""

import json
import random
from math import ceil, inf

import pytest
from core.kit import NOW, WALL, action, filled, number_of, numbers, offer, report, said, uuid

from moengage_personalize import Admission, BatchPolicy, DropReason
from moengage_personalize.core.batch import Batch, State
from moengage_personalize.core.buffer import Buffer, Fate, Journaled
from moengage_personalize.core.codec import encode
from moengage_personalize.core.wire import REQUEST_SIZE, element_size, unpack_attributes

SMALL = BatchPolicy(max_bytes=4_096, max_pending_bytes=4_096)


# ── linger, due ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_linger_counts_from_the_oldest_event():
    buffer = filled(1, now=NOW)
    for number in range(2, 50):
        offer(buffer, number, f"customer {number}", now=NOW + number / 50)
    assert buffer.due() == NOW + 1.0


def test_linger_counts_from_the_oldest_ready_event_while_older_ones_wait_for_their_customer():
    buffer = filled(1)
    buffer.take(WALL)
    offer(buffer, 2, now=NOW + 5)  # the same customer, whose first event is in flight
    assert buffer.due() == inf
    offer(buffer, 3, "mary", now=NOW + 6)
    assert buffer.due() == NOW + 7


def test_a_shed_oldest_event_gives_way_to_the_next_oldest():
    buffer = filled(1, 2, policy=BatchPolicy(max_pending=2))
    assert offer(buffer, 3, now=NOW + 0.5) is Admission.ACCEPTED
    assert buffer.due() == NOW + 1.0
    assert offer(buffer, 4, now=NOW + 0.5) is Admission.ACCEPTED
    assert buffer.due() == NOW + 1.5


@pytest.mark.parametrize(
    ("policy", "count"),
    [(BatchPolicy(max_elements=3), 3), (BatchPolicy(max_actions=4), 4), (BatchPolicy(max_bytes=4_096), 5)],
)
def test_a_full_request_is_due_at_once_and_says_so(policy, count):
    buffer = Buffer(policy)
    for number in range(1, count + 1):
        assert buffer.due() > -inf
        buffer.stirred = False
        offer(buffer, number, f"customer {number}", padding=0 if policy.max_bytes > 4_096 else 700)
    assert buffer.due() == -inf
    assert buffer.stirred


def test_one_customer_fills_a_request_too():
    buffer = filled(*range(1, 4), policy=BatchPolicy(max_actions=4))
    buffer.stirred = False
    offer(buffer, 4)
    assert (buffer.due(), buffer.stirred) == (-inf, True)
    buffer = filled(1, 2, policy=BatchPolicy(max_bytes=4_096), padding=1_200)
    buffer.stirred = False
    offer(buffer, 3, padding=1_500)
    assert (buffer.due(), buffer.stirred) == (-inf, True)


def test_an_ordinary_event_wakes_nobody():
    buffer = filled(1)
    assert buffer.stirred
    buffer.stirred = False
    offer(buffer, 2)
    offer(buffer, 3, "mary")
    assert not buffer.stirred


def test_a_flush_makes_what_was_accepted_before_it_due_and_nothing_later():
    buffer = filled(1)
    barrier = buffer.barrier()
    assert (barrier.remaining, buffer.due()) == (1, -inf)
    batch = buffer.take(WALL)
    offer(buffer, 2, "mary")
    assert buffer.due() == NOW + 1
    buffer.settle(batch.records, Fate.DELIVERED)
    assert barrier.remaining == 0
    buffer.lift(barrier)
    buffer.lift(barrier)  # twice is once
    assert buffer.due() == NOW + 1


def test_what_is_accepted_after_a_flush_does_not_count_for_it():
    buffer = filled(1)
    barrier = buffer.barrier()
    offer(buffer, 2, "mary")
    batch = buffer.take(WALL)
    late = [record for record in batch.records if record.event_uuid == uuid(2)]
    buffer.settle(late, Fate.DELIVERED)
    assert barrier.remaining == 1


def test_a_flush_of_nothing_waits_for_nothing():
    buffer = Buffer(BatchPolicy())
    assert buffer.barrier().remaining == 0
    assert not buffer._barriers


def test_draining_makes_everything_due_from_then_on():
    buffer = filled(1)
    buffer.drain()
    assert buffer.due() == -inf
    buffer.take(WALL)
    assert buffer.due() == inf
    offer(buffer, 2, "mary")
    assert buffer.due() == -inf


# ── what a request holds ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_of_offset_starts_a_new_element_that_waits_for_the_next_request():
    buffer = filled(1, 2, offset=19_800)
    offer(buffer, 3, offset=0)
    offer(buffer, 4, offset=19_800)
    offer(buffer, 5, "mary")
    first = buffer.take(WALL)
    assert [(each["customer_id"], each.get("user_timezone_offset"), len(each["actions"])) for each in said(first)] == [
        ("john", 19_800, 2),
        ("mary", None, 1),
    ]
    assert buffer.take(WALL) is None
    buffer.settle(first.records, Fate.DELIVERED)
    second = buffer.take(WALL)
    assert [each["user_timezone_offset"] for each in said(second)] == [0]
    buffer.settle(second.records, Fate.DELIVERED)
    assert [numbers(buffer.take(WALL)), buffer.waiting] == [[4], 0]


def test_user_attributes_merge_later_over_earlier():
    buffer = filled(1, attributes={"name": "John", "city": "Oslo"})
    offer(buffer, 2)
    offer(buffer, 3, attributes={"city": "Rome", "age": {"in": [1, None]}})
    (element,) = said(buffer.take(WALL))
    assert element["user_attributes"] == {"name": "John", "city": "Rome", "age": {"in": [1, None]}}


def test_at_most_one_request_per_customer_is_in_flight():
    buffer = filled(1, policy=BatchPolicy(max_actions=1))
    offer(buffer, 2)
    offer(buffer, 3, "mary")
    first, second = buffer.take(WALL), buffer.take(WALL)
    assert (numbers(first), numbers(second), buffer.take(WALL)) == ([1], [3], None)
    buffer.settle(first.records, Fate.DELIVERED)
    assert numbers(buffer.take(WALL)) == [2]


def test_nobody_is_woken_for_what_waits_behind_a_request_in_flight():
    buffer = filled(1, policy=BatchPolicy(max_actions=2))
    buffer.take(WALL)
    buffer.stirred = False
    for number in range(2, 9):
        offer(buffer, number)
    assert (buffer.due(), buffer.stirred) == (inf, False)


def test_a_customer_is_ready_again_only_when_all_of_its_batch_is_settled():
    buffer = filled(1, 2)
    records = tuple(buffer.take(WALL).records)
    offer(buffer, 3)
    buffer.settle(records[1:], Fate.DELIVERED)
    assert buffer.due() == inf
    buffer.settle(records[:1], Fate.REJECTED)
    assert buffer.due() == NOW + 1


def fits_exactly(policy, padding, **how):
    """Three events that fill a request to the last byte, if the last one is padded with `padding`."""
    buffer = Buffer(policy)
    offer(buffer, 1, "john", padding=1_000, offset=-54_000, **how)
    offer(buffer, 2, "john", padding=1_000, offset=-54_000)
    offer(buffer, 3, "mary", padding=padding)
    return buffer.take(WALL)


@pytest.mark.parametrize("attributes", [None, {"name": "Jöhn", "age": 7}])
def test_a_request_is_packed_to_the_last_byte(attributes):
    room = 4_096 - fits_exactly(SMALL, 0, attributes=attributes).size
    full = fits_exactly(SMALL, room, attributes=attributes)
    assert (len(full.encode()), numbers(full)) == (4_096, [1, 2, 3])
    assert numbers(fits_exactly(SMALL, room + 1, attributes=attributes)) == [1, 2]


def test_a_request_has_no_more_elements_and_actions_than_the_policy_says():
    buffer = Buffer(BatchPolicy(max_elements=3, max_actions=5))
    for number in range(1, 13):
        offer(buffer, number, f"customer {number % 4}")
    batch = buffer.take(WALL)
    assert (batch.count, len(batch.elements)) == (5, 2)
    buffer = Buffer(BatchPolicy(max_elements=3))
    for number in range(1, 13):
        offer(buffer, number, f"customer {number % 4}")
    assert len(buffer.take(WALL).elements) == 3


def test_an_event_too_large_for_any_request_is_refused_to_the_byte():
    bare = Buffer(SMALL)
    offer(bare, 1, padding=0, offset=100)
    room = 4_096 - bare.take(WALL).size
    buffer = Buffer(SMALL)
    assert offer(buffer, 1, padding=room + 1, offset=100) is Admission.REFUSED
    assert offer(buffer, 1, padding=room, offset=100) is Admission.ACCEPTED
    assert (report(buffer).refused, report(buffer).accepted, buffer.take(WALL).size) == (1, 1, 4_096)


def test_a_refused_event_leaves_nothing_behind():
    buffer = Buffer(SMALL)
    offer(buffer, 1, padding=5_000)
    assert not buffer._known
    assert not list(buffer.lanes())
    assert buffer.due() == inf


def test_a_lower_ceiling_takes_less_and_one_event_at_least():
    buffer = filled(1, 2, 3, padding=1_000)
    assert numbers(buffer.take(WALL, max_bytes=2_500)) == [1, 2]
    buffer = filled(1, 2, 3, padding=1_000)
    assert numbers(buffer.take(WALL, max_bytes=100)) == [1]
    buffer = filled(1, 2, 3, padding=20_000)
    assert numbers(buffer.take(WALL, max_bytes=1_000_000)) == [1, 2]  # never above the policy's


# ── UUIDs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fate", [Fate.DELIVERED, Fate.REJECTED])
def test_the_same_uuid_is_taken_on_once_while_it_waits_flies_and_is_remembered(fate):
    buffer = filled(1)
    assert offer(buffer, 1) is Admission.DUPLICATE
    batch = buffer.take(WALL)
    assert offer(buffer, 1, "mary") is Admission.DUPLICATE
    buffer.settle(batch.records, fate)
    assert offer(buffer, 1) is Admission.DUPLICATE
    assert (report(buffer).offered, report(buffer).accepted, report(buffer).duplicate) == (4, 1, 3)


@pytest.mark.parametrize("fate", [Fate.DROPPED, Fate.FORGOTTEN])
def test_a_uuid_that_was_dropped_may_come_again(fate):
    buffer = filled(1)
    buffer.settle(buffer.take(WALL).records, fate)
    assert offer(buffer, 1) is Admission.ACCEPTED


def test_a_uuid_that_was_shed_or_turned_away_may_come_again():
    buffer = filled(1, 2, policy=BatchPolicy(max_pending=2))
    offer(buffer, 3)
    assert offer(buffer, 1) is Admission.ACCEPTED
    buffer = filled(1, policy=BatchPolicy(max_pending=1), click=True)
    assert [offer(buffer, 2), offer(buffer, 2)] == [Admission.DROPPED] * 2
    buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    assert offer(buffer, 2) is Admission.ACCEPTED


def test_the_window_remembers_the_last_settled_uuids_and_no_more():
    buffer = filled(1, 2, 3, policy=BatchPolicy(dedup_window=2))
    buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    assert [offer(buffer, number) for number in (3, 2, 1)] == [
        Admission.DUPLICATE,
        Admission.DUPLICATE,
        Admission.ACCEPTED,
    ]


def test_without_a_window_nothing_is_remembered():
    buffer = filled(1, policy=BatchPolicy(dedup_window=0))
    buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    assert not buffer._known
    assert not buffer._settled


# ── under pressure ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_oldest_impression_is_shed_before_any_click():
    buffer = Buffer(BatchPolicy(max_pending=4))
    for number in range(1, 5):
        offer(buffer, number, f"customer {number}", click=number in (1, 3))
    assert offer(buffer, 5, click=True) is Admission.ACCEPTED
    assert offer(buffer, 6, click=True) is Admission.ACCEPTED
    assert offer(buffer, 7, click=True) is Admission.DROPPED
    assert offer(buffer, 8) is Admission.DROPPED
    assert numbers(buffer.take(WALL)) == [1, 3, 5, 6]
    assert report(buffer).dropped_by_reason == {"overflow": 2}
    assert report(buffer).dropped_at_the_door == 2


def test_what_is_in_flight_counts_and_is_not_shed():
    buffer = filled(1, 2, policy=BatchPolicy(max_pending=3))
    batch = buffer.take(WALL)
    offer(buffer, 3)
    assert offer(buffer, 4) is Admission.ACCEPTED  # for 3
    assert offer(buffer, 5, click=True) is Admission.ACCEPTED  # for 4
    assert offer(buffer, 6) is Admission.DROPPED
    buffer.settle(batch.records, Fate.DELIVERED)
    assert numbers(buffer.take(WALL)) == [5]


def test_bytes_are_bounded_like_events():
    buffer = filled(1, 2, policy=SMALL, padding=1_500)
    assert offer(buffer, 3, "mary", padding=3_000) is Admission.ACCEPTED
    assert numbers(buffer.take(WALL)) == [3]
    assert report(buffer).dropped_by_reason == {"overflow": 2}


def test_an_impression_that_finds_room_for_nothing_but_clicks_is_turned_away_itself():
    buffer = filled(1, policy=SMALL, click=True, padding=3_000)
    assert offer(buffer, 2, padding=3_000) is Admission.DROPPED
    assert numbers(buffer.take(WALL)) == [1]


def test_a_shed_event_hands_its_attributes_to_the_next_waiting_one_of_its_customer():
    buffer = Buffer(BatchPolicy(max_pending=3))
    offer(buffer, 1, attributes={"a": 1, "b": 1})
    offer(buffer, 2, "mary")
    offer(buffer, 3, attributes={"b": 2})
    offer(buffer, 4, "mary")
    (john, mary) = sorted(said(buffer.take(WALL)), key=lambda element: element["customer_id"])
    assert (john["user_attributes"], len(john["actions"])) == ({"a": 1, "b": 2}, 1)
    assert "user_attributes" not in mary


def test_attributes_are_inherited_through_several_sheddings():
    buffer = Buffer(BatchPolicy(max_pending=2))
    for number in range(1, 6):
        offer(buffer, number, attributes={str(number): number})
    (element,) = said(buffer.take(WALL))
    assert element["user_attributes"] == {str(number): number for number in range(1, 6)}


def test_an_inheritance_that_would_not_fit_a_request_is_lost_and_the_heir_is_not():
    buffer = Buffer(BatchPolicy(max_pending=1, max_bytes=4_096))
    offer(buffer, 1, attributes={"a": "x" * 2_000})
    offer(buffer, 2, attributes={"b": "y" * 2_000})
    (element,) = said(buffer.take(WALL))
    assert set(element["user_attributes"]) == {"b"}


def test_an_impression_is_shed_from_the_middle_of_its_customers_events():
    buffer = Buffer(BatchPolicy(max_pending=3))
    offer(buffer, 1, click=True)
    offer(buffer, 2, attributes={"a": 1})
    offer(buffer, 3, click=True)
    offer(buffer, 4, click=True)
    batch = buffer.take(WALL)
    assert numbers(batch) == [1, 3, 4]
    assert said(batch)[0]["user_attributes"] == {"a": 1}


def test_an_impression_is_shed_from_the_end_of_its_customers_events():
    buffer = Buffer(BatchPolicy(max_pending=2))
    offer(buffer, 1, click=True)
    offer(buffer, 2, attributes={"a": 1})
    offer(buffer, 3, "mary")
    batch = buffer.take(WALL)
    assert numbers(batch) == [1, 3]
    assert not batch.has_attributes


def test_with_the_defaults_exactly_the_oldest_impressions_beyond_the_bound_are_shed():
    buffer = Buffer(BatchPolicy())
    order = random.Random(7)
    clicks = set(order.sample(range(20_000), 300))
    for number in range(20_000):
        click = number in clicks
        assert offer(buffer, number, f"customer {order.randrange(500)}", click=click) is Admission.ACCEPTED
    kept = sorted(number_of(record.event_uuid) for lane in buffer.lanes() for record in lane.waiting)
    impressions = [number for number in range(20_000) if number not in clicks]
    assert kept == sorted(clicks | set(impressions[10_000:]))
    found = report(buffer)
    assert (found.accepted, found.pending, found.dropped_by_reason) == (20_000, 10_000, {"overflow": 10_000})


# ── the end of an event ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_outlived_its_time_to_live_by_the_wall_clock_is_dropped_when_its_turn_comes():
    buffer = filled(1, policy=BatchPolicy(time_to_live=60.0), attributes={"a": 1})
    offer(buffer, 2, wall=WALL + 30)
    offer(buffer, 3, "mary")
    assert numbers(buffer.take(WALL + 60)) == [1, 2, 3]
    buffer = filled(1, policy=BatchPolicy(time_to_live=60.0), attributes={"a": 1})
    offer(buffer, 2, wall=WALL + 30)
    offer(buffer, 3, "mary")
    batch = buffer.take(WALL + 61)
    assert numbers(batch) == [2]
    assert said(batch)[0]["user_attributes"] == {"a": 1}
    assert report(buffer).dropped_by_reason == {"expired": 2}


def test_each_fate_is_counted():
    buffer = filled(1, 2, 3, 4, 5)
    records = tuple(buffer.take(WALL).records)
    for record, fate in zip(records, [*Fate, Fate.DROPPED], strict=True):
        assert record.state is State.IN_FLIGHT
        buffer.settle([record], fate, DropReason.EXPIRED if record is records[4] else None)
        assert record.state is State.SETTLED
    found = report(buffer)
    assert (found.delivered, found.rejected, found.dropped, found.forgotten, found.pending) == (1, 1, 2, 1, 0)
    assert found.dropped_by_reason == {"closed": 1, "expired": 1}


def test_forgetting_drops_what_waits_with_its_attributes_and_says_what_is_under_way():
    buffer = filled(1, 2)
    batch = buffer.take(WALL)
    offer(buffer, 3, attributes={"name": "John"})
    offer(buffer, 4)
    offer(buffer, 5, "mary")
    assert buffer.forget("john") == (2, 2)
    assert buffer.forget("nobody") == (0, 0)
    buffer.settle(batch.records, Fate.DELIVERED)
    assert buffer.forget("john") == (0, 0)
    assert numbers(buffer.take(WALL)) == [5]
    assert report(buffer).forgotten == 2
    assert offer(buffer, 3) is Admission.ACCEPTED


def test_forgetting_keeps_no_event_of_the_forgotten():
    buffer = filled(1)
    buffer.forget("john")
    assert not buffer._lanes._impressions
    for number in range(1_000):
        offer(buffer, number)
        buffer.forget("john")
    assert len(buffer._lanes._impressions) + len(buffer._known) + len(list(buffer.lanes())) == 0
    assert len(buffer._lanes._heap) <= 65


def test_abandoning_drops_what_waits_and_what_flies():
    buffer = filled(1, 2)
    batch = buffer.take(WALL)
    offer(buffer, 3)
    offer(buffer, 4, "mary")
    barrier = buffer.barrier()
    buffer.abandon(DropReason.CLOSED)
    found = report(buffer)
    assert (found.dropped_by_reason, found.pending, barrier.remaining) == ({"closed": 4}, 0, 0)
    assert all(record.state is State.SETTLED for record in batch.records)


def test_the_age_of_the_oldest_waiting_event_is_known():
    buffer = filled(1)
    assert buffer.oldest_age(NOW + 3) == 3.0
    buffer.take(WALL)
    assert buffer.oldest_age(NOW + 3) == 0.0


def test_its_repr_is_its_state():
    buffer = filled(1, 2)
    batch = buffer.take(WALL)
    offer(buffer, 3, "mary")
    assert repr(buffer) == f"<Buffer 1 waiting, 2 in flight, {buffer.pending_bytes} bytes, 2 customers, 1 ready>"
    assert repr(batch) == f"<Batch of 2 actions for 1 customers, {batch.size} bytes>"


# ── many ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def exact_packing(events):
    """The fewest requests that could carry these events by their bytes, if every customer had one element in all."""
    policy = BatchPolicy()
    needed = 0
    for customer, numbers_of_customer in events.items():
        needed += element_size(encode(customer, "it"), None) + 1
        needed += sum(len(action(number, padding=240)) + 1 for number in numbers_of_customer)
    return ceil(needed / (policy.max_bytes - REQUEST_SIZE))


def test_20_000_impressions_of_500_customers_need_no_more_requests_than_exact_packing_plus_a_tenth():
    policy = BatchPolicy(max_pending=50_000, max_pending_bytes=1 << 30)
    buffer = Buffer(policy)
    order = random.Random(11)
    expected: dict[str, list[int]] = {}
    flying: list[Batch] = []
    requests: list[Batch] = []
    arrived: dict[str, list[int]] = {}

    def arrive(batch):
        for element in said(batch):
            arrived.setdefault(element["customer_id"], []).extend(
                number_of(each["moe_event_uuid"]) for each in element["actions"]
            )
        buffer.settle(batch.records, Fate.DELIVERED)

    def send():  # two senders; the slower one is always one request behind
        while buffer.due() == -inf and len(flying) < 2:
            flying.append(buffer.take(WALL))
            requests.append(flying[-1])
        if len(flying) == 2:
            arrive(flying.pop(0))

    for number in range(20_000):
        customer = f"customer-{order.randrange(500)}@example.com"
        expected.setdefault(customer, []).append(number)
        offer(buffer, number, customer, padding=240)
        if number % 200 == 199:
            send()
    buffer.drain()
    while buffer.pending:
        send()
        while flying:
            arrive(flying.pop(0))
    assert arrived == expected
    assert len(requests) <= exact_packing(expected) * 1.1
    assert all(batch.size == len(batch.encode()) <= policy.max_bytes for batch in requests)


def test_customers_come_and_go_and_leave_nothing_behind():
    policy = BatchPolicy(dedup_window=100, max_pending=50)
    buffer = Buffer(policy)
    for number in range(30_000):
        offer(buffer, number, f"customer {number}", click=number % 7 == 0)
        if number % 50 == 0 and (batch := buffer.take(WALL)):
            buffer.settle(batch.records, Fate.DELIVERED)
    assert len(list(buffer.lanes())) <= 50
    assert len(buffer._lanes._heap) <= 2 * 50 + 65
    assert len(buffer._lanes._impressions) <= 2 * 50 + 65
    assert len(buffer._known) <= 100 + 50
    assert len(buffer._settled) == 100
    assert report(buffer).offered == 30_000
    buffer.abandon(DropReason.CLOSED)
    assert not list(buffer.lanes())
    assert set(buffer._known.values()) == {None}


def test_one_impression_that_waits_long_does_not_keep_those_that_went_after_it():
    buffer = filled(0)
    buffer.take(WALL)  # stays in flight, so that john's next impression stays waiting
    offer(buffer, 1)
    for number in range(2, 2_000):
        offer(buffer, number, f"customer {number}")
        buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    assert buffer.waiting == 1
    assert len(buffer._lanes._impressions) <= 2 + 65


def test_events_carry_the_uuid_they_were_accepted_with():
    batch = filled(7).take(WALL)
    assert [record.event_uuid for record in batch.records] == [uuid(7)]
    assert said(batch)[0]["actions"][0]["moe_event_uuid"] == uuid(7)


# ── bounds, with a journal ───────────────────────────────────────────────────────────────────────────────────────────


def journaling(policy):
    """A buffer with a journal, and what reads that back."""
    buffer, journal = Buffer(policy), []

    def write(customer, event_uuid, impression, action, attributes, offset, wall):
        journal.append(
            Journaled(
                ticket=len(journal),
                customer_id=json.loads(customer),
                event_uuid=event_uuid,
                action=action,
                impression=impression,
                attributes=unpack_attributes(attributes) if attributes else None,
                offset=offset,
                accepted_wall=wall,
            )
        )
        return len(journal) - 1

    buffer.journal = write
    return buffer, journal


def deliver(buffer, journal, fate=Fate.DELIVERED):
    """Until nothing is left; returns what was in each request."""
    sent = []
    while (batch := buffer.take(WALL)) or buffer.spilled(1):
        if batch:
            sent.append(numbers(batch))
            buffer.settle(list(batch.records), fate)
        tickets = buffer.spilled(100)
        buffer.unspill(tickets, [journal[ticket] for ticket in tickets])
        assert buffer.in_memory <= buffer._policy.max_pending
        assert buffer.pending_bytes <= buffer._policy.max_pending_bytes
        report(buffer)
    return sent


@pytest.mark.parametrize("fate", Fate)
def test_an_event_that_came_again_while_it_was_spilled_is_settled_as_often_as_it_was_accepted(fate):
    buffer, journal = journaling(BatchPolicy(max_pending=4, dedup_window=1))
    for number in (0, 1, 2, 3, 5, 6, 5):  # the window has forgotten 5 when it comes again
        assert offer(buffer, number, f"customer {number}") is Admission.ACCEPTED
    deliver(buffer, journal, fate)
    assert (report(buffer).accepted, report(buffer).pending) == (7, 0)
    assert sorted(buffer.released) == ([] if fate is Fate.REJECTED else list(range(7)))


@pytest.mark.parametrize("bound", [{"max_pending": 3}, {"max_pending_bytes": 4_096}])
def test_what_comes_back_from_the_spool_keeps_within_the_bounds_and_in_order(bound):
    first, journal = journaling(BatchPolicy())
    for number in range(20):
        offer(first, number, padding=1_000)
    second = Buffer(BatchPolicy(max_bytes=4_096, **bound))
    for event in journal:
        assert second.recover(event)
    assert second.pending == second.spooled == 20
    assert second.in_memory <= 3
    sent = deliver(second, journal)
    assert [number for request in sent for number in request] == list(range(20))


def test_while_some_are_spilled_newcomers_wait_behind_them_though_there_is_room():
    buffer, journal = journaling(BatchPolicy(max_pending=2))
    for number in range(4):
        offer(buffer, number)
    batch = buffer.take(WALL)
    buffer.settle(list(batch.records), Fate.DELIVERED)
    assert buffer.in_memory == 0
    offer(buffer, 4)
    assert buffer.in_memory == 0
    assert [number for request in deliver(buffer, journal) for number in request] == [2, 3, 4]


def test_what_comes_back_from_the_spool_goes_before_what_came_while_the_spool_refused():
    buffer, journal = journaling(BatchPolicy(max_pending=3))
    for number in range(5):
        offer(buffer, number)
    buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    buffer.journal = lambda *_: None
    offer(buffer, 5)
    assert buffer.due() == NOW + 1
    buffer.unspill([3, 4], journal[3:])
    assert buffer.due() == -inf
    assert [record.seq for lane in buffer.lanes() for record in lane.waiting] == [4, 5, 6]
    assert numbers(buffer.take(WALL)) == [3, 4, 5]
    assert buffer.due() == inf


def test_what_has_left_is_not_shed_although_an_older_event_came_back_from_the_spool():
    buffer, journal = journaling(BatchPolicy(max_pending=4, max_actions=1))
    offer(buffer, 0, "jane", click=True)
    buffer.take(WALL)
    for number, customer in ((1, "jane"), (2, "john"), (3, "john"), (4, "john")):
        offer(buffer, number, customer)
    assert buffer.spilled(1) == [4]
    buffer.journal = lambda *_: None
    for _ in range(2):
        buffer.settle(buffer.take(WALL).records, Fate.DELIVERED)
    offer(buffer, 5, "john")
    offer(buffer, 6, "john")
    batch = buffer.take(WALL)
    assert numbers(batch) == [5]
    buffer.settle(batch.records, Fate.DELIVERED)
    buffer.unspill([4], [journal[4]])
    for number in (7, 8):
        assert offer(buffer, number, "kim") is Admission.ACCEPTED
    assert (report(buffer).dropped, buffer.in_memory) == (2, 4)


def test_an_event_that_expires_on_its_way_hands_its_attributes_to_the_next_one_if_there_is_room():
    policy = BatchPolicy(max_bytes=4_096, max_pending_bytes=4_096, max_actions=1)
    buffer = filled(0, policy=policy, attributes={"a": "x" * 1_000})
    batch = buffer.take(WALL)
    offer(buffer, 1, attributes={"b": 1})
    buffer.settle(list(batch.records), Fate.DROPPED, DropReason.EXPIRED)
    (element,) = said(buffer.take(WALL))
    assert element["user_attributes"] == {"a": "x" * 1_000, "b": 1}
    assert buffer.pending_bytes == sum(record.size for record in buffer._known.values())
