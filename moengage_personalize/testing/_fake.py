"""MoEngage, as a test has it: what it serves, what goes wrong, and what came of it.

Theory: a test says what MoEngage would answer, runs its application, and asserts what was shown and clicked. The
application gets the SDK's own client: the one that is ready (`client`), or those that it makes itself (`client_class`).

Invariant: an assertion sees an event as soon as `track_*` has returned.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from moengage_personalize import Action, AsyncPersonalizeClient, Reason

from ._ready import Backstage, ReadyClient
from ._record import Asked, Record, Tracked, Wanted
from ._script import WITHHELD, Content, Script, Trouble
from ._scripted import ScriptedClient, Stage

_SIGNATURE = inspect.signature(AsyncPersonalizeClient)
_impression = partial(Wanted, action=Action.IMPRESSION)
_click = partial(Wanted, action=Action.CLICK)
_KEPT = {"enabled", "fetching", "batching", "retrying", "caching", "before_send", "on_dropped"}


class FakePersonalize:
    """A scripted MoEngage, and a record of what an application did with it.

    Nothing matches until the script says so. A context manager; or call `close`.
    """

    def __init__(self) -> None:
        self._script, self._record = Script(), Record()
        self._stage = Stage(self._script, self._record)
        self._backstage = Backstage(self._stage)
        self.client: AsyncPersonalizeClient = ReadyClient(self._backstage)
        """A client that is open already, in every event loop: for `app.dependency_overrides`, or an argument."""

    @property
    def client_class(self) -> type[AsyncPersonalizeClient]:
        """What to put in the place of `AsyncPersonalizeClient` where an application makes its own.

        It takes the same arguments, and leaves those alone that lead to a network or a disk.
        """
        stage = self._stage

        class FakeClient(ScriptedClient):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                given = _SIGNATURE.bind(*args, **kwargs).arguments
                super().__init__(stage, **{name: value for name, value in given.items() if name in _KEPT})

        return FakeClient

    def close(self) -> None:
        """Ends the client that is ready. May be repeated."""
        self._backstage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakePersonalize of {len(self._script.keys())} keys, {len(self.tracked)} events tracked>"

    # ── the script ───────────────────────────────────────────────────────────────────────────────────────────────────

    def serve(
        self,
        key: str,
        payload: Mapping[str, Any] | None = None,
        *,
        customer_id: str | None = None,
        variation: str | int = 1,
        in_control_group: bool = False,
    ) -> None:
        """Serves an experience from now on.

        Args:
            key: Its key.
            payload: Its variables. A value's `data_type` follows from its Python type; `emulator.Value` says another.
            customer_id: To whom; what is said of a person goes before what is said of all. None: to everybody.
            variation: Its `moe_variation_id`.
            in_control_group: The person would have been served, and is held back.
        """
        reason = Reason.CAMPAIGN_CONTROL_GROUP if in_control_group else Reason.MATCHED
        content = Content(payload=dict(payload or {}), variation=str(variation), reason=reason)
        content.on_the_wire(key)  # what cannot be written is the caller's to hear of, now
        self._script.put(key, customer_id, content)

    def withhold(self, key: str, reason: Reason = Reason.NO_MATCH, *, customer_id: str | None = None) -> None:
        """Serves an experience no longer.

        Args:
            key: Its key.
            reason: Why, of what MoEngage itself may answer.
            customer_id: From whom; None: from everybody of whom nothing else is said.

        Raises:
            ValueError: That is no reason for which MoEngage withholds anything.
        """
        if reason not in WITHHELD:
            raise ValueError(f"reason must be one of {', '.join(str(each) for each in WITHHELD)}")
        self._script.put(key, customer_id, Content(reason=reason))

    def times_out(self, *keys: str, customer_id: str | None = None, times: int | None = None) -> None:
        """Lets requests end as they do at their deadline, but at once.

        Args:
            *keys: Those in which one of these is asked; none: all.
            customer_id: Those of this person; None: of everybody.
            times: So many requests; None: until `calm`.
        """
        self._wish(keys, customer_id, times, times_out=True)

    def fails(
        self,
        *keys: str,
        status: int = 503,
        retry_after: int | None = None,
        customer_id: str | None = None,
        times: int | None = None,
    ) -> None:
        """Answers requests with an error.

        Args:
            *keys: Those in which one of these is asked; none: all.
            status: The HTTP status.
            retry_after: Seconds, as the answer's `Retry-After`.
            customer_id: Those of this person; None: of everybody.
            times: So many requests; None: until `calm`.
        """
        if not 400 <= status <= 599:
            raise ValueError("status must be between 400 and 599")
        self._wish(keys, customer_id, times, status=status, retry_after=retry_after)

    def slow(self, *keys: str, seconds: float, customer_id: str | None = None, times: int | None = None) -> None:
        """Answers late: with a shorter deadline, requests time out. For the client that is ready, no time passes.

        Args:
            *keys: Requests in which one of these is asked; none: all.
            seconds: So late.
            customer_id: Those of this person; None: of everybody.
            times: So many requests; None: until `calm`.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError("seconds must be 0 or more")
        self._wish(keys, customer_id, times, seconds=seconds)

    def calm(self) -> None:
        """Ends all trouble, and lets the hour pass in which the client that is ready finds that out.

        After many failures, or a 401 or 429, a client does not ask for a while. What is served stays.
        """
        self._script.calm()
        self.pass_time(3_600.0)

    def reset(self) -> None:
        """Forgets script and record, for a fake that outlives a test. Clients go on, and know the UUIDs they had."""
        self._script.clear()
        self._record.clear()
        self.pass_time(3_600.0)

    def pass_time(self, seconds: float) -> None:
        """Lets time pass for the client that is ready, at once. Events have the wall clock's time all the same."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("seconds must be 0 or more")
        self._backstage.pass_time(seconds)

    def _wish(self, keys: tuple[str, ...], customer_id: str | None, times: int | None, **what: Any) -> None:
        if times is not None and times < 1:
            raise ValueError("times must be 1 or more")
        self._script.wish(Trouble(keys=frozenset(keys), customer_id=customer_id, left=times, **what))

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def tracked(self) -> list[Tracked]:
        """Every event that a client accepted, in order."""
        return self._record.tracked

    @property
    def impressions(self) -> list[Tracked]:
        """The impressions of `tracked`."""
        return [event for event in self.tracked if event.action is Action.IMPRESSION]

    @property
    def clicks(self) -> list[Tracked]:
        """The clicks of `tracked`."""
        return [event for event in self.tracked if event.action is Action.CLICK]

    @property
    def turned_away(self) -> list[Tracked]:
        """Every event that a client did not accept; its `admission` says why."""
        return self._record.turned_away

    @property
    def asked(self) -> list[Asked]:
        """Every request for experiences. Calls that shared one, or were answered from a cache, have none."""
        return self._record.asked

    def shown(
        self, key: str | None = None, *, customer_id: str | None = None, variation: str | int | None = None
    ) -> list[Tracked]:
        """Returns the impressions that are as wanted; None: anything."""
        return self._record.find(_impression(key=key, customer_id=customer_id, variation=variation))

    def clicked(
        self,
        key: str | None = None,
        *,
        customer_id: str | None = None,
        variation: str | int | None = None,
        b_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Tracked]:
        """Returns the clicks that are as wanted; None: anything. Attributes may be more than are wanted."""
        wanted = _click(key=key, customer_id=customer_id, variation=variation, b_id=b_id, attributes=attributes)
        return self._record.find(wanted)

    def assert_shown(
        self,
        key: str | None = None,
        *,
        customer_id: str | None = None,
        variation: str | int | None = None,
        times: int | None = None,
    ) -> None:
        """Raises unless there were such impressions: `times` of them, or at least one. 0: none.

        Raises:
            AssertionError: It lists what was tracked instead, the nearest first.
        """
        __tracebackhide__ = True
        self._record.expect(_impression(key=key, customer_id=customer_id, variation=variation), times)

    def assert_clicked(
        self,
        key: str | None = None,
        *,
        customer_id: str | None = None,
        variation: str | int | None = None,
        b_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> None:
        """Raises unless there were such clicks: `times` of them, or at least one. 0: none.

        Raises:
            AssertionError: It lists what was tracked instead, the nearest first.
        """
        __tracebackhide__ = True
        wanted = _click(key=key, customer_id=customer_id, variation=variation, b_id=b_id, attributes=attributes)
        self._record.expect(wanted, times)

    def assert_nothing_tracked(self) -> None:
        """Raises if anything was tracked.

        Raises:
            AssertionError: It lists what was.
        """
        __tracebackhide__ = True
        self._record.expect_nothing()
