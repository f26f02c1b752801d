"""Where in a TOML text a value stands, since `tomllib` keeps no positions.

Theory: in TOML a statement begins a line: a table's header, or a key with its value. Strings, comments
and brackets decide where a statement ends. So it is enough to walk over those, and to note the line of
every statement; a value inside an inline table is found at the line of the statement that holds it.
"""

import re
import tomllib
from collections import Counter
from typing import Any

Path = tuple[str | int, ...]

_token = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\''  # strings of several lines
    r'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|\#[^\n]*|[\[\]{}=\n]|[^\"'\#\[\]{}=\n]+|.",
    re.DOTALL,
).finditer


def _path(key: str) -> list[str]:
    """A dotted key's parts, as TOML itself reads them."""
    parts: list[str] = []
    found: Any = tomllib.loads(f"{key} = 0")
    while isinstance(found, dict):
        ((part, found),) = found.items()
        parts.append(part)
    return parts


class _Headers:
    """Which path a table's header stands for: tables in arrays are numbered as they come."""

    def __init__(self) -> None:
        self._counts: Counter[Path] = Counter()

    def enter(self, header: str) -> Path:
        """The path of `[a.b]` or `[[a.b]]`."""
        several = header.startswith("[[")
        parts = _path(header.strip("[]"))
        path: Path = ()
        for place, part in enumerate(parts):
            path += (part,)
            if several and place == len(parts) - 1:
                self._counts[path] += 1
            if path in self._counts:
                path += (self._counts[path] - 1,)
        return path


def places(text: str) -> dict[Path, int]:
    """The line of every statement in a valid TOML text, by the path of what it sets."""
    lines: dict[Path, int] = {}
    headers = _Headers()
    table: Path = ()
    statement, depth, line, began, in_value = "", 0, 1, 1, False
    for match in _token(text + "\n"):
        piece = match.group()
        if piece == "\n" and not depth:
            if statement.startswith("[") and not in_value:
                table = headers.enter(statement)
                lines[table] = began
            statement, in_value = "", False
        elif piece == "=" and not depth and not in_value:
            lines[table + tuple(_path(statement))] = began
            in_value = True
        elif not piece.startswith("#"):
            if not in_value:
                began = began if statement else line
                statement += piece.strip()
            elif piece in "[{":
                depth += 1
            elif piece in "]}":
                depth -= 1
        line += piece.count("\n")
    return lines


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of the nearest statement that holds a path."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
