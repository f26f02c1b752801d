"""The emulated workspace: credentials, experiences, profiles, the rate limit; the judgement of one request.

Theory: `Emulator.handle` is total and synchronous. It reads a `Request`, consults its state and answers a
`Reply` as MoEngage documents it; every rule that the request breaks surfaces as one `Refusal`. It is an
independent reading of MoEngage's documents: it shares no code with the client that it judges.

Invariant: a request is entered in the ledger exactly once, and an events request that is not answered 200
changes
nothing: neither ledger events nor profiles.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from moengage_personalize.emulator._catalogue import Catalogue, Experience, Served, Unserved, Visitor, device_of
from moengage_personalize.emulator._effects import Effects
from moengage_personalize.emulator._ledger import Endpoint, Ledger, RequestRecord
from moengage_personalize.emulator._messages import Refusal, Reply, Request, json_reply
from moengage_personalize.emulator._profiles import Profiles
from moengage_personalize.emulator._rules import (
    Element,
    FetchQuestion,
    Reading,
    events_report,
    fetch_question,
    metadata_statuses,
)
from moengage_personalize.emulator._trouble import UNTROUBLED, Plan, Troubles
from moengage_personalize.emulator._window import RateWindow

if TYPE_CHECKING:
    from moengage_personalize.emulator._asgi import Application

PREFIX = "/v1/experiences/"
_ENDPOINTS: dict[str, tuple[Endpoint, str]] = {
    PREFIX + "fetch": ("fetch", "POST"),
    PREFIX + "events": ("events", "POST"),
    PREFIX + "metadata": ("metadata", "GET"),
}


def endpoint_of(path: str) -> Endpoint:
    """Which of MoEngage's endpoints a path names."""
    return _ENDPOINTS.get(path, ("other", ""))[0]


