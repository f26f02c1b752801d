"""Options that several commands have: where to, as whom, and for whom.

Theory: options wait in click's context until the command asks for them as one value, so that no command repeats them.
The client reads the environment itself; an option that is not given is None.

Invariant: the key is read from where it is, handed to the client, and kept nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

if TYPE_CHECKING:
    import ssl

    from moengage_personalize import AsyncPersonalizeClient, Experiences

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = __name__


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    ctx.meta.setdefault(_KEPT, {})[parameter.name] = value


def _kept() -> dict[str, Any]:
    found: dict[str, Any] = click.get_current_context().meta[_KEPT]
    return found


def _together(*options: tuple[Sequence[str], dict[str, Any]]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for names, settings in reversed(options):
            command = click.option(*names, expose_value=False, callback=_keep, **settings)(command)
        return command

    return decorate


def pair(text: str) -> tuple[str, str]:
    """Reads `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter("it must look like NAME=VALUE")
    return name, value


as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")

# ── where to, as whom ────────────────────────────────────────────────────────────────────────────────────────────────

connecting = _together(
    (["--workspace-id"], {"help": "Or MOENGAGE_WORKSPACE_ID."}),
    (
        ["--api-key-file"],
        {
            "type": click.Path(exists=True, dir_okay=False, allow_dash=True),
            "help": "File with the Personalize key; - reads stdin. Or MOENGAGE_PERSONALIZE_API_KEY.",
        },
    ),
    (["--api-key"], {"help": "The key itself; other users of this machine may see it, so rather use a file."}),
    (["--data-center"], {"help": "01 to 06, or 101. Or MOENGAGE_DATA_CENTER."}),
    (["--base-url"], {"help": "Instead of a data centre. Or MOENGAGE_PERSONALIZE_BASE_URL."}),
    (
        ["--ca-file"],
        {
            "type": click.Path(exists=True, dir_okay=False),
            "help": "Certificate authorities to trust. Or SSL_CERT_FILE; by default certifi's.",
        },
    ),
)


def client_settings() -> dict[str, Any]:
    """Returns what the options of `connecting` say, as arguments of the client."""
    kept = _kept()
    key_file, key = kept["api_key_file"], kept["api_key"]
    if key_file is not None:
        key = (sys.stdin.read() if key_file == "-" else Path(key_file).read_text(encoding="utf-8")).strip()
    return {
        "workspace_id": kept["workspace_id"],
        "api_key": key,
        "data_center": kept["data_center"],
        "base_url": kept["base_url"],
        "ssl_context": None if kept["ca_file"] is None else tls_context(),
    }


def tls_context() -> ssl.SSLContext:
    """Returns a context that trusts whom the client trusts."""
    import ssl

    file = _kept()["ca_file"] or os.environ.get("SSL_CERT_FILE")
    directory = os.environ.get("SSL_CERT_DIR")
    if not file and not directory:
        import certifi

        file = certifi.where()
    try:
        return ssl.create_default_context(cafile=file or None, capath=directory or None)
    except OSError:  # an SSLError is one
        name = "--ca-file" if _kept()["ca_file"] else "SSL_CERT_FILE"
        message = f"{name} names no file of certificates that can be read: {file}"
    from moengage_personalize import ConfigurationError

    raise ConfigurationError(message)


# ── for whom ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_FORMS = ("both", "identifiers", "flat")
identity_option = click.option(
    "--identity", type=click.Choice(_FORMS), default="both", show_default=True, help="Where the customer id goes."
)
customer_option = (["--customer-id"], {"help": "The customer; nobody by default: what is for all users."})
_SITUATION: tuple[tuple[Sequence[str], dict[str, Any]], ...] = (
    (
        ["--user-identifier"],
        {"type": pair, "multiple": True, "metavar": "NAME=VALUE", "help": "Such as u_em=john@example.com."},
    ),
    (
        ["--attribute"],
        {"type": pair, "multiple": True, "metavar": "NAME=VALUE", "help": "In-session attribute; repeatable."},
    ),
    (["--ip"], {"help": "The visitor's address."}),
    (["--user-agent"], {"help": "The visitor's user agent."}),
    (["--day"], {"help": "Monday to Sunday."}),
    (["--hour"], {"help": "00 to 23, UTC."}),
    (
        ["--deadline"],
        {"type": click.FloatRange(0.001), "default": 10.0, "show_default": True, "help": "Seconds for the answer."},
    ),
)
visiting = _together(customer_option, *_SITUATION)
visiting_as_customer = _together((["--customer-id"], {"required": True, "help": "Whose event it is."}), *_SITUATION)


@attrs.frozen(kw_only=True, repr=False)
class Visitor:
    """For whom experiences are fetched, and in what situation."""

    customer_id: str | None
    user_identifier: Sequence[tuple[str, str]]
    attribute: Sequence[tuple[str, str]]
    ip: str | None
    user_agent: str | None
    day: str | None
    hour: str | None
    deadline: float

    async def ask(self, client: AsyncPersonalizeClient, keys: Sequence[str]) -> Experiences:
        """Fetches these experiences, or all if none is named. Raises `PersonalizeError`."""
        from moengage_personalize import InSession

        situation: dict[str, Any] = {
            "customer_id": self.customer_id,
            "user_identifiers": dict(self.user_identifier) or None,
            "session": InSession(
                day_of_week=self.day, time_of_day=self.hour, ip_address=self.ip, user_agent=self.user_agent
            ),
            "attributes": dict(self.attribute),
            "deadline": self.deadline,
        }
        return await (client.fetch(*keys, **situation) if keys else client.fetch_all(**situation))


def visitor() -> Visitor:
    """Returns what the options of `visiting` say."""
    kept = _kept()
    return Visitor(**{field.name: kept[field.name] for field in attrs.fields(Visitor)})
