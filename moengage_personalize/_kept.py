"""Answers that are kept, for those who switch that on: the shell of `core.cache`.

Invariants: what is kept is kept under keyed hashes, and no customer id is. What is handed out shares nothing that its
receiver could change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from secrets import token_bytes

from ._config import CachePolicy
from ._drift import Drifts
from ._experiences import Experience, Reason
from ._questions import Asking, Counts, Entries, Trouble
from .core.cache import Cache, Hit
from .core.flights import Flight, Key


class Kept:
    """See the module's docstring.

    Args:
        policy: What is kept, and for how long.
        drifts: Who counts what does not fit.
        counts: Where stale answers are counted.
    """

    def __init__(self, policy: CachePolicy, drifts: Drifts, counts: Counts) -> None:
        self._cache: Cache[Experience | Entries, Trouble] = Cache(policy)
        self._salt = token_bytes(32)
        self._drifts = drifts
        self._counts = counts

    def hash(self, text: bytes) -> bytes:
        """Returns what stands for a context or a person."""
        return blake2b(text, digest_size=16, key=self._salt).digest()

    def person(self, customer_id: str | None) -> bytes | None:
        """Returns what stands for a customer id."""
        return None if customer_id is None else self.hash(customer_id.encode())

    def answer(self, asking: Asking, now: float) -> tuple[list[Key], list[Key]]:
        """Answers what it can; returns the keys to be asked, and those to be asked behind the caller's back."""
        if trouble := self._cache.refusal(asking.context, _as_one(asking.keys), now):
            asking.refused = dict.fromkeys(asking.keys, trouble)
            return [], []
        missing, renewing = [], []
        for key in asking.keys:
            hit = self._cache.get(asking.context, key, now)
            if hit is None:
                missing.append(key)
            else:
                self._hand(asking, hit, None)
                if not hit.fresh:
                    renewing.append(key)
        return missing, renewing

    def save(self, asking: Asking, key: Key, trouble: Reason, now: float) -> bool:
        """Answers with what is out of date, if that may still be served; returns whether it did."""
        hit = self._cache.saved(asking.context, key, now)
        if hit is not None:
            self._hand(asking, hit, trouble)
            self._counts.stale += 1
        return hit is not None

    def keep(self, flight: Flight, outcome: Entries | Trouble, now: float) -> None:
        """Takes in how a flight ended."""
        person = flight.passenger.person
        if isinstance(outcome, Trouble):
            if outcome.reason is Reason.BAD_REQUEST:
                self._cache.refuse(flight.context, _as_one(flight.keys), outcome, now, person=person)
        elif None in flight.keys:
            self._cache.put(flight.context, None, outcome, now, person=person, matched=bool(outcome))
        else:
            for key, experience in outcome.items():
                self._cache.put(flight.context, key, experience, now, person=person, matched=experience.matched)

    def forget(self, person: bytes) -> int:
        """Drops a person's answers; returns how many."""
        return self._cache.forget(person)

    def _hand(self, asking: Asking, hit: Hit[Experience | Entries], trouble: Reason | None) -> None:
        fresh = hit.fresh and trouble is None
        entries: Sequence[Experience] = [hit.value] if isinstance(hit.value, Experience) else list(hit.value.values())
        for entry in entries:
            asking.found[entry.key] = entry.handed(
                reason=(Reason.CACHED if fresh else Reason.STALE) if entry.matched else None,
                source="cache" if fresh else "stale",
                age=hit.age,
                trouble=trouble,
                drifts=self._drifts,
            )


def _as_one(keys: Iterable[Key]) -> str:
    """A question's keys as one cache key, which no experience can have."""
    return "\0".join(sorted(key or "" for key in keys)) + "\0"
