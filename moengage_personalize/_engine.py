"""What runs in the background while a client is open.

Theory: one task of the SDK's own hosts the task group in which the pump runs; fetch flights are tasks of the fetcher's.
Opening and closing only signal it, so they may happen in different tasks, and nothing that happens in the background
ever surfaces in a user's task. The engine does not know the client, so that a client which is forgotten unclosed can be
collected and says so.

Invariants: the host ends within its deadline plus the time to close a socket, however the server behaves. It runs in an
empty context: nothing of the request that happened to open the client is seen by it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import Context
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import httpx

from ._config import Policies, Settings
from ._door import Door
from ._effects import Effects
from ._errors import AuthenticationError, ConfigurationError, UsageError
from ._exchange import Call, Exchange
from ._experiences import ExperiencesMetadata, Status
from ._fetcher import Fetcher
from ._flying import REFUSING
from ._keys import Radar
from ._pump import Pump
from ._report import Condition, Health, Loss
from .core.buffer import Buffer
from .core.circuit import Circuit, RetryBudget
from .core.wire.metadata import metadata_target, read_metadata

if TYPE_CHECKING:
    from ._spooling import Spooling
    from .spool import Spool

log = logging.getLogger("moengage_personalize")
GOODBYE = 0.08  # seconds to say goodbye to the server, and to let the spool's thread finish (it does so in any case)
METADATA_TIMEOUT = 10.0


class Engine:
    """The background. See the module's docstring.

    Args:
        transport: Carries the requests; closed at the end.
        settings: Where to, as whom.
        policies: How.
        buffer: Where events wait.
        door: Where they come in; shut when the background has ended, whoever ended it.
        circuit: What senders know together.
        effects: The outside world.
        spool: Where accepted events are journaled.
        on_dropped: Hears of losses.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        settings: Settings,
        policies: Policies,
        *,
        buffer: Buffer,
        door: Door,
        circuit: Circuit,
        effects: Effects,
        spool: Spool | None = None,
        on_dropped: Callable[[Loss], None] | None = None,
    ) -> None:
        self._spool = spool
        self.spooling = None if spool is None else _spooling(spool, buffer, effects)
        self._exchange = Exchange(transport, settings, effects)
        self._door = door
        self._tasks: anyio.abc.TaskGroup | None = None
        self._host_task: asyncio.Task[None] | None = None
        self._started = anyio.Event()
        self._deadline = inf
        self._unreadable = 0  # entries of the last metadata
        self.transport = transport
        self.pump = Pump(
            buffer,
            circuit,
            self._exchange,
            batching=policies.batching,
            retrying=policies.retrying,
            effects=effects,
            spooling=self.spooling,
            on_dropped=on_dropped,
        )
        self.radar = Radar(self._known_keys, effects.jitter)
        self.fetcher = Fetcher(
            self._exchange,
            policies.fetching,
            policies.retrying,
            policies.caching,
            budget=RetryBudget(policies.retrying.budget),
            effects=effects,
        )

    @property
    def exchange(self) -> Exchange:
        return self._exchange

    @property
    def has_ended(self) -> bool:
        """Whether nothing is delivered any more: closed, cancelled with its loop's tasks, or the loop is closed."""
        host = self._host_task
        return host is not None and (host.done() or host.get_loop().is_closed())

    async def start(self) -> None:
        """Opens the spool, starts the host, and returns when it is there. If that fails, nothing is left behind.

        Raises:
            SpoolError: The spool cannot be opened.
        """
        try:
            if self._spool is not None:
                await self._spool.open()
            loop = asyncio.get_running_loop()
            self._host_task = loop.create_task(self._host(), name="moengage_personalize", context=Context())
            self._host_task.add_done_callback(lambda _: self._started.set())
            await self._started.wait()
        except BaseException:
            self.close(-inf)
            with anyio.CancelScope(shield=True):
                await (self.ended() if self._host_task is not None else _quietly(self._exchange.aclose))
            raise

    def wake(self) -> None:
        """Has the pump look again.

        Raises:
            UsageError: The loop was closed under it, and it never will; what waits is given up, or spooled.
        """
        try:
            self.pump.wake()
        except RuntimeError:
            self._door.owner = 0
            self.pump.abandon()
            raise UsageError("the event loop in which the client was opened was closed, and not the client") from None

    def close(self, deadline: float) -> None:
        """Asks the host to deliver what is left and end by the deadline; a later call may only shorten it."""
        self._deadline = min(self._deadline, deadline)
        self.pump.close(self._deadline)

    async def ended(self) -> None:
        """Returns when the host has ended. Cancelling the wait does not cancel the host."""
        if self._host_task is not None:
            await asyncio.wait([self._host_task])

    async def metadata(self, status: Iterable[Status] | Status | None, deadline: float) -> ExperiencesMetadata:
        """Returns the workspace's experiences, by `deadline` on the loop's clock.

        Raises:
            InvalidInputError: A status is none of MoEngage's.
            PersonalizeError: Their trouble.
        """
        call = Call(method="GET", target=metadata_target(status))
        found = read_metadata(await self._exchange.request(call, deadline=deadline))
        if found.unreadable and not self._unreadable:
            log.warning("%d of the workspace's experiences cannot be read, and are left out", found.unreadable)
        self._unreadable = found.unreadable
        return found

    def health(self) -> Health:
        """Returns how fetching and delivery are doing, and what to do about it."""
        trouble = self.fetcher.trouble()
        if trouble is None and self.fetcher.pilot.refusing and self.pump.condition is Condition.HEALTHY:
            return Health(condition=Condition.MISCONFIGURED, detail=REFUSING)
        if trouble is None or self.pump.condition is not Condition.HEALTHY:
            return Health(condition=self.pump.condition, detail=self.pump.detail)
        denied = isinstance(trouble, AuthenticationError)
        return Health(
            condition=Condition.MISCONFIGURED if denied else Condition.DEGRADED,
            detail=f"fetching is suspended, but for probes: {trouble}",
        )

    async def replay(self, spooling: Spooling, event_uuids: Sequence[str] | None) -> int:
        """Takes dead letters on again. Cancelling the wait does not stop it, lest one is neither dead nor pending.

        Raises:
            SpoolError: The spool cannot be read or written.
        """
        replaying = asyncio.get_running_loop().create_task(spooling.replay(event_uuids), context=Context())
        replaying.add_done_callback(_heard)
        await asyncio.wait([replaying])
        self.pump.wake()
        return replaying.result()

    async def _known_keys(self) -> ExperiencesMetadata:
        return await self.metadata(None, anyio.current_time() + METADATA_TIMEOUT)

    async def _host(self) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                self._started.set()
                self._tasks.start_soon(self.radar.run)
                await self.pump.run()
                self._tasks.cancel_scope.cancel()
        except Exception as error:  # the pump and the flights are total
            log.critical("the background failed with %s: this is a bug of moengage_personalize", type(error).__name__)
        finally:
            self._door.owner = 0
            self.fetcher.close()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + GOODBYE):
                await self.fetcher.ended(GOODBYE / 2)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_quietly, self._exchange.aclose)
                    if self._spool is not None:
                        tasks.start_soon(_quietly, self._spool.aclose)


