"""Asks for experiences, within one deadline.

Theory: a caller asks a `Question`; each chunk of its keys is a *flight*, a task of the SDK's own, and the caller only
waits. So a caller that is cancelled or out of time interrupts nobody else's request, and what it leaves behind ends by
its own deadline.

Invariants: a call returns or raises by its deadline. Requests per chunk ≤ `attempts`, and a retry is paid from the
budget. Every key that was asked has an entry, whatever happened.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from itertools import batched
from typing import Any, Protocol

import anyio
import attrs

from ._config import FetchPolicy, RetryPolicy
from ._effects import Effects
from ._errors import (
    ApiError,
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    DeadlineExceededError,
    NoAnswerError,
    PersonalizeError,
    RateLimitedError,
)
from ._exchange import Call, Exchange
from ._experiences import Experience, Experiences, Reason
from .core.circuit import RetryBudget
from .core.wire import FETCH_PATH, fetch_body, read_experiences
