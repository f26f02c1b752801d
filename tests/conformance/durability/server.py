"""MoEngage, emulated over TLS and HTTP/2, which writes down every request for events as it came.

Arguments: the ledger's path. Says its URL and its authority's file; each line on its standard input is a mood, and is
answered when that is in force. Ends with its input.
"""

import asyncio
import json
import os
import sys

from moengage_personalize.emulator import Emulator, serve

UNSTEADY = [
    {"endpoints": ("events",), "share": 0.08, "outcome": "lose"},
    {"endpoints": ("events",), "share": 0.05, "status": 503},
    {"endpoints": ("events",), "latency": 0.003, "sigma": 1.0},
]
MOODS = {"unsteady": UNSTEADY, "outage": [{"endpoints": ("events",), "status": 503}]}


class Ledger(Emulator):
    """An emulator that keeps the bytes, handed to the operating system before the answer goes out."""

    def __init__(self, path):
        super().__init__("DEMO_WORKSPACE", "demo-key")
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def handle(self, request, *plan):
        reply = super().handle(request, *plan)
        line = json.dumps({"status": reply.status, "body": request.body.decode("latin-1")}).encode() + b"\n"
        assert os.write(self.file, line) == len(line)
        return reply


async def main(path):
    emulator = Ledger(path)
    async with serve(emulator) as server:
        print(server.base_url, server.ca_path, flush=True)
        while mood := await asyncio.to_thread(sys.stdin.readline):
            emulator.troubles.clear()
            for trouble in MOODS[mood.strip()]:
                emulator.trouble(**trouble)
            print(mood, end="", flush=True)


asyncio.run(main(sys.argv[1]))
