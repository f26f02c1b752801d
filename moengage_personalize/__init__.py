"""Unofficial asyncio-native client for MoEngage Personalize."""

from ._version import __version__

__all__ = ["__version__"]
