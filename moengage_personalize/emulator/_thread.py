"""The emulator beside a test that has an event loop of its own, or none: served from a thread."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from moengage_personalize.emulator._server import Server, serve

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator


@contextlib.contextmanager
def serve_in_thread(emulator: "Emulator", **options: Any) -> Iterator[Server]:
    """Serves an emulator from a thread of its own for as long as the context is open.

    Args:
        emulator: What to serve; its ledger may be read here while nothing is under way.
        options: Those of `serve`.

    Yields:
        The running server.
    """
    ready: Future[Server] = Future()
    ended: Future[asyncio.Event] = Future()

    async def run() -> None:
        end = asyncio.Event()
        async with serve(emulator, **options) as server:
            ended.set_result(end)
            ready.set_result(server)
            await end.wait()

    def body() -> None:
        try:
            with asyncio.Runner() as runner:
                loop.set_result(runner.get_loop())
                runner.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    loop: Future[asyncio.AbstractEventLoop] = Future()
    thread = threading.Thread(target=body, name="moengage-emulator", daemon=True)
    thread.start()
    try:
        yield ready.result()
    finally:
        if ended.done():
            loop.result().call_soon_threadsafe(ended.result().set)
        thread.join()
