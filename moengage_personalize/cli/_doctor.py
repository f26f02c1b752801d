"""`moengage-personalize doctor`: which part of a set-up is wrong, and what to do about it.

Theory: one step after the other, as a request would go: configuration, address, connection, TLS, HTTP/2, workspace,
key, data centre, clock, experience keys, identity. `_probes` observes, `_diagnosis` judges; this puts them in order.

Invariant: every step is in the report, whatever happened before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import attrs
import click

from ._diagnosis import Finding, clock, credentials, identity, key, skipped
from ._ending import NEGATIVE, OK, TROUBLE, run
from ._options import Visitor, as_json, client_settings, connecting, identity_option, tls_context, visiting, visitor
from ._output import document, line
from ._way_there import way_there

if TYPE_CHECKING:
    import ssl

_NETWORK = ("address", "connection", "tls", "http2")
_TIMES = 5  # nobody is drawn anew each time, for control groups too
_CREDENTIALS = ("workspace", "key", "data centre")


@click.command("doctor")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="An experience key the application asks; repeatable.")
@visiting
@identity_option
@click.option("--try-data-centers", is_flag=True, help="If they are refused, show the credentials to the others.")
@connecting
@as_json
def doctor_command(*, keys: tuple[str, ...], identity: str, try_data_centers: bool, as_json: bool) -> None:
    """Find out what is wrong with a set-up, step by step.

    To check the identity form, name a --customer-id who qualifies for an audience that is not all users.

    0: nothing is wrong. 1: something is. 3: MoEngage did not answer usefully.
    """
    run(_doctor(Patient(keys, visitor(), identity, try_data_centers), as_json=as_json))


@attrs.frozen
class Patient:
    """What is to be looked at."""

    keys: tuple[str, ...]
    visitor: Visitor
    identity: str
    try_data_centers: bool


async def _doctor(patient: Patient, *, as_json: bool) -> int:
    findings = []
    async for finding in _examine(patient, client_settings()):
        findings.append(finding)
        if not as_json:
            line(finding.verdict, finding.step, finding.evidence)
            if finding.remedy:
                line("", f"-> {finding.remedy}")
    wrong = [finding for finding in findings if finding.verdict == "wrong"]
    if as_json:
        document(
            {
                "ok": not wrong,
                "causes": list(dict.fromkeys(finding.cause for finding in wrong)),
                "steps": [attrs.asdict(finding) for finding in findings],
            }
        )
    if wrong:
        return NEGATIVE
    return TROUBLE if any(finding.trouble for finding in findings) else OK


async def _examine(patient: Patient, settings: Mapping[str, Any]) -> AsyncIterator[Finding]:
    from moengage_personalize import ConfigurationError

    from ._probes import ask, destination, shake_hands

    asking = [f"experience {name}" for name in patient.keys]
    try:
        url = await destination(settings)
        context = tls_context()
    except ConfigurationError as error:
        yield Finding(step="configuration", verdict="wrong", evidence=str(error), cause="configuration",
                      remedy="`moengage-personalize doctor --help` names the variables and options.")  # fmt: skip
        for finding in skipped([*_NETWORK, *_CREDENTIALS, "clock", *asking, "identity"]):
            yield finding
        return
    origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
    yield Finding(step="configuration", verdict="ok", evidence=f"workspace and key are given, for {origin}")
    stopped = False
    if url.scheme == "https":
        way = way_there(url.host, handshake := await shake_hands(url, context))
        stopped = handshake.stage != "done"
    else:
        way = skipped(_NETWORK, "plain http, to this machine")
    for finding in way:
        yield finding
    if stopped:
        for finding in skipped([*_CREDENTIALS, "clock", *asking, "identity"]):
            yield finding
        return
    ours = await ask(settings, context)
    for finding in await _credentials(patient, settings, context, ours):
        yield finding
    yield clock(ours.skew)
    if not ours.ok:
        for finding in skipped([*asking, "identity"]):
            yield finding
        return
    for name in patient.keys:
        yield key(name, ours.statuses)
    yield await _identity(patient, settings, context, [name for name in patient.keys if name in ours.statuses])


async def _credentials(
    patient: Patient, settings: Mapping[str, Any], context: ssl.SSLContext, ours: Any
) -> list[Finding]:
    from ._probes import DATA_CENTERS, ask

    invented, elsewhere = None, {}
    refused = ours.status in (400, 401, 403)
    if refused:
        nobody = {**settings, "workspace_id": f"DOCTOR{token_hex(9).upper()}", "api_key": token_hex(16)}
        invented = await ask(nobody, context)
    if refused and patient.try_data_centers:
        for name, base_url in DATA_CENTERS.items():
            elsewhere[name] = await ask({**settings, "base_url": base_url, "data_center": None}, context)
    return credentials(ours, invented, elsewhere, asked_elsewhere=patient.try_data_centers)


async def _identity(
    patient: Patient, settings: Mapping[str, Any], context: ssl.SSLContext, keys: Sequence[str]
) -> Finding:
    from moengage_personalize import PersonalizeError

    from ._probes import audiences

    if patient.visitor.customer_id is None:
        remedy = "Name a --customer-id who qualifies for an audience that is not all users."
        return Finding(step="identity", verdict="unknown", evidence="no customer to ask for", remedy=remedy)
    nobody = attrs.evolve(patient.visitor, customer_id=None, user_identifier=())
    named = attrs.evolve(patient.visitor, user_identifier=())
    try:
        anybody = await audiences(settings, context, nobody, tuple(keys), "both", times=_TIMES)
        served = {
            form: await audiences(settings, context, named, tuple(keys), form)
            for form in ("both", "identifiers", "flat")
        }
    except PersonalizeError as error:
        return Finding(step="identity", verdict="unknown", evidence=str(error), trouble=error.retryable)
    return identity(patient.identity, anybody, served)
