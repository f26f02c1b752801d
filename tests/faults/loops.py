"""The event loops that a claim is made for, as pytest parameters of anyio's `anyio_backend`; and one that can
be stepped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]

LOOPS_AND_TRIO = [*LOOPS, pytest.param(("trio", {}), id="trio")]


class SteppingLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that counts its turns and can do something after the k-th: a stepper through all
    interleavings of one task.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turns_left: int | None = None
        self._then: Callable[[], object] = lambda: None

    def after_turns(self, turns: int, then: Callable[[], object]) -> None:
        self._turns_left, self._then = turns, then

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self._turns_left is not None:
            self._turns_left -= 1
            if self._turns_left <= 0:
                self._turns_left = None
                self._then()
