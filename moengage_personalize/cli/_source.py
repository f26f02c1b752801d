"""Where the lines come from: a file, a compressed one, or stdin; a block at a time, from an offset on.

Theory: what is known of a file without reading it whole is its first line; with a line's number and text that is
enough to tell any two events apart. Offsets are of the uncompressed bytes.

Invariant: a block holds whole lines, in a bounded number of bytes. Reading the same source from the end of a block goes
on with the next line, whatever was read before.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import stat
import zlib
from contextlib import suppress
from typing import IO, Final, Self, cast

import attrs

LONGEST: Final = 1 << 20  # bytes of a line; an event that is longer fits in no request
_LINES, _BYTES = 5_000, 2 << 20  # of a block: two of them are under way at a time
_BROKEN = (OSError, EOFError, zlib.error)
_BOM = b"\xef\xbb\xbf"


class SourceError(Exception):
    """This source cannot be replayed, or not with this state."""


@attrs.frozen
class Line:
    """One line, as it is.

    Attributes:
        number: From 1.
        text: Without its end; empty if it is longer than `LONGEST`.
        too_long: Whether it is.
        ended: Whether it has an end: the last one may still be written.
    """

    number: int
    text: bytes
    too_long: bool = False
    ended: bool = True


@attrs.frozen
class Block:
    """Some lines; one that has no end is alone.

    Attributes:
        lines: In order.
        end: Where the next one begins.
        position: How far the file is read, for a progress bar: compressed bytes, if it is.
    """

    lines: list[Line]
    end: int
    position: int


class Source:
    """See the module's docstring.

    Args:
        path: The file; `-` is stdin.

    Raises:
        SourceError: Another process replays it.
        OSError: It cannot be read.
    """

    def __init__(self, path: str) -> None:
        # Not sys.stdin: a thread that waits for it must not hold up the interpreter's end.
        self._raw = open(0 if path == "-" else path, "rb", closefd=path != "-")  # noqa: SIM115
        try:
            self._begin()
        except BaseException:
            self._raw.close()
            raise

    def _begin(self) -> None:
        found = os.fstat(self._raw.fileno())
        self._is_file = stat.S_ISREG(found.st_mode)
        self.size = found.st_size if self._is_file else None
        if self._is_file:
            self._lock()
        zipped = self._raw.peek(2)[:2] == b"\x1f\x8b"
        self._lines = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw) if zipped else self._raw)
        self._ahead = b""
        self._offset = 0
        self._number = 0
        self._held: Line | None = None  # one without an end makes a block of its own
        self._error: OSError | None = None
        try:
            self._ahead = self._lines.readline(LONGEST)
        except _BROKEN as error:
            self._error = _as_os_error(error)
        self.identity = hashlib.sha256(self._ahead.strip()).hexdigest()[:32]

    def _lock(self) -> None:
        try:
            fcntl.flock(self._raw.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError("another process replays this file") from None
        except OSError:
            return  # a file system without locks

    def go_to(self, offset: int, number: int) -> None:
        """Goes on after the line of this number, which ends at this offset. Before the first `block`.

        Raises:
            SourceError: There are not so many bytes.
        """
        if not offset:
            return
        left = offset - len(self._ahead)
        if left >= 0 and self._lines is self._raw and self._is_file:
            self._lines.seek(offset)
            reached = self.size is not None and offset <= self.size
        else:
            while left > 0 and (piece := self._lines.read(min(left, LONGEST))):
                left -= len(piece)
            reached = left == 0
        if not reached:
            raise SourceError("there is less of it than was replayed already: is it another file?")
        self._ahead, self._offset, self._number = b"", offset, number

    def block(self) -> Block | None:
        """Returns the next lines; None at the end.

        Raises:
            OSError: It cannot be read further; all lines before that have been returned.
        """
        if self._held is not None:
            held, self._held = self._held, None
            return Block([held], self._offset, self._position())
        begin, lines = self._offset, list[Line]()
        try:
            while self._error is None and len(lines) < _LINES and self._offset - begin < _BYTES:
                before, line = self._offset, self._line()
                if line is None:
                    break
                if lines and not line.ended:
                    self._held = line
                    return Block(lines, before, self._position())
                lines.append(line)
        except _BROKEN as error:
            self._error = _as_os_error(error)
        if not lines and self._error is not None:
            raise self._error
        return Block(lines, self._offset, self._position()) if lines else None

    def _line(self) -> Line | None:
        data = self._read()
        if not data:
            return None
        size, whole = len(data), data
        while len(data) == LONGEST and not data.endswith(b"\n"):
            data = self._read()
            size, whole = size + len(data), b""
        self._offset += size
        self._number += 1
        text = whole.removeprefix(_BOM) if self._number == 1 else whole
        return Line(self._number, text.strip(), too_long=not whole, ended=data.endswith(b"\n"))

    def _read(self) -> bytes:
        ahead, self._ahead = self._ahead, b""
        return ahead or self._lines.readline(LONGEST)

    def _position(self) -> int:
        return self._raw.tell() if self._is_file else self._offset

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._raw.close()


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, OSError):
        return error
    return OSError(
        "the compressed file ends too early" if isinstance(error, EOFError) else "the compressed file is damaged"
    )
