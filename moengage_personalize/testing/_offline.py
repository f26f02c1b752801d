"""A client without MoEngage, for a machine of one's own.

Invariant: no network, no disk, no credentials; memory is bounded, for a development server runs for days.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._record import Record, Tracked
from ._script import Content, Script
from ._scripted import ScriptedClient, Stage

KEPT = 1_000


class OfflineClient(ScriptedClient):
    """What `offline_client` makes."""

    @property
    def tracked(self) -> list[Tracked]:
        """The newest 1,000 events, which went nowhere."""
        return self.stage.record.tracked

    def __repr__(self) -> str:
        return f"<OfflineClient, {len(self.tracked)} events in memory>"


def offline_client(defaults: Mapping[str, Mapping[str, Any]] | None = None) -> OfflineClient:
    """Returns a client that answers from `defaults` alone, and keeps what is tracked in memory.

    It is opened as any other: `async with offline_client({"home-hero": {"Title": "Hi"}}) as client`.

    Args:
        defaults: Variables by experience key, served to everybody; another key does not match.
    """
    script = Script()
    for key, payload in (defaults or {}).items():
        content = Content(payload=dict(payload))
        content.on_the_wire(key)
        script.put(key, None, content)
    return OfflineClient(Stage(script, Record(most=KEPT)))
