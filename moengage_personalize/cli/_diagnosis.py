"""What observations mean: the doctor's judgement, without I/O.

Theory: MoEngage's answers do not say which of workspace, key and data centre is wrong, but they differ. MoEngage
documents 400 for an unknown `MOE-APPKEY` and 401 for credentials that do not fit; so the answer to these credentials is
compared with the answer to invented ones, which are certainly unknown. Likewise the identity form: what a customer is
served is compared with what nobody is served.

Invariant: a verdict follows from observations that the evidence names. Where they leave it open, it is `unknown`, or
the finding names every candidate. No finding shows an id, a key or a payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, Literal

import attrs

Verdict = Literal["ok", "wrong", "unknown"]
NOT_REACHED: Final = "not reached: an earlier step is in the way"
SKEW: Final = 10.0  # seconds; a Date header has whole ones, and the way there takes some
_DENIED = (400, 401, 403)


@attrs.frozen(kw_only=True)
class Finding:
    """One step of the diagnosis.

    Attributes:
        step: What was looked at.
        verdict: How it is.
        evidence: What was observed.
        remedy: What to do, if something is to be done.
        cause: The name of what is wrong, for programs.
        trouble: Whether it is MoEngage's, and passes.
    """

    step: str
    verdict: Verdict
    evidence: str
    remedy: str = ""
    cause: str | None = None
    trouble: bool = False


@attrs.frozen(kw_only=True)
class Answer:
    """What MoEngage said to a request for the list of experiences.

    Attributes:
        status: The HTTP status; None if there was no answer.
        words: What the client makes of it.
        statuses: Each experience's status by key, if it succeeded.
        skew: Seconds that this machine's clock is ahead of the server's.
    """

    status: int | None
    words: str = ""
    statuses: Mapping[str, str] = attrs.field(factory=dict)
    skew: float | None = None

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


# ── who we are ───────────────────────────────────────────────────────────────────────────────────────────────────────


def credentials(
    ours: Answer, invented: Answer | None, elsewhere: Mapping[str, Answer], *, asked_elsewhere: bool
) -> list[Finding]:
    """Judges workspace, key and data centre.

    Args:
        ours: The answer to the credentials.
        invented: The answer to credentials that nobody has, if ours were refused.
        elsewhere: The answers of other data centres to ours.
        asked_elsewhere: Whether they were asked.
    """
    if ours.ok:
        said = f"accepted: MoEngage answered {ours.status}"
        return [Finding(step=step, verdict="ok", evidence=said) for step in ("workspace", "key", "data centre")]
    home = next((name for name, answer in elsewhere.items() if answer.ok), None)
    if home is not None:
        return _at_home_in(home, ours, elsewhere[home])
    if ours.status not in _DENIED:
        return _no_verdict(ours)
    match ours.status, invented.status if invented else None:
        case 401, 400:
            return _wrong_key(ours)
        case 400, 400:
            found = _wrong_workspace(ours)
        case 400 | 403, status:
            found = _not_let_in(ours, status)
        case _:
            found = _either(ours)
    return [*found, _data_centre(asked_elsewhere=asked_elsewhere)]


def _at_home_in(name: str, here: Answer, there: Answer) -> list[Finding]:
    return [
        Finding(step="workspace", verdict="ok", evidence=f"data centre {name} knows it"),
        Finding(step="key", verdict="ok", evidence=f"data centre {name} accepts it"),
        Finding(
            step="data centre",
            verdict="wrong",
            evidence=f"{here.words}; data centre {name} answers {there.status}",
            remedy=f"Set MOENGAGE_DATA_CENTER={name}, and no MOENGAGE_PERSONALIZE_BASE_URL.",
            cause="wrong-data-center",
        ),
    ]


def _wrong_key(ours: Answer) -> list[Finding]:
    known = "an invented workspace is answered 400, this one is not"
    return [
        Finding(step="workspace", verdict="ok", evidence=known),
        Finding(step="key", verdict="wrong", evidence=ours.words, remedy=_KEY, cause="wrong-key"),
        Finding(step="data centre", verdict="ok", evidence="the workspace is known here"),
    ]


def _wrong_workspace(ours: Answer) -> list[Finding]:
    evidence = f"{ours.words}; an invented one is answered alike"
    remedy = "Copy it from the dashboard (Settings, Account, APIs); it lives in one data centre only: see below."
    return [
        Finding(step="workspace", verdict="wrong", evidence=evidence, remedy=remedy, cause="wrong-workspace"),
        Finding(step="key", verdict="unknown", evidence="it belongs to a workspace, which is not known"),
    ]


def _not_let_in(ours: Answer, invented: int | None) -> list[Finding]:
    evidence = f"{ours.words}; invented credentials are answered {'nothing' if invented is None else invented}"
    remedy = "The credentials are known, and not let in: is Personalize part of the account, this address allowed?"
    return [
        Finding(step="workspace", verdict="unknown", evidence=evidence),
        Finding(step="key", verdict="wrong", evidence=evidence, remedy=remedy, cause="not-allowed"),
    ]


def _either(ours: Answer) -> list[Finding]:
    evidence = f"{ours.words}; invented credentials are answered alike, so it may be either of the two"
    return [
        Finding(step="workspace", verdict="unknown", evidence=evidence),
        Finding(step="key", verdict="wrong", evidence=evidence, remedy=_KEY, cause="wrong-key-or-workspace"),
    ]


_KEY = (
    "Take the key of the Personalize tile (dashboard, Settings, Account, APIs), not another's; a key that was"
    " regenerated ended at once. Check the workspace id beside it."
)


def _no_verdict(ours: Answer) -> list[Finding]:
    remedy, cause, trouble = "Try again later; status.moengage.com tells of outages.", None, True
    verdict: Verdict = "unknown"
    if ours.status is not None and ours.status < 500 and ours.status not in (408, 429):
        remedy, cause, trouble = "That is no answer of MoEngage's: check the base URL.", "wrong-base-url", False
        verdict = "wrong"
    first = Finding(step="workspace", verdict=verdict, evidence=ours.words, remedy=remedy, cause=cause, trouble=trouble)
    return [first, *skipped(["key", "data centre"])]


def _data_centre(*, asked_elsewhere: bool) -> Finding:
    if asked_elsewhere:
        return Finding(
            step="data centre", verdict="unknown", evidence="no other data centre accepts the credentials either"
        )
    remedy = "It is the number in your dashboard's address. --try-data-centers shows the credentials to the others."
    return Finding(step="data centre", verdict="unknown", evidence="the others were not asked", remedy=remedy)


# ── what we ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


def clock(skew: float | None) -> Finding:
    """Judges this machine's clock."""
    if skew is None:
        return Finding(step="clock", verdict="unknown", evidence="no answer had a Date")
    if abs(skew) <= SKEW:
        return Finding(step="clock", verdict="ok", evidence=f"within {SKEW:g} s of MoEngage's")
    remedy = "Synchronize it (NTP): events carry its time, and in-session hours are often taken from it."
    return Finding(
        step="clock",
        verdict="wrong",
        evidence=f"this machine's clock is {skewed(skew)}",
        remedy=remedy,
        cause="clock-skewed",
    )


