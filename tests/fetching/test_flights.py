"""Which fetches share a request: the plan, without I/O."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moengage_personalize.core.flights import Flights, Phase, Ticket

JOHN, JANE = b"john", b"jane"


def flights(**options):
    return Flights(**{"max_keys": 25, "max_in_flight": 100, "max_late": 0, "merge": True, **options})


def ask(plan, context, *keys, now=0.0, deadline=1.0):
    ticket = Ticket(deadline)
    boarding = plan.board(ticket, context, keys, now, lambda: None)
    return ticket, boarding.opened


def test_the_same_person_in_the_same_turn_shares_one_flight():
    plan = flights()
    tickets = [ask(plan, JOHN, key) for key in "abcde"]
    assert [len(opened) for _, opened in tickets] == [1, 0, 0, 0, 0]
    (flight,) = tickets[0][1]
    assert plan.depart(flight, 0.0) == list("abcde")
    assert len(plan.end(flight)) == 5
    assert repr(plan) == "<Flights: 0 in flight, 0 late, 0 keys in the air>"


def test_contexts_never_mix():
    plan = flights()
    ask(plan, JOHN, "a")
    assert len(ask(plan, JANE, "a")[1]) == 1


def test_everything_travels_alone_and_is_shared():
    plan = flights()
    ask(plan, JOHN, "a")
    assert len(ask(plan, JOHN, None)[1]) == 1
    assert len(ask(plan, JOHN, None)[1]) == 0


def test_a_full_flight_opens_another():
    plan = flights(max_keys=2)
    first = ask(plan, JOHN, *"abc")[1]
    second = ask(plan, JOHN, "c", "d", "e")[1]
    assert [list(flight.keys) for flight in first + second] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_key_in_the_air_is_joined_until_the_flight_is_older_than_half_of_the_joiners_time():
    plan = flights()
    _, (flight,) = ask(plan, JOHN, "a")
    plan.depart(flight, 0.0)
    ticket, opened = ask(plan, JOHN, "a", now=0.5, deadline=1.5)
    assert opened == []
    assert ticket.joined
    assert len(ask(plan, JOHN, "a", now=0.5, deadline=1.49)[1]) == 1


def test_a_flight_in_the_air_takes_no_new_key():
    plan = flights()
    _, (flight,) = ask(plan, JOHN, "a")
    plan.depart(flight, 0.0)
    ticket, opened = ask(plan, JOHN, "a", "b")
    assert [list(each.keys) for each in opened] == [["b"]]
    assert ticket.missing == 2


def test_without_merging_everybody_flies_alone():
    plan = flights(merge=False)
    assert len(ask(plan, JOHN, "a", "b")[1]) == 1
    assert len(ask(plan, JOHN, "a", "b")[1]) == 1


def test_the_first_caller_is_nobody_special():
    plan = flights()
    first, (flight,) = ask(plan, JOHN, "a")
    second, _ = ask(plan, JOHN, "b")
    assert plan.leave(first) == []
    assert plan.depart(flight, 0.0) == ["b"]
    assert plan.end(flight) == [second]


def test_the_last_one_who_leaves_ends_the_flight():
    plan = flights()
    first, (flight,) = ask(plan, JOHN, "a")
    second, _ = ask(plan, JOHN, "a")
    plan.depart(flight, 0.0)
    assert plan.leave(second) == []
    assert plan.leave(first) == [flight]
    assert flight.phase is Phase.ENDED
    assert plan.in_flight == 0


def test_a_flight_may_be_late_outside_the_bound_and_only_so_many_may():
    plan = flights(max_late=1, max_in_flight=2)
    pairs = [ask(plan, name, "a") for name in (JOHN, JANE)]
    for ticket, (flight,) in pairs:
        plan.depart(flight, 0.0)
        plan.leave(ticket)
    assert [flight.phase for _, (flight,) in pairs] == [Phase.LATE, Phase.ENDED]
    assert (plan.in_flight, plan.late) == (0, 1)


def test_a_late_flight_can_be_joined_and_stays_late():
    plan = flights(max_late=1)
    ticket, (flight,) = ask(plan, JOHN, "a")
    plan.depart(flight, 0.0)
    plan.leave(ticket)
    again, opened = ask(plan, JOHN, "a", now=0.1, deadline=1.1)
    assert opened == []
    assert plan.leave(again) == [flight]
    assert flight.phase is Phase.LATE
    assert plan.end(flight) == []
    assert plan.late == 0


def test_a_refused_key_does_not_keep_the_others_on_the_ground():
    plan = flights()
    _, (flight,) = ask(plan, JOHN, "a")
    plan.depart(flight, 0.0)
    ticket = Ticket(1.0)
    boarding = plan.board(ticket, JOHN, ["a", "b"], 0.0, lambda: "the circuit is open")
    assert boarding.refused == {"b": "the circuit is open"}
    assert plan.end(flight)[-1] is ticket


def test_a_flight_is_divided_by_questions():
    plan = flights()
    _, (flight,) = ask(plan, JOHN, "a")
    ask(plan, JOHN, "b")
    last, _ = ask(plan, JOHN, "b")
    plan.depart(flight, 0.0)
    divided = plan.divide(flight, lambda: None)
    assert [list(each.keys) for each in divided] == [["a"], ["b"]]
    assert plan.end(flight) == []
    assert last in plan.end(divided[1])
    assert plan.divide(divided[0], lambda: None) == []


class Plan(RuleBasedStateMachine):
    """Everything that can happen, in any order; what must hold, after each step."""

    def __init__(self):
        super().__init__()
        self.plan = flights(max_keys=3, max_in_flight=4, max_late=2)
        self.now = 0.0
        self.tickets = {}  # ticket -> (context, keys, refused)
        self.flights = []

    @rule(context=st.sampled_from([JOHN, JANE]), keys=st.lists(st.sampled_from("abcdef"), min_size=1, unique=True))
    def ask(self, context, keys):
        ticket = Ticket(self.now + 1.0)
        full = lambda: "full" if self.plan.full else None  # noqa: E731
        boarding = self.plan.board(ticket, context, keys, self.now, full)
        self.flights += boarding.opened
        self.tickets[ticket] = context, keys
        assert all(flight.context == context for flight in ticket.flights)
        seated = [key for wanted in ticket.flights.values() for key in wanted]
        assert sorted(seated + list(boarding.refused)) == sorted(keys)
        for flight, wanted in ticket.flights.items():
            assert set(wanted) <= set(flight.keys)
            assert flight.phase is Phase.GATHERING or self.now - flight.began <= 0.5

    @rule(seconds=st.sampled_from([0.1, 0.4, 0.6]))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def depart_or_land(self, data):
        flight = data.draw(st.sampled_from(self.flights))
        if flight.phase is Phase.GATHERING:
            keys = self.plan.depart(flight, self.now)
            assert 0 < len(keys) <= 3
            assert {key for wanted in flight.tickets.values() for key in wanted} == set(keys)
        elif flight.phase is not Phase.ENDED:
            for ticket in self.plan.end(flight):
                assert ticket.missing == 0
                del self.tickets[ticket]

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data):
        ticket = data.draw(st.sampled_from(list(self.tickets)))
        del self.tickets[ticket]
        before = {flight: set(flight.tickets) for flight in self.flights}
        abandoned = self.plan.leave(ticket)
        for flight in self.flights:
            assert set(flight.tickets) == before[flight] - {ticket}  # nobody goes along
            assert (flight in abandoned) == (before[flight] == {ticket})
        assert ticket.missing == 0

    @invariant()
    def the_bounds_hold_and_are_counted_right(self):
        alive = [flight for flight in self.flights if flight.phase is not Phase.ENDED]
        late = [flight for flight in alive if flight.phase is Phase.LATE]
        assert self.plan.late == len(late) <= 2
        assert self.plan.in_flight == len(alive) - len(late) <= 4
        assert all(flight.tickets for flight in alive if flight not in late)
        for ticket in self.tickets:
            assert ticket.missing == sum(flight.phase is not Phase.ENDED for flight in ticket.flights)

    def teardown(self):
        for ticket in list(self.tickets):
            self.plan.leave(ticket)
        for flight in self.flights:
            self.plan.end(flight)
        assert repr(self.plan) == "<Flights: 0 in flight, 0 late, 0 keys in the air>"


TestPlan = Plan.TestCase
