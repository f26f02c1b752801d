"""Who is asking, and in what situation: the visitor's identity and the four fixed in-session attributes.

Invariant: an `InSession` that exists is one that MoEngage accepts (api-facts.md, sections 1.1 and 3): its days are
spelled as documented, its hours are `"00"` to `"23"`, its address is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from ._errors import InvalidInputError

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HOURS = tuple(f"{hour:02d}" for hour in range(24))

# The Data API refuses these (api-facts.md, section 1.3); that Personalize does is inferred, so they warn.
RESERVED_CUSTOMER_IDS = frozenset("unknown guest null 0 1 true false na n/a none -1 id customer_id uid user_id".split())


class ReservedCustomerIdWarning(UserWarning):
    """A customer id is one that MoEngage reserves (`guest`, `null`, …), so that its events may be lost."""


def _day(_: object, __: object, value: str | None) -> None:
    if value is not None and value not in DAYS:
        raise InvalidInputError(f"day_of_week must be one of {', '.join(DAYS)}, spelled so")


def _hour(_: object, __: object, value: str | None) -> None:
    if value is not None and value not in _HOURS:
        raise InvalidInputError('time_of_day must be the hour in UTC as two digits of text, "00" to "23"')


def _address(_: object, __: object, value: str | None) -> None:
    if value is None:
        return
    from ipaddress import ip_address as parse_address  # 2 ms that many never need

    try:
        parse_address(value if isinstance(value, str) and "%" not in value else "")  # a zone is this machine's matter
    except ValueError:
        raise InvalidInputError("ip_address must be an IPv4 or IPv6 address") from None


def _text(_: object, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidInputError(f"{attribute.name} must be text, and not empty")


@attrs.frozen(kw_only=True, repr=False)
class InSession:
    """The visitor's situation, for audiences by day, hour, place and device.

    Args:
        day_of_week: `"Monday"` … `"Sunday"`; case-sensitive.
        time_of_day: The hour in UTC, `"00"` … `"23"`.
        ip_address: The visitor's address; MoEngage derives country, state and city from it.
        user_agent: The visitor's `User-Agent` header; MoEngage derives the device type from it.

    Raises:
        InvalidInputError: A value is none of these.
    """

    day_of_week: str | None = attrs.field(default=None, validator=_day)
    time_of_day: str | None = attrs.field(default=None, validator=_hour)
    ip_address: str | None = attrs.field(default=None, validator=_address)
    user_agent: str | None = attrs.field(default=None, validator=_text)

    @classmethod
    def at(cls, moment: datetime, *, ip_address: str | None = None, user_agent: str | None = None) -> InSession:
        """Fills day and hour from an aware datetime, converted to UTC.

        Raises:
            InvalidInputError: `moment` is naive.
        """
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise InvalidInputError("InSession.at needs a datetime with a time zone, such as datetime.now(UTC)")
        moment = moment.astimezone(UTC)
        return cls(
            day_of_week=DAYS[moment.weekday()], time_of_day=f"{moment:%H}", ip_address=ip_address, user_agent=user_agent
        )

    def __repr__(self) -> str:
        given = (field.name for field in attrs.fields(type(self)) if getattr(self, field.name) is not None)
        return f"InSession({', '.join(f'{name}=…' for name in given)})"


def check_customer_id(customer_id: object) -> str:
    """Returns a customer id that can be sent.

    Raises:
        InvalidInputError: It is not text, or empty.
    """
    if not isinstance(customer_id, str) or not customer_id:
        raise InvalidInputError("customer_id must be text, and not empty")
    return customer_id


def is_reserved(customer_id: str) -> bool:
    """Whether MoEngage's Data API refuses the id: reserved words, and single characters."""
    return len(customer_id) == 1 or customer_id.lower() in RESERVED_CUSTOMER_IDS


def check_user_identifiers(identifiers: object) -> Mapping[str, str]:
    """Returns identifiers for Identity Resolution: `u_em`, `u_mb`, or custom attributes (api-facts.md, section 1.1).

    Raises:
        InvalidInputError: They are not a mapping of text to text, or empty.
    """
    sound = isinstance(identifiers, Mapping) and all(
        isinstance(text, str) and text for pair in identifiers.items() for text in pair
    )
    if not sound or not identifiers:
        raise InvalidInputError('user_identifiers must map names to text, such as {"u_em": "john@example.com"}')
    return dict(identifiers)  # type: ignore[call-overload, no-any-return]
