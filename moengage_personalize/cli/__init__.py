"""The command line, `moengage-personalize`.

Theory: each command is a module of its own, which is imported when it is named, and imports what it needs when it runs;
so `--help` costs click alone. `_app` finds the commands and maps what they raise to exit codes (`_ending`).

Invariants: results go to stdout, everything else to stderr. Only the public API is used. Ids, payloads and credentials
are shown to nobody who has not asked for them by an option; credentials never.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    Args:
        arguments: What follows the program's name; by default the process's.
    """
    if missing := [name for name in ("click", "rich") if find_spec(name) is None]:
        needs = " and ".join(missing)
        print(f'moengage-personalize needs {needs}: pip install "moengage-personalize[cli]"', file=sys.stderr)
        return 2
    from ._app import app  # click is an extra

    try:
        app.main(args=None if arguments is None else list(arguments), prog_name="moengage-personalize")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
