"""Short words for the core's tests: events to offer, and batches of them."""

import json
from typing import Any

from moengage_personalize import Admission, BatchPolicy, DeliveryReport
from moengage_personalize.core.batch import Batch
from moengage_personalize.core.buffer import Buffer
from moengage_personalize.core.wire import encode_action, encode_attributes

CONTEXT = {
    "cid": "66d55ae445921e4d35ae4368_F_T_WP_AB_2_P_0_AU_5A",
    "experience": "Test Server side experience",
    "moe_locale_id": "0",
    "moe_variation_id": "2",
    "audience_name": "All Users",
    "audience_id": "5A",
    "type": "Web Personalization",
}
SHOWN = "MOE_PERSONALIZATION_MESSAGE_SHOWN"
CLICKED = "MOE_PERSONALIZATION_MESSAGE_CLICKED"
NOW, WALL = 1_000.0, 1_795_459_200.0


def uuid(number: int) -> str:
    return f"aa886712-4537-47c1-b126-{number:012x}"


def number_of(event_uuid: str) -> int:
    return int(event_uuid[-12:], 16)


def action(number: int, *, click: bool = False, padding: int = 0) -> bytes:
    context = json.dumps({"cid": "x" * padding}, separators=(",", ":"))
    return encode_action(CLICKED if click else SHOWN, uuid(number), 1_725_258_666, "web", context)


def offer(
    buffer: Buffer,
    number: int,
    customer: str = "john",
    *,
    click: bool = False,
    padding: int = 0,
    attributes: dict[str, Any] | None = None,
    offset: int | None = None,
    now: float = NOW,
    wall: float = WALL,
) -> Admission:
    """Offers event `number`."""
    return buffer.offer(
        customer,
        uuid(number),
        action(number, click=click, padding=padding),
        not click,
        None if attributes is None else encode_attributes(attributes),
        offset,
        now,
        wall,
    )


def filled(*numbers: int, policy: BatchPolicy | None = None, **how: Any) -> Buffer:
    """A buffer with these events of one customer waiting."""
    buffer = Buffer(policy or BatchPolicy())
    for number in numbers:
        assert offer(buffer, number, **how) is Admission.ACCEPTED
    return buffer


def numbers(batch: Batch | None) -> list[int]:
    """The events of a batch, in the order in which they travel."""
    return [] if batch is None else [number_of(record.event_uuid) for record in batch.records]


def said(batch: Batch) -> list[dict[str, Any]]:
    """The elements of a batch, as the server reads them."""
    return json.loads(batch.encode())["elements"]


def report(buffer: Buffer) -> DeliveryReport:
    found = DeliveryReport(**buffer.counts())
    assert found.balanced
    return found
