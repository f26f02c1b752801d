"""`moengage-personalize emulator`: the emulator's own command, whose options are its own."""

from __future__ import annotations

import click

from ._ending import end


@click.command(
    "emulator",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Serve an emulator of MoEngage Personalize on this machine.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulator_command(arguments: tuple[str, ...]) -> None:
    """Serves an emulator. It needs no click: `python -m moengage_personalize.emulator` is the same."""
    from ..emulator import main

    end(main(arguments))
