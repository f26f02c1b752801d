"""What a command prints: JSON for programs, tables for people.

Theory: a person at a terminal gets rich's tables and colours, a pipe gets lines with tabs between the columns, and
`--json` gets one document, or one a line. rich is imported for a terminal only; it honours NO_COLOR.

Invariant: text from elsewhere is printed without control characters, so that no experience can move a cursor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

COLOURS = {"ok": "green", "matched": "green", "wrong": "bold red", "unknown": "yellow"}


def printable(value: Any) -> str:
    """Returns a value as one line of text that is safe to print."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def document(value: Any) -> None:
    """Prints a JSON document on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def line(*cells: Any) -> None:
    """Prints one line: coloured by its first cell at a terminal, with tabs otherwise."""
    texts = [printable(cell) for cell in cells]
    if not sys.stdout.isatty():
        click.echo("\t".join(texts))
        return
    from rich.console import Console  # 60 ms
    from rich.text import Text

    text = Text(f"{texts[0]:8}", style=COLOURS.get(texts[0], "bold"))
    for cell in texts[1:]:
        text.append(f" {cell}", style="default")
    Console().print(text, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table: a header, then a line for each row."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        shown.add_row(*(Text(text, style=COLOURS.get(text, "")) for text in map(printable, row)))
    Console().print(shown)
