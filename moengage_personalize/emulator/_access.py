"""Who may ask, and how often: endpoints, methods, credentials, and the fetch rate limit.

Invariant: a regenerated key ends the old one at once, without overlap (api-facts, 1.7).
"""

import base64
import binascii
import hmac

from moengage_personalize.emulator._messages import Headers, Refusal, Request
from moengage_personalize.emulator._records import Endpoint
from moengage_personalize.emulator._rules import Reading
from moengage_personalize.emulator._window import RateWindow

_PREFIX = "/v1/experiences/"
_ENDPOINTS: dict[str, tuple[Endpoint, str]] = {
    _PREFIX + "fetch": ("fetch", "POST"),
    _PREFIX + "events": ("events", "POST"),
    _PREFIX + "metadata": ("metadata", "GET"),
}
_WRONG_KEY = "The workspace id or the Personalize API key is wrong"
_WRONG_APP_KEY = "MoEngage Client not found: MOE-APPKEY is missing or unknown"
_STATUSES = {
    401: ("Authentication required", _WRONG_KEY),
    413: ("Request Error", "Request body is too large"),
    429: ("Request Error", "Rate limit exceeded"),
    500: ("Request Error", "Unexpected error"),
    503: ("Request Error", "Service unavailable"),
}


def endpoint_of(path: str) -> Endpoint:
    """Which of MoEngage's endpoints a path names."""
    return _ENDPOINTS.get(path, ("other", ""))[0]


def answered(status: int, headers: Headers = ()) -> Refusal:
    """The refusal for a status that no rule about a field explains."""
    title, description = _STATUSES.get(status, ("Request Error", f"Status {status} was asked for"))
    return Refusal(status, title, description, headers=headers)


class Access:
    """The door of one workspace.

    Args:
        workspace_id: The user name of Basic authentication, and the value of `MOE-APPKEY`.
        api_key: Its password.
        reading: Which document is enforced.
        rate_limit: Fetches a minute; None lifts the limit.
    """

    def __init__(self, workspace_id: str, api_key: str, reading: Reading, rate_limit: int | None) -> None:
        self.workspace_id = workspace_id
        self._reading = reading
        self._window = RateWindow(rate_limit)
        self.replace_key(api_key)

    def replace_key(self, api_key: str) -> None:
        """Takes this key from now on, and no other."""
        self.api_key = api_key
        self._credentials = f"{self.workspace_id}:{api_key}".encode()
        self._authorization = b"Basic " + base64.b64encode(self._credentials)

    def check(self, request: Request) -> None:
        """Lets a request in.

        Raises:
            Refusal: 404 and 405 for what is no endpoint; 401 without credentials; 400 for a workspace that nobody
                knows; 401 for another key than its own.
        """
        if request.path not in _ENDPOINTS:
            raise Refusal(404, "Request Error", "No such endpoint")
        method = _ENDPOINTS[request.path][1]
        if request.method != method:
            raise Refusal(405, "Request Error", f"Use {method}", headers=((b"allow", method.encode()),))
        given = request.headers.get(b"authorization", b"")
        if not given:
            raise answered(401)
        if request.headers.get(b"moe-appkey") != self.workspace_id.encode():  # before the key: whose is to be compared?
            if self._reading is Reading.SEED:
                raise Refusal(401, "Authentication required", _WRONG_APP_KEY)
            raise Refusal(400, "Request Error", _WRONG_APP_KEY)
        if given != self._authorization and not self._means_the_same(given):
            raise answered(401)

    def _means_the_same(self, authorization: bytes) -> bool:
        """Whether a header that is not written as we would write it carries our credentials."""
        scheme, _, encoded = authorization.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            credentials = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        return hmac.compare_digest(credentials, self._credentials)

    def limit(self, now: float) -> Headers:
        """Takes one fetch from this minute's; returns the headers that say what is left.

        Raises:
            Refusal: 429, when nothing was.
        """
        allowed, headers = self._window.take(now)
        if not allowed:
            raise answered(429, (*headers, (b"x-envoy-ratelimited", b"true")))
        return headers

    def reset(self) -> None:
        """Begins a new minute."""
        self._window = RateWindow(self._window.limit)
