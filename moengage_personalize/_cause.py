"""Why a connection failed, in words that help and tell nothing.

Theory: a transport's exception says what it was doing; what stood in the way is at the end of its chain of causes: the
system's error, OpenSSL's verdict, a module that is not there. Those words come from a catalogue of the system's, or
name nothing but the host that was configured.

Invariant: total, and what is returned repeats no text of a request, a reply, a proxy's address or a key.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

_DEEP: Final = 12  # links of a chain: more than any library makes


def cause_of(error: BaseException) -> str:
    """Returns the exception's kind, and what it came from, where that is told."""
    said = next((words for each in _chain(error) if (words := _words(each))), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEEP):
        if error is None:
            return
        yield error
        error = _next(error)


def _next(error: BaseException) -> BaseException | None:
    """What an exception came from. Not its `__context__`: that may be what the caller was handling when it asked."""
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[-1]
    wrapped = error.args[0] if error.args else None  # httpcore's hold what they stand for
    return error.__cause__ or (wrapped if isinstance(wrapped, BaseException) else None)


def _words(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"the server's certificate is not accepted here, {error.verify_message or 'for no stated reason'}"
                " (SSL_CERT_FILE, or ssl_context=, names other authorities)"
            )
        case ssl.SSLError():
            reason = (error.reason or "").replace("_", " ").lower()
            return f"TLS failed{', ' if reason else ''}{reason}"
        case socket.gaierror():
            return "the host's name has no address, or nobody here can tell"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return ""
