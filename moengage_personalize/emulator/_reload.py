"""Experiences that follow their file: an edit is picked up, a mistake is reported and changes nothing.

Invariant: the emulator always holds the last catalogue that made sense.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator

INTERVAL = 0.5  # seconds between two looks at the file


class Reloader:
    """Looks at one file on behalf of one emulator.

    Args:
        emulator: Whose experiences these are.
        path: Where they are written.
    """

    def __init__(self, emulator: "Emulator", path: Path) -> None:
        self._emulator = emulator
        self._path = path
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None  # editors replace files: gone for a moment is no edit
        return status.st_mtime_ns, status.st_size

    def look(self) -> str | None:
        """Reads the file again if it has changed; returns what there is to tell, if anything."""
        from moengage_personalize.emulator._toml import load_catalogue  # late: it brings cattrs

        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return None
        self._seen = stamp
        try:
            catalogue = load_catalogue(self._path)
        except (OSError, ValueError) as error:
            self._emulator.complaint = str(error)
            return f"{error}\n{self._path}: the experiences stay as they were"
        self._emulator.replace_experiences(catalogue)
        return f"{self._path}: {len(catalogue.experiences)} experiences"
