"""Where a process that a test starts finds what tests share."""

import os
from pathlib import Path

TESTS = Path(__file__).parent.parent


def environment(**more):
    """The environment of this process, with `tests` on the path: `make` runs with PYTHONSAFEPATH, which is inherited."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}
