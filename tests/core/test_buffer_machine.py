"""The buffer against a model of three sets, step by step.

The model is the slow way to be right: one list of waiting events in order of acceptance, one of those in flight, one of
the UUIDs that were delivered or rejected. Whatever the buffer counts, keeps or decides is computed from these lists
afresh after every step.
"""

import json
from math import inf

import attrs
from core.kit import CLICKED, SHOWN, action, number_of, uuid
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moengage_personalize import Admission, BatchPolicy, DeliveryReport, DropReason
from moengage_personalize.core.batch import State
from moengage_personalize.core.buffer import Buffer, Fate
from moengage_personalize.core.wire import encode_attributes

CUSTOMERS = ["ann", "bob", "cëcil", 'd"ave']


@attrs.define(eq=False)
class Happening:
    """An event, as the model knows it."""

    number: int
    seq: int
    customer: str
    click: bool
    padding: int
    attributes: dict
    offset: int | None
    at: float
    wall: float
    named: bool

    @property
    def action(self):
        return action(self.number, click=self.click, padding=self.padding)

    @property
    def size(self):
        """What it adds to a request beyond its customer's element."""
        bare = len(self.action)
        return bare + (len(dumps({"user_attributes": self.attributes})) - 1 if self.attributes else 0)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def element(happenings):
    """What MoEngage should read for one customer."""
    merged = {}
    for each in happenings:
        merged.update(each.attributes)
    found = {"customer_id": happenings[0].customer}
    if merged:
        found["user_attributes"] = merged
    if happenings[0].offset is not None:
        found["user_timezone_offset"] = happenings[0].offset
    return found | {"actions": [json.loads(each.action) for each in happenings]}


def request_size(elements):
    return len(dumps({"elements": elements}))


