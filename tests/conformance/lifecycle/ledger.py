"""The account at the end: what the service said was accepted, against what the emulator has written down.

It reads the server's ledger and nothing of the client.
"""

import json


def check(emulator, accepted, *, lost=()):
    """Everything accepted was delivered (but `lost`), under its own UUID, and repetitions are byte for byte the same."""
    delivered = {event.uuid: event.raw for event in emulator.ledger.events}
    missing = set(accepted) - set(delivered)
    assert missing == set(lost), f"{len(missing)} of {len(accepted)} accepted events were lost"
    assert len(set(accepted)) == len(accepted)
    assert emulator.ledger.counts.duplicates_different == 0
    assert all(json.loads(raw)["moe_event_uuid"] == event_uuid for event_uuid, raw in delivered.items())
