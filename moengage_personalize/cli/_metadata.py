"""`moengage-personalize metadata`: what experiences the workspace has."""

from __future__ import annotations

from typing import Any

import click

from ._ending import NEGATIVE, OK, run
from ._options import as_json, client_settings, connecting
from ._output import document, table

_STATUSES = ("Active", "Paused", "Scheduled")


@click.command("metadata")
@click.option("--status", "statuses", type=click.Choice(_STATUSES), multiple=True, help="These only; repeatable.")
@connecting
@as_json
def metadata_command(*, statuses: tuple[Any, ...], as_json: bool) -> None:
    """List the workspace's experiences.

    0: there are some. 1: there is none.
    """
    run(_metadata(statuses, as_json=as_json))


async def _metadata(statuses: tuple[Any, ...], *, as_json: bool) -> int:
    from moengage_personalize import AsyncPersonalizeClient

    async with AsyncPersonalizeClient(**client_settings()) as client:
        found = await client.metadata(statuses or None)
    rows = [(each.key, each.status, each.name) for each in found.values()]
    if as_json:
        experiences = [dict(zip(("key", "status", "name"), row, strict=True)) for row in rows]
        document({"count": found.count, "experiences": experiences})
    else:
        table(("key", "status", "name"), rows)
    return OK if found else NEGATIVE
