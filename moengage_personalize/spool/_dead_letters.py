"""Events that were refused for good, for a person to look at.

All processes share one file. Invariant: `read` never shows more than the bounds allow; the oldest leave
first. The file itself may grow to twice the bounds before it is rewritten, so that a flood of refusals
costs a rewrite per `limit` letters and not one each.
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
        """Keep these, durably, in place of older ones of the same events; answers how many had to leave."""
        bodies = {letter.entry.event_uuid: encode_letter(letter) for letter in letters}
        with self.log.locked() as log:
            records = log.records()
            found = [frame for frame in records if not frame.settled]
            replaced = [frame for frame in found if _event_of(frame) in bodies]
            before = [frame for frame in found if frame not in replaced]
            kept = self._kept([*before, *(Frame(0, settled=False, body=body) for body in bodies.values())])
            added = sum(map(len, bodies.values()))
            if len(records) + len(bodies) > 2 * self.limit or log.size() + added > 2 * self.limit_bytes:
                log.rewrite([frame.body for frame in kept])
            else:
                log.append(list(bodies.values()))
                log.settle(replaced)
        return len(self._kept(before)) + len(bodies) - len(kept)

    def remove(self, matches: Callable[[DeadLetter], bool], *, erase: bool = False) -> int:
        """Drop the letters that match; with `erase`, their bytes and those of earlier ones leave the disk too."""
        with self.log.locked() as log:
            records = log.records()
            matching = [
                frame for frame in records if (letter := decode_letter(frame.body)) is not None and matches(letter)
            ]
            removed = [frame for frame in matching if not frame.settled]
            if erase and matching:
                log.rewrite([frame.body for frame in records if not frame.settled and frame not in removed])
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


def _event_of(frame: Frame) -> str | None:
    letter = decode_letter(frame.body)
    return None if letter is None else letter.entry.event_uuid
