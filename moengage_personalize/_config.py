"""Where to, as whom, and by which policies: validated before anything happens.

Theory: configuration is a handful of frozen values. A value that exists is a value that works: each constructor
refuses what cannot, and says what is accepted. Explicit arguments win over the environment.

Invariant: credentials are only ever paired with an origin that is `https`, or plain `http` to this very machine; and a
`Secret` shows itself to nobody who does not ask by name.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Literal, get_args
from urllib.parse import urlsplit

import attrs

from ._errors import ConfigurationError

ApiKey = str | Callable[[], str | Awaitable[str]]
Identity = Literal["both", "identifiers", "flat"]
OnError = Literal["default", "raise"]

_DATA_CENTERS = frozenset({1, 2, 3, 4, 5, 6, 101})  # api-facts.md, section 2
_DATA_CENTER = re.compile(r"(?:dc[-_ ]?)?0{0,2}([0-9]{1,3})", re.IGNORECASE | re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?", re.ASCII)
_HEADER = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)
_HINTS = {"data_center": " (01 to 06, or 101; the number in the address of your MoEngage dashboard)"}
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})
_VARIABLES = {
    "workspace_id": "MOENGAGE_WORKSPACE_ID",
    "api_key": "MOENGAGE_PERSONALIZE_API_KEY",
    "data_center": "MOENGAGE_DATA_CENTER",
}
FITS_HEADER = "must be 1 to 512 printable ASCII characters without spaces (it becomes part of a header)"


@attrs.frozen(repr=False, eq=False)
class Secret:
    """A string that no repr, log, traceback or pickle shows.

    Attributes are named so that reading one is visible: `secret.reveal()`.
    """

    _reveal: Callable[[], str]

    @classmethod
    def of(cls, value: str) -> Secret:
        return cls(lambda: value)

    def reveal(self) -> str:
        return self._reveal()

    def fits_header(self, *, without: str = "") -> bool:
        value = self._reveal()
        return isinstance(value, str) and _HEADER.fullmatch(value) is not None and not (without and without in value)

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled, and so is no client: each process makes its own")


def _at_least(
    bound: float, *, above: bool = False, finite: bool = False
) -> Callable[[object, attrs.Attribute[float], float], None]:
    def check(owner: object, attribute: attrs.Attribute[float], value: float) -> None:
        sound = isinstance(value, int | float) and not isinstance(value, bool)
        if not sound or not (value > bound if above else value >= bound) or (finite and value == inf):
            raise ConfigurationError(
                f"{type(owner).__name__}.{attribute.name} must be a {'finite ' if finite else ''}number"
                f" {'above' if above else 'from'} {bound}"
            )

    return check


def _within(low: int, high: int) -> Callable[[object, attrs.Attribute[int], int], None]:
    def check(owner: object, attribute: attrs.Attribute[int], value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigurationError(
                f"{type(owner).__name__}.{attribute.name} must be a whole number from {low} to {high}"
            )

    return check


def _between(low: float, high: float) -> Callable[[object, attrs.Attribute[float], float], None]:
    def check(owner: object, attribute: attrs.Attribute[float], value: float) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigurationError(f"{type(owner).__name__}.{attribute.name} must be a number from {low} to {high}")

    return check


def _boolean(owner: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{type(owner).__name__}.{attribute.name} must be True or False")


def one_of(owner: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises `ConfigurationError` unless `value` is one of the `allowed` words."""
    if value not in allowed:
        raise ConfigurationError(f"{owner}.{name} must be one of {', '.join(map(repr, allowed))}")


def _word(kind: object) -> Callable[[object, attrs.Attribute[str], str], None]:
    def check(owner: object, attribute: attrs.Attribute[str], value: str) -> None:
        one_of(type(owner).__name__, attribute.name, value, get_args(kind))

    return check


