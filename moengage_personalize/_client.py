"""The front door.

Theory: a client is loop-free until it is opened, and then open in one event loop of one thread of one process
(`_lifecycle`). Fetching awaits; tracking never does: it validates, encodes once, and leaves the event with the buffer.
Everything that takes time happens in the engine's background.

Invariants: an exception of the body of `async with` arrives unwrapped. Bad input raises before anything happens; their
trouble never raises, unless it was asked to. No frame of an error that leaves shows anything of a visitor.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from math import inf
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import httpx

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
    check_parts,
    one_of,
    resolve,
)
from ._door import BeforeSend, Door
from ._effects import Effects
from ._errors import ConfigurationError, InvalidInputError, PersonalizeError, UsageError, bare
from ._events import Admission, Event
from ._experiences import Experience, Experiences, ExperiencesMetadata, Reason, Status
from ._lifecycle import Lifecycle
from ._questions import Question, question_of, unmatched
from ._report import DeliveryReport, Forgotten, Health, Loss, Stats
from ._session import InSession, check_customer_id
from .core.buffer import Buffer
from .core.circuit import Circuit
from .core.wire import check_keys

if TYPE_CHECKING:
    from ._engine import Engine
    from .spool import Spool


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
        self._proxy = proxy
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
            self._policies = Policies(fetching=fetching, batching=batching, retrying=retrying, caching=caching)
            check_parts(self._policies, spool, proxy, speaks_socks=_speaks_socks)
        except ConfigurationError as error:
            del data_center, base_url, proxy
            raise bare(error) from None
        self._spool = spool
        self._on_dropped = on_dropped
        self._ssl_context = ssl_context
        self._transport = transport
        self._effects = effects
        self._buffer = Buffer(batching)
        self._door = Door(self._buffer, effects, before_send)
        self._circuit = Circuit(retrying, max_bytes=batching.max_bytes)
        self._life = Lifecycle(self._door, self._circuit)
        self._fetches = 0
        self._expected: dict[str, None] = {}
        self.last_report: DeliveryReport | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        await self._life.open(self._make_engine)
        if self._engine is not None:
            self._engine.radar.expect(self._expected)  # those too that were expected while it was being opened
        return self

    async def _make_engine(self) -> Engine | None:
        if not self._settings.enabled:
            return None
        # What is needed only now is loaded only now; what takes long, h2 and an SSLContext, not on the loop.
        if self._transport is None:
            self._transport = await asyncio.to_thread(_default_transport, self._ssl_context, self._proxy)
        from ._engine import Engine

        return Engine(
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
        await self._life.close(self._policies.batching.grace if grace is None else grace)
        self.last_report = self._report()
        return self.last_report

    def __del__(self) -> None:
        if hasattr(self, "_life") and self._life.state == "open":
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
            question = question_of(
                check_keys(keys),
                customer_id,
                user_identifiers,
                session=session,
                attributes=attributes,
                ambient=ambient,
                identity=self._policies.fetching.identity,
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
            question = question_of(
                None,
                customer_id,
                user_identifiers,
                session=session,
                attributes=attributes,
                ambient=ambient,
                identity=self._policies.fetching.identity,
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
        self._life.check()
        if self._engine is None:
            raise UsageError("the client is not enabled: there is nobody to ask for metadata")
        try:
            return await self._engine.metadata(status, self._life.now() + deadline)
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
        if self._engine is not None and self._life.state == "open":
            self._life.check_loop()
            self._engine.radar.expect(self._expected)

    async def unknown_keys(self) -> Mapping[str, str | None]:
        """Asks now: the keys of `expect` that do not exist, each with the nearest that does, if one is near.

        For a start-up that rather fails than shows defaults. With `enabled=False` there is nobody to ask, and none;
        nor where an entry of the workspace's list cannot be read, which may be the one that is missed.

        Raises:
            PersonalizeError: Their trouble.
            UsageError: The client is not open here.
        """
        self._life.check()
        return {} if self._engine is None else await self._engine.radar.unknown()

    async def _ask(self, question: Question, deadline: float | None, on_error: OnError | None) -> Experiences:
        policy = self._policies.fetching
        seconds = policy.deadline if deadline is None else deadline
        on_error = policy.on_error if on_error is None else on_error
        one_of("fetch", "on_error", on_error, ("default", "raise"))
        if not isinstance(seconds, int | float) or not 0 < seconds < inf:
            raise InvalidInputError("deadline must be a number of seconds above 0")
        self._life.check()
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
            return self._life.turn_away()
        try:
            enter = self._door.enter  # a name of its own: as quick as a method
            return enter(True, experience, customer_id, platform, at, event_uuid, user_attributes, user_timezone_offset)
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
            return self._life.turn_away()
        try:
            enter = self._door.enter  # a name of its own: as quick as a method
            return enter(
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
            return self._life.turn_away()
        try:
            return self._door.consider(event)
        except PersonalizeError as error:
            raise bare(error) from None

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def warm_up(self) -> None:
        """Opens the connection ahead of the first request, if the transport is the SDK's own.

        Raises:
            ConnectionFailedError: It cannot be opened; a later request tries again.
        """
        self._life.check()
        if self._engine is not None:
            await self._engine.exchange.warm_up()

    async def flush(self, timeout: float = 30.0) -> DeliveryReport:  # noqa: ASYNC109 - it returns, it does not raise
        """Waits until everything accepted before the call is settled, and returns the report since the start.

        Args:
            timeout: Seconds; what is not settled by then is `pending` in the report.
        """
        self._life.check()
        if self._engine is not None:
            await self._engine.pump.flush(timeout)
        return self._report()

    async def journaled(self) -> None:
        """Returns when everything accepted so far would survive a power cut. Without a spool: at once.

        Raises:
            SpoolError: The disk refuses, or some of it is in memory only, since the spool could not take it; what is
                journaled still survives the end of the process.
        """
        self._life.check()
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
        self._life.check()
        if self._engine is None or self._engine.spooling is None:
            return 0
        return await self._engine.replay(self._engine.spooling, event_uuids)

    def pause(self) -> None:
        """Stops sending and fetching at once. What is waiting stays; new events are not taken on."""
        self._life.pause()

    def resume(self) -> None:
        """Undoes `pause`."""
        self._life.resume()

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
        self._life.check()
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
        now = self._life.now() if self._life.state == "open" else 0.0
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
            paused=self._life.paused,
            closed=self._life.closed,
            disabled=self._life.disabled,
        )

    def health(self) -> Health:
        """Returns how the client is doing, and what to do about it."""
        return self._life.health()

    def _report(self) -> DeliveryReport:
        return DeliveryReport(**self._buffer.counts())

    @property
    def _engine(self) -> Engine | None:
        """What runs in the background; None before that, and with `enabled=False`."""
        return self._life.engine

    def __repr__(self) -> str:
        if not hasattr(self, "_life"):
            return "<AsyncPersonalizeClient, which could not be made>"
        return f"<AsyncPersonalizeClient {self._life.state}, {self._settings.base_url}, {self._buffer.pending} pending>"


def _default_transport(context: ssl.SSLContext | None, proxy: str | None) -> httpx.AsyncBaseTransport:
    from ._engine import default_transport

    return default_transport(context, proxy)


def _speaks_socks() -> bool:
    return find_spec("socksio") is not None


def _sealed(value: Any) -> Any:
    return Secret.of(value) if value is not None and not callable(value) else value