class Emulator:
    """One emulated workspace. I/O-free: embed `app`, or hand it to `serve`.

    Args:
        workspace_id: The user name of Basic authentication, and the value of `MOE-APPKEY`.
        api_key: The Personalize API key; replace it with `regenerate_key`.
        experiences: A `Catalogue`, experiences, or `{key: {name: value}}` to show everybody; by default a
            demo set.
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
        experiences: Catalogue | Iterable[Experience] | Mapping[str, Mapping[str, Any]] | None = None,
        identity: str = "identifiers",
        rate_limit: int | None = 10_000,
        max_body: int = 131_072,
        failures: bool = False,
        ledger: Ledger | None = None,
        effects: Effects | None = None,
    ) -> None:
        self.workspace_id = workspace_id
        self.effects = effects or Effects()
        self.ledger = ledger or Ledger()
        self.troubles = Troubles()
        self.reading = Reading(identity)
        self.max_body = max_body
        self.failures = failures
        self._window = RateWindow(rate_limit)
        self._started = self.effects.now()
        self.regenerate_key(api_key)
        if experiences is None:
            from moengage_personalize.emulator._toml import demo_catalogue  # late: reading TOML costs start-up time

            experiences = demo_catalogue()
        self.catalogue = Catalogue.of(experiences)
        self.profiles = Profiles(self.catalogue.profiles)

    def __repr__(self) -> str:
        return f"<Emulator {len(self.catalogue.experiences)} experiences, {self.ledger!r}, {self.troubles!r}>"

    @property
    def app(self) -> "Application":
        """A new ASGI application over this state; any number of them may be served at once."""
        from moengage_personalize.emulator._asgi import Application  # late: the shell stands above this module

        return Application(self)

    def regenerate_key(self, api_key: str) -> None:
        """Replaces the API key: the old one stops working at once, without overlap (api-facts, 1.7)."""
        self.api_key = api_key
        self._credentials = f"{self.workspace_id}:{api_key}".encode()
        self._authorization = b"Basic " + base64.b64encode(self._credentials)

    def reset(self) -> None:
        """Forgets requests, events, profiles and the rate window; keeps experiences, key and troubles."""
        self.ledger.reset()
        self.profiles = Profiles(self.catalogue.profiles)
        self._window = RateWindow(self._window.limit)

    # Judgement --------------------------------------------------------------------------------------------

    def plan(self, request: Request) -> Plan:
        """What trouble has in store for a request."""
        endpoint, size = endpoint_of(request.path), len(request.body)
        return self.troubles.plan(endpoint, size, self.effects.now(), self.effects.random)

    def handle(self, request: Request, plan: Plan = UNTROUBLED) -> Reply:
        """Answers one request and enters it in the ledger. Never raises for anything a client sends."""
        endpoint = endpoint_of(request.path)
        entry = _Entry(self.ledger.next_request, self.effects.now(), endpoint)
        extra: tuple[tuple[bytes, bytes], ...] = ()
        try:
            if plan.status is not None:
                raise _ordered(plan.status)
            self._authorize(request, endpoint)
            if endpoint == "fetch":
                extra = self._limit(entry.at)
            if len(request.body) > self.max_body:
                raise _ordered(413)
            reply = self._answer(request, entry, plan)
        except _Limited as limited:
            reply, extra = limited.reply(), limited.headers
            entry.facts["error"] = limited.title
        except Refusal as refusal:
            reply = refusal.reply()
            entry.facts["error"] = f"{refusal.title}: {refusal.description}"
            if plan.retry_after is not None:
                extra = ((b"retry-after", b"%d" % max(1, round(plan.retry_after))),)
        self._enter(entry, request, reply, plan)
        return attrs.evolve(reply, headers=reply.headers + extra) if extra else reply

    def unanswered(self, request: Request, plan: Plan) -> None:
        """Enters a request that trouble kept from being judged; its status is 0."""
        entry = _Entry(self.ledger.next_request, self.effects.now(), endpoint_of(request.path))
        self._enter(entry, request, Reply(0, b""), plan)

    def _enter(self, entry: "_Entry", request: Request, reply: Reply, plan: Plan) -> None:
        self.ledger.record_request(
            RequestRecord(
                number=entry.number,
                at=entry.at,
                endpoint=entry.endpoint,
                status=reply.status,
                request_bytes=len(request.body),
                trouble=plan.label,
                **entry.facts,
            )
        )

    def _authorize(self, request: Request, endpoint: Endpoint) -> None:
        """404 and 405 for what is no endpoint; then the documented 400 and 401."""
        if endpoint == "other":
            raise Refusal(404, "Request Error", "No such endpoint")
        if request.method != _ENDPOINTS[request.path][1]:
            raise Refusal(405, "Request Error", f"Use {_ENDPOINTS[request.path][1]}")
        if request.headers.get(b"moe-appkey") != self.workspace_id.encode():
            if self.reading is Reading.SEED:
                raise Refusal(401, "Authentication required", "MOE-APPKEY is missing or unknown")
            raise Refusal(400, "Request Error", "MoEngage Client not found: MOE-APPKEY is missing or unknown")
        given = request.headers.get(b"authorization", b"")
        if given != self._authorization and not self._same_credentials(given):
            raise Refusal(401, "Authentication required", "The workspace id or the Personalize API key is wrong")

    def _same_credentials(self, authorization: bytes) -> bool:
        """Whether a header that is not written as we would write it means the same."""
        scheme, _, encoded = authorization.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            credentials = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        return hmac.compare_digest(credentials, self._credentials)

    def _limit(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        allowed, headers = self._window.take(now)
        if not allowed:
            raise _Limited(headers)
        return headers

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
        entry.facts["asked"] = question.keys or ()
        entry.facts["served"] = tuple((one.key, one.audience, one.variation) for one in served)
        entry.facts["unserved"] = tuple((one.key, one.reason) for one in unserved)
        self.ledger.counts.keys_asked += len(keys)
        self.ledger.counts.experiences_served += len(served)
        for decision in served:
            self.ledger.record_served(decision.name, decision.audience, decision.variation)
        body = b'{"experiences":{%b}' % b",".join([decision.body for decision in served])
        return Reply(200, body + (_failures(unserved) if self.failures and unserved else b"") + b"}")

    def _note_identity(self, question: FetchQuestion, entry: "_Entry", known: str | None) -> None:
        """Makes it visible as whom this fetch was answered: a wrong identity form fails in silence."""
        counts = self.ledger.counts
        if known is None:
            counts.anonymous_fetches += 1
        wrong = any("answered as anonymous" in note for note in question.notes)
        counts.wrong_identity_forms += wrong
        entry.facts["identity"] = (
            "known"
            if known
            else "wrong form"
            if wrong
            else ("unknown" if question.customer_id or question.user_identifiers else "anonymous")
        )
        entry.facts["customer_id"] = known or question.customer_id
        entry.facts["notes"] = question.notes

    def _events(self, body: bytes, entry: "_Entry", plan: Plan) -> Reply:
        report = events_report(body, self.reading, entry.at)
        if plan.poison is not None and any(_poisoned(element, plan.poison) for element in report.elements):
            raise Refusal.invalid("elements - Validators Failed : Validator: Element, Errored Field: attributes")
        duplicates = 0
        for element in report.elements:
            duplicates += self.ledger.record_element(element, request=entry.number, at=entry.at)
            created = self.profiles.update(element.customer_id, element.user_attributes)
            self.ledger.counts.profiles_created += created
        entry.facts["elements"] = len(report.elements)
        entry.facts["actions"] = sum(len(element.actions) for element in report.elements)
        entry.facts["duplicates"] = duplicates
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
    facts: dict[str, Any] = attrs.field(factory=dict)


class _Limited(Refusal):
    """Over the fetch rate limit."""

    def __init__(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__(429, "Request Error", "Rate limit exceeded")
        self.headers = (*headers, (b"x-envoy-ratelimited", b"true"))


def _ordered(status: int) -> Refusal:
    """The answer for a status that has a wish or a general limit behind it, not a rule of an endpoint."""
    known = {
        401: ("Authentication required", "The workspace id or the Personalize API key is wrong"),
        413: ("Request Error", "Request body is too large"),
        429: ("Request Error", "Rate limit exceeded"),
        500: ("Request Error", "Unexpected error"),
        503: ("Request Error", "Service unavailable"),
    }
    title, description = known.get(status, ("Request Error", f"Status {status} was asked for"))
    return Refusal(status, title, description)


def _poisoned(element: Element, name: str) -> bool:
    return name in (element.user_attributes or {}) or any(
        name in action.value["attributes"] for action in element.actions
    )


def _failures(unserved: Iterable[Unserved]) -> bytes:
    import json

    reasons: dict[str, list[str]] = {}
    for decision in unserved:
        reasons.setdefault(decision.reason, []).append(decision.key)
    entries = [{"reason": reason, "experienceKeys": keys} for reason, keys in reasons.items()]
    return b',"failures":' + json.dumps(entries).encode()
