"""`moengage-personalize spool`: what lies in a spool's directory, and what is to become of it.

Theory: looking (`ls`, `show`) reads the files as they are, beside the processes that use them. Doing (`replay`,
`forget`) opens the spool as one more process, with the rights and duties of any.

Invariant: without `--reveal` nothing that is printed tells who a customer is, or what happened: an id is a hash that
is salted anew each time, which tells only who is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

import click

from ._ending import NEGATIVE, OK, TROUBLE, USAGE, complain, end, run
from ._options import as_json, client_settings, connecting
from ._output import document, line, table

if TYPE_CHECKING:
    from moengage_personalize import AsyncPersonalizeClient
    from moengage_personalize.spool import DeadLetter, DiskSpool, Entry

_SHORT = 8  # characters of an id that tell it from others
_QUIET = 2.0  # seconds in which a client has long looked for what dead processes left
_directory = click.argument("directory", type=click.Path(exists=True, file_okay=False))


@click.group("spool", short_help="Look into a spool; replay what was refused; forget somebody.")
def spool_command() -> None:
    """Look into a spool's directory, as its owner: files of other users are not read."""


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@spool_command.command("ls")
@_directory
@as_json
def ls(directory: str, *, as_json: bool) -> None:
    """List files with their owners, and dead letters with their reasons."""
    from moengage_personalize.spool import inspect_spool

    with closing(inspect_spool(directory)) as spool:
        files, letters = spool.files(), spool.dead_letters()
    reasons = Counter((letter.status, letter.reason) for letter in letters)
    if as_json:
        dead = [{"status": status, "reason": reason, "count": count} for (status, reason), count in reasons.items()]
        names = ("name", "owner", "living", "bytes", "created", "pending", "settled", "skipped", "fault")
        segments = [{name: getattr(file, name) for name in names} for file in files]
        document({"pending": sum(file.pending for file in files), "segments": segments, "dead_letters": dead})
        return
    if not files and not letters:
        complain(f"{directory}: no spool has left anything here")
        return
    rows = (
        (
            file.name,
            file.owner[:_SHORT],
            "living" if file.living else "dead",
            file.pending,
            file.settled,
            file.bytes,
            _when(file.created) if file.created else "",
            file.fault or ("" if file.created else "spare"),
        )
        for file in files
    )
    table(("file", "owner", "process", "pending", "settled", "bytes", "since", "note"), rows)
    if letters:
        rows_of_letters = [(count, status or "", reason) for (status, reason), count in reasons.most_common()]
        table(("dead letters", "status", "reason"), rows_of_letters)


@spool_command.command("show")
@_directory
@click.option("--state", type=click.Choice(("all", "pending", "dead")), default="all", show_default=True)
@click.option("--customer-id", help="This person's only.")
@click.option("--limit", type=click.IntRange(1), help="So many at the most.")
@click.option("--reveal", is_flag=True, help="Print ids and payloads, in the form that `replay` reads.")
@as_json
def show(
    directory: str, *, state: str, customer_id: str | None, limit: int | None, reveal: bool, as_json: bool
) -> None:
    """Show events: those that wait, and those that were refused.

    With --json --reveal each line is one that `moengage-personalize replay` reads.

    0: there are some. 1: there is none.
    """
    from moengage_personalize.spool import inspect_spool

    salt, count = secrets.token_bytes(16), 0
    if not as_json and not reveal:
        line(*_COLUMNS)
    with closing(inspect_spool(directory)) as spool:
        found = _events(spool, state)
        for about, entry in found:
            if customer_id is not None and json.loads(entry.customer) != customer_id:
                continue
            if limit is not None and count == limit:
                break
            count += 1
            if reveal:
                document({**flat(entry), "spool": about})
            elif as_json:
                document({**_veiled(entry, salt), **about})
            else:
                line(*({**_veiled(entry, salt), **about}.get(column, "") or "" for column in _COLUMNS))
    end(OK if count else NEGATIVE)


_COLUMNS = ("state", "event", "customer", "kind", "accepted_at", "bytes", "owner", "status", "reason")


def _events(spool: Any, state: str) -> Iterator[tuple[dict[str, Any], Entry]]:
    if state != "dead":
        for owner, entry in spool.entries():
            yield {"state": "pending", "owner": owner[:_SHORT], "accepted_at": _when(entry.accepted_at)}, entry
    if state != "pending":
        for letter in spool.dead_letters():
            yield (
                {
                    "state": "dead",
                    "status": letter.status,
                    "reason": letter.reason,
                    "accepted_at": _when(letter.entry.accepted_at),
                    "buried_at": _when(letter.buried_at),
                },
                letter.entry,
            )


