"""How a command ends: its exit status, and what makes it end early.

Theory: a script that calls a command wants to know whether to go on, to alert, or to try again. So the status says
whose the trouble is.

Invariant: the first SIGINT or SIGTERM ends a command in order, within the client's grace; a second one at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import click

OK: Final = 0
NEGATIVE: Final = 1
"""The question was answered, and the answer is no: not served, something is wrong, something was refused."""
USAGE: Final = 2
"""The command, the configuration or the credentials are wrong: a person has to change something."""
TROUBLE: Final = 3
"""MoEngage did not answer usefully: try again later."""
LOCAL: Final = 4
"""A file or the spool of this machine."""
BUG: Final = 70
INTERRUPTED: Final = 130


def status_of(error: Exception) -> int:
    """Returns the exit status for what was raised."""
    from moengage_personalize import NoAnswerError, PersonalizeError

    if isinstance(error, PersonalizeError):
        if type(error).__name__.startswith("Spool"):  # without importing the spool, to ask whether it is its error
            return LOCAL
        return TROUBLE if error.retryable or isinstance(error, NoAnswerError) else USAGE
    return LOCAL if isinstance(error, OSError) else BUG


def end(status: int) -> None:
    """Ends the running command."""
    click.get_current_context().exit(status)


def complain(text: str) -> None:
    """Says on stderr what is wrong."""
    from ._output import printable

    click.echo(f"moengage-personalize: {printable(text)}", err=True)


def complain_of(error: Exception, *, named: bool = False) -> None:
    """Says what was raised, and where to go on if the set-up may be the cause.

    Args:
        error: What was raised.
        named: Whether its kind is said, too.
    """
    from moengage_personalize import AuthenticationError, BadRequestError, ConnectionFailedError, UnexpectedStatusError

    if isinstance(error, OSError) and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    else:
        said = str(error)
    complain(f"{type(error).__name__}: {said}" if named else said)
    if isinstance(error, AuthenticationError | BadRequestError | ConnectionFailedError | UnexpectedStatusError):
        complain("`moengage-personalize doctor` finds out which part of a set-up is wrong")


def run(work: Coroutine[Any, Any, int]) -> None:
    """Runs a command's coroutine in an event loop of its own, and ends the command with what it returns."""
    logging.getLogger("moengage_personalize").addHandler(logging.NullHandler())  # a command says it in its own words
    signalled: list[int] = []

    async def guarded() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one

        def stop(number: int) -> None:
            signalled.append(number)
            loop.remove_signal_handler(number)  # the next one is the system's
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(RuntimeError, ValueError):  # not in the main thread
                loop.add_signal_handler(number, stop, number)
        return await work

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            status = runner.run(guarded())
        except asyncio.CancelledError:
            if not signalled:
                raise
            status = 128 + signalled[0]
    end(status)


def _loop_factory() -> Any:
    try:
        import uvloop  # an extra
    except ImportError:
        return None
    return uvloop.new_event_loop
