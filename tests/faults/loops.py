"""The event loops that a claim is made for, as pytest parameters of anyio's `anyio_backend`."""

from __future__ import annotations

import pytest

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]