def flat(entry: Entry) -> dict[str, Any]:
    """Returns an event as a line that `replay` reads: the action as it will travel, and its customer."""
    event = {"customer_id": json.loads(entry.customer), **json.loads(entry.payload)}
    if entry.attributes:  # a line for each: encoded name, tab, encoded value
        pairs = (text.split(b"\t", 1) for text in entry.attributes.split(b"\n"))
        event["user_attributes"] = {json.loads(name): json.loads(value) for name, value in pairs}
    if entry.timezone_offset is not None:
        event["user_timezone_offset"] = entry.timezone_offset
    return event


def _veiled(entry: Entry, salt: bytes) -> dict[str, Any]:
    return {
        "event": entry.event_uuid[:_SHORT],
        "customer": hashlib.blake2b(entry.customer, digest_size=4, key=salt).hexdigest(),
        "kind": "impression" if entry.impression else "click",
        "bytes": len(entry.payload) + len(entry.attributes),
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@spool_command.command("replay")
@_directory
@click.option("--event", "events", multiple=True, help="This event only: its UUID, or how it begins; repeatable.")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds for delivery.")
@connecting
@as_json
def replay(directory: str, *, events: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Send dead letters again, under their UUIDs, byte for byte.

    What dead processes have left in the directory is sent with them. What is refused once more is a dead letter again.

    0: all was delivered. 1: something was refused again, or there was nothing. 2, 3: something waits still.
    """
    run(_replay(directory, events, timeout, as_json=as_json))


def _opened(directory: str) -> DiskSpool:
    from moengage_personalize.spool import DiskSpool

    # Bounds belong to the application: this one neither refuses nor evicts anything because of them.
    return DiskSpool(directory, max_bytes=1 << 40, max_dead_letters=1 << 30, max_dead_letter_bytes=1 << 40)


async def _replay(directory: str, events: tuple[str, ...], timeout: float, *, as_json: bool) -> int:  # noqa: ASYNC109
    from moengage_personalize import AsyncPersonalizeClient, Condition
    from moengage_personalize.spool import inspect_spool

    with closing(inspect_spool(directory)) as looked_at:
        chosen = _chosen(looked_at.dead_letters(), events)
        dead = {file.owner for file in looked_at.files() if not file.living}
        left = sum(owner in dead for owner, _ in looked_at.entries())
    if events and not chosen:
        raise click.UsageError("no dead letter's UUID begins so")
    spool = _opened(directory)
    async with AsyncPersonalizeClient(**client_settings(), spool=spool) as client:
        await client.replay(chosen)
        await _settled(client, spool, left, time.monotonic() + timeout)
        health = client.health()
        report = await client.aclose()
    counts = {name: getattr(report, name) for name in ("replayed", "recovered", "delivered", "rejected", "pending")}
    if as_json:
        document(counts)
    else:
        table(tuple(counts), [tuple(counts.values())])
    if report.pending:
        complain(f"some wait still, in the spool. {health.detail}")
        return USAGE if health.condition is Condition.MISCONFIGURED else TROUBLE
    return NEGATIVE if report.rejected or not report.delivered else OK


def _chosen(letters: list[DeadLetter], beginnings: tuple[str, ...]) -> list[str] | None:
    if not beginnings:
        return None
    uuids = (letter.entry.event_uuid for letter in letters)
    return [uuid for uuid in uuids if uuid.startswith(tuple(each.lower() for each in beginnings))]


async def _settled(client: AsyncPersonalizeClient, spool: DiskSpool, left: int, until: float) -> None:
    """Waits until nothing waits, in memory or on the disk, or it is too late.

    Args:
        client: Open.
        spool: Its own.
        left: How many events dead processes had left; another process may be quicker to take them over.
        until: When it is too late, on the monotonic clock.
    """
    quiet_since = inf
    while (now := time.monotonic()) < until:
        report, stats = await client.flush(until - now), spool.stats()
        quiet = not (report.pending or stats.pending or stats.unread_segments)
        quiet_since = min(quiet_since, now) if quiet else inf
        if quiet and (report.recovered >= left or now - quiet_since > _QUIET):
            return
        await asyncio.sleep(0.02)


@spool_command.command("forget", short_help="Remove one person's events and dead letters.")
@_directory
@click.option("--customer-id", required=True, help="Whom.")
@as_json
def forget(directory: str, *, customer_id: str, as_json: bool) -> None:
    """Remove one person's events and dead letters, in the files of all processes.

    Processes that live honour it within their sync interval, half a second by default.
    """
    run(_forget(directory, customer_id, as_json=as_json))


async def _forget(directory: str, customer_id: str, *, as_json: bool) -> int:
    spool = _opened(directory)
    await spool.open()
    try:
        receipt = await spool.forget(encoded_customer(customer_id))
    finally:
        await spool.aclose()
    counts = {
        "events": receipt.entries,
        "dead_letters": receipt.dead_letters,
        "other_processes": receipt.other_processes,
    }
    if as_json:
        document(counts)
    else:
        table(tuple(counts), [tuple(counts.values())])
    return OK


def encoded_customer(customer_id: str) -> bytes:
    """Returns a customer id as spools hold it."""
    return json.dumps(customer_id, ensure_ascii=False).encode()
