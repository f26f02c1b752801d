"""What a fake MoEngage answers: the script, and no I/O.

Theory: two layers. Content says what a key is for everybody or for one person; trouble says what happens to a request
in which it is asked. The newest trouble that concerns a request decides it, and content is what remains without.

Invariants: what was said of a person goes before what was said of everybody. Trouble that is wished for n requests
meets exactly n. The script is changed by the test's thread and read by a client's: every method holds the lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import attrs

from moengage_personalize import Reason
from moengage_personalize.emulator import Value

WITHHELD = {
    Reason.CAMPAIGN_CONTROL_GROUP: "USER_IN_CAMPAIGN_CONTROL_GROUP",
    Reason.GLOBAL_CONTROL_GROUP: "USER_IN_GLOBAL_CONTROL_GROUP",
    Reason.NOT_IN_SEGMENT: "USER_NOT_IN_SEGMENT",
    Reason.INVALID_KEY: "INVALID_EXPERIENCE_KEY",
    Reason.LIMIT_BREACHED: "MAX_LIMIT_BREACHED",
    Reason.NOT_ACTIVE: "EXPERIENCE_NOT_ACTIVE",
    Reason.EXPIRED: "EXPERIENCE_EXPIRED",
    Reason.PERSONALIZATION_FAILED: "PERSONALIZATION_FAILED",
    Reason.NO_MATCH: None,
}
"""The reasons for which MoEngage withholds an experience, in its native SDKs' words; it says nothing of a no-match."""


@attrs.frozen(kw_only=True)
class Content:
    """What is served, or why nothing is."""

    payload: Mapping[str, Any] = attrs.field(factory=dict)
    variation: str = "1"
    reason: Reason = Reason.MATCHED

    def on_the_wire(self, key: str) -> dict[str, Any]:
        """As MoEngage writes it."""
        values = {name: Value.of(value) for name, value in self.payload.items()}
        return {
            "payload": {name: {"value": each.value, "data_type": each.data_type} for name, each in values.items()},
            "experience_context": {
                "cid": f"fake_{key}_F_T_WP_AB_{self.variation}_P_0_AU_fake",
                "experience": key,
                "moe_locale_id": "0",
                "moe_variation_id": self.variation,
                "audience_name": "All Users",
                "audience_id": "fake",
                "type": "Web Personalization",
            },
        }


@attrs.define(kw_only=True, eq=False)
class Trouble:
    """What happens to a request instead of, or before, an answer.

    Attributes:
        keys: Which keys it concerns; empty: every request.
        customer_id: Whose requests; None: everybody's.
        left: How many more requests; None: all.
        times_out: No answer within the caller's deadline.
        status: The answer's status.
        retry_after: Seconds, on that answer.
        seconds: How long the answer takes.
    """

    keys: frozenset[str]
    customer_id: str | None
    left: int | None
    times_out: bool = False
    status: int | None = None
    retry_after: int | None = None
    seconds: float = 0.0

    def concerns(self, keys: Sequence[str] | None, customer_id: str | None) -> bool:
        """Whether it meets a request; one for everything (None) names no key."""
        return (
            self.left != 0
            and (not self.keys or not self.keys.isdisjoint(keys or ()))
            and (self.customer_id is None or self.customer_id == customer_id)
        )


class Script:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._contents: dict[tuple[str, str | None], Content] = {}
        self._troubles: list[Trouble] = []
        self._listed: dict[str, None] = {}

    def put(self, key: str, customer_id: str | None, content: Content) -> None:
        """Says what a key is from now on.

        Raises:
            TypeError: The key is no text, or the payload no JSON: no server could answer with it.
        """
        if not isinstance(key, str):
            raise TypeError("a key is text; each is served by a call of its own")
        try:
            json.dumps(content.on_the_wire(key), allow_nan=False)
        except (TypeError, ValueError):
            accepted = "dicts with text keys, lists, text, finite numbers, booleans and None"
            raise TypeError(f"the payload of {key!r} must be JSON: {accepted}") from None
        with self._lock:
            self._contents[key, customer_id] = content

    def wish(self, trouble: Trouble) -> None:
        """Wishes for trouble from now on."""
        with self._lock:
            self._troubles.append(trouble)

    def calm(self) -> None:
        """Ends all trouble."""
        with self._lock:
            self._troubles.clear()

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._contents.clear()
            self._troubles.clear()
            self._listed.clear()

    def list_keys(self, keys: Iterable[str]) -> None:
        """Says that these keys exist, though nothing is served for them."""
        with self._lock:
            self._listed.update(dict.fromkeys(keys))

    def meet(self, keys: Sequence[str] | None, customer_id: str | None) -> Trouble | None:
        """Returns the trouble that a request meets, which counts it."""
        with self._lock:
            for trouble in reversed(self._troubles):
                if trouble.concerns(keys, customer_id):
                    if trouble.left is not None:
                        trouble.left -= 1
                    return trouble
            return None

    def answer(self, keys: Sequence[str] | None, customer_id: str | None) -> dict[str, Any]:
        """Returns the body of the answer to a fetch; without keys, everything that there is for the person."""
        with self._lock:
            wanted = dict.fromkeys(key for key, _ in self._contents) if keys is None else keys
            found = {key: content for key in wanted if (content := self._content(key, customer_id)) is not None}
        served = {key: each.on_the_wire(key) for key, each in found.items() if each.reason is Reason.MATCHED}
        withheld = [(WITHHELD.get(each.reason), key) for key, each in found.items()]
        return {
            "experiences": served,
            "failures": [{"reason": word, "experienceKeys": [key]} for word, key in withheld if word],
        }

    def _content(self, key: str, customer_id: str | None) -> Content | None:
        return self._contents.get((key, customer_id)) or self._contents.get((key, None))

    def keys(self) -> list[str]:
        """Returns every key that exists."""
        with self._lock:
            return list(dict.fromkeys([*(key for key, _ in self._contents), *self._listed]))
