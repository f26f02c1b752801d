"""Why a visitor got what they got, in words for a developer.

Invariant: every `Reason` has its sentence. Names of the workspace's own (keys, variables, audiences) are shown;
payloads, ids and attributes are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._experiences import Reason

if TYPE_CHECKING:
    from ._experiences import Experience

_BECAUSE = {
    Reason.MATCHED: "MoEngage served it.",
    Reason.CACHED: "MoEngage served it earlier, and CachePolicy.ttl is not over.",
    Reason.STALE: "MoEngage served it earlier; it is out of date, and still better than a default.",
    Reason.NO_MATCH: "MoEngage answered without it: the visitor is in no audience of it, the key is misspelled, or it"
    " is not active. client.expect(…) finds misspelled keys.",
    Reason.CAMPAIGN_CONTROL_GROUP: "The visitor is in its control group, which is shown nothing on purpose.",
    Reason.GLOBAL_CONTROL_GROUP: "The visitor is in the workspace's control group, which is shown nothing on purpose.",
    Reason.NOT_IN_SEGMENT: "The visitor is in no audience of it; in-session attributes count, and are case-sensitive.",
    Reason.INVALID_KEY: "No experience has this key.",
    Reason.LIMIT_BREACHED: "A limit of the workspace or the request is breached.",
    Reason.NOT_ACTIVE: "The experience is paused, scheduled or a draft.",
    Reason.EXPIRED: "The experience has ended.",
    Reason.PERSONALIZATION_FAILED: "Its content could not be personalized: look at its Jinja and its catalogue.",
    Reason.DECODE_ERROR: "MoEngage served something that is no experience; this entry cannot be read.",
    Reason.TIMEOUT: "No answer arrived within the deadline.",
    Reason.UNAVAILABLE: "MoEngage could not be reached, or failed.",
    Reason.RATE_LIMITED: "The workspace's quota, or this process's share of it, is used up.",
    Reason.UNAUTHORIZED: "MoEngage refuses the workspace id or the Personalize key; `moengage-personalize doctor` says"
    " which.",
    Reason.BAD_REQUEST: "MoEngage refuses the question: look at the in-session attributes, and at the workspace id.",
    Reason.BAD_REPLY: "The answer cannot be read.",
    Reason.OPEN_CIRCUIT: "MoEngage failed too often just now, or refused the credentials, so it was not asked; one"
    " request at a time finds out when that is over. `Experiences.error` says what it was.",
    Reason.OVERLOADED: "FetchPolicy.max_in_flight requests were under way, so it was not asked.",
    Reason.CLOSED: "The client was closed while this waited.",
    Reason.DISABLED: "The client is configured with enabled=False.",
    Reason.PAUSED: "client.pause() was called.",
}


def explain(experience: Experience) -> str:
    """Returns the explanation. See `Experience.explain`."""
    of = f", {experience.age:.1f} s old" if experience.age else ""
    lines = [f"{experience.key}: {experience.reason.value} (from {experience.source}{of})", _BECAUSE[experience.reason]]
    if experience.trouble is not None:
        lines.append(f"Not asked or not answered now: {experience.trouble.value}. {_BECAUSE[experience.trouble]}")
    if experience.matched:
        context = experience.context
        shown = [f"{name} {context[key]!r}" for name, key in _WORKSPACES_OWN.items() if key in context]
        lines.append(f"{', '.join(shown) or 'no context'}; {len(experience.payload)} variables.")
    for name, why in experience.undecodable.items():
        lines.append(f"The variable {name} cannot be decoded: {why}.")
    return "\n  ".join(lines)


_WORKSPACES_OWN = {"experience": "experience", "audience": "audience_name", "variation": "moe_variation_id"}
