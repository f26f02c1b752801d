"""Shorthands for the command line's tests: a line to replay, and an emulator that lets itself be dressed."""

import json
import time
from email.utils import formatdate

from emulator.kit import CONTEXT, SHOWN

NOW = 1_795_459_200


def line_of(number, **changes):
    """One line to replay; a change to `...` takes the member away."""
    whole = {
        "customer_id": f"customer-{number % 50}",
        "action": SHOWN,
        "event_time": NOW + number,
        "platform": "web",
        "attributes": {**CONTEXT, "number": number},
        **changes,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not ...})


def numbers(emulator):
    """The numbers of the lines that arrived, in order, each with its UUID."""
    actions = [record.action for record in emulator.ledger.events]
    return [(action["attributes"]["number"], action["moe_event_uuid"]) for action in actions]


def dated(server, ahead):
    """Lets a server's answers have a Date, so many seconds ahead of the real one."""
    inner = server.app

    async def app(scope, receive, send):
        async def dating(message):
            if message["type"] == "http.response.start":
                date = formatdate(time.time() + ahead, usegmt=True).encode()
                others = [header for header in message["headers"] if header[0] != b"date"]
                message = {**message, "headers": [*others, (b"date", date)]}
            await send(message)

        await inner(scope, receive, dating)

    server.app = app