def skewed(skew: float) -> str:
    """Says by how much this machine's clock is off."""
    return f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} MoEngage's"


def key(name: str, statuses: Mapping[str, str]) -> Finding:
    """Judges an experience key against the workspace's."""
    step = f"experience {name}"
    status = statuses.get(name)
    if status == "Active":
        return Finding(step=step, verdict="ok", evidence="it exists, and is active")
    if status is not None:
        remedy = "Nobody is served it until it is active: publish or resume it in the dashboard."
        return Finding(
            step=step,
            verdict="wrong",
            evidence=f"it is {status.lower()}",
            remedy=remedy,
            cause="inactive-experience-key",
        )
    nearest = next(iter(get_close_matches(name, statuses, 1, cutoff=0.5)), None)
    remedy = f"Did you mean {nearest}?" if nearest else "`moengage-personalize metadata` lists those that exist."
    evidence = f"none of the workspace's {len(statuses)} experiences has this key (upper and lower case differ)"
    return Finding(step=step, verdict="wrong", evidence=evidence, remedy=remedy, cause="unknown-experience-key")


Audiences = Mapping[str, frozenset[str]]
"""The audiences under which each experience was served."""


def identity(form: str, nobody: Audiences, served: Mapping[str, Audiences]) -> Finding:
    """Judges where the customer id is put.

    That a customer is not served something tells nothing: control groups are drawn by chance.

    Args:
        form: What the application is configured with.
        nobody: What is served without an id.
        served: What is served with it, by form.
    """
    heard = [name for name, found in served.items() if any(found[key] - nobody.get(key, frozenset()) for key in found)]
    deaf = [name for name in served if name not in heard]
    evidence = "; ".join(
        f"as {' and '.join(names)} the customer is served {what}"
        for names, what in ((heard, "an audience that nobody else is in"), (deaf, "what anybody is served"))
        if names
    )
    if form in heard:
        return Finding(step="identity", verdict="ok", evidence=evidence)
    if heard:
        return Finding(
            step="identity",
            verdict="wrong",
            evidence=evidence,
            remedy=f'MoEngage ignores the id in this form: use FetchPolicy(identity="{heard[0]}").',
            cause="wrong-identity-form",
        )
    remedy = "Name a customer who qualifies for an audience of these experiences other than all users."
    return Finding(step="identity", verdict="unknown", evidence=evidence, remedy=remedy)


def skipped(steps: Sequence[str], evidence: str = NOT_REACHED) -> list[Finding]:
    """Findings for steps that were not taken."""
    return [Finding(step=step, verdict="unknown", evidence=evidence) for step in steps]
