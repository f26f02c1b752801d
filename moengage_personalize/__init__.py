"""Unofficial asyncio-native client for MoEngage Personalize.

`AsyncPersonalizeClient` fetches experiences within a deadline and reports impressions and clicks in the background.
"""

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
