"""The command line, `moengage-personalize`.

Theory: a dispatcher. Each command is a function of another part of the package that takes the rest of the arguments and
returns an exit status; this only finds it. Commands are imported when they are named: `--version` needs no extra.

Invariant: whatever a command prints, and its exit status, are the command's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .._version import __version__

_EPILOG = """\
Start here, without a MoEngage account:
  moengage-personalize emulator          serves an emulator and prints the environment variables that point to it
  moengage-personalize emulator --help   its options
  moengage-personalize codegen --help    typed keys and classes for the experiences of your workspace
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    Args:
        arguments: What follows the program's name; by default the process's.
    """
    parser = argparse.ArgumentParser(
        prog="moengage-personalize",
        description="Unofficial client for MoEngage Personalize.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    # Its own parser has the options, `--help` included.
    commands.add_parser("emulator", help="an emulator of MoEngage Personalize, on this machine", add_help=False)
    commands.add_parser("codegen", help="a typed module of the workspace's experiences", add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if options.command is None:
        if rest:
            parser.error(f"there is no command, and {rest[0]} is none")
        parser.print_help()
        return 0
    # Late: `--version` needs none of them.
    if options.command == "codegen":
        from .codegen import main as codegen

        return codegen(rest)
    from ..emulator import main as emulator

    return emulator(rest)
