"""What does not fit any more: variables whose value is not what the page's code expects.

Theory: somebody renames a variable in the dashboard, or its type. The page shows its default, and nobody notices. So
each drift is counted under its path, and logged once.

Invariant: names only, never a value; at most `MOST` paths, however many there are.
"""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger("moengage_personalize")
MOST: Final = 200
_WHOLE: Final = "(class)"  # `_decode.WHOLE`, whose import costs that of cattrs


class Drifts:
    """The drifts of one client.

    Attributes:
        total: How often something did not fit.
        paths: How often, by `key.variable.…`; the first `MOST` of them.
    """

    __slots__ = ("paths", "total")

    def __init__(self) -> None:
        self.total = 0
        self.paths: dict[str, int] = {}

    def saw(self, key: str, path: str, wanted: str) -> None:
        """Counts one.

        Args:
            key: The experience's key.
            path: Where in its payload.
            wanted: What it should have been; a class or a type.
        """
        self.total += 1
        where = f"{key}.{path}"
        if where in self.paths:
            self.paths[where] += 1
        elif len(self.paths) < MOST:
            self.paths[where] = 1
            if path == _WHOLE:
                log.warning("the experience %s does not fit %s (an attrs class, a dataclass, a TypedDict or a pydantic"
                            " model?): its default is used", key, wanted)  # fmt: skip
            else:
                log.warning("the variable %s does not fit %s: its default is used", where, wanted)

    def __reduce__(self) -> tuple[type[Drifts], tuple[()]]:
        return Drifts, ()
