"""How far a replay has come, on disk: the state file, and the file of rejects that belongs to it.

Invariants: the state is replaced whole, so that it is one or the other after a kill. It never counts a line that is not
settled. The rejects that it knows of are on the disk before it is; what a killed run wrote beyond them is cut off,
since it will be written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs

from ._source import SourceError

_VERSION = 1


@attrs.frozen(kw_only=True)
class State:
    """How far it has come.

    Attributes:
        identity: Of the source.
        offset: Bytes of it that are settled, uncompressed.
        lines: Lines that are settled, in whatever way.
        delivered: Those that MoEngage has.
        duplicate: Those whose UUID had come shortly before.
        rejected: Those that MoEngage refused.
        bad: Those that are no events.
        rejects_bytes: Size of the file of rejects.
        done: Whether that was all.
    """

    identity: str
    offset: int = 0
    lines: int = 0
    delivered: int = 0
    duplicate: int = 0
    rejected: int = 0
    bad: int = 0
    rejects_bytes: int = 0
    done: bool = False


class Checkpoint:
    """The two files.

    Args:
        path: The state's; None keeps none.
        rejects: Where rejected lines go; None: nowhere.
    """

    def __init__(self, path: Path | None, rejects: Path | None) -> None:
        self._path = path
        self._rejects = rejects

    def load(self, identity: str, *, restart: bool) -> State:
        """Returns where to go on.

        Raises:
            SourceError: The state is another source's, or none.
            OSError: It cannot be read.
        """
        state = State(identity=identity, rejects_bytes=self._size_of_rejects())
        if self._path is None or restart or not self._path.exists():
            return state
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            version, kept = found.pop("version"), State(**found)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SourceError(f"{self._path} is no state of a replay: move it away, or use --restart") from None
        if version != _VERSION or kept.identity != identity:
            raise SourceError(f"{self._path} is the state of another file: use another --state, or --restart")
        if self._rejects is not None and self._rejects.exists() and kept.rejects_bytes <= state.rejects_bytes:
            os.truncate(self._rejects, kept.rejects_bytes)
        return attrs.evolve(kept, rejects_bytes=self._size_of_rejects())

    def save(self, state: State, rejected: Iterable[bytes] = ()) -> State:
        """Notes the state, and before it the lines that were rejected; returns it with their bytes counted. Blocks."""
        text = b"".join(line + b"\n" for line in rejected)
        if self._rejects is not None and text:
            with self._rejects.open("ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            state = attrs.evolve(state, rejects_bytes=state.rejects_bytes + len(text))
        if self._path is not None:
            fresh = self._path.with_name(f"{self._path.name}.new")
            with fresh.open("w", encoding="utf-8") as new:
                json.dump({"version": _VERSION, **attrs.asdict(state)}, new)
                new.flush()
                os.fsync(new.fileno())
            fresh.replace(self._path)
        return state

    def _size_of_rejects(self) -> int:
        return self._rejects.stat().st_size if self._rejects is not None and self._rejects.exists() else 0
