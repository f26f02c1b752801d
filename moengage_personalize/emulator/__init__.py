"""An emulator of MoEngage Personalize: as strict as its documents, on this machine, without an account.

`Emulator` is the state and the judgement, without I/O; `Emulator.app` is an ASGI application over it;
`serve` puts it on the network with TLS, HTTP/2 and HTTP/1.1. `python -m moengage_personalize.emulator`
does that from a shell.
It imports nothing of the client: it reads the same documents a second time, which is what makes it a witness.

Importing this package costs nothing; its parts are loaded when they are first named.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moengage_personalize.emulator._catalogue import (
        Audience,
        Catalogue,
        Experience,
        Network,
        Profile,
        Value,
        Variation,
        When,
    )
    from moengage_personalize.emulator._effects import Effects
    from moengage_personalize.emulator._emulator import Emulator
    from moengage_personalize.emulator._journal import Journal
    from moengage_personalize.emulator._ledger import Counts, Duplicate, EventRecord, Ledger, RequestRecord
    from moengage_personalize.emulator._main import main
    from moengage_personalize.emulator._process import EmulatorProcess
    from moengage_personalize.emulator._server import Server, serve
    from moengage_personalize.emulator._thread import serve_in_thread
    from moengage_personalize.emulator._toml import load_catalogue, load_scenario
    from moengage_personalize.emulator._trouble import Trouble, Troubles

_HOMES = {
    "_catalogue": "Audience Catalogue Experience Network Profile Value Variation When",
    "_effects": "Effects",
    "_emulator": "Emulator",
    "_journal": "Journal",
    "_ledger": "Counts Duplicate EventRecord Ledger RequestRecord",
    "_main": "main",
    "_process": "EmulatorProcess",
    "_server": "Server serve",
    "_thread": "serve_in_thread",
    "_toml": "load_catalogue load_scenario",
    "_trouble": "Trouble Troubles",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Audience",
    "Catalogue",
    "Counts",
    "Duplicate",
    "Effects",
    "Emulator",
    "EmulatorProcess",
    "EventRecord",
    "Experience",
    "Journal",
    "Ledger",
    "Network",
    "Profile",
    "RequestRecord",
    "Server",
    "Trouble",
    "Troubles",
    "Value",
    "Variation",
    "When",
    "load_catalogue",
    "load_scenario",
    "main",
    "serve",
    "serve_in_thread",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
