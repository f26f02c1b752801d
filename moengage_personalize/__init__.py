"""Unofficial asyncio-native client for MoEngage Personalize.

`AsyncPersonalizeClient` fetches experiences within a deadline and reports impressions and clicks in the background.

Names are loaded when they are first used: importing this package costs nothing, and a part of it (the command line, the
emulator, the nouns) costs its own imports alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._ambient import RequestContext, current_request
    from ._client import AsyncPersonalizeClient
    from ._config import BatchPolicy, CachePolicy, FetchPolicy, RetryPolicy
    from ._effects import Effects
    from ._errors import (
        ApiError,
        AuthenticationError,
        BadReplyError,
        BadRequestError,
        ConfigurationError,
        ConnectionFailedError,
        DeadlineExceededError,
        InvalidInputError,
        NoAnswerError,
        NotAskedError,
        PayloadTooLargeError,
        PersonalizeError,
        RateLimitedError,
        ServerError,
        UnexpectedStatusError,
        UsageError,
    )
    from ._events import Action, Admission, Event, event_uuid_for
    from ._experiences import Experience, ExperienceMetadata, Experiences, ExperiencesMetadata, Reason
    from ._report import Condition, DeliveryReport, DropReason, Forgotten, Health, Loss, Stats
    from ._session import InSession, ReservedCustomerIdWarning
    from ._version import __version__

_HOMES = {
    "_ambient": "RequestContext current_request",
    "_client": "AsyncPersonalizeClient",
    "_config": "BatchPolicy CachePolicy FetchPolicy RetryPolicy",
    "_effects": "Effects",
    "_errors": "ApiError AuthenticationError BadReplyError BadRequestError ConfigurationError ConnectionFailedError"
    " DeadlineExceededError InvalidInputError NoAnswerError NotAskedError PayloadTooLargeError PersonalizeError"
    " RateLimitedError ServerError UnexpectedStatusError UsageError",
    "_events": "Action Admission Event event_uuid_for",
    "_experiences": "Experience ExperienceMetadata Experiences ExperiencesMetadata Reason",
    "_report": "Condition DeliveryReport DropReason Forgotten Health Loss Stats",
    "_session": "InSession ReservedCustomerIdWarning",
    "_version": "__version__",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Action",
    "Admission",
    "ApiError",
    "AsyncPersonalizeClient",
    "AuthenticationError",
    "BadReplyError",
    "BadRequestError",
    "BatchPolicy",
    "CachePolicy",
    "Condition",
    "ConfigurationError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "DeliveryReport",
    "DropReason",
    "Effects",
    "Event",
    "Experience",
    "ExperienceMetadata",
    "Experiences",
    "ExperiencesMetadata",
    "FetchPolicy",
    "Forgotten",
    "Health",
    "InSession",
    "InvalidInputError",
    "Loss",
    "NoAnswerError",
    "NotAskedError",
    "PayloadTooLargeError",
    "PersonalizeError",
    "RateLimitedError",
    "Reason",
    "RequestContext",
    "ReservedCustomerIdWarning",
    "RetryPolicy",
    "ServerError",
    "Stats",
    "UnexpectedStatusError",
    "UsageError",
    "__version__",
    "current_request",
    "event_uuid_for",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
