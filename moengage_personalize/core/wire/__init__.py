"""The only place that knows a JSON key of MoEngage's API, in both directions.

Theory: what goes out is built as bytes once and joined ever after; what comes in is read tolerantly, one experience at
a time, so that one odd entry costs nothing but itself. Sources: `seeds/personalize-api.txt`, and `api-facts.md`
sections 1 to 4 where MoEngage has moved on. Each module is one direction of one endpoint, and owns its invariant. What
goes out is gathered here; what comes in (`answers`, `errors`, `metadata`) is imported by those who read it, since a
process needs it only once it has asked.
"""

from .asking import (
    FETCH_PATH,
    MAX_KEY_LENGTH,
    check_keys,
    encode_context_of_fetch,
    fetch_body,
    fetch_context,
    fetch_fields,
)
from .events import (
    EVENTS_PATH,
    REQUEST_SIZE,
    Attributes,
    around_uuid,
    attributes_size,
    context_of,
    element_size,
    encode_action,
    encode_attributes,
    encode_click_context,
    encode_context,
    encode_element,
    encode_events,
    pack_attributes,
    unpack_attributes,
    uuid_in,
)

__all__ = [
    "EVENTS_PATH",
    "FETCH_PATH",
    "MAX_KEY_LENGTH",
    "REQUEST_SIZE",
    "Attributes",
    "around_uuid",
    "attributes_size",
    "check_keys",
    "context_of",
    "element_size",
    "encode_action",
    "encode_attributes",
    "encode_click_context",
    "encode_context",
    "encode_context_of_fetch",
    "encode_element",
    "encode_events",
    "fetch_body",
    "fetch_context",
    "fetch_fields",
    "pack_attributes",
    "unpack_attributes",
    "uuid_in",
]
