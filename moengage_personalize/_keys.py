"""Finds misspelled experience keys, which MoEngage answers like "no match".

Theory: the code says at start-up which keys it will ask for. They are compared with the workspace's own list then, and
once a day, as MoEngage advises for metadata (api-facts.md, section 5). A key that is not there is logged once, with the
nearest one that is; when it appears it is forgotten, so that it can be missed again.

Where an entry of the list could not be read, no key is called missing: it may be that one. (Whoever reads the list logs
that.)

Invariants: `run` is total. The list is asked for at most once per `PAUSE` (once a day, when it came), and not at all
as long as no key is expected.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Final

import anyio

from ._errors import PersonalizeError
from ._experiences import ExperiencesMetadata

log = logging.getLogger("moengage_personalize")
DAY: Final = 86_400.0
PAUSE: Final = 300.0  # seconds after a failure


class Radar:
    """Watches the expected keys. See the module's docstring.

    Args:
        known: Returns the experiences that exist; raises `PersonalizeError`.
        jitter: Chance: processes that were started together do not ask together the next day.
    """

    def __init__(self, known: Callable[[], Awaitable[ExperiencesMetadata]], jitter: Callable[[], float]) -> None:
        self._known = known
        self._jitter = jitter
        self._expected: dict[str, None] = {}
        self._told: set[str] = set()
        self._news = anyio.Event()

    def expect(self, keys: Iterable[str]) -> None:
        """Adds keys to those that are watched; new ones are looked up soon."""
        added = [key for key in keys if key not in self._expected]
        self._expected.update(dict.fromkeys(added))
        if added:
            self._news.set()

    async def run(self) -> None:
        """Watches until it is cancelled."""
        await self._news.wait()
        while True:
            self._news = anyio.Event()
            pause = PAUSE
            try:
                self._tell(await self.unknown())
                pause = DAY
            except PersonalizeError as error:
                log.info("the expected experience keys could not be checked: %s", type(error).__name__)
            with anyio.move_on_after(pause * (0.9 + self._jitter() / 5)):
                await self._news.wait()

    async def unknown(self) -> Mapping[str, str | None]:
        """Returns the expected keys that do not exist, each with the nearest that does, if one is near."""
        metadata = await self._known()
        if metadata.unreadable:
            return {}
        known = list(metadata)
        missing = [key for key in self._expected if key not in known]
        return {key: next(iter(get_close_matches(key, known, 1)), None) for key in missing}

    def _tell(self, unknown: Mapping[str, str | None]) -> None:
        for key, nearest in unknown.items():
            if key not in self._told:
                hint = f": did you mean {nearest!r}?" if nearest else ""
                log.warning("the experience key %r does not exist in this workspace%s", key, hint)
        self._told = set(unknown)
