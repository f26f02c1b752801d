"""`moengage-personalize impression` and `click`: fetch, report one event, and wait until it is settled."""

from __future__ import annotations

from typing import Any

import click

from ._ending import NEGATIVE, OK, TROUBLE, USAGE, complain, run
from ._options import Visitor, as_json, client_settings, connecting, visiting_as_customer, visitor
from ._output import document, line

_PLATFORMS = ("web", "android", "ios", "tv")
_platform = click.option("--platform", type=click.Choice(_PLATFORMS), default="web", show_default=True)
_event_uuid = click.option("--event-uuid", help="A version 4 UUID; by default a fresh one.")


@click.command("impression")
@click.argument("key")
@visiting_as_customer
@_platform
@_event_uuid
@connecting
@as_json
def impression_command(key: str, *, platform: str, event_uuid: str | None, as_json: bool) -> None:
    """Fetch an experience, and report that it was seen.

    0: MoEngage has it. 1: there was nothing to report, or it was refused. 3: it could not be delivered.
    """
    run(_report(key, visitor(), {"platform": platform, "event_uuid": event_uuid}, as_json=as_json))


@click.command("click")
@click.argument("key")
@click.option("--b-id", help="Which of several clickable elements it was.")
@visiting_as_customer
@_platform
@_event_uuid
@connecting
@as_json
def click_command(key: str, *, b_id: str | None, platform: str, event_uuid: str | None, as_json: bool) -> None:
    """Fetch an experience, and report that it was clicked.

    0: MoEngage has it. 1: there was nothing to report, or it was refused. 3: it could not be delivered.
    """
    event = {"platform": platform, "event_uuid": event_uuid, "b_id": b_id}
    run(_report(key, visitor(), event, as_json=as_json))


async def _report(key: str, visitor: Visitor, event: dict[str, Any], *, as_json: bool) -> int:
    from uuid import uuid4

    from moengage_personalize import Action, AsyncPersonalizeClient, Condition, Event

    event["event_uuid"] = event["event_uuid"] or str(uuid4())
    action = Action.CLICK if "b_id" in event else Action.IMPRESSION
    async with AsyncPersonalizeClient(**client_settings()) as client:
        experience = (await visitor.ask(client, [key])).raise_for_error()[key]
        assert visitor.customer_id is not None  # noqa: S101 - the option is required
        admission = client.track(Event(action=action, experience=experience, customer_id=visitor.customer_id, **event))
        await client.flush(visitor.deadline)
        health = client.health()
        report = await client.aclose()
    fate = next((name for name in ("delivered", "rejected", "dropped") if getattr(report, name)), admission.value)
    if as_json:
        document({"reason": experience.reason.value, "fate": fate, "event_uuid": event["event_uuid"]})
    elif report.delivered:
        line("ok", f"delivered as {event['event_uuid']}")
    elif experience.matched:
        line("wrong", fate)
    else:
        line("wrong", f"nothing to report: {key} was not served ({experience.reason.value})")
    if report.dropped:
        complain(f"it could not be delivered in time, and is given up. {health.detail}")
        return USAGE if health.condition is Condition.MISCONFIGURED else TROUBLE
    return OK if report.delivered else NEGATIVE