def _spooling(spool: Spool, buffer: Buffer, effects: Effects) -> Spooling:
    from ._spooling import Spooling  # and all that a spool needs: only for those who have one

    return Spooling(spool, buffer, effects.wall)


def _heard(task: asyncio.Task[int]) -> None:
    """Its exception is nobody's, if whoever waited has left."""
    if not task.cancelled():
        task.exception()


async def _quietly(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await close()
    except Exception as error:
        log.debug("closing failed with %s", type(error).__name__)


def default_transport(ssl_context: ssl.SSLContext | None, proxy: str | None) -> httpx.AsyncBaseTransport:
    """Returns the transport of a client that was given none. It blocks for ~15 ms the first time: not on the loop."""
    from .http2 import Http2Transport  # and h2: not for those who brought a transport

    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    context = ssl_context or _shared_context(file or None, directory or None)
    return Http2Transport(ssl_context=context, proxy=proxy)


@cache
def _shared_context(file: str | None, directory: str | None) -> ssl.SSLContext:
    """One context per process and choice of authorities: OpenSSL's own variables, or certifi."""
    if file or directory:
        try:
            return ssl.create_default_context(cafile=file, capath=directory)
        except OSError:  # an SSLError is one
            raise ConfigurationError(f"SSL_CERT_FILE names no file of certificates that can be read: {file}") from None
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
