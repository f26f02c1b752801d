"""One page view: who looks, what is asked for them, what is reported of it.

How a click finds its way back. A click is reported with the `experience_context` of what was shown, and that context
travels through the visitor's browser. So it is signed: a link of a slot is `/go?t=…`, whose token holds the context,
the visitor, the page view and the target. A token that was changed, is another visitor's or is a day old reports
nothing; and since the target is inside, the route redirects nowhere but into this shop.

Events have UUIDs made of visitor, view and slot. So a page that is rendered twice for one request (a proxy tried again:
it repeats the `X-Request-ID`) and a link that is clicked twice are counted once.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import attrs
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request

from moengage_personalize import Admission, AsyncPersonalizeClient, Experience, InSession, event_uuid_for

from .slots import content

DEADLINE = 0.4  # seconds that a page waits for its experiences; then it shows its defaults
TOKEN_AGE = 86_400  # seconds


@attrs.frozen(kw_only=True)
class Slot:
    """One personalised part of a page.

    Attributes:
        experience: What was served for it, or why nothing was.
        content: What the template shows.
        token: Everything that a click on it needs, signed; a link adds target and `b_id`.
    """

    experience: Experience
    content: Any
    visit: "Visit"

    def link(self, target: str, b_id: str = "") -> str:
        """Returns where a click on this slot leads: through us to `target`, or straight there if nothing was served."""
        if not self.experience.matched:
            return target
        return f"/go?t={self.visit.sign(self.experience, target, b_id)}"

    @property
    def why(self) -> str:
        """Why this visitor sees this, in a few words."""
        context = self.experience.context
        if not context:
            return str(self.experience.reason)
        return f"{context.get('audience_name')}, variation {context.get('moe_variation_id')}"


class Visit:
    """One request of one visitor.

    Args:
        request: The request.
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
        self.visitor: str = request.session.setdefault("visitor", uuid.uuid4().hex)
        self.view = request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex
        self.seconds = 0.0  # spent on personalisation
        self._client = client
        self._request = request
        self._signer = signer
        self._accepted = accepted

    async def slots(self, keys: Sequence[str]) -> dict[str, Slot]:
        """Fetches the slots of a page, and reports those that it will show."""
        started = time.perf_counter()
        experiences = await self._client.fetch(
            *keys, customer_id=self.visitor, session=self._session(), attributes=self._attributes(), deadline=DEADLINE
        )
        slots = {key: Slot(experience=found, content=content(found), visit=self) for key, found in experiences.items()}
        for key, slot in slots.items():
            if slot.content is not None:
                event_uuid = event_uuid_for("shown", self.visitor, self.view, key)
                self._note(
                    event_uuid,
                    self._client.track_impression(slot.experience, customer_id=self.visitor, event_uuid=event_uuid),
                )
        self.seconds = time.perf_counter() - started
        return slots

    def sign(self, experience: Experience, target: str, b_id: str) -> str:
        """Returns a token for one link."""
        token = self._signer.dumps([self.visitor, self.view, experience.key, experience.context, target, b_id])
        return token if isinstance(token, str) else token.decode()

    def follow(self, token: str) -> str:
        """Reports the click that a token stands for, if it is genuine; returns where to go."""
        try:
            visitor, view, key, context, target, b_id = self._signer.loads(token, max_age=TOKEN_AGE)
        except BadData:
            return "/"
        if visitor == self.visitor:
            event_uuid = event_uuid_for("clicked", visitor, view, key, b_id)
            admission = self._client.track_click(context, customer_id=visitor, b_id=b_id or None, event_uuid=event_uuid)
            self._note(event_uuid, admission)
        return str(target)

    def _note(self, event_uuid: str, admission: Admission) -> None:
        if self._accepted is not None and admission is Admission.ACCEPTED:
            self._accepted.append(event_uuid)

    def _session(self) -> InSession:
        peer = self._request.client.host if self._request.client else ""
        try:
            address = str(ip_address(peer))
        except ValueError:  # a test client, a Unix socket
            address = None
        return InSession.at(
            datetime.now(UTC), ip_address=address, user_agent=self._request.headers.get("user-agent") or None
        )

    def _attributes(self) -> dict[str, str | float | bool]:
        return {name: text for name, text in self._request.query_params.items() if name.startswith("utm_") and text}
