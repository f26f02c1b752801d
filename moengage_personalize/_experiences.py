"""What a visitor gets: experiences as typed values, or the reason why not.

Theory: a page needs no `if`. Every key that was asked has an `Experience`; one that was not served is unmatched, says
why, and answers every `get` with the page's own default.

Invariant: an `Experience` is a value. It holds MoEngage's context exactly as it came, shows neither it nor the payload
in its repr, and hands out copies of the context, so that what is reported is what was served.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar, overload

import attrs

from ._errors import PersonalizeError

T = TypeVar("T")
Source = Literal["network", "cache", "stale", "default"]


class Observer(Protocol):
    """Counts what does not fit."""

    def saw(self, key: str, path: str, wanted: str) -> None: ...


class Reason(StrEnum):
    """Why an experience looks as it does."""

    MATCHED = "matched"
    CACHED = "cached"
    STALE = "stale"

    # MoEngage answered, and not with this experience.
    NO_MATCH = "no match"
    CAMPAIGN_CONTROL_GROUP = "campaign control group"
    GLOBAL_CONTROL_GROUP = "global control group"
    NOT_IN_SEGMENT = "not in segment"
    INVALID_KEY = "invalid key"
    LIMIT_BREACHED = "limit breached"
    NOT_ACTIVE = "not active"
    EXPIRED = "expired"
    PERSONALIZATION_FAILED = "personalization failed"
    DECODE_ERROR = "decode error"

    # MoEngage did not answer usefully; `Experiences.error` has the error.
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate limited"
    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad request"
    BAD_REPLY = "bad reply"

    # We did not ask.
    OPEN_CIRCUIT = "open circuit"
    OVERLOADED = "overloaded"
    CLOSED = "closed"
    DISABLED = "disabled"
    PAUSED = "paused"


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Experience:
    """One experience, for one visitor.

    Attributes:
        key: The experience key, as it was asked.
        matched: Whether MoEngage served it.
        reason: Why it was, or was not.
        source: Where it came from: `"network"`; `"cache"`; `"stale"`, out of date but better than nothing; or
            `"default"` when there is no answer and the page's own values apply.
        age: Seconds since the answer arrived.
        payload: The variables, decoded by their `data_type`.
        undecodable: Variables whose value does not fit its `data_type`, with the reason.
        trouble: What stood in the way of a newer answer, if this one is stale.
    """

    key: str
    reason: Reason
    source: Source
    age: float = 0.0
    payload: Mapping[str, Any] = attrs.field(factory=dict)
    undecodable: Mapping[str, str] = attrs.field(factory=dict)
    trouble: Reason | None = None
    _context: Mapping[str, Any] | None = None
    # How the context travels, or the admission that says why it does not: found out at most once, by core/wire.
    wire_context: object = attrs.field(default=None)
    drifts: Observer | None = attrs.field(default=None)  # who counts what does not fit

    @property
    def matched(self) -> bool:
        return self._context is not None

    @property
    def context(self) -> dict[str, Any]:
        """A copy of MoEngage's `experience_context`, to be handed to a browser and back. Empty if unmatched."""
        return _own(self._context or {})  # type: ignore[no-any-return]

    @property
    def served_context(self) -> Mapping[str, Any]:
        """The context itself, which nobody changes; for core/wire."""
        return self._context or {}

    @overload
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, default: T) -> T: ...
    def get(self, name: str, default: Any = None) -> Any:
        """Returns a variable, or the default.

        Args:
            name: The variable's name, as in the dashboard.
            default: What to return if the experience was not served, has no such variable, or has one of another
                type than the default's. (A whole number is a fine float; a boolean is no number. A list or an object
                may come as JSON in a text, as offerings do.)
        """
        value = self.payload.get(name)
        if value is None:
            return default
        if default is None or type(value) is type(default):
            return value
        if type(default) is float and type(value) is int:
            return float(value)
        if isinstance(value, type(default)) and not isinstance(value, bool):
            return value
        if type(value) is str and type(default) in (list, dict) and type(found := _json(value)) is type(default):
            return found
        self._drifted(name, type(default))
        return default

    def decode(self, kind: type[T], *, default: T) -> T:
        """Builds an object of the caller's class from the variables, or returns the default.

        Args:
            kind: An attrs class, dataclass, TypedDict or pydantic model. Names are matched case-insensitively,
                unknown variables are ignored.
            default: What to return if the experience was not served or does not fit.
        """
        if not self.matched:
            return default
        from ._decode import Misfit, build  # cattrs takes 40 ms to import; only those who decode pay

        built = build(kind, self.payload)
        if isinstance(built, Misfit):
            self._drifted(built.path, kind)
            return default
        return built

    def explain(self) -> str:
        """Returns in a few lines why this visitor got this, and what to look at. Holds no value and no id."""
        from ._explain import explain

        return explain(self)

    def handed(
        self,
        *,
        reason: Reason | None = None,
        source: Source = "network",
        age: float = 0.0,
        trouble: Reason | None = None,
        drifts: Observer | None = None,
    ) -> Experience:
        """Returns a copy that shares nothing that can be changed."""
        return Experience(
            key=self.key,
            reason=reason or self.reason,
            source=source,
            age=age,
            payload=_own(self.payload),
            undecodable=dict(self.undecodable) if self.undecodable else {},
            trouble=trouble,
            context=self._context,
            wire_context=self.wire_context,
            drifts=drifts,
        )

    def _drifted(self, path: str, wanted: type) -> None:
        if self.drifts is not None:
            self.drifts.saw(self.key, path, wanted.__name__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Experience):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.key, self.reason))

    def _identity(self) -> tuple[object, ...]:
        return (
            self.key, self.reason, self.source, self.age, self.payload, self.undecodable, self.trouble, self._context
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Experience {self.key!r} {self.reason.value}, {len(self.payload)} variables from {self.source}>"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _own(value: Any) -> Any:
    """A copy of a JSON value."""
    if isinstance(value, dict):
        return {name: _own(item) if isinstance(item, dict | list) else item for name, item in value.items()}
    return [_own(item) for item in value] if isinstance(value, list) else value


@attrs.frozen(kw_only=True, repr=False)
class Experiences(Mapping[str, Experience]):
    """The experiences that were asked for, by key; a key that was not asked is a `KeyError`.

    Attributes:
        error: Their trouble, if a key has no answer because of it, not even a stale one.
    """

    _entries: Mapping[str, Experience]
    error: PersonalizeError | None = None

    def explain(self) -> str:
        """Returns in a few lines why this visitor got this."""
        lines = [entry.explain() for entry in self._entries.values()]
        return "\n".join([*lines, f"error: {type(self.error).__name__}: {self.error}"] if self.error else lines)

    def raise_for_error(self) -> Experiences:
        """Raises `error` if there is one; returns itself otherwise."""
        if self.error is not None:
            raise self.error
        return self

    def __getitem__(self, key: str) -> Experience:
        try:
            return self._entries[key]
        except KeyError:
            raise KeyError(f"{key!r} was not asked for") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        entries = ", ".join(f"{key!r}: {entry.reason.value}" for key, entry in self._entries.items())
        return f"<Experiences {{{entries}}}{f', {type(self.error).__name__}' if self.error else ''}>"


Status = Literal["Active", "Paused", "Scheduled"]


@attrs.frozen(kw_only=True)
class ExperienceMetadata:
    """One experience of the workspace.

    Attributes:
        name: Its name in the dashboard.
        key: Its experience key.
        status: `"Active"`, `"Paused"` or `"Scheduled"`, or what MoEngage may add.
    """

    name: str
    key: str
    status: str


@attrs.frozen(kw_only=True, repr=False)
class ExperiencesMetadata(Mapping[str, ExperienceMetadata]):
    """The workspace's experiences, by key.

    Attributes:
        count: How many there are, as MoEngage counts.
        unreadable: How many entries of the answer could not be read, and are left out.
    """

    _entries: Mapping[str, ExperienceMetadata]
    count: int
    unreadable: int = 0

    def __getitem__(self, key: str) -> ExperienceMetadata:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<ExperiencesMetadata of {self.count}>"
