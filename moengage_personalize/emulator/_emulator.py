"""The emulated workspace: credentials, experiences, profiles, the rate limit; the judgement of one request.

Theory: `Emulator.handle` is total and synchronous. It reads a `Request`, consults its state and answers a
`Reply` as MoEngage documents it; every rule that the request breaks surfaces as one `Refusal`. It is an
independent reading of MoEngage's documents: it shares no code with the client that it judges.

Invariant: a request is entered in the ledger exactly once, and an events request that is not answered 200
changes
nothing: neither ledger events nor profiles.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

from moengage_personalize.emulator._access import Access, answered, endpoint_of
from moengage_personalize.emulator._catalogue import Catalogue, Served, Unserved, device_of
from moengage_personalize.emulator._effects import Effects
from moengage_personalize.emulator._experiences import Experience, Visitor
from moengage_personalize.emulator._ledger import Ledger
from moengage_personalize.emulator._messages import Headers, Refusal, Reply, Request, json_reply
from moengage_personalize.emulator._profiles import Profiles
from moengage_personalize.emulator._records import Endpoint, RequestRecord
from moengage_personalize.emulator._rules import (
    Element,
    FetchQuestion,
    Reading,
    broken,
    events_report,
    fetch_question,
    metadata_statuses,
)
from moengage_personalize.emulator._trouble import UNTROUBLED, Active, Plan, Trouble, Troubles

if TYPE_CHECKING:
    from moengage_personalize.emulator._asgi import Application
    from moengage_personalize.emulator._journal import Journal


Experiences = Catalogue | str | os.PathLike[str] | Iterable[Experience] | Mapping[str, Mapping[str, Any]]


def _catalogue(given: Experiences | None) -> Catalogue:
    """What the dashboard holds, from whatever it was given as."""
    if given is None or isinstance(given, (str, os.PathLike)):
        # late: reading TOML costs start-up time
        from moengage_personalize.emulator._toml import demo_catalogue, load_catalogue

        return demo_catalogue() if given is None else load_catalogue(given)
    return Catalogue.of(given)


class Emulator:
    """One emulated workspace. I/O-free: embed `app`, or hand it to `serve`.

    Args:
        workspace_id: The user name of Basic authentication, and the value of `MOE-APPKEY`.
        api_key: The Personalize API key; replace it with `regenerate_key`.
        experiences: A `Catalogue`, a TOML file's path, experiences, or `{key: {name: value}}` to show
            everybody; by default a demo set.
        identity: Which document is enforced where MoEngage's disagree: `"identifiers"` (the current OpenAPI
            description), `"flat"` (the older page) or `"either"`.
        rate_limit: Fetch requests a minute; None lifts the limit.
        max_body: Bytes of request body above which the answer is 413.
        failures: Whether fetch answers carry `failures`, as MoEngage's native SDKs describe them.
        ledger: Where requests and events are entered.
        effects: Clock, dice, ids and sleep.
    """

    def __init__(
        self,
        workspace_id: str = "DEMO_WORKSPACE",
        api_key: str = "demo-key",
        *,
        experiences: Experiences | None = None,
        identity: Literal["identifiers", "flat", "either"] = "identifiers",
        rate_limit: int | None = 10_000,
        max_body: int = 131_072,
        failures: bool = False,
        ledger: Ledger | None = None,
        effects: Effects | None = None,
    ) -> None:
        self.effects = effects or Effects()
        self.ledger = ledger or Ledger()
        self.troubles = Troubles()
        self.reading = Reading(identity)
        self.max_body = max_body
        self.failures = failures
        self.started = self.effects.now()
        self._access = Access(workspace_id, api_key, self.reading, rate_limit)
        self.catalogue = _catalogue(experiences)
        self.profiles = Profiles(self.catalogue.profiles)
        self.journal: Journal | None = None
        """Where what is entered is kept across restarts, if anywhere."""
        self.exports: Mapping[str, str] = {}
        """The environment variables that lead a client here, while this is being served."""
        self.complaint: str | None = None
        """What is wrong with the last edit of the experiences; None if nothing is."""

    def __repr__(self) -> str:
        return f"<Emulator {len(self.catalogue.experiences)} experiences, {self.ledger!r}, {self.troubles!r}>"

    @property
    def app(self) -> "Application":
        """A new ASGI application over this state; any number of them may be served at once."""
        # late: the shell stands above this module
        from moengage_personalize.emulator._asgi import Application

        return Application(self)

    @property
    def workspace_id(self) -> str:
        """The user name of Basic authentication, and the value of `MOE-APPKEY`."""
        return self._access.workspace_id

    @property
    def api_key(self) -> str:
        """The key that works now."""
        return self._access.api_key

    def regenerate_key(self, api_key: str) -> None:
        """Replaces the API key: the old one stops working at once."""
        self._access.replace_key(api_key)

    def replace_experiences(self, catalogue: Catalogue) -> None:
        """Goes on with other experiences; profiles that events have made stay."""
        self.catalogue = catalogue
        self.complaint = None
        for profile in catalogue.profiles:
            self.profiles.update(profile.customer_id, profile.attributes)

    def play(self, scenario: Iterable[Trouble]) -> None:
        """Starts a timeline of trouble now, in place of all trouble that there is."""
        self.troubles.play(scenario, self.effects.now())

    def trouble(self, **wish: Any) -> Active:
        """Wishes for trouble from now on: the fields of `Trouble`."""
        return self.troubles.add(Trouble(**wish), self.effects.now())

    def reset(self) -> None:
        """Forgets requests, events, profiles and the rate window; keeps experiences, key and troubles."""
        self.ledger.reset()
        self.profiles = Profiles(self.catalogue.profiles)
        self._access.reset()
        if self.journal is not None:
            self.journal.forget()

    # Judgement -----------------------------------------------------------------------------------------

    def plan(self, request: Request) -> Plan:
        """What trouble has in store for a request."""
        endpoint, size = endpoint_of(request.path), len(request.body)
        return self.troubles.plan(endpoint, size, self.effects.now(), self.effects.random)

    def handle(self, request: Request, plan: Plan = UNTROUBLED) -> Reply:
        """Answers one request and enters it in the ledger. Never raises for anything a client sends."""
        endpoint = endpoint_of(request.path)
        entry = _Entry(self.ledger.next_request, self.effects.now(), endpoint)
        extra: Headers = ()
        try:
            if plan.status is not None:
                after = None if plan.retry_after is None else b"%d" % max(1, round(plan.retry_after))
                raise answered(plan.status, () if after is None else ((b"retry-after", after),))
            self._access.check(request)
            if endpoint == "fetch":
                extra = self._access.limit(entry.at)
            if len(request.body) > self.max_body:
                raise answered(413)
            reply = self._answer(request, entry, plan)
            if request.method == "POST":
                _note_content_type(request, entry)
        except Refusal as refusal:
            reply = refusal.reply()
            entry.facts["error"] = f"{refusal.title}: {refusal.description}"
        self._close(entry, request, reply, plan)
        return attrs.evolve(reply, headers=reply.headers + extra) if extra else reply

    def unanswered(self, request: Request, plan: Plan) -> None:
        """Enters a request that trouble kept from being judged; its status is 0."""
        entry = _Entry(self.ledger.next_request, self.effects.now(), endpoint_of(request.path))
        self._close(entry, request, Reply(0, b""), plan)

    def _close(self, entry: "_Entry", request: Request, reply: Reply, plan: Plan) -> None:
        """The end of an entry: into the ledger, and into the journal if there is one."""
        record = RequestRecord(
            number=entry.number,
            at=entry.at,
            endpoint=entry.endpoint,
            status=reply.status,
            request_bytes=len(request.body),
            trouble=plan.label,
            **entry.facts,
        )
        record = self.enter(record, entry.elements)
        if self.journal is not None:
            self.journal.write(record, entry.elements)

    def enter(self, record: RequestRecord, elements: tuple[Element, ...]) -> RequestRecord:
        """Enters a request that was judged, now or before a restart; returns it, duplicates counted."""
        duplicates = 0
        for element in elements:
            duplicates += self.ledger.record_element(element, request=record.number, at=record.at)
            created = self.profiles.update(element.customer_id, element.user_attributes)
            self.ledger.counts.profiles_created += created
        if elements:
            self.ledger.record_batch(elements, request=record.number, at=record.at)
        if duplicates != record.duplicates:
            record = attrs.evolve(record, duplicates=duplicates)
        self.ledger.record_request(record)
        return record

    def _answer(self, request: Request, entry: "_Entry", plan: Plan) -> Reply:
        match entry.endpoint:
            case "fetch":
                return self._fetch(fetch_question(request.body, self.reading), entry)
            case "events":
                return self._events(request.body, entry, plan)
            case _:
                return self._metadata(request)

    def _fetch(self, question: FetchQuestion, entry: "_Entry") -> Reply:
        known = self.profiles.find(question.customer_id, question.user_identifiers, self.catalogue.identity_resolution)
        self._note_identity(question, entry, known)
        visitor = Visitor(
            sticky_id=known or question.customer_id,
            profile=None if known is None else self.profiles[known],
            attributes=question.attributes,
            day=question.day,
            hour=question.hour,
            device=device_of(question.user_agent),
            country=self.catalogue.country_of(question.ip_address),
        )
        keys = self.catalogue.active_keys() if question.keys is None else question.keys
        random = self.effects.random
        decided = [self.catalogue.serve(key, visitor, random) for key in keys]
        served = [decision for decision in decided if isinstance(decision, Served)]
        unserved = [decision for decision in decided if isinstance(decision, Unserved)]
        unserved += [Unserved(key, "MAX_LIMIT_BREACHED") for key in question.beyond]
        entry.facts["asked"] = question.keys or ()
        entry.facts["served"] = tuple((one.key, one.name, one.audience, one.variation) for one in served)
        entry.facts["unserved"] = tuple((one.key, one.reason) for one in unserved)
        body = b'{"experiences":{%b}' % b",".join([decision.body for decision in served])
        return Reply(200, body + (_failures(unserved) if self.failures and unserved else b"") + b"}")

    def _note_identity(self, question: FetchQuestion, entry: "_Entry", known: str | None) -> None:
        """Makes it visible as whom this fetch was answered: a wrong identity form fails in silence."""
        if known:
            identity = "known"
        elif question.wrong_form:
            identity = "wrong form"
        elif question.customer_id or question.user_identifiers:
            identity = "unknown"
        else:
            identity = "anonymous"
        entry.facts["identity"] = identity
        entry.facts["customer_id"] = known or question.customer_id
        entry.facts["notes"] = question.notes

    def _events(self, body: bytes, entry: "_Entry", plan: Plan) -> Reply:
        report = events_report(body, self.reading, entry.at)
        if plan.poison is not None and any(_poisoned(element, plan.poison) for element in report.elements):
            raise broken("attributes")
        entry.elements = report.elements
        entry.facts["elements"] = len(report.elements)
        entry.facts["actions"] = sum(len(element.actions) for element in report.elements)
        entry.facts["notes"] = report.notes
        if len(report.elements) == 1:
            entry.facts["customer_id"] = report.elements[0].customer_id
        return json_reply(
            {
                "status": "success",
                "message": "Your request has been accepted and will be processed soon.",
                "req_id": self.effects.req_id(),
            }
        )

    def _metadata(self, request: Request) -> Reply:
        wanted = metadata_statuses(request.query)
        found = [
            {"experience_name": experience.name, "experience_key": experience.key, "status": experience.status}
            for experience in self.catalogue
            if wanted is None or experience.status in wanted
        ]
        return json_reply({"metadata": {"count": len(found), "experiences": found}})


@attrs.define
class _Entry:
    """What is known of a request while it is being judged."""

    number: int
    at: float
    endpoint: Endpoint
    elements: tuple[Element, ...] = ()
    facts: dict[str, Any] = attrs.field(factory=dict)


def _note_content_type(request: Request, entry: _Entry) -> None:
    """The documents ask for `application/json`; none says what happens otherwise, so it is noted."""
    if not request.headers.get(b"content-type", b"").lower().startswith(b"application/json"):
        entry.facts["notes"] = (*entry.facts["notes"], "the content type is not application/json")


def _poisoned(element: Element, name: str) -> bool:
    return name in (element.user_attributes or {}) or any(
        name in action.value["attributes"] for action in element.actions
    )


def _failures(unserved: Iterable[Unserved]) -> bytes:
    reasons: dict[str, list[str]] = {}
    for decision in unserved:
        reasons.setdefault(decision.reason, []).append(decision.key)
    entries = [{"reason": reason, "experienceKeys": keys} for reason, keys in reasons.items()]
    return b',"failures":' + json.dumps(entries).encode()
