"""Finds commands, and turns what they raise into a sentence and an exit status."""

from __future__ import annotations

import errno
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ._ending import BUG, INTERRUPTED, complain, complain_of, end, status_of

_HOMES = {
    "doctor": "_doctor",
    "fetch": "_fetch",
    "metadata": "_metadata",
    "impression": "_report",
    "click": "_report",
    "replay": "_replay",
    "spool": "_spool",
    "codegen": "codegen",
    "emulator": "_emulator",
}
_EPILOG = """\b
Start here, without a MoEngage account:
  moengage-personalize emulator    serves an emulator and prints the
                                   environment variables that point to it
  moengage-personalize doctor      says what is wrong with a set-up

Exit codes: 0 well, 1 the answer is no, 2 usage or configuration,
3 trouble at MoEngage's, 4 trouble with a file, 70 a bug of ours,
130 interrupted, 143 terminated.
"""


class Commands(click.Group):
    """The commands, each imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        command: click.Command = getattr(import_module(f".{home}", __package__), f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        said: set[str] = set()

        def say_once(message: Warning | str, *_rest: Any, **_named: Any) -> None:
            if (text := str(message)) not in said:
                said.add(text)
                complain(f"warning: {text}")

        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # said, whatever PYTHONWARNINGS wants to become of it
            warnings.showwarning = say_once
            try:
                return super().invoke(ctx)
            except (click.exceptions.Exit, click.ClickException):
                raise
            except (KeyboardInterrupt, click.Abort):
                end(INTERRUPTED)
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise  # click ends quietly when nobody reads any more
                status = status_of(error)
                if status == BUG:
                    traceback.print_exception(error)
                    complain(f"{type(error).__name__}: this is a bug of moengage_personalize")
                else:
                    complain_of(error)
                end(status)


@click.group(cls=Commands, invoke_without_command=True, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="moengage-personalize", message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Unofficial client for MoEngage Personalize."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
