"""The front door.

Theory: a client is loop-free until it is opened, and open in one event loop of one thread of one process. Fetching
awaits; tracking never does: it validates, encodes once, and leaves the event with the buffer. Everything that takes
time happens in the engine's background.

Invariants: entering and leaving may happen in different tasks; an exception of the body arrives unwrapped. A call from
where the client cannot serve says so and names the remedy; it never hangs, races or returns None. Bad input raises
before anything happens; their trouble never raises, unless it was asked to.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from math import inf
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import UUID

import httpx

from ._ambient import current_request
from ._config import (
    ApiKey,
    BatchPolicy,
    CachePolicy,
    FetchPolicy,
    OnError,
    Policies,
    RetryPolicy,
    Secret,
    Settings,
    one_of,
    resolve,
)
from ._door import BeforeSend, Door, warn_if_reserved
from ._effects import Effects
from ._errors import AuthenticationError, ConfigurationError, InvalidInputError, PersonalizeError, UsageError, bare
from ._events import Action, Admission, Event
from ._experiences import Experience, Experiences, ExperiencesMetadata, Reason, Status
from ._questions import Question, unmatched
from ._report import Condition, DeliveryReport, Forgotten, Health, Loss, Stats
from ._session import InSession, check_customer_id, check_user_identifiers
from .core.buffer import Buffer
from .core.circuit import Circuit
from .core.wire import check_keys, fetch_context

if TYPE_CHECKING:
    from ._engine import Engine
    from .spool import Spool

_State = Literal["new", "opening", "open", "closing", "closed", "forked"]
_IMPRESSION, _CLICK = Action.IMPRESSION.value, Action.CLICK.value
_open_clients: weakref.WeakSet[AsyncPersonalizeClient] = weakref.WeakSet()


class AsyncPersonalizeClient:
    """Fetches experiences and reports events, over one connection, in the background where possible.

    Explicit arguments win over the environment.

    Args:
        workspace_id: Or `MOENGAGE_WORKSPACE_ID`.
        api_key: The Personalize key, or a callable (async or not) that returns it as it is now, asked again whenever
            MoEngage refuses it. Or `MOENGAGE_PERSONALIZE_API_KEY`.
        data_center: `"01"` to `"06"`, or `"101"`. Or `MOENGAGE_DATA_CENTER`.
        base_url: Wins over the data centre: an emulator, a gateway. Or `MOENGAGE_PERSONALIZE_BASE_URL`.
        enabled: False needs no credentials, and does nothing. Or `MOENGAGE_PERSONALIZE_DISABLED`.
        fetching: How `fetch` asks.
        batching: How events travel.
        retrying: How requests are tried again.
        spool: Where accepted events are journaled, so that they outlive the process: `DiskSpool(directory)`.
        caching: What is kept of answers; nothing by default.
        before_send: Sees every event at the door, and returns it, another one in its place, or None to refuse it: a
            consent gate, a scrubber. If it raises, the event is refused.
        on_dropped: Hears of every loss, in the event loop's thread: alert, count, but do not block.
        ssl_context: For a private certificate authority. It is the client's from then on (ALPN is set on it).
        proxy: An explicit proxy's URL; proxies of the environment are ignored.
        transport: Any `httpx.AsyncBaseTransport`; the client closes it.
        effects: The outside world, for tests.

    Raises:
        ConfigurationError: Something is missing, or none of what is accepted.
    """

    def __init__(
        self,
        workspace_id: str | None = None,
        api_key: ApiKey | None = None,
        data_center: str | int | None = None,
        *,
        base_url: str | None = None,
        enabled: bool = True,
        fetching: FetchPolicy = FetchPolicy(),  # noqa: B008 - frozen
        batching: BatchPolicy = BatchPolicy(),  # noqa: B008
        retrying: RetryPolicy = RetryPolicy(),  # noqa: B008
        spool: Spool | None = None,
        caching: CachePolicy = CachePolicy(),  # noqa: B008
        before_send: BeforeSend | None = None,
        on_dropped: Callable[[Loss], None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        effects: Effects = Effects(),  # noqa: B008
    ) -> None:
        self._state: _State = "new"
        # From here on no frame holds a secret.
        workspace_id, api_key = _sealed(workspace_id), _sealed(api_key)
        try:
            self._settings: Settings = resolve(
                workspace_id,  # type: ignore[arg-type]
                api_key,  # type: ignore[arg-type]
                data_center,
                base_url=base_url,
                enabled=enabled,
                environ=os.environ,
            )
        except ConfigurationError as error:
            del data_center, base_url
            raise bare(error) from None
        self._policies = Policies(fetching=fetching, batching=batching, retrying=retrying, caching=caching)
        self._spool = spool
        self._on_dropped = on_dropped
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._transport = transport
        self._effects = effects
        self._buffer = Buffer(batching)
        self._door = Door(self._buffer, effects, before_send)
        self._circuit = Circuit(retrying, max_bytes=batching.max_bytes)
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = lambda: 0.0
        self._fetches = self._paused = self._closed = self._disabled = 0
        self._expected: dict[str, None] = {}
        self.last_report: DeliveryReport | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._state == "forked":
            self._check_open()
        if self._state != "new":
            raise UsageError("a client is opened once: make a new one")
        self._state = "opening"
        try:
            await self._open()
        except BaseException:
            self._state = "closed"
            raise
        return self

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        # asyncio's own clock is this one behind a method; other loops have clocks of their own.
        self._now = monotonic if type(self._loop).time is asyncio.BaseEventLoop.time else self._loop.time
        if self._settings.enabled:
            # What is needed only now is loaded only now; what takes long, h2 and an SSLContext, not on the loop.
            if self._transport is None:
                self._transport = await asyncio.to_thread(_default_transport, self._ssl_context, self._proxy)
            from ._engine import Engine

            self._engine = Engine(
                self._transport,
                self._settings,
                self._policies,
                buffer=self._buffer,
                door=self._door,
                circuit=self._circuit,
                effects=self._effects,
                spool=self._spool,
                on_dropped=self._on_dropped,
            )
            self._engine.radar.expect(self._expected)
            await self._engine.start()
        if self._state != "opening":  # somebody called aclose()
            await self._end(-inf)
            raise UsageError("the client was closed while it was being opened")
        if self._engine is not None:
            self._door.owner, self._door.now, self._door.wake = get_ident(), self._now, self._engine.wake
        self._state = "open"
        _open_clients.add(self)

    async def _end(self, deadline: float) -> None:
        self._door.owner = 0
        if self._engine is not None:
            self._engine.close(deadline)
            await self._engine.ended()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from anyio import CancelScope  # loaded with the engine, long ago

        with CancelScope(shield=True):  # a scope that is cancelled delivers on its way out, within the grace
            await self.aclose()

    async def aclose(self, grace: float | None = None) -> DeliveryReport:
        """Delivers what is left and closes, within `grace` seconds; returns what became of everything.

        From any task, any number of times. The first call fixes the deadline, a later one may only shorten it.
        Cancelling the wait does not cancel the closing.

        Args:
            grace: Seconds; None takes the policy's.
        """
        if self._engine is None or self._engine.has_ended or self._state in ("new", "opening", "forked"):
            self._state, self._door.owner = "closed", 0
            if self._has_ended and self._engine is not None:
                self._engine.pump.abandon()  # a loop that was closed under it counted nothing
        elif self._state != "closed":
            self._check_loop()
            self._state = "closing"
            await self._end(self._now() + (self._policies.batching.grace if grace is None else grace))
            self._state = "closed"
        _open_clients.discard(self)
        self.last_report = self._report()
        return self.last_report

    def __del__(self) -> None:
        if getattr(self, "_state", "new") == "open":
            warnings.warn(f"{self!r} was never closed: use `async with`, or await aclose()", ResourceWarning, 2, self)

    # ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def fetch(
        self,
        *keys: str,
        customer_id: str | None = None,
        user_identifiers: Mapping[str, str] | None = None,
        session: InSession | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
        ambient: bool = True,
        deadline: float | None = None,
        on_error: OnError | None = None,
    ) -> Experiences:
        """Returns the experiences of one visitor, an entry for each key that was asked.

        Args:
            *keys: Experience keys. More than 25 are asked in several requests at the same time.
            customer_id: Whose. None, without `user_identifiers`: anonymous; experiences for all users are served.
            user_identifiers: For Identity Resolution, such as `{"u_em": …}`; used if the customer id is unknown.
            session: Day, hour, address and user agent.
            attributes: Custom in-session attributes, by the names of the dashboard's query parameters.
            ambient: Whether what `current_request` says of the visitor is sent along, where `session` and `attributes`
                say nothing, field by field.
            deadline: Seconds for everything; None takes the policy's.
            on_error: `"default"` or `"raise"`; None takes the policy's.

        Raises:
            InvalidInputError: Something that was passed cannot be sent.
            PersonalizeError: Their trouble, with `on_error="raise"`.
            UsageError: The client is not open here.
        """
        try:
            question = Question(
                check_keys(keys),
                self._context(customer_id, user_identifiers, session=session, attributes=attributes, ambient=ambient),
                customer_id,
            )
        except PersonalizeError as error:
            raise bare(error) from None
        finally:
            del customer_id, user_identifiers, session, attributes  # an error's frame holds nothing of the visitor
        return await self._ask(question, deadline, on_error)

    async def fetch_all(
        self,
        *,
        customer_id: str | None = None,
        user_identifiers: Mapping[str, str] | None = None,
        session: InSession | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
        ambient: bool = True,
        deadline: float | None = None,
        on_error: OnError | None = None,
    ) -> Experiences:
        """Returns everything that the visitor qualifies for. Arguments and errors are those of `fetch`."""
        try:
            question = Question(
                None,
                self._context(customer_id, user_identifiers, session=session, attributes=attributes, ambient=ambient),
                customer_id,
            )
        except PersonalizeError as error:
            raise bare(error) from None
        finally:
            del customer_id, user_identifiers, session, attributes
        return await self._ask(question, deadline, on_error)

    async def metadata(
        self, status: Iterable[Status] | Status | None = None, *, deadline: float = 10.0
    ) -> ExperiencesMetadata:
        """Returns the workspace's experiences. For start-up, and once a day; MoEngage advises no more.

        Args:
            status: One or more of `"Active"`, `"Paused"`, `"Scheduled"`; None: all.
            deadline: Seconds.

        Raises:
            InvalidInputError: A status is none of these.
            PersonalizeError: Their trouble, always: there is no default for this.
            UsageError: The client is not open here, or not enabled.
        """
        self._check_open()
        if self._engine is None:
            raise UsageError("the client is not enabled: there is nobody to ask for metadata")
        try:
            return await self._engine.metadata(status, self._now() + deadline)
        except PersonalizeError as error:
            raise bare(error) from error.__cause__

    def expect(self, *keys: str) -> None:
        """Says which keys the code will ask for, so that misspelled ones are found.

        They are compared with the workspace's list in the background, soon and then daily; a key that does not exist is
        logged as a warning, with the nearest one that does. May be called before the client is opened.

        Raises:
            InvalidInputError: A key is none that could exist.
        """
        self._expected.update(dict.fromkeys(check_keys(keys)))
        if self._engine is not None and self._state == "open":
            self._check_loop()
            self._engine.radar.expect(self._expected)

    async def unknown_keys(self) -> Mapping[str, str | None]:
        """Asks now: the keys of `expect` that do not exist, each with the nearest that does, if one is near.

        For a start-up that rather fails than shows defaults. With `enabled=False` there is nobody to ask, and none;
        nor where an entry of the workspace's list cannot be read, which may be the one that is missed.

        Raises:
            PersonalizeError: Their trouble.
            UsageError: The client is not open here.
        """
        self._check_open()
        return {} if self._engine is None else await self._engine.radar.unknown()

    def _context(
        self,
        customer_id: str | None,
        user_identifiers: Mapping[str, str] | None,
        *,
        session: InSession | None,
        attributes: Mapping[str, Any] | None,
        ambient: bool,
    ) -> bytes:
        if customer_id is not None:
            warn_if_reserved(check_customer_id(customer_id))
        if session is not None and not isinstance(session, InSession):
            raise InvalidInputError("session must be an InSession")
        request = current_request.get() if ambient else None
        return fetch_context(
            customer_id=customer_id,
            user_identifiers=None if user_identifiers is None else check_user_identifiers(user_identifiers),
            session=session,
            attributes=attributes,
            identity=self._policies.fetching.identity,
            below=None if request is None else request.fields,
        )

    async def _ask(self, question: Question, deadline: float | None, on_error: OnError | None) -> Experiences:
        policy = self._policies.fetching
        seconds = policy.deadline if deadline is None else deadline
        on_error = policy.on_error if on_error is None else on_error
        one_of("fetch", "on_error", on_error, ("default", "raise"))
        if not isinstance(seconds, int | float) or not 0 < seconds < inf:
            raise InvalidInputError("deadline must be a number of seconds above 0")
        self._check_open()
        self._fetches += 1
        if self._engine is None or self._circuit.paused:
            reason = Reason.DISABLED if self._engine is None else Reason.PAUSED
            return Experiences(entries=unmatched(question.keys or (), reason))
        try:
            experiences = await self._engine.fetcher.fetch(question, seconds)
        except PersonalizeError as error:
            raise bare(error) from None
        if experiences.error is not None:
            bare(experiences.error)
        return experiences if on_error == "default" else experiences.raise_for_error()

    # ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def track_impression(
        self,
        experience: Experience | Mapping[str, Any],
        *,
        customer_id: str,
        platform: str = "web",
        at: datetime | float | None = None,
        event_uuid: str | UUID | None = None,
        user_attributes: Mapping[str, Any] | None = None,
        user_timezone_offset: int | None = None,
    ) -> Admission:
        """Reports that an experience was seen. Returns at once; delivery happens in the background.

        Args:
            experience: The `Experience`, or the raw `experience_context` that came back from a browser.
            customer_id: Who saw it. MoEngage creates a profile for an unknown id.
            platform: `"web"`, `"android"`, `"ios"` or `"tv"`.
            at: When, as an aware datetime or epoch seconds. None: now.
            event_uuid: A version 4 UUID, such as `event_uuid_for(…)` makes. None: a fresh one.
            user_attributes: Updates the customer's profile.
            user_timezone_offset: Seconds east of UTC, -54000 to 54000.

        Raises:
            InvalidInputError: Something that was passed cannot be sent.
            UsageError: The client is not open, or this is not its thread.
        """
        if get_ident() != self._door.owner:
            return self._not_accepting()
        try:
            if self._door.has_hook:
                return self._door.consider(
                    Event(
                        action=Action.IMPRESSION,
                        experience=experience,
                        customer_id=customer_id,
                        platform=platform,
                        at=at,
                        event_uuid=event_uuid,
                        user_attributes=user_attributes,
                        user_timezone_offset=user_timezone_offset,
                    )
                )
            return self._door.admit(
                True, experience, customer_id, platform, at, event_uuid, user_attributes, user_timezone_offset
            )
        except PersonalizeError as error:
            del experience, customer_id, platform, at, event_uuid, user_attributes
            raise bare(error) from None

    def track_click(
        self,
        experience: Experience | Mapping[str, Any],
        *,
        customer_id: str,
        platform: str = "web",
        at: datetime | float | None = None,
        event_uuid: str | UUID | None = None,
        user_attributes: Mapping[str, Any] | None = None,
        user_timezone_offset: int | None = None,
        b_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Admission:
        """Reports that an experience was clicked. Returns at once, as `track_impression` does.

        Args:
            experience: The `Experience`, or its raw `experience_context`.
            customer_id: Who clicked.
            platform: Where.
            at: When.
            event_uuid: Of the event.
            user_attributes: Of the customer.
            user_timezone_offset: Of the customer, in seconds.
            b_id: Which of several clickable elements it was.
            attributes: What else is to be known of the click; names of the experience context are refused.

        Raises:
            InvalidInputError: Something that was passed cannot be sent.
            UsageError: The client is not open, or this is not its thread.
        """
        if get_ident() != self._door.owner:
            return self._not_accepting()
        try:
            if self._door.has_hook:
                return self._door.consider(
                    Event(
                        action=Action.CLICK,
                        experience=experience,
                        customer_id=customer_id,
                        platform=platform,
                        at=at,
                        event_uuid=event_uuid,
                        user_attributes=user_attributes,
                        user_timezone_offset=user_timezone_offset,
                        b_id=b_id,
                        attributes=attributes,
                    )
                )
            return self._door.admit(
                False,
                experience,
                customer_id,
                platform,
                at,
                event_uuid,
                user_attributes,
                user_timezone_offset,
                b_id,
                attributes,
            )
        except PersonalizeError as error:
            del experience, customer_id, platform, at, event_uuid, user_attributes, b_id, attributes
            raise bare(error) from None

    def track(self, event: Event) -> Admission:
        """Reports an event. `track_impression` and `track_click` are this, without the object.

        Raises:
            InvalidInputError: It is no event that can be sent.
            UsageError: The client is not open, or this is not its thread.
        """
        if get_ident() != self._door.owner:
            return self._not_accepting()
        try:
            return self._door.consider(event)
        except PersonalizeError as error:
            raise bare(error) from None

    def _not_accepting(self) -> Admission:
        match self._state:
            case "open" if self._engine is None:
                self._disabled += 1
                return Admission.DISABLED
            case "open" if self._circuit.paused:
                self._paused += 1
                return Admission.PAUSED
            case "closing" | "closed":
                self._closed += 1
                return Admission.CLOSED
            case "open" if self._has_ended:
                self._check_loop()
                self._closed += 1
                return Admission.CLOSED
            case "open":
                raise UsageError(
                    "tracking belongs to the thread of the client's event loop: from a FastAPI `def` endpoint, use"
                    " anyio.from_thread.run_sync(partial(client.track_impression, …)); from a thread of your own,"
                    " loop.call_soon_threadsafe(partial(…))"
                )
        self._check_open()
        raise AssertionError  # pragma: no cover - the line above raised

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def warm_up(self) -> None:
        """Opens the connection ahead of the first request, if the transport is the SDK's own.

        Raises:
            ConnectionFailedError: It cannot be opened; a later request tries again.
        """
        self._check_open()
        if self._engine is not None:
            await self._engine.exchange.warm_up()

    async def flush(self, timeout: float = 30.0) -> DeliveryReport:  # noqa: ASYNC109 - it returns, it does not raise
        """Waits until everything accepted before the call is settled, and returns the report since the start.

        Args:
            timeout: Seconds; what is not settled by then is `pending` in the report.
        """
        self._check_open()
        if self._engine is not None:
            await self._engine.pump.flush(timeout)
        return self._report()

    async def journaled(self) -> None:
        """Returns when everything accepted so far would survive a power cut. Without a spool: at once.

        Raises:
            SpoolError: The disk refuses, or some of it is in memory only, since the spool could not take it; what is
                journaled still survives the end of the process.
        """
        self._check_open()
        if self._spool is not None and self._engine is not None:
            exposed = self._exposed
            await self._spool.sync()
            if exposed and self._exposed:  # else what was exposed before is delivered
                from .spool import SpoolError

                raise SpoolError(f"spool: {self._exposed} accepted events are in memory only: it could not take them")

    @property
    def _exposed(self) -> int:
        """Events that would end with the process."""
        return self._buffer.pending - self._buffer.spooled

    async def replay(self, event_uuids: Sequence[str] | None = None) -> int:
        """Takes dead letters on again: events that MoEngage rejected and the spool kept. Returns how many.

        Args:
            event_uuids: Which; None: all.

        Cancelling the wait does not stop it: an event is a dead letter or pending, whoever leaves.

        Raises:
            SpoolError: The spool cannot be read.
        """
        self._check_open()
        if self._engine is None or self._engine.spooling is None:
            return 0
        return await self._engine.replay(self._engine.spooling, event_uuids)

    def pause(self) -> None:
        """Stops sending and fetching at once. What is waiting stays; new events are not taken on."""
        self._check_open()
        self._circuit.paused, self._door.owner = True, 0

    def resume(self) -> None:
        """Undoes `pause`."""
        self._check_open()
        self._circuit.paused = False
        if self._engine is not None and not self._has_ended:
            self._door.owner = get_ident()
            self._engine.pump.wake()

    async def forget(self, customer_id: str) -> Forgotten:
        """Drops what this host holds of one person: answers that are kept, and events that were not sent.

        With a spool, events and dead letters in files of other processes are included. Answers that were fetched by
        `user_identifiers` alone belong to no customer id, and end with their time.

        Raises:
            InvalidInputError: The id is not text, or empty.
            SpoolError: The spool cannot note it; what is in memory is forgotten all the same.
            UsageError: The client is not open here.
        """
        check_customer_id(customer_id)
        self._check_open()
        events, events_in_flight = self._buffer.forget(customer_id)
        engine = self._engine
        answers, fetches_in_flight = engine.fetcher.forget(customer_id) if engine else (0, 0)
        spooled = await engine.spooling.forget(customer_id) if engine and engine.spooling else None
        return Forgotten(
            experiences=answers,
            events=events,
            spooled=spooled.entries if spooled else 0,
            dead_letters=spooled.dead_letters if spooled else 0,
            other_processes=spooled.other_processes if spooled else 0,
            fetches_in_flight=fetches_in_flight,
            events_in_flight=events_in_flight,
        )

    def stats(self) -> Stats:
        """Returns the counters, which balance at any moment."""
        engine = self._engine
        now = self._now() if self._state == "open" else 0.0
        return Stats(
            **self._buffer.counts(),
            pending_bytes=self._buffer.pending_bytes,
            oldest_age=max(0.0, self._buffer.oldest_age(now)) if now else 0.0,
            attributes_refused=engine.pump.attributes_refused if engine else 0,
            event_requests=engine.pump.requests if engine else 0,
            fetches=self._fetches,
            retries=engine.pump.retries + engine.fetcher.retries if engine else 0,
            connections_opened=engine.exchange.connections_opened if engine else 0,
            **(engine.fetcher.stats() if engine else {}),
            paused=self._paused,
            closed=self._closed,
            disabled=self._disabled,
        )

    def health(self) -> Health:
        """Returns how the client is doing, and what to do about it."""
        match self._state:
            case "open" if self._engine is None:
                return Health(condition=Condition.DISABLED)
            case "open" if self._has_ended:
                return Health(condition=Condition.CLOSED, detail="the tasks of the client's event loop were cancelled")
            case "open" if self._circuit.paused:
                return Health(condition=Condition.PAUSED)
            case "open":
                assert self._engine is not None  # noqa: S101 - the first case
                trouble = self._engine.fetcher.trouble()
                if trouble is not None and self._engine.pump.condition is Condition.HEALTHY:
                    denied = isinstance(trouble, AuthenticationError)
                    return Health(
                        condition=Condition.MISCONFIGURED if denied else Condition.DEGRADED,
                        detail=f"fetching is suspended, but for probes: {trouble}",
                    )
                return Health(condition=self._engine.pump.condition, detail=self._engine.pump.detail)
            case state:
                return Health(condition=Condition.CLOSED, detail=f"the client is {state}")

    def _report(self) -> DeliveryReport:
        return DeliveryReport(**self._buffer.counts())

    @property
    def _has_ended(self) -> bool:
        """Whether the background has ended although nobody closed the client."""
        return self._engine is not None and self._engine.has_ended

    def _check_open(self) -> None:
        match self._state:
            case "new" | "opening":
                raise UsageError("the client is not open: use `async with AsyncPersonalizeClient(…) as client`")
            case "closing" | "closed":
                raise UsageError("the client is closed: make a new one")
            case "forked":
                raise UsageError("this process was forked after the client was opened: open one in the child")
            case "open":
                self._check_loop()

    def _check_loop(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise UsageError(
                "the client was opened in another event loop: open one in each, or call it in its own; from a thread"
                " that is anyio.from_thread.run(client.fetch, …)"
            )

    def __repr__(self) -> str:
        if not hasattr(self, "_buffer"):
            return "<AsyncPersonalizeClient, which could not be made>"
        return f"<AsyncPersonalizeClient {self._state}, {self._settings.base_url}, {self._buffer.pending} pending>"


def _default_transport(context: ssl.SSLContext | None, proxy: str | None) -> httpx.AsyncBaseTransport:
    from ._engine import default_transport

    return default_transport(context, proxy)


def _sealed(value: Any) -> Any:
    return Secret.of(value) if value is not None and not callable(value) else value


def _after_fork_in_child() -> None:
    for client in list(_open_clients):
        client._state, client._door.owner = "forked", 0  # noqa: SLF001
    _open_clients.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX
    os.register_at_fork(after_in_child=_after_fork_in_child)