class BufferMachine(RuleBasedStateMachine):
    @initialize(
        max_elements=st.integers(1, 3),
        max_actions=st.sampled_from([1, 2, 3, 5, 100]),
        max_pending=st.sampled_from([1, 4, 8, 1_000]),
        max_pending_bytes=st.sampled_from([4_096, 9_000, 1 << 20]),
        dedup_window=st.sampled_from([0, 1, 3, 100]),
        linger=st.sampled_from([0.0, 1.0, 60.0]),
    )
    def open(self, **policy):
        self.policy = BatchPolicy(max_bytes=4_096, time_to_live=100.0, **policy)
        self.buffer = Buffer(self.policy)
        self.now, self.wall = 1_000.0, 1_795_459_200.0
        self.seq = self.number = 0
        self.waiting: list[Happening] = []
        self.flying: list[Happening] = []
        self.batches: list[list] = []
        self.remembered: list[str] = []
        self.named: list[int] = []  # numbers whose UUIDs a caller knows, and may offer again
        self.dropped: list[int] = []
        self.barriers: list[tuple] = []
        self.draining = False
        self.counts = dict.fromkeys(
            "accepted duplicate dropped_at_the_door refused delivered rejected forgotten overflow expired closed".split(),
            0,
        )

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def known(self):
        return {uuid(each.number) for each in self.waiting + self.flying if each.named} | set(self.remembered)

    @property
    def pending_bytes(self):
        return sum(each.size for each in self.waiting + self.flying)

    def ready(self):
        """Waiting events of customers who have none in flight, by customer, the oldest first."""
        busy = {each.customer for each in self.flying}
        lanes: dict[str, list[Happening]] = {}
        for each in self.waiting:
            if each.customer not in busy:
                lanes.setdefault(each.customer, []).append(each)
        return lanes

    def withdraw(self, happening):
        self.waiting.remove(happening)
        self.hand_on(happening)

    def bequeath(self, happening):
        """What expires on its way hands its attributes on only if there is room for them."""
        more = happening.size - len(happening.action)
        room = len(self.waiting) + len(self.flying) < self.policy.max_pending
        if room and self.pending_bytes + more <= self.policy.max_pending_bytes:
            self.hand_on(happening)

    def hand_on(self, happening):
        heirs = [each for each in self.waiting if each.customer == happening.customer and each.seq > happening.seq]
        if heirs and happening.attributes:
            heir = attrs.evolve(heirs[0], attributes=happening.attributes | heirs[0].attributes)
            if request_size([element([heir])]) <= self.policy.max_bytes:
                heirs[0].attributes = heir.attributes

    def too_much(self):
        pending = len(self.waiting) + len(self.flying)
        return pending > self.policy.max_pending or self.pending_bytes > self.policy.max_pending_bytes

    def admit(self, newcomer):
        """What should become of an offer."""
        if uuid(newcomer.number) in self.known:
            return "duplicate"
        if request_size([element([newcomer])]) > self.policy.max_bytes:
            return "refused"
        self.seq = newcomer.seq = self.seq + 1
        self.waiting.append(newcomer)
        while self.too_much():
            impressions = [each for each in self.waiting if not each.click]
            if not impressions or impressions[0] is newcomer:
                self.waiting.remove(newcomer)
                self.dropped.append(newcomer.number)
                return "dropped_at_the_door"
            self.withdraw(impressions[0])
            self.dropped.append(impressions[0].number)
            self.counts["overflow"] += 1
        return "accepted"

    def pack(self, max_bytes):
        """What the next request should hold: the oldest customers first, as many events as fit."""
        lanes = self.ready()
        for customer, lane in list(lanes.items()):
            while lane and self.wall - lane[0].wall > 100.0:
                self.expire(lane.pop(0))
            if not lane:
                del lanes[customer]
        chosen: list[list[Happening]] = []
        for lane in sorted(lanes.values(), key=lambda lane: lane[0].seq):
            share: list[Happening] = []
            for each in lane:
                actions = sum(map(len, chosen)) + len(share) + 1
                size = request_size([*map(element, chosen), element([*share, each])])
                fits = size <= max_bytes or not (chosen or share)
                if each.offset != lane[0].offset or actions > self.policy.max_actions or not fits:
                    break
                share.append(each)
            if not share or len(chosen) == self.policy.max_elements:
                break
            chosen.append(share)
        return chosen

    def expire(self, happening):
        self.withdraw(happening)
        self.dropped.append(happening.number)
        self.counts["expired"] += 1

    def due(self):
        lanes = self.ready()
        if not lanes:
            return inf
        oldest = min((lane[0] for lane in lanes.values()), key=lambda each: each.seq)
        events = [each for lane in lanes.values() for each in lane]
        full = (
            len(lanes) >= self.policy.max_elements
            or len(events) >= self.policy.max_actions
            or sum(each.size for each in events) >= self.policy.max_bytes
        )
        hurried = self.draining or any(each.seq <= mark for _, mark, _ in self.barriers for each in events)
        return -inf if full or hurried else oldest.at + self.policy.linger

    # ── what may happen ──────────────────────────────────────────────────────────────────────────────────────────────

    def offer(self, number, customer, *, click, padding, attributes, offset, named=True):
        newcomer = Happening(number, 0, customer, click, padding, dict(attributes), offset, self.now, self.wall, named)
        due = self.buffer.due()
        self.buffer.stirred = False
        found = self.buffer.offer(
            customer,
            uuid(number),
            newcomer.action,
            not click,
            encode_attributes(attributes) or None,
            offset,
            self.now,
            self.wall,
            named,
        )
        expected = self.admit(newcomer)
        self.counts[expected] += 1
        admission = {"dropped_at_the_door": Admission.DROPPED}.get(expected) or Admission(expected)
        assert found is admission
        assert self.buffer.stirred or self.buffer.due() >= due, "whoever sleeps on due() was not told"

    SIZES = st.sampled_from([0, 0, 0, 300, 1_500, 3_000, 3_700, 3_880])
    ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "é"]), st.sampled_from([1, "x", "y" * 900]), max_size=2)
    OFFSETS = st.sampled_from([None, None, 19_800, -54_000])

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        click=st.booleans(),
        padding=SIZES,
        attributes=ATTRIBUTES,
        offset=OFFSETS,
        named=st.booleans(),
    )
    def offer_a_fresh_event(self, customer, click, padding, attributes, offset, named):
        self.number += 1
        self.named += [self.number] if named else []
        how = {"click": click, "padding": padding, "attributes": attributes, "offset": offset}
        self.offer(self.number, customer, **how, named=named)

    @rule(count=st.integers(2, 12), click=st.booleans())
    def offer_many(self, count, click):
        for index in range(count):
            self.offer_a_fresh_event(CUSTOMERS[index % 4], click, 0, {}, None, index % 3 > 0)

    @precondition(lambda self: self.named)
    @rule(data=st.data(), customer=st.sampled_from(CUSTOMERS))
    def offer_a_uuid_again(self, data, customer):
        number = data.draw(st.sampled_from(self.named))
        self.offer(number, customer, click=True, padding=0, attributes={}, offset=None)

    @precondition(lambda self: self.dropped)
    @rule(data=st.data())
    def offer_what_was_dropped_again(self, data):
        number = data.draw(st.sampled_from(self.dropped))
        self.named.append(number)
        self.offer(number, "ann", click=False, padding=0, attributes={}, offset=None)

    @rule(seconds=st.sampled_from([0.5, 1.0, 30.0, 101.0]))
    def wait(self, seconds):
        self.now += seconds
        self.wall += seconds

    @rule(ceiling=st.sampled_from([None, None, 4_096, 500, 1_000_000]))
    def take(self, ceiling):
        batch = self.buffer.take(self.wall, max_bytes=ceiling)
        limit = min(ceiling or 4_096, 4_096)
        chosen = self.pack(limit)
        if not chosen:
            assert batch is None
            return
        assert json.loads(batch.encode()) == {"elements": [element(share) for share in chosen]}
        assert batch.size == len(batch.encode())
        assert batch.size <= limit or batch.count == 1
        for share in chosen:
            for each in share:
                self.waiting.remove(each)
                self.flying.append(each)
        self.batches.append(list(batch.records))

    @precondition(lambda self: self.batches)
    @rule(
        data=st.data(),
        fate=st.sampled_from(Fate),
        reason=st.sampled_from([None, DropReason.EXPIRED, DropReason.CLOSED]),
    )
    def settle(self, data, fate, reason):
        batch = data.draw(st.sampled_from(self.batches))
        some = data.draw(st.permutations(batch))[: data.draw(st.integers(1, len(batch)))]
        self.buffer.settle(some, fate, reason)
        settled = [next(each for each in self.flying if each.number == number_of(record.event_uuid)) for record in some]
        for each in settled:
            self.flying.remove(each)
        if reason is DropReason.EXPIRED and fate is Fate.DROPPED:
            for each in reversed(settled):
                self.bequeath(each)
        for record in some:
            batch.remove(record)
            number = number_of(record.event_uuid)
            if fate is Fate.REJECTED or (fate is Fate.DELIVERED and number in self.named):
                self.remember(record.event_uuid)
            elif fate is not Fate.DELIVERED:
                self.dropped.append(number)
            name = (reason or DropReason.CLOSED).value if fate is Fate.DROPPED else fate.value
            self.counts[name] += 1
        self.batches = [batch for batch in self.batches if batch]

    def remember(self, event_uuid):
        self.remembered.append(event_uuid)
        del self.remembered[: max(0, len(self.remembered) - self.policy.dedup_window)]

    @rule(customer=st.sampled_from(CUSTOMERS))
    def forget(self, customer):
        gone = [each for each in self.waiting if each.customer == customer]
        flying = [each for each in self.flying if each.customer == customer]
        assert self.buffer.forget(customer) == (len(gone), len(flying))
        self.waiting = [each for each in self.waiting if each.customer != customer]
        self.dropped += [each.number for each in gone]
        self.counts["forgotten"] += len(gone)

    @rule()
    def flush(self):
        barrier = self.buffer.barrier()
        self.barriers.append((barrier, self.seq, {each.seq for each in self.waiting + self.flying}))

    @precondition(lambda self: self.barriers)
    @rule(data=st.data())
    def lift(self, data):
        chosen = data.draw(st.sampled_from(self.barriers))
        self.buffer.lift(chosen[0])
        self.buffer.lift(chosen[0])
        self.barriers.remove(chosen)

    @rule()
    def drain(self):
        self.buffer.drain()
        self.draining = True

    def teardown(self):
        if not hasattr(self, "buffer"):
            return
        left = len(self.waiting) + len(self.flying)
        self.buffer.abandon(DropReason.CLOSED)
        report = DeliveryReport(**self.buffer.counts())
        assert report.balanced
        assert report.pending == self.buffer.pending_bytes == self.buffer.waiting == 0
        assert report.dropped_by_reason.get("closed", 0) == self.counts["closed"] + left
        assert not list(self.buffer.lanes())
        assert self.buffer.due() == inf
        assert self.buffer.take(self.wall) is None

    # ── what is always true ──────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_counters_balance_and_are_the_models(self):
        report = DeliveryReport(**self.buffer.counts())
        assert report.balanced
        counted = dict(self.counts)
        by_reason = {name: counted.pop(name) for name in ("overflow", "expired", "closed")}
        assert {name: getattr(report, name) for name in counted} == counted | {"accepted": self.counts["accepted"]}
        assert report.dropped_by_reason == {name: count for name, count in by_reason.items() if count}
        assert report.dropped == sum(by_reason.values())
        assert report.pending == len(self.waiting) + len(self.flying)

    @invariant()
    def an_event_is_in_one_place_and_in_order(self):
        buffer = self.buffer
        waiting = [record for lane in buffer.lanes() for record in lane.waiting]
        assert sorted(record.seq for record in waiting) == [each.seq for each in self.waiting]
        assert all(record.state is State.WAITING for record in waiting)
        assert all(record.state is State.IN_FLIGHT for batch in self.batches for record in batch)
        assert buffer.waiting == len(self.waiting)
        for lane in buffer.lanes():
            seqs = [record.seq for record in lane.waiting]
            assert seqs == sorted(seqs)
            assert lane.in_flight == sum(each.customer == lane.customer_id for each in self.flying)

    @invariant()
    def at_most_one_request_per_customer_is_under_way(self):
        customers = [
            record.lane.customer_id for batch in self.batches for record in {r.lane: r for r in batch}.values()
        ]
        assert len(customers) == len(set(customers))

    @invariant()
    def sizes_are_recounted_and_within_bounds(self):
        buffer, policy = self.buffer, self.policy
        assert buffer.pending_bytes == self.pending_bytes
        assert buffer.pending <= policy.max_pending
        assert buffer.pending_bytes <= policy.max_pending_bytes
        for lane in buffer.lanes():
            mine = [each for each in self.waiting if each.customer == lane.customer_id]
            assert lane.waiting_bytes == sum(each.size for each in mine)
            assert [record.size for record in lane.waiting] == [each.size for each in mine]

    @invariant()
    def what_is_ready_is_recounted(self):
        lanes = self.ready()
        events = [each for lane in lanes.values() for each in lane]
        buffer = self.buffer
        assert buffer._lanes.ready == len(lanes)
        assert buffer._lanes.ready_actions == len(events)
        assert buffer._lanes.ready_bytes == sum(each.size for each in events)

    @invariant()
    def due_is_as_computed_from_scratch(self):
        assert self.buffer.due() == self.due()
        oldest = max((self.now - each.at for each in self.waiting), default=0.0)
        assert self.buffer.oldest_age(self.now) == oldest

    @invariant()
    def known_uuids_are_those_pending_and_the_last_settled(self):
        assert set(self.buffer._known) == self.known
        assert len(self.buffer._settled) <= self.policy.dedup_window

    @invariant()
    def barriers_count_down(self):
        pending = {each.seq for each in self.waiting + self.flying}
        for barrier, _, covered in self.barriers:
            assert barrier.remaining == len(covered & pending)

    @invariant()
    def nothing_is_left_behind(self):
        buffer = self.buffer
        assert {lane.customer_id for lane in buffer.lanes()} == {each.customer for each in self.waiting + self.flying}
        assert len(buffer._lanes._heap) <= 2 * buffer._lanes.ready + 67  # looked at before a newcomer makes room
        assert len(buffer._lanes._impressions) <= 2 * buffer.waiting + 65
        assert len(buffer._barriers) <= len(self.barriers)

    @invariant()
    def its_repr_shows_no_customer(self):
        assert not any(customer in repr(self.buffer) for customer in CUSTOMERS)
        assert SHOWN not in repr(self.buffer)
        assert CLICKED not in repr(self.buffer)


BufferMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestBufferMachine = BufferMachine.TestCase
