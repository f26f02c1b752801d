"""Work that blocks, beside the event loop.

Invariant: its thread holds up nobody's end. A read of stdin may never return, and asyncio's own threads are joined.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def off_the_loop(work: Callable[[], T]) -> T:
    """Returns or raises what `work` does, in a thread of its own."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(call: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            call(value)

    def body() -> None:
        try:
            result = work()
        except BaseException as error:
            news: tuple[Callable[[Any], None], Any] = answer.set_exception, error
        else:
            news = answer.set_result, result
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(tell, *news)

    threading.Thread(target=body, name="moengage-personalize-replay", daemon=True).start()
    return await answer
