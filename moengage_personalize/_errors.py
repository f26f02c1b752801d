"""Everything that this package raises, by whose fault it is.

::

    PersonalizeError
    ├── ConfigurationError  (ValueError)     what was configured cannot work
    ├── InvalidInputError   (ValueError)     what was passed cannot be sent; nothing was
    ├── UsageError          (RuntimeError)   not open, closed, another loop, another thread, a forked child
    ├── NoAnswerError                        no usable answer arrived
    │   ├── DeadlineExceededError (TimeoutError)   in time; `__cause__` is the last attempt's error
    │   ├── ConnectionFailedError                  the connection or the exchange on it failed
    │   ├── NotAskedError                          we did not ask; `__cause__` says what opened the circuit
    │   └── BadReplyError                          a reply that cannot be read
    └── ApiError                             MoEngage answered with an error
        ├── BadRequestError                  400, 422
        ├── AuthenticationError              401, 403
        ├── PayloadTooLargeError             413
        ├── RateLimitedError                 429
        ├── ServerError                      408, 5xx
        └── UnexpectedStatusError            anything else: redirects, 404, 405, …

Invariant: an error carries numbers, MoEngage's own words with everything masked that the request had
carried, and nothing else: no body, no id, no secret. Every error survives pickling, whole.
"""

from __future__ import annotations

from typing import Any, TypeVar


class PersonalizeError(Exception):
    """The root of all errors of this package.

    Args:
        message: What was wrong, and what to do about it.
        attempts: How many requests were sent.
        status_code: The HTTP status of the answer, if there was one.
        retry_after: Seconds that the server asked to wait, if it did.
        title: MoEngage's `title`, masked.
        description: MoEngage's `description`, masked.
        code: MoEngage's opaque `code`.
    """

    __module__ = "moengage_personalize"
    retryable = False

    def __init_subclass__(cls) -> None:
        # A traceback names the place from which an error of ours is to be imported.
        package, private, _ = cls.__module__.partition("._")
        if private and package.startswith("moengage_personalize"):
            cls.__module__ = package

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        status_code: int | None = None,
        retry_after: float | None = None,
        title: str | None = None,
        description: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.status_code = status_code
        self.retry_after = retry_after
        self.title = title
        self.description = description
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


E = TypeVar("E", bound=PersonalizeError)


def bare(error: E) -> E:
    """Returns the error without the frames that it went through: their locals hold ids and payloads.

    Tools that print tracebacks with locals (Sentry, rich) would show them. What is left is the frame that raises it
    next, and the causes, bare as well.
    """
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen.__context__ = None
        seen = seen.__cause__
    return error


def _rebuild(kind: type[PersonalizeError], args: tuple[Any, ...], state: dict[str, Any]) -> PersonalizeError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def duplicate(error: PersonalizeError) -> PersonalizeError:
    """Returns the same error for another caller: with its own traceback, notes and cause."""
    twin = _rebuild(type(error), error.args, dict(error.__dict__))
    if isinstance(error.__cause__, PersonalizeError):
        twin.__cause__ = duplicate(error.__cause__)
    return twin


class ConfigurationError(PersonalizeError, ValueError):
    """The client was configured in a way that cannot work."""


class InvalidInputError(PersonalizeError, ValueError):
    """A call was given something that MoEngage documents as unacceptable; nothing was sent."""


class UsageError(PersonalizeError, RuntimeError):
    """The client was used where it cannot be: unopened, closed, from another loop, thread or process."""


class NoAnswerError(PersonalizeError):
    """No usable answer arrived."""

    retryable = True


class DeadlineExceededError(NoAnswerError, TimeoutError):
    """The deadline was over before an answer arrived; `__cause__` is the last attempt's error."""


class ConnectionFailedError(NoAnswerError):
    """The connection, or the exchange on it, failed."""


class NotAskedError(NoAnswerError):
    """Nothing was sent: the circuit is open, too many fetches are in flight, or the client was closed meanwhile."""


class BadReplyError(NoAnswerError):
    """The reply could not be read: not JSON, not the documented shape, too large, too deeply encoded."""

    retryable = False


class ApiError(PersonalizeError):
    """MoEngage answered with an error."""


class BadRequestError(ApiError):
    """400: MoEngage refuses the content of the request."""


class AuthenticationError(ApiError):
    """401 or 403: wrong workspace id, wrong key, or a key of another product."""


class PayloadTooLargeError(ApiError):
    """413: the request was larger than the server takes."""


class RateLimitedError(ApiError):
    """429: the workspace's quota is used up."""

    retryable = True


class ServerError(ApiError):
    """408 or 5xx: their trouble; it passes."""

    retryable = True


class UnexpectedStatusError(ApiError):
    """A status that no document mentions: a redirect, a 404; most likely a wrong base URL."""
