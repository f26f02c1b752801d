"""The users whom the workspace knows, by customer id and by the identifiers that Identity Resolution uses.

Invariant: at most `limit` profiles are kept; beyond it the one that was created first is forgotten.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from moengage_personalize.emulator._experiences import Profile, as_text


class Profiles:
    """Profiles by customer id.

    Args:
        known: Those that exist from the start.
        limit: How many are kept.
    """

    def __init__(self, known: Iterable[Profile] = (), *, limit: int = 200_000) -> None:
        self._limit = limit
        self._attributes: dict[str, dict[str, Any]] = {}
        self._owners: dict[tuple[str, str], str] = {}
        for profile in known:
            self.update(profile.customer_id, profile.attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def __contains__(self, customer_id: str) -> bool:
        return customer_id in self._attributes

    def __getitem__(self, customer_id: str) -> Mapping[str, Any]:
        return self._attributes[customer_id]

    def get(self, customer_id: str) -> Mapping[str, Any] | None:
        """A profile's attributes; None for nobody."""
        return self._attributes.get(customer_id)

    def update(self, customer_id: str, attributes: Mapping[str, Any] | None) -> bool:
        """Merges attributes into a profile; says whether that created it (api-facts, 1.3)."""
        created = customer_id not in self._attributes
        profile = self._attributes.setdefault(customer_id, {})
        for name, value in (attributes or {}).items():
            if name in profile:
                self._disown(customer_id, name, profile[name])
            profile[name] = value
            self._owners[name, as_text(value)] = customer_id
        if len(self._attributes) > self._limit:
            self._forget(next(iter(self._attributes)))
        return created

    def _forget(self, customer_id: str) -> None:
        for name, value in self._attributes.pop(customer_id).items():
            self._disown(customer_id, name, value)

    def _disown(self, customer_id: str, name: str, value: Any) -> None:
        if self._owners.get((name, as_text(value))) == customer_id:
            del self._owners[name, as_text(value)]

    def find(self, customer_id: str | None, identifiers: Mapping[str, Any], resolution: Iterable[str]) -> str | None:
        """Who that is: by customer id, else by the first identifier that Identity Resolution may use."""
        if customer_id is not None and customer_id in self._attributes:
            return customer_id
        for name in resolution:
            if name in identifiers:
                owner = self._owners.get((name, as_text(identifiers[name])))
                if owner is not None:
                    return owner
        return None