@attrs.frozen(kw_only=True)
class FetchPolicy:
    """How `fetch` asks.

    Attributes:
        deadline: Seconds for everything: waiting, connecting, every attempt, decoding. A page can spare no more than a
            second; MoEngage publishes no latency (api-facts.md, section 5).
        attempts: Requests per chunk at the most. Two: one hiccup is survived, an outage is not multiplied.
        on_error: `"default"` answers their trouble with unmatched entries and a reason; `"raise"` raises it.
        identity: Where the customer id goes. `"both"`: one body that satisfies the older and the current document;
            `"identifiers"`: the current one only; `"flat"`: the older one only (design.md, section 3).
        max_keys: Experience keys per request; MoEngage serves the first 25 and drops the rest silently.
        merge: Whether fetches of one person in one situation share requests.
        merge_window: Seconds that the first of them waits for company. 0.0 is one turn of the event loop, which costs
            no visitor anything; 0.005 at the most.
        max_in_flight: Requests at the same time. A hundred: what servers allow on one connection. Beyond it nobody
            queues, since a queue only makes everybody late.
        breaker_failures: Failures that open the circuit, if they are at least half of the newest hundred outcomes.
            Twenty: no accident, and well below the retry budget.
        breaker_window: Seconds that an outcome is remembered.
        open_for: Seconds between probes while MoEngage fails. Five: soon enough for a visitor who stays.
        denied_for: The same while it refuses the credentials, which takes a person to mend.
        quota_share: The part of the workspace's quota (10,000 fetches a minute, all processes together) that this
            process may use: 0.1 with ten of them. 1.0 relies on what MoEngage tells is left.
    """

    deadline: float = attrs.field(default=1.0, validator=_at_least(0, above=True, finite=True))
    attempts: int = attrs.field(default=2, validator=_within(1, 10))
    on_error: OnError = attrs.field(default="default", validator=_word(OnError))
    identity: Identity = attrs.field(default="both", validator=_word(Identity))
    max_keys: int = attrs.field(default=25, validator=_within(1, 25))
    merge: bool = attrs.field(default=True, validator=_boolean)
    merge_window: float = attrs.field(default=0.0, validator=_between(0, 0.005))
    max_in_flight: int = attrs.field(default=100, validator=_within(1, 10_000))
    breaker_failures: int = attrs.field(default=20, validator=_within(1, 100))
    breaker_window: float = attrs.field(default=10.0, validator=_at_least(0, above=True))
    open_for: float = attrs.field(default=5.0, validator=_at_least(0, above=True))
    denied_for: float = attrs.field(default=60.0, validator=_at_least(0, above=True))
    quota_share: float = attrs.field(default=1.0, validator=_between(0.0001, 1))


@attrs.frozen(kw_only=True)
class CachePolicy:
    """How long answers are kept, in memory. Off by default, since they are people's content.

    `ttl=30, stale_if_error=3600` suits most pages. Keep `ttl=0` for offerings with display caps: MoEngage counts what
    it serves, and an answer from here is not counted.

    Attributes:
        ttl: Seconds that an answer is served without asking again.
        stale_while_revalidate: Seconds after that, in which it is served once more while the next one is fetched.
        stale_if_error: Seconds after `ttl`, in which it is served if MoEngage does not answer.
        negative_ttl: Seconds that a no-match (never longer than `ttl`) or a refused question is kept. Five: a page that
            reloads asks once, and a visitor who just qualified is served on the next page.
        late: Seconds that a request goes on after everybody left, so that its answer is there for the next page.
        max_late: Such requests at a time; they are not counted in `max_in_flight`.
        max_entries: Answers kept; the least recently used goes first.
        max_bytes: The same in bytes of memory, estimated.
    """

    ttl: float = attrs.field(default=0.0, validator=_at_least(0))
    stale_while_revalidate: float = attrs.field(default=0.0, validator=_at_least(0))
    stale_if_error: float = attrs.field(default=0.0, validator=_at_least(0))
    negative_ttl: float = attrs.field(default=5.0, validator=_at_least(0))
    late: float = attrs.field(default=1.0, validator=_at_least(0))
    max_late: int = attrs.field(default=20, validator=_within(0, 10_000))
    max_entries: int = attrs.field(default=10_000, validator=_within(1, 1 << 30))
    max_bytes: int = attrs.field(default=67_108_864, validator=_within(4_096, 1 << 40))

    @property
    def enabled(self) -> bool:
        """Whether anything is kept at all."""
        return self.ttl + self.stale_while_revalidate + self.stale_if_error > 0


@attrs.frozen(kw_only=True)
class Policies:
    """A client's policies."""

    fetching: FetchPolicy
    batching: BatchPolicy
    retrying: RetryPolicy
    caching: CachePolicy


