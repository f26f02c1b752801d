"""`moengage-personalize replay`: a file of events, delivered, however often it takes. `_replaying` does it."""

from __future__ import annotations

from pathlib import Path

import click

from ._ending import run
from ._options import as_json, client_settings, connecting


@click.command("replay", short_help="Deliver a file of events, however often it takes.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--state", "state_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Where it is noted how far it is; FILE.replay by default, none for stdin.")  # fmt: skip
@click.option("--restart", is_flag=True, help="Begin at the beginning, whatever is noted.")
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path), help="Where lines go that were refused.")
@click.option("--senders", type=click.IntRange(1, 100), default=4, show_default=True, help="Requests at a time.")
@click.option("--patience", type=click.FloatRange(0.1), default=300.0, show_default=True,
              help="Seconds without any progress after which to give up.")  # fmt: skip
@connecting
@as_json
def replay_command(
    file: str,
    *,
    state_path: Path | None,
    restart: bool,
    rejects: Path | None,
    senders: int,
    patience: float,
    as_json: bool,
) -> None:
    """Deliver a file of events: one JSON object a line, plain or gzipped; - is stdin.

    A run that was interrupted, or killed, goes on where it was when it is started again. docs/cli.md has the format.

    0: MoEngage has all of them. 1: some lines were refused. 2, 3: it gave up; the rest is still to come.
    """
    if state_path is None and file != "-":
        state_path = Path(f"{file}.replay")
    from ._checkpoint import Checkpoint  # late, so that `--help` is quick
    from ._replaying import Options, replay
    from ._source import SourceError

    options = Options(client_settings(), restart=restart, senders=senders, patience=patience, as_json=as_json)
    try:
        run(replay(file, Checkpoint(state_path, rejects), options))
    except SourceError as error:
        raise click.UsageError(str(error)) from None
