"""A ledger that survives a restart: one line of JSON for every request, read back at the start.

Theory: a line holds a request's record and, for events, what its elements held; entering the lines again,
in order, rebuilds ledger and profiles. A line is handed to the operating system before the answer goes
out, so that a killed emulator has forgotten nothing that it has acknowledged. A last line without its end
was never acknowledged: it is cut off.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from moengage_personalize.emulator._reading import RawAction
from moengage_personalize.emulator._records import RequestRecord
from moengage_personalize.emulator._rules import Element

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator


class Journal:
    """One file on behalf of one emulator.

    Args:
        emulator: Whose ledger it keeps; what the file holds already is entered at once.
        path: Where the file is, or will be.

    Raises:
        OSError: The file can be neither read nor written.
        ValueError: It is no such journal; says which line.
    """

    def __init__(self, emulator: "Emulator", path: Path) -> None:
        self._emulator = emulator
        self._file = path.open("a+b", buffering=0)
        try:
            self._replay(path)
        except BaseException:
            self._file.close()
            raise
        emulator.journal = self

    def _replay(self, path: Path) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                os.ftruncate(self._file.fileno(), whole)
                break
            whole += len(line)
            try:
                self._enter(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not a line of an emulator's journal") from error

    def _enter(self, line: dict[str, Any]) -> None:
        given = line["request"]
        for name in ("asked", "notes"):
            given[name] = tuple(given[name])
        for name in ("served", "unserved"):
            given[name] = tuple(tuple(entry) for entry in given[name])
        record = RequestRecord(**given)
        elements = tuple(
            Element(**{**element, "actions": tuple(RawAction(json.loads(raw), raw) for raw in element["actions"])})
            for element in line["elements"]
        )
        self._emulator.enter(record, elements)

    def write(self, record: RequestRecord, elements: tuple[Element, ...]) -> None:
        """Appends one request."""
        line = {
            "request": attrs.asdict(record, recurse=False),
            "elements": [
                {**attrs.asdict(element, recurse=False), "actions": [action.raw for action in element.actions]}
                for element in elements
            ],
        }
        self._file.write(json.dumps(line).encode() + b"\n")

    def forget(self) -> None:
        """Empties the file."""
        os.ftruncate(self._file.fileno(), 0)

    def close(self) -> None:
        """Lets go of the file; the emulator goes on without it."""
        self._emulator.journal = None
        self._file.close()
