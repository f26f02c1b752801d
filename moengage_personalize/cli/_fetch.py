"""`moengage-personalize fetch`: what one visitor is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from ._ending import NEGATIVE, OK, complain_of, run, status_of
from ._options import Visitor, as_json, client_settings, connecting, identity_option, visiting, visitor
from ._output import document, line, table

if TYPE_CHECKING:
    from moengage_personalize import Experience, Experiences


@click.command("fetch")
@click.argument("keys", metavar="KEY...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything the visitor qualifies for, instead of keys.")
@visiting
@identity_option
@click.option("--explain", is_flag=True, help="Say why the visitor got this.")
@connecting
@as_json
def fetch_command(
    keys: tuple[str, ...],
    *,
    everything: bool,
    identity: Literal["both", "identifiers", "flat"],
    explain: bool,
    as_json: bool,
) -> None:
    """Fetch experiences, and show them.

    0: all of them were served. 1: MoEngage answered without one.
    """
    if bool(keys) is everything:
        raise click.UsageError("name experience keys, or --all")
    run(_fetch(keys, visitor(), identity, explain=explain, as_json=as_json))


async def _fetch(
    keys: tuple[str, ...],
    visitor: Visitor,
    identity: Literal["both", "identifiers", "flat"],
    *,
    explain: bool,
    as_json: bool,
) -> int:
    from moengage_personalize import AsyncPersonalizeClient, FetchPolicy

    async with AsyncPersonalizeClient(**client_settings(), fetching=FetchPolicy(identity=identity)) as client:
        found = await visitor.ask(client, keys)
    error = found.error
    if as_json:
        failure = None if error is None else {"kind": type(error).__name__, "message": str(error)}
        document(
            {"experiences": {key: as_value(each, explain=explain) for key, each in found.items()}, "error": failure}
        )
    else:
        _show(found, explain=explain)
    if error is not None:
        complain_of(error, named=True)
        return status_of(error)
    return OK if found and all(each.matched for each in found.values()) else NEGATIVE


def as_value(experience: Experience, *, explain: bool = False) -> dict[str, Any]:
    """Returns an experience as JSON has it."""
    value = {
        "matched": experience.matched,
        "reason": experience.reason.value,
        "payload": experience.payload,
        "undecodable": experience.undecodable,
        "context": experience.context,
    }
    return {**value, "explanation": experience.explain()} if explain else value


def _show(found: Experiences, *, explain: bool) -> None:
    for key, experience in found.items():
        line("matched" if experience.matched else experience.reason.value, key)
        if experience.payload:
            table(("variable", "value"), experience.payload.items())
        if explain:
            for sentence in experience.explain().splitlines():
                line("", sentence.strip())
