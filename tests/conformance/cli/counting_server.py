"""A server that accepts every event at once and remembers under which UUIDs each came. Granian's (Rust) RSGI.

An event is known by its time, counted from `BASE`: that is how the lines of these tests are numbered.
"""

import json
import re
from array import array

BASE = 1_700_000_000
MOST = 2_000_000
EVENT = re.compile(rb'"moe_event_uuid":"([0-9a-f-]{36})","event_time":(\d+)')
HEADERS = [("content-type", "application/json")]
ACCEPTED = b'{"status":"success","message":"Your request has been accepted and will be processed soon.","req_id":"1"}'


class Ledger:
    def __init__(self):
        self.uuids = array("Q", bytes(8 * MOST))
        self.received = self.requests = self.events = self.again = self.conflicts = 0

    def enter(self, body):
        self.requests += 1
        uuids = self.uuids
        for uuid, moment in EVENT.findall(body):
            number, short = int(moment) - BASE, int(uuid[:8] + uuid[9:13] + uuid[24:28], 16) or 1
            self.received += 1
            if not uuids[number]:
                uuids[number] = short
                self.events += 1
            elif uuids[number] == short:
                self.again += 1
            else:
                self.conflicts += 1

    def stats(self):
        names = ("received", "requests", "events", "again", "conflicts")
        return {name: getattr(self, name) for name in names} | {"distinct": len(set(self.uuids) - {0})}


ledger = Ledger()


async def target(scope, protocol):
    body = await protocol()
    if scope.path == "/v1/experiences/events":
        ledger.enter(body)
        protocol.response_bytes(200, HEADERS, ACCEPTED)
    elif scope.path == "/-/stats":
        protocol.response_bytes(200, HEADERS, json.dumps(ledger.stats()).encode())
    else:
        protocol.response_bytes(404, HEADERS, b"{}")
