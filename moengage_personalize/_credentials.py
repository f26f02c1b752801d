"""The key, as it is now.

A key that was regenerated in the dashboard must not need a restart, so `api_key` may be a callable, and this asks it.

Invariant: what is returned fits a header, and no frame, message or chain of an error holds what was supplied.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from ._config import FITS_HEADER, Secret
from ._errors import ConfigurationError


async def current_api_key(api_key: Secret | Callable[[], str | Awaitable[str]]) -> Secret:
    """Asks for the key, as it is now.

    Raises:
        ConfigurationError: The callable failed, or supplied what cannot stand in a header.
    """
    if isinstance(api_key, Secret):
        return api_key
    try:
        supplied = api_key()
        key = Secret.of(await supplied if inspect.isawaitable(supplied) else supplied)
    except Exception as error:
        raise ConfigurationError(f"the api_key callable raised {type(error).__name__}") from None
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        # What it waited for was cancelled, not we: raised on, this would end the background as if somebody had asked.
        raise ConfigurationError("the api_key callable was cancelled") from None
    finally:
        supplied = ""  # the frame of an error below must not hold the key
    if not key.fits_header():
        raise ConfigurationError(f"what the api_key callable returns {FITS_HEADER}")
    return key
