"""Answers that are kept: fresh, stale, and not at all.

Theory: an answer belongs to a *context* (the person and every attribute that was sent, hashed by the fetcher) and a
key. It is *fresh* for `ttl`; for `stale_while_revalidate` after that it is served while the next one is fetched; for
`stale_if_error` after `ttl` it is served instead of an error. A no-match is fresh for `negative_ttl` at the most, and
never stale: it is no better than a default. A *refusal* (MoEngage will not answer this question) is kept beside the
answer, not instead of it.

Invariants: never more than `max_entries` entries nor `max_bytes` estimated bytes; what is least recently used goes
first. No entry is found after its time; one whose time is over is dropped when it is met, or when it is among the least
recently used at an insertion. `forget` leaves nothing of a person. No customer id is held, only hashes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Generic, TypeVar

import attrs

from .._config import CachePolicy
from .._experiences import Experience
from .flights import Key

V = TypeVar("V")
E = TypeVar("E")
_Place = tuple[bytes, Key]
SWEPT: Final = 4  # old entries looked at per insertion
OVERHEAD: Final = 400  # bytes of an entry beside its value


@attrs.frozen
class Hit(Generic[V]):
    """An answer that may be served.

    Attributes:
        value: What was put.
        age: Seconds since it was.
        fresh: Whether there is no need to ask again.
    """

    value: V
    age: float
    fresh: bool


@attrs.define(eq=False)
class _Entry(Generic[V, E]):
    person: bytes | None
    size: int = OVERHEAD
    value: V | None = None
    put_at: float = 0.0
    fresh_until: float = 0.0
    served_until: float = 0.0
    saved_until: float = 0.0  # never before the two above
    refusal: E | None = None
    refused_until: float = 0.0

    def ends(self) -> float:
        return max(self.saved_until, self.refused_until)


class Cache(Generic[V, E]):
    """The cache. See the module's docstring.

    Args:
        policy: Its times and bounds.
    """

    def __init__(self, policy: CachePolicy) -> None:
        self._policy = policy
        self._entries: OrderedDict[_Place, _Entry[V, E]] = OrderedDict()
        self._persons: dict[bytes, set[_Place]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, context: bytes, key: Key, now: float) -> Hit[V] | None:
        """Returns what may be served without an error; if it is not fresh, the next one is to be fetched."""
        entry = self._entries.get((context, key))
        if entry is None:
            return None
        if now >= entry.ends():
            self._drop((context, key))
            return None
        if entry.value is None or now >= entry.served_until:
            return None
        self._entries.move_to_end((context, key))
        return Hit(entry.value, now - entry.put_at, now < entry.fresh_until)

    def saved(self, context: bytes, key: Key, now: float) -> Hit[V] | None:
        """Returns what may be served instead of an error."""
        entry = self._entries.get((context, key))
        if entry is None or entry.value is None or now >= entry.saved_until:
            return None
        self._entries.move_to_end((context, key))
        return Hit(entry.value, now - entry.put_at, now < entry.fresh_until)

    def refusal(self, context: bytes, key: Key, now: float) -> E | None:
        """Returns why this question is not asked again yet."""
        entry = self._entries.get((context, key))
        return None if entry is None or now >= entry.refused_until else entry.refusal

    def put(
        self, context: bytes, key: Key, value: V, now: float, *, person: bytes | None, matched: bool = True
    ) -> None:
        """Keeps an answer, in place of an earlier one."""
        policy = self._policy
        entry = self._entry(context, key, person)
        entry.value, entry.put_at, entry.refusal, entry.refused_until = value, now, None, 0.0
        if matched:
            entry.fresh_until = now + policy.ttl
            entry.served_until = entry.fresh_until + policy.stale_while_revalidate
            entry.saved_until = entry.fresh_until + max(policy.stale_while_revalidate, policy.stale_if_error)
        else:
            entry.fresh_until = now + min(policy.ttl, policy.negative_ttl)
            entry.served_until = entry.saved_until = entry.fresh_until
        size = OVERHEAD + weight(value)
        self.bytes += size - entry.size
        entry.size = size
        self._shrink(now)

    def refuse(self, context: bytes, key: Key, refusal: E, now: float, *, person: bytes | None) -> None:
        """Keeps the reason why a question is not to be asked again soon."""
        entry = self._entry(context, key, person)
        entry.refusal, entry.refused_until = refusal, now + self._policy.negative_ttl
        self._shrink(now)

    def forget(self, person: bytes) -> int:
        """Drops everything of a person; returns how many entries."""
        places = self._persons.get(person, set()).copy()
        for place in places:
            self._drop(place)
        return len(places)

    def _entry(self, context: bytes, key: Key, person: bytes | None) -> _Entry[V, E]:
        place = context, key
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = _Entry(person)
            self.bytes += entry.size
            if person is not None:
                self._persons.setdefault(person, set()).add(place)
        self._entries.move_to_end(place)
        return entry

    def _shrink(self, now: float) -> None:
        oldest = [place for place, _ in zip(self._entries, range(SWEPT), strict=False)]
        for place in oldest:
            if now >= self._entries[place].ends():
                self._drop(place)
        while len(self._entries) > self._policy.max_entries or self.bytes > self._policy.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place)
        self.bytes -= entry.size
        if entry.person is not None:
            places = self._persons[entry.person]
            places.discard(place)
            if not places:
                del self._persons[entry.person]

    def __repr__(self) -> str:
        return f"<Cache of {len(self._entries)} entries, {self.bytes} bytes>"


def weight(value: Any) -> int:
    """Returns about how many bytes of memory a value takes."""
    match value:
        case str():
            return 56 + len(value) * (1 if value.isascii() else 4)
        case dict():
            return 64 + sum(40 + weight(key) + weight(item) for key, item in value.items())
        case list() | tuple():
            return 64 + sum(8 + weight(item) for item in value)
        case Experience():
            return weight(value.payload) + weight(value.context)
        case _:
            return 32
