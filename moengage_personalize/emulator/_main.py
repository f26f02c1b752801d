"""`moengage-personalize emulator`: serves an emulator until it is told to stop."""

import argparse
import asyncio
import contextlib
import errno
import gc
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moengage_personalize.emulator._emulator import Emulator
    from moengage_personalize.emulator._server import Server

_PORT = 8443
_PAGE_PORT = 8480


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moengage-personalize emulator", description="Emulates MoEngage Personalize on this machine."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=_PORT, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--page-port",
        type=int,
        default=_PAGE_PORT,
        help="live page without TLS, on loopback; 0: a free port; -1: none (default: %(default)s)",
    )
    parser.add_argument("--no-tls", action="store_true", help="plain HTTP/1.1")
    parser.add_argument("--ca-file", type=Path, help="where to keep the authority's certificate and key")
    parser.add_argument("--workspace-id", default="DEMO_WORKSPACE", help="default: %(default)s")
    parser.add_argument("--api-key", default="demo-key", help="default: %(default)s")
    parser.add_argument("--experiences", type=Path, help="a TOML file; the demo's by default")
    parser.add_argument(
        "--identity",
        choices=("identifiers", "flat", "either"),
        default="identifiers",
        help="which of MoEngage's documents decides where the identity stands (default: %(default)s)",
    )
    parser.add_argument(
        "--rate-limit", type=int, default=10_000, help="fetch requests a minute; 0 lifts it (default: %(default)s)"
    )
    parser.add_argument(
        "--failures",
        action="store_true",
        help="say in answers to fetches why an experience is absent, as MoEngage's native SDKs describe it",
    )
    parser.add_argument("--journal", type=Path, help="a file that keeps the ledger across restarts")
    parser.add_argument("--scenario", type=Path, help="a TOML file with a timeline of trouble")
    parser.add_argument(
        "--trouble",
        action="append",
        default=[],
        metavar="WISH",
        help="trouble from the start, e.g. 'status = 503, share = 0.1'; may be repeated",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the emulator; returns the exit status.

    Args:
        arguments: What follows the command's name; by default the process's.
    """
    options = _arguments().parse_args(arguments)
    try:
        with _runner() as runner:
            runner.run(_serve(options))
    except KeyboardInterrupt:
        return 0
    except (OSError, RuntimeError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "; is another one running? --port 0 and --page-port 0 take free ports" if taken else ""
        print(f"moengage-personalize emulator: {error}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _runner() -> asyncio.Runner:
    try:
        import uvloop  # late: an extra
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(options: argparse.Namespace) -> None:
    from moengage_personalize.emulator import _toml
    from moengage_personalize.emulator._emulator import Emulator  # late: `--help` needs none of it
    from moengage_personalize.emulator._server import serve

    emulator = Emulator(
        options.workspace_id,
        options.api_key,
        experiences=options.experiences,
        identity=options.identity,
        rate_limit=options.rate_limit or None,
        failures=options.failures,
    )
    if options.journal:
        from moengage_personalize.emulator._journal import Journal

        Journal(emulator, options.journal)
    for wish in options.trouble:
        emulator.troubles.add(_toml.trouble_of(_inline(wish)), emulator.effects.now())
    if options.scenario:
        emulator.play(_toml.load_scenario(options.scenario))
    # the ledger lives long and holds no cycles: looking for some among 200,000 events stalls every request
    gc.set_threshold(100_000, 50, 100)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(name, stop.set)
    page_port = None if options.page_port < 0 else options.page_port
    async with serve(
        emulator, options.host, options.port, tls=not options.no_tls, page_port=page_port, ca_path=options.ca_file
    ) as server:
        print(_greeting(server), flush=True)  # noqa: T201
        await _follow(emulator, options.experiences, stop)


def _inline(wish: str) -> dict[str, Any]:
    """`status = 503, share = 0.1` as the inline table that it is the inside of."""
    try:
        table: dict[str, Any] = tomllib.loads(f"wish = {{ {wish} }}")["wish"]
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--trouble {wish!r}: {error}") from error
    return table


async def _follow(emulator: "Emulator", path: Path | None, stop: asyncio.Event) -> None:
    """Picks up edits of the experiences until it is time to stop."""
    if path is None:
        await stop.wait()
        return
    from moengage_personalize.emulator._reload import INTERVAL, Reloader

    reloader = Reloader(emulator, path)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), INTERVAL)
        news = reloader.look()
        if news is not None:
            print(news, file=sys.stderr, flush=True)  # noqa: T201


def _greeting(server: "Server") -> str:
    from shlex import quote

    lines = [f"export {name}={quote(value)}" for name, value in server.emulator.exports.items()]
    return "\n".join([f"# MoEngage Personalize, emulated. Live page: {server.page_url}", *lines, "# Ctrl-C stops it."])
