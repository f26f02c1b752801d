"""The whole client against a model, step by step: crashes, cancellations, clocks, pauses, and a server with moods.

The client runs on a loop whose clock jumps; the spool's thread is turns of the same loop, so a step is the same whenever
it is repeated. A *life* is one client from its opening to its closing or crash; the next one opens the same directory.

The model knows little: who was accepted in which life, who was forgotten, and what died with a process that had no
spool. Everything else is read from the server's ledger and from what `on_dropped` was told, by UUID, and at the end each
accepted event must be explained by one of them.
"""

import asyncio
import hashlib
import logging
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from math import inf
from pathlib import Path
from unittest import mock

import attrs
import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moengage_personalize import Admission, AsyncPersonalizeClient, BatchPolicy, Effects, RetryPolicy, event_uuid_for
from moengage_personalize.core.batch import Record, State
from moengage_personalize.spool import DiskSpool, _directory, _disk
from support.clock import JumpingLoop
from support.inline_spool import InlineThread, kill
from support.moengage import CONTEXT
from support.moody import OK, Mood, Moody

CUSTOMERS = ["ann@example.com", "bob@example.com", "cëcil@example.com", 'd"ave@example.com']
DAY = 86_400.0
EPOCH = 1_795_459_200.0
SHARED_MEMORY = Path("/dev/shm")

MOODS = [
    OK,
    Mood("slow", delay=3.0),
    Mood("too slow, and read", delay=11.0, takes=True),
    Mood("hangs", delay=inf),
    Mood("hangs, and has read", delay=inf, takes=True),
    Mood("refuses connections", status=None),
    Mood("loses its answers", status=None, takes=True, delay=0.1),
    Mood("drips", drip=0.1),
    Mood("drips too slowly", drip=1.0),
    Mood("misconfigured", status=400),
    Mood("401", status=401),
    Mood("403", status=403),
    Mood("404", status=404),
    Mood("408", status=408),
    Mood("413 above 700 bytes", limit=700),
    Mood("413 above 2000 bytes", limit=2_000),
    Mood("429", status=429),
    Mood("429 for 7 seconds", status=429, headers={"retry_after": "7"}),
    Mood("429 by reset", status=429, headers={"x_ratelimit_remaining": "0", "x_ratelimit_reset": "20"}),
    Mood(
        "429 by epoch",
        status=429,
        headers=lambda wall: {"x_ratelimit_remaining": "0", "x_ratelimit_reset": str(int(wall + 20))},
    ),
    Mood("500", status=500),
    Mood("500 for one", status=500, only=CUSTOMERS[0]),
    Mood("no connection for one", status=None, only=CUSTOMERS[0]),
    Mood("503", status=503),
    Mood("503 for 3 seconds", status=503, headers={"retry_after": "3"}),
    Mood("503 for an hour", status=503, headers={"retry_after": "3600"}),
]


@attrs.define
class Accepted:
    """An event that was taken on, as the model knows it."""

    seq: int
    life: int
    customer: str
    click: bool
    event_time: int
    offset: int | None
    at: float
    again: bool = False


class Listener(logging.Handler):
    """Hears of what should never happen."""

    def __init__(self):
        super().__init__(logging.CRITICAL)
        self.heard = []

    def emit(self, record):
        error = sys.exc_info()[1]
        self.heard.append((record.getMessage(), *traceback.format_exception(error)))


class ClientMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    spooled = False

    @initialize(
        senders=st.integers(1, 3),
        linger=st.sampled_from([0.0, 0.5, 30.0]),
        max_elements=st.integers(1, 4),
        max_actions=st.sampled_from([1, 3, 100]),
        max_pending=st.sampled_from([2, 10, 1_000]),
        max_pending_bytes=st.sampled_from([4_096, 1 << 20]),
        dedup_window=st.sampled_from([0, 3, 1_000]),
        time_to_live=st.sampled_from([40.0, 10 * DAY]),
        budget=st.sampled_from([1, 100]),
        jitter=st.sampled_from([0.0, 0.5, 0.99]),
    )
    def begin(self, budget, jitter, time_to_live, **policy):
        self.batching = BatchPolicy(
            max_bytes=4_096,
            time_to_live=time_to_live,
            spooled_time_to_live=time_to_live if time_to_live < DAY else None,
            **policy,
        )
        self.retrying = RetryPolicy(budget=budget)
        self.loop = JumpingLoop(alone=True)
        self.ahead = 0.0  # of the wall clock, in seconds
        self.latest = EPOCH
        self.effects = Effects(wall=self.wall, jitter=lambda: jitter)
        self.key = "key-0"
        self.server = Moody(self.wall)
        self.server.on_request = self.look_at_request
        self.accept_key()
        self.life = self.tracked = self.owners = 0
        self.accepted: dict[str, Accepted] = {}
        self.given: list[tuple] = []
        self.losses: dict[str, set[str]] = {}
        self.forgotten: set[str] = set()
        self.forgotten_at: dict[str, float] = {}
        self.called_back: set[str] = set()
        self.too_late_to_call_back: set[str] = set()
        self.died: set[str] = set()
        self.paused = False
        self.directory = None
        if self.spooled:
            place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
            self.directory = Path(tempfile.mkdtemp(prefix="machine-", dir=place))
        self.patches = [
            mock.patch.object(_disk, "JournalThread", InlineThread),
            mock.patch.object(_disk, "time", mock.Mock(time=self.wall, monotonic=self.loop.time)),
            mock.patch.object(_directory, "secrets", mock.Mock(token_hex=self.owner)),  # adopted in order of names
        ]
        for patch in self.patches:
            patch.start()
        self.log = logging.getLogger("moengage_personalize")
        self.bugs = Listener()
        self.log.addHandler(self.bugs)
        self.run(self.open())

    # ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def at_once(self, function):
        return function()

    def wall(self):
        wall = EPOCH + self.loop.time() + self.ahead
        self.latest = max(self.latest, wall)
        return wall

    def owner(self, length):
        self.owners += 1
        return hashlib.blake2b(b"%d" % self.owners, digest_size=length).hexdigest()

    def accept_key(self):
        self.server.key = httpx.BasicAuth("WORKSPACE", self.key)._auth_header

    async def open(self):
        self.life += 1
        life = self.life

        def on_dropped(loss):
            if self.life == life:
                for event_uuid in loss.event_uuids:
                    self.losses.setdefault(event_uuid, set()).add(loss.reason)

        self.spool = DiskSpool(self.directory, segment_bytes=8_192, sync_interval=5.0) if self.spooled else None
        self.client = AsyncPersonalizeClient(
            "WORKSPACE",
            lambda: self.key,
            "01",
            transport=self.server,
            batching=self.batching,
            retrying=self.retrying,
            effects=self.effects,
            spool=self.spool,
            on_dropped=on_dropped,
        )
        await self.client.__aenter__()
        self.paused = False

    async def bury(self):
        """Ends every task there is, as the end of a process does."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        click=st.booleans(),
        count=st.sampled_from([1, 1, 3, 12]),
        attributes=st.sampled_from([None, {"plan": "x"}, {"long": "y" * 300}, {"poison": 1}]),
        offset=st.sampled_from([None, None, 0, 19_800]),
        poison=st.sampled_from([False, False, False, True]),
        padding=st.sampled_from([0, 0, 500, 5_000]),
    )
    def track(self, customer, click, count, attributes, offset, poison, padding):
        for _ in range(count):
            self.tracked += 1
            event_uuid = event_uuid_for(self.tracked)
            if poison:
                self.server.poison.add(event_uuid)
            context = CONTEXT | {"padding": "p" * padding}
            self.given.append((event_uuid, context, customer, click, attributes, offset, int(self.wall())))
            self.offer(*self.given[-1])

    @rule(customer=st.sampled_from(CUSTOMERS), bad=st.sampled_from([None, "action", "attributes"]))
    def track_many(self, customer, bad):
        """A visitor in a hurry: more than one request's worth, one of it perhaps bad."""
        for number in range(8):
            worst = number == 3
            attributes = {"poison": 1} if worst and bad == "attributes" else {"plan": "x"}
            self.track(customer, number % 2 == 0, 1, attributes, None, worst and bad == "action", 0)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def track_again(self, data):
        self.offer(*data.draw(st.sampled_from(self.given[-20:])))

    def offer(self, event_uuid, context, customer, click, attributes, offset, at):
        known = self.client._buffer._known.get(event_uuid)
        wall = self.wall()
        track = self.client.track_click if click else self.client.track_impression
        admission = track(
            context,
            customer_id=customer,
            event_uuid=event_uuid,
            at=at,
            user_attributes=attributes,
            user_timezone_offset=offset,
        )
        if self.paused:
            assert admission is Admission.PAUSED
        elif isinstance(known, Record):
            assert admission is Admission.DUPLICATE
        elif len(context["padding"]) > self.batching.max_bytes:
            assert admission is Admission.REFUSED or event_uuid in self.client._buffer._known
        else:
            allowed = {Admission.ACCEPTED, Admission.DUPLICATE, Admission.DROPPED}
            assert admission in allowed - ({Admission.DROPPED} if self.spooled else set())
        if admission is Admission.ACCEPTED:
            again = event_uuid in self.accepted
            event = Accepted(len(self.accepted), self.life, customer, click, at, offset, wall, again)
            self.accepted[event_uuid] = event
            self.died.discard(event_uuid)
            if again:
                self.losses.pop(event_uuid, None)
                self.forgotten.discard(event_uuid)

    def look_at_request(self, read):
        for element in read.elements:
            for action in element["actions"]:
                event = self.accepted[action["moe_event_uuid"]]
                if (event.customer, event.offset, event.event_time) != (
                    element["customer_id"],
                    element.get("user_timezone_offset"),
                    action["event_time"],
                ):
                    self.server.violations.append("an event of somebody else, or of another time")
                # Of an event that was taken on twice, one may be of a later time.
                forgotten = action["moe_event_uuid"] in self.called_back and not event.again
                if forgotten and action["moe_event_uuid"] not in self.too_late_to_call_back:
                    self.server.violations.append("an event of somebody who was forgotten")
        self.look_at_bounds()

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.1, 5.0, 12.0, 60.0]))
    def wait(self, seconds):
        self.run(asyncio.sleep(seconds))

    @rule(timeout=st.sampled_from([0.0, 0.5, 20.0]))
    def flush(self, timeout):
        self.run(self.client.journaled())
        began = self.loop.time()
        report = self.run(self.client.flush(timeout))
        assert report.balanced
        assert self.loop.time() - began <= timeout + 1e-6
        assert not self.client._buffer._barriers

    @rule(after=st.sampled_from([0.0, 0.2, 5.0]))
    def flush_is_cancelled(self, after):
        async def cancelled():
            task = asyncio.create_task(self.client.flush(1_000.0))
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.wait([task])

        self.run(cancelled())
        assert not self.client._buffer._barriers

    # ── what people do ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def pause(self, data, seconds):
        self.run(self.at_once(self.client.pause))
        self.paused, requests = True, self.server.requests
        self.run(asyncio.sleep(seconds))
        if self.given:
            self.track_again(data)
        assert self.server.requests == requests
        self.run(self.at_once(self.client.resume))
        self.paused = False

    @rule(customer=st.sampled_from(CUSTOMERS))
    def forget(self, customer):
        theirs = {each: event for each, event in self.accepted.items() if event.customer == customer}
        self.forgotten |= theirs.keys()
        # Where the wall clock was set back, an event that comes later may seem to have been there before.
        until = [self.wall(), self.forgotten_at.get(customer, 0.0), *(event.at for event in theirs.values())]
        self.forgotten_at[customer] = max(until)
        self.run(self.client.forget(customer))
        self.called_back |= theirs.keys()
        known = self.client._buffer._known.items()
        flying = {each for each, record in known if isinstance(record, Record) and record.state is State.IN_FLIGHT}
        self.too_late_to_call_back |= flying

    @rule(mood=st.sampled_from(MOODS))
    def mood(self, mood):
        self.server.mood = mood

    @rule(now=st.booleans())
    def key_is_rotated(self, now):
        """MoEngage knows the new key at once; the application may learn it later."""
        fresh = f"key-{int(self.key[4:]) + 1}"
        if now:
            self.key = fresh
            self.accept_key()
        else:
            self.server.key = httpx.BasicAuth("WORKSPACE", fresh)._auth_header

    # ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        wall=st.sampled_from([0.0, -2 * DAY, -3_600.0, -1.0, 1.0, 30.0, 3_600.0]),
        frozen=st.sampled_from([0.0, 5.0, 400.0]),
    )
    def clocks_jump(self, wall, frozen):
        """The wall clock is set, and the process stood still, as in a debugger or a suspended machine."""
        self.wall()
        self.ahead += wall
        self.loop._jumping.jumped += frozen
        self.run(asyncio.sleep(0))

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        how=st.sampled_from(["close", "close", "event_loop_cancels_everything", "crash", "crash"]),
        grace=st.sampled_from([0.0, 0.3, 5.0, 100.0]),
        cancelled_after=st.sampled_from([None, None, 0.0, 0.2]),
    )
    def life_ends(self, how, grace, cancelled_after):
        if how == "close":
            self.close(grace, cancelled_after)
        else:
            getattr(self, how)()

    def close(self, grace, cancelled_after):
        before = self.client.stats()

        async def closing():
            task = asyncio.create_task(self.client.aclose(grace))
            if cancelled_after is not None:
                await asyncio.sleep(cancelled_after)
                task.cancel()
                await asyncio.wait([task])
                return await self.client.aclose()
            return await task

        began = self.loop.time()
        report = self.run(closing())
        assert self.loop.time() - began <= max(grace, cancelled_after or 0.0) + 0.1
        self.look_at_the_end(report, before)
        self.run(self.open())

    def event_loop_cancels_everything(self):
        before = self.client.stats()
        self.run(self.bury())
        self.look_at_the_end(self.run(self.client.aclose()), before)
        self.run(self.open())

    def look_at_the_end(self, report, before):
        assert report.balanced
        assert report.pending == report.spooled
        if self.spooled:
            assert report.dropped_by_reason.get("closed", 0) == 0
        else:
            assert report.pending == 0
        assert report.accepted == before.accepted
        late = self.client.track_click(CONTEXT, customer_id="late@example.com")
        assert late is Admission.CLOSED
        assert self.client.stats().closed == 1

    def crash(self):
        client, self.life = self.client, self.life + 1  # nobody listens any more
        if self.spooled:
            assert client.stats().pending == client.stats().spooled
            kill(self.spool)
        else:
            for event_uuids in client._buffer.losses.values():  # which nobody was told of yet
                self.died |= set(event_uuids)
            left = {each for each, record in client._buffer._known.items() if isinstance(record, Record)}
            assert len(left) == client.stats().pending
            self.died |= left
        self.run(self.bury())
        client._life.state = "closed"
        self.run(self.open())

    # ── what is always true ──────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_counters_balance(self):
        if self.accepted or self.life:
            assert self.client.stats().balanced
            assert self.client._report().balanced

    @invariant()
    def nothing_calls_itself_a_bug(self):
        assert not self.bugs.heard, "".join(self.bugs.heard[0])

    @invariant()
    def the_bounds_hold(self):
        self.look_at_bounds()
        assert not self.server.violations, self.server.violations[:3]

    def look_at_bounds(self):
        buffer = self.client._buffer
        if buffer.in_memory > self.batching.max_pending:
            self.server.violations.append(f"{buffer.in_memory} events in memory")
        if buffer.pending_bytes > self.batching.max_pending_bytes:
            self.server.violations.append(f"{buffer.pending_bytes} bytes in memory")

    @invariant()
    def first_deliveries_are_in_order(self):
        last: dict[tuple, int] = {}
        for event_uuid in self.server.taken:
            event = self.accepted[event_uuid]
            if not event.again:
                lane = event.customer, event.life
                assert last.get(lane, -1) < event.seq, "out of order"
                last[lane] = event.seq

    @invariant()
    def losses_have_their_reasons(self):
        for event_uuid, reasons in self.losses.items():
            for reason in reasons:
                match reason:
                    case "rejected":
                        assert event_uuid in self.server.alone
                    case "expired":
                        event = self.accepted[event_uuid]
                        assert event.again or self.latest - event.at > self.batching.time_to_live
                    case "overflow":
                        assert not self.accepted[event_uuid].click
                        assert not self.spooled
                    case "closed":
                        assert not self.spooled
                    case _:
                        assert reason == "no room"
                        assert not self.spooled

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self):
        if not hasattr(self, "client"):
            return
        try:
            self.everything_is_explained()
        finally:
            for patch in self.patches:
                patch.stop()
            self.log.removeHandler(self.bugs)
            self.run(self.bury())
            self.client._life.state = "closed"
            self.loop.close()
            if self.directory is not None:
                shutil.rmtree(self.directory)

    def everything_is_explained(self):
        self.server.mood = OK
        self.accept_key()
        self.paused = False
        self.run(self.at_once(self.client.resume))
        self.run(asyncio.sleep(400))  # whatever pause was asked for is over
        self.server.heal()  # poison that came before any success is held, and may fill the memory
        for _ in range(8):
            self.run(asyncio.sleep(30))  # the spool has been looked at
            report = self.run(self.client.flush(200))
        assert not self.server.violations, self.server.violations[:3]
        assert (report.pending, report.balanced) == (0, True), self.state()
        fates = Counter(map(self.fate, self.accepted))
        assert fates["lost"] == 0, fates
        report = self.run(self.client.aclose(0))
        assert (report.pending, report.balanced) == (0, True), self.state()
        if self.spooled:
            self.run(self.open())
            self.run(asyncio.sleep(30))
            assert self.client.stats().recovered == 0
            assert self.spool.stats().pending == 0
            self.run(self.client.aclose(0))

    def state(self):
        client = self.client
        circuit = client._circuit
        return client._buffer, circuit, circuit.ready_at(self.loop.time()) - self.loop.time(), client._report()

    def fate(self, event_uuid):
        if event_uuid in self.server.taken:
            return "delivered"
        if event_uuid in self.losses:
            return "told"
        event = self.accepted[event_uuid]
        if event_uuid in self.forgotten or event.at <= self.forgotten_at.get(event.customer, 0.0):
            return "forgotten"
        return "died" if event_uuid in self.died else "lost"


class SpooledClientMachine(ClientMachine):
    """The same with a spool: nothing is ever lost."""

    spooled = True
