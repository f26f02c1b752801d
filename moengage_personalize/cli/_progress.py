"""How far it is, on stderr: a bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import click

EVERY: Final = 5.0  # seconds between two lines in a log


class Progress(Protocol):
    """Is told how far it is, as often as one likes."""

    def show(self, *, position: int, lines: int, note: str) -> None: ...


class _Log:
    def __init__(self, total: int | None) -> None:
        self._total = total
        self._began: float | None = None
        self._first = 0
        self._next = 0.0

    def show(self, *, position: int, lines: int, note: str) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._first, self._next = now, lines, now + EVERY
        if now < self._next:
            return
        self._next = now + EVERY
        share = f", {100 * position / self._total:.0f} %" if self._total else ""
        rate = (lines - self._first) / max(now - self._began, 0.001)
        click.echo(f"{lines:,} lines{share}, {rate:,.0f} a second{note and ', '}{note}", err=True)


@contextmanager
def progress(total: int | None) -> Iterator[Progress]:
    """Shows progress for as long as the context is open.

    Args:
        total: What `position` will be at the end, if that is known.
    """
    if not sys.stderr.isatty():
        yield _Log(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %" if total else ""),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeRemainingColumn() if total else TextColumn(""),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=total, lines=0, note="")

        class Shown:
            def show(self, *, position: int, lines: int, note: str) -> None:
                bar.update(task, completed=position, lines=lines, note=note)
                bar.refresh()

        yield Shown()
