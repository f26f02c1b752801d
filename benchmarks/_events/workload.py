"""What is reported: page views of 500 customers, five experiences a page, an impression each.

The experience context has the fields and the lengths of MoEngage's sample (`seeds/personalize-api.txt`).
"""

import json
from itertools import cycle, islice

EVENT = "MOE_PERSONALIZATION_MESSAGE_SHOWN"
SLOTS = tuple(f"slot-{number}" for number in range(5))
CUSTOMERS = tuple(f"customer-{number:04d}@example.com" for number in range(500))


def context_of(slot):
    return {
        "cid": "65eae5738ea5032b0ef60138_F_T_WP_AB_2_P_0_AU_42D",
        "experience": f"Server Side Experience {slot}",
        "moe_locale_id": "65eae5738ea5032b0ef60140",
        "moe_variation_id": "65eae5738ea5032b0ef60141",
        "audience_name": "Returning customers",
        "audience_id": "65eae5738ea5032b0ef60142",
        "type": "Web Personalization",
    }


def payload_of(slot):
    return {"Title": {"value": f"Welcome to {slot}", "data_type": "string"}}


REPLY = json.dumps(
    {"experiences": {slot: {"payload": payload_of(slot), "experience_context": context_of(slot)} for slot in SLOTS}}
).encode()


def page():
    """The properties of one page's impressions, for those who are given dictionaries: of their own, as from a reply."""
    entries = json.loads(REPLY)["experiences"].values()
    return [{"platform": "web", **entry["experience_context"]} for entry in entries]


def customers(count, start=0):
    """The customers of `count` events: five of one, then five of the next."""
    pages = islice(cycle(CUSTOMERS), start // len(SLOTS) % len(CUSTOMERS), None)
    return list(islice((customer for customer in pages for _ in SLOTS), count))
