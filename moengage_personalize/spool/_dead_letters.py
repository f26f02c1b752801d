"""Events that were refused for good, for a person to look at.

All processes share one file. Invariant: `read` never shows more than the bounds allow; the oldest leave first.
The file itself may grow to twice the bounds before it is rewritten, so that a flood of refusals costs a rewrite
per `limit` letters and not one each.
"""

from collections.abc import Callable, Collection, Sequence

from attrs import frozen

from ._format import Frame, decode_letter, encode_letter
from ._nouns import DeadLetter
from ._shared_log import SharedLog


@frozen
class DeadLetters:
    """The shared file of dead letters, bounded by count and by bytes."""

    log: SharedLog
    limit: int
    limit_bytes: int

    def read(self) -> list[DeadLetter]:
        """The letters that are kept, oldest first."""
        found = self.log.read()
        frames = self._kept(found[1]) if found else []
        return [letter for frame in frames if (letter := decode_letter(frame.body)) is not None]

    def add(self, letters: Sequence[DeadLetter]) -> int:
        """Keep these too, durably; answers how many had to leave."""
        bodies = [encode_letter(letter) for letter in letters]
        with self.log.locked() as log:
            before = log.frames()
            everything = [*before, *(Frame(0, settled=False, body=body) for body in bodies)]
            kept = self._kept(everything)
            twice = len(everything) > 2 * self.limit or _bytes(everything) > 2 * self.limit_bytes
            if twice:
                log.rewrite([frame.body for frame in kept])
            else:
                log.append(bodies)
        return len(self._kept(before)) + len(bodies) - len(kept)

    def remove(self, matches: Callable[[DeadLetter], bool], *, erase: bool = False) -> int:
        """Drop the letters that match; with `erase`, their bytes leave the disk too."""
        removed = []
        with self.log.locked() as log:
            frames = log.frames()
            for frame in frames:
                letter = decode_letter(frame.body)
                if letter is not None and matches(letter):
                    removed.append(frame)
            if erase and removed:
                log.rewrite([frame.body for frame in frames if frame not in removed])
            elif removed:
                log.settle(removed)
        return len(removed)

    def _kept(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """The newest that fit."""
        room, first = self.limit_bytes, len(frames)
        for frame in reversed(frames[-self.limit :] if self.limit else []):
            room -= len(frame.body)
            if room < 0:
                break
            first -= 1
        return frames[first:]


def chosen(event_uuids: Collection[str] | None) -> Callable[[DeadLetter], bool]:
    """Matches these events' letters, or all."""
    return lambda letter: event_uuids is None or letter.entry.event_uuid in event_uuids


def _bytes(frames: Sequence[Frame]) -> int:
    return sum(len(frame.body) for frame in frames)
