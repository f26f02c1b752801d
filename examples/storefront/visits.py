"""One page view: who looks, in which situation, what they are shown, and what is reported of it.

How a click finds its way back. A click is reported with the `experience_context` of what was shown, and that context
travels through the visitor's browser. So it is signed: a link of a slot is `/go?t=…`, whose token holds the context,
the visitor, the page view and the target. A token that was changed, is another visitor's or is a day old reports
nothing; and since the target is inside, the route redirects nowhere but into this shop.

Events have UUIDs made of visitor, view and slot. So a page that is rendered twice for one request (a proxy tried again:
it repeats the `X-Request-ID`) and a link that is clicked twice are counted once.
"""

import uuid
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Generic, TypeVar

import attrs
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request

from moengage_personalize import Admission, AsyncPersonalizeClient, Experience, InSession, event_uuid_for

DEADLINE = 0.4  # seconds that a page waits for its experiences; then it shows its defaults
TOKEN_AGE = 86_400  # seconds
MEMBERS = {"john": "john@example.com", "asha": "asha@example.com"}  # no password, it is a demo

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Slot(Generic[T]):
    """One personalised part of a page.

    Attributes:
        experience: What was served for it, or why nothing was.
        content: What the template shows; None leaves the part out.
    """

    experience: Experience
    content: T
    _visit: "Visit"

    def token(self, target: str, b_id: str = "") -> str:
        """Returns what a click on this must bring back; empty if there is nothing to report."""
        if not self.experience.matched or self._visit.customer_id is None:
            return ""
        return self._visit.sign(self.experience, target, b_id)

    def link(self, target: str, b_id: str = "") -> str:
        """Returns where a click leads: through us to `target`, or straight there if there is nothing to report."""
        token = self.token(target, b_id)
        return f"/go?t={token}" if token else target

    @property
    def variation(self) -> str:
        """What this visitor sees, in a few words."""
        context = self.experience.context
        if self.content is None:
            return "Left out"
        if not context:
            return "The default of the shop"
        return f"{context.get('audience_name')}, variation {context.get('moe_variation_id')}"

    @property
    def why(self) -> str:
        """Why they see it, in a sentence."""
        return self.experience.explain().splitlines()[1].strip()


class Visit:
    """One request of one visitor.

    Args:
        request: The request; its session remembers visitor, campaign and cart.
        client: The client of the application.
        signer: Signs what travels through the browser.
        accepted: Where the UUIDs of accepted events are noted, for somebody who checks; None: nowhere.
    """

    def __init__(
        self,
        request: Request,
        client: AsyncPersonalizeClient,
        signer: URLSafeTimedSerializer,
        accepted: list[str] | None,
    ) -> None:
        self.memory: dict[str, Any] = request.session
        self.who: str = self.memory.get("who", "new")
        self.customer_id = self._identity()
        self.cart: list[str] = self.memory.get("cart", [])
        if campaign := {name: text for name, text in request.query_params.items() if name.startswith("utm_") and text}:
            self.memory["campaign"] = campaign  # it brought them here, and counts until another one does
        self._view = request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex
        self._request = request
        self._client = client
        self._signer = signer
        self._accepted = accepted

    def _identity(self) -> str | None:
        """A member's id, one of our own for whoever has none, or nothing at all for who wants to stay anonymous."""
        if self.who == "nobody":
            return None
        visitor: str = MEMBERS.get(self.who) or self.memory.setdefault("visitor", uuid.uuid4().hex)
        return visitor

    async def fetch(self, key: str) -> Experience:
        """Asks for one experience. Components that are awaited together share one request."""
        experiences = await self._client.fetch(
            key,
            customer_id=self.customer_id,
            session=self._situation(),
            attributes=self._attributes(),
            deadline=DEADLINE,  # whatever happens, the page waits no longer
        )
        return experiences[key]

    def slot(self, experience: Experience, content: T) -> Slot[T]:
        """Returns what a component hands to its template."""
        return Slot(experience=experience, content=content, visit=self)

    def shown(self, slot: Slot[Any]) -> None:
        """Reports that a slot was rendered. Of nobody nothing is reported: MoEngage wants a customer id."""
        if slot.content is None or self.customer_id is None:
            return
        event_uuid = event_uuid_for("shown", self.customer_id, self._view, slot.experience.key)
        self._note(
            event_uuid,
            self._client.track_impression(slot.experience, customer_id=self.customer_id, event_uuid=event_uuid),
        )

    def sign(self, experience: Experience, target: str, b_id: str) -> str:
        """Returns a token for one click."""
        token = self._signer.dumps([self.customer_id, self._view, experience.key, experience.context, target, b_id])
        return token if isinstance(token, str) else token.decode()

    def clicked(self, token: str) -> str:
        """Reports the click that a token stands for, if it is genuine; returns where to go."""
        try:
            customer_id, view, key, context, target, b_id = self._signer.loads(token, max_age=TOKEN_AGE)
        except BadData:
            return "/"
        if customer_id == self.customer_id:
            event_uuid = event_uuid_for("clicked", customer_id, view, key, b_id)
            self._note(
                event_uuid,
                self._client.track_click(context, customer_id=customer_id, b_id=b_id or None, event_uuid=event_uuid),
            )
        return str(target)

    def _note(self, event_uuid: str, admission: Admission) -> None:
        if self._accepted is not None and admission is Admission.ACCEPTED:
            self._accepted.append(event_uuid)

    def _situation(self) -> InSession:
        peer = self._request.client.host if self._request.client else ""
        try:
            address = str(ip_address(peer))
        except ValueError:  # a test client, a Unix socket
            address = None
        now = InSession.at(
            datetime.now(UTC), ip_address=address, user_agent=self._request.headers.get("user-agent") or None
        )
        return attrs.evolve(  # the page lets its visitor pretend; a real shop returns `now`
            now,
            day_of_week=self.memory.get("day") or now.day_of_week,
            time_of_day=self.memory.get("hour") or now.time_of_day,
        )

    def _attributes(self) -> dict[str, str | float | bool]:
        cart = {"last_added": self.cart[-1]} if self.cart else {}
        return {**self.memory.get("campaign", {}), **cart}