@attrs.frozen(kw_only=True)
class BatchPolicy:
    """How events wait, travel together and end.

    Attributes:
        linger: Seconds that the oldest waiting event waits for company. One: dashboards do not notice, batches fill.
        max_elements: Customers per request; MoEngage's documented bound is 100.
        max_actions: Actions per request. Unpublished; 1,000 keeps a turn of the loop short and a bisection shallow.
        max_bytes: Bytes per request. 48 KiB fit the default HTTP/2 window, so that an early refusal is always seen.
        max_pending: Accepted events that are not settled, in flight included.
        max_pending_bytes: The same in bytes; not below `max_bytes`. 8 MiB is memory that any web worker can spare.
        senders: Requests at the same time. Two: one slow answer does not stop the others.
        dedup_window: Settled UUIDs that are remembered. It covers a handler that runs twice, not a day.
        grace: Seconds that leaving takes at the most; below the 10 s after which most supervisors kill.
        time_to_live: Seconds after which an accepted event is given up, by the wall clock. One day.
        spooled_time_to_live: The same for events in a spool. None: they are kept until they are delivered.
    """

    linger: float = attrs.field(default=1.0, validator=_at_least(0))
    max_elements: int = attrs.field(default=100, validator=_within(1, 100))
    max_actions: int = attrs.field(default=1_000, validator=_within(1, 100_000))
    max_bytes: int = attrs.field(default=49_152, validator=_within(4_096, 1 << 30))
    max_pending: int = attrs.field(default=10_000, validator=_within(1, 1 << 30))
    max_pending_bytes: int = attrs.field(default=8_388_608, validator=_within(4_096, 1 << 40))
    senders: int = attrs.field(default=2, validator=_within(1, 100))
    dedup_window: int = attrs.field(default=10_000, validator=_within(0, 1 << 30))
    grace: float = attrs.field(default=5.0, validator=_at_least(0))
    time_to_live: float = attrs.field(default=86_400.0, validator=_at_least(0, above=True))
    spooled_time_to_live: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_at_least(0, above=True))
    )

    def lifetime(self, *, spooled: bool) -> float:
        """Returns the seconds for which an event is worth keeping."""
        if not spooled:
            return self.time_to_live
        return inf if self.spooled_time_to_live is None else self.spooled_time_to_live

    def __attrs_post_init__(self) -> None:
        if self.max_pending_bytes < self.max_bytes:  # one event could push everything else out and still not fit
            raise ConfigurationError("BatchPolicy.max_pending_bytes must not be below max_bytes")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How a failed request is tried again, with full jitter.

    Attributes:
        initial: Seconds of the first pause at the most; each further one doubles.
        maximum: Seconds of the longest pause, refused credentials included.
        budget: Retries that may be owed at once. A retry costs 1, a success gives back 0.1, and time gives back one
            a second, so that it never starves.
    """

    initial: float = attrs.field(default=0.25, validator=_at_least(0, above=True, finite=True))
    maximum: float = attrs.field(default=10.0, validator=_at_least(0, above=True, finite=True))
    budget: int = attrs.field(default=100, validator=_within(1, 1_000_000))


_POLICIES: Mapping[str, type] = {
    "fetching": FetchPolicy,
    "batching": BatchPolicy,
    "retrying": RetryPolicy,
    "caching": CachePolicy,
}


@attrs.frozen(kw_only=True)
class Settings:
    """Where to, and as whom.

    Attributes:
        base_url: Origin and optional path prefix, without a slash at the end. The only place that credentials go to.
        workspace_id: User name of Basic authentication, and `MOE-APPKEY`.
        api_key: The Personalize key, or a callable that supplies it.
        enabled: Whether anything is sent at all.
    """

    base_url: str
    workspace_id: Secret
    api_key: Secret | Callable[[], str | Awaitable[str]] = attrs.field(repr=False)
    enabled: bool = True


def resolve(
    workspace_id: Secret | None,
    api_key: Secret | Callable[[], str | Awaitable[str]] | None,
    data_center: str | int | None,
    *,
    base_url: str | None,
    enabled: bool,
    environ: Mapping[str, str],
) -> Settings:
    """Joins arguments and environment, the arguments winning.

    Secrets come wrapped, so that the frames of an error show none.

    Raises:
        ConfigurationError: Something is missing, or is none of what is accepted.
    """
    if not isinstance(enabled, bool):
        raise ConfigurationError("enabled must be True or False")
    if _is_disabled(environ) or not enabled:
        return Settings(
            base_url="https://disabled.invalid", workspace_id=Secret.of("-"), api_key=Secret.of("-"), enabled=False
        )
    workspace_id = workspace_id or _from(environ, "MOENGAGE_WORKSPACE_ID")
    api_key = api_key or _from(environ, "MOENGAGE_PERSONALIZE_API_KEY")
    if base_url is None and data_center is None:
        base_url = environ.get("MOENGAGE_PERSONALIZE_BASE_URL") or None
        data_center = environ.get("MOENGAGE_DATA_CENTER") or None
    if workspace_id is None or api_key is None or (base_url is None and data_center is None):
        raise _missing(workspace_id=workspace_id, api_key=api_key, data_center=base_url or data_center)
    if not isinstance(workspace_id, Secret) or not workspace_id.fits_header(without=":"):
        raise ConfigurationError(f"workspace_id {FITS_HEADER}, and no colon")
    if isinstance(api_key, Secret) and not api_key.fits_header():
        raise ConfigurationError(f"api_key {FITS_HEADER}")
    if base_url is not None:
        origin = parse_base_url(base_url)
    else:
        assert data_center is not None  # noqa: S101 - or it is missing
        origin = f"https://sdk-{parse_data_center(data_center)}.moengage.com"
    return Settings(base_url=origin, workspace_id=workspace_id, api_key=api_key)


def _is_disabled(environ: Mapping[str, str]) -> bool:
    word = environ.get("MOENGAGE_PERSONALIZE_DISABLED", "").strip().lower()
    if word not in _YES | _NO:
        raise ConfigurationError("MOENGAGE_PERSONALIZE_DISABLED must be 1 (true, yes, on), or 0 (false, no, off)")
    return word in _YES


def _from(environ: Mapping[str, str], name: str) -> Secret | None:
    return Secret.of(environ[name]) if environ.get(name) else None


def _missing(**given: object) -> ConfigurationError:
    """Names all that is missing at once."""
    names = [name for name, value in given.items() if value is None]
    said = _listed([f"{name}{_HINTS.get(name, '')}" for name in names])
    be, them = ("are", "them") if len(names) > 1 else ("is", "it")
    return ConfigurationError(
        f"{said} {be} missing: pass {them}, or set {_listed([_VARIABLES[name] for name in names])}"
    )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def check_parts(policies: Policies, spool: object, proxy: object, *, speaks_socks: Callable[[], bool]) -> None:
    """Checks what is not looked at again before the client is opened.

    Args:
        policies: All of them.
        spool: A spool, and not the name of its directory.
        proxy: An address, if it is text.
        speaks_socks: Whether there is what a SOCKS proxy needs.

    Raises:
        ConfigurationError: It is none of what is accepted. A proxy's address is not repeated: it may hold a password.
    """
    for field in attrs.fields(Policies):
        kind = _POLICIES[field.name]
        if not isinstance(getattr(policies, field.name), kind):
            raise ConfigurationError(f"{field.name} must be a {kind.__name__}, such as {kind.__name__}()")
    if isinstance(spool, str) or hasattr(spool, "__fspath__"):
        raise ConfigurationError("spool must be a spool, such as DiskSpool(directory)")
    if isinstance(proxy, str):
        scheme = _proxy_scheme(proxy)
        if scheme.startswith("socks") and not speaks_socks():
            raise ConfigurationError("a SOCKS proxy needs one package more: pip install 'httpx[socks]'")


def _proxy_scheme(proxy: str) -> str:
    try:
        parts = urlsplit(proxy)
        scheme = parts.scheme if parts.hostname and parts.port != 0 else ""
    except ValueError:
        scheme = ""
    if scheme not in {"http", "https", "socks5", "socks5h"}:
        raise ConfigurationError("proxy must look like http://host:port (or https, socks5, socks5h)")
    return scheme


def parse_data_center(data_center: str | int) -> str:
    """Returns the data centre as MoEngage writes it: `"01"` to `"06"`, or `"101"`.

    Raises:
        ConfigurationError: It is none of them. The text that was passed is not repeated.
    """
    found = _DATA_CENTER.fullmatch(data_center if isinstance(data_center, str) else str(data_center))
    number = int(found[1]) if found and not isinstance(data_center, bool) else 0
    if number not in _DATA_CENTERS:
        raise ConfigurationError("data_center is none of MoEngage's: use 01 to 06, or 101 (1 and 'dc-01' are accepted)")
    return f"{number:02d}"


def parse_base_url(base_url: str) -> str:
    """Returns the base URL without a slash at its end.

    Raises:
        ConfigurationError: It is no plain `https://host[:port][/prefix]`, or `http` to anything but loopback.
    """
    wrong = ConfigurationError(
        "base_url must look like https://host[:port][/path], without user name, query, fragment or spaces"
    )
    if not isinstance(base_url, str):
        raise wrong
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    literal = f"[{host}]" if ":" in host else host
    location = literal if port is None else f"{literal}:{port}"
    if parts.scheme not in {"http", "https"} or parts.netloc.lower() != location or port == 0:
        raise wrong
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        raise wrong
    if base_url.lower() != f"{parts.scheme}://{location}{parts.path}".lower() or not _is_host(host):
        raise wrong
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError("base_url must be https: plain http is for loopback addresses only")
    return f"{parts.scheme}://{location}{parts.path.rstrip('/')}"


def _is_host(host: str) -> bool:
    if ":" in host:
        from ipaddress import ip_address  # only for those who have a base URL

        try:
            return ip_address(host).version == 6 and "%" not in host
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None and ".." not in host


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
