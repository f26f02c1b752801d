"""Every sample of the document that this project was created from, its JSON repaired and its placeholders filled in.

What our encoders produce must be structurally equal to the samples under `identity="flat"`, the form that the document
shows; under the other forms, only the identity differs.
"""

import json

import pytest
from core.kit import WALL

from moengage_personalize import Action, Admission, BatchPolicy, Experience, InSession, Reason, event_uuid_for
from moengage_personalize._events import check_event_uuid, check_platform, check_time, check_timezone_offset
from moengage_personalize.core.buffer import Buffer
from moengage_personalize.core.wire import (
    EVENTS_PATH,
    FETCH_PATH,
    context_of,
    encode_action,
    encode_attributes,
    encode_click_context,
    encode_context,
    encode_context_of_fetch,
    fetch_body,
    fetch_fields,
)
from moengage_personalize.core.wire.answers import read_experiences
from moengage_personalize.core.wire.errors import read_error

# ── fetch ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FETCH = {
    "customer_id": "john@example.com",
    "experience_key": ["new-serverside-experience"],
    "utm_medium": "email",
    "DAY_OF_THE_WEEK": "Monday",
    "TIME_OF_THE_DAY": "00",
    "USER_IP_ADDRESS": "203.0.113.7",
    "USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
IDENTITIES = {
    "flat": {"customer_id": "john@example.com"},
    "identifiers": {"identifiers": {"customer_id": "john@example.com"}},
    "both": {"customer_id": "john@example.com", "identifiers": {"customer_id": "john@example.com"}},
}


def fetched(identity, *keys):
    fields = fetch_fields(
        customer_id="john@example.com",
        user_identifiers=None,
        session=InSession(
            day_of_week="Monday", time_of_day="00", ip_address="203.0.113.7", user_agent=FETCH["USER_AGENT"]
        ),
        attributes={"utm_medium": "email"},
        identity=identity,
    )
    return json.loads(fetch_body(encode_context_of_fetch(fields), keys or None))


def test_the_sample_fetch_request():
    assert fetched("flat", "new-serverside-experience") == FETCH


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_sample_fetch_request_in_each_form_of_identity(identity):
    anonymous = {name: value for name, value in FETCH.items() if name != "customer_id"}
    assert fetched(identity, "new-serverside-experience") == anonymous | IDENTITIES[identity]


def test_several_experiences_in_one_request():
    assert fetched("flat", "experience-1", "experience-2")["experience_key"] == ["experience-1", "experience-2"]


def test_the_endpoints():
    assert (FETCH_PATH, EVENTS_PATH) == ("/v1/experiences/fetch", "/v1/experiences/events")


FETCHED = """
{
  "experiences": {
    "new-serverside-experience": {
      "payload": {
        "Title": {"value": "Presenting MoEngage Server side personalization! ", "data_type": "string"},
        "Image": {
          "value": "https://cdn.pixabay.com/photo/2021/02/24/20/53/abstract-6047465_960_720.jpg",
          "data_type": "string"
        }
      },
      "experience_context": {
        "cid": "65eae5738ea5032b0ef60138_F_T_WP_AB_2_P_0_AU_42D",
        "experience": "Server Side Experience",
        "moe_locale_id": "0",
        "moe_variation_id": "2",
        "audience_name": "All Users",
        "audience_id": "42D",
        "type": "Web Personalization"
      }
    }
  }
}
"""


def test_the_sample_fetch_response():
    experience = read_experiences(FETCHED.encode(), ["new-serverside-experience"])["new-serverside-experience"]
    context = json.loads(FETCHED)["experiences"]["new-serverside-experience"]["experience_context"]
    assert experience == Experience(
        key="new-serverside-experience",
        reason=Reason.MATCHED,
        source="network",
        payload={
            "Title": "Presenting MoEngage Server side personalization! ",
            "Image": "https://cdn.pixabay.com/photo/2021/02/24/20/53/abstract-6047465_960_720.jpg",
        },
        context=context,
    )
    assert experience.get("Title", default="Welcome").startswith("Presenting MoEngage")
    assert json.loads(context_of(experience)) == context


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

CONTEXT = {
    "cid": "66d55ae445921e4d35ae4368_F_T_WP_AB_2_P_0_AU_5A",
    "experience": "Test Server side experience",
    "moe_locale_id": "0",
    "moe_variation_id": "2",
    "audience_name": "All Users",
    "audience_id": "5A",
    "type": "Web Personalization",
}
JOHN = {"name": "John Doe", "first_name": "John", "last_name": "Doe"}
CUSTOMERS = {
    "existing": ("john@example.com", None),
    "new": ("john@example.com", JOHN),
    "anonymous": ("session-7f3a", None),
}


def sample(action, who):
    """The six samples differ in the action, the `b_id` of clicks, the id, and the attributes of the new user."""
    customer_id, attributes = CUSTOMERS[who]
    clicked = action == "MOE_PERSONALIZATION_MESSAGE_CLICKED"
    return {
        "elements": [
            {
                "customer_id": customer_id,
                **({"user_attributes": attributes} if attributes else {}),
                "user_timezone_offset": 19800,
                "actions": [
                    {
                        "action": action,
                        "moe_event_uuid": "aa886712-4537-47c1-b126-2686efda2e26",
                        "event_time": 1725258666,
                        "platform": "web",
                        "attributes": CONTEXT | ({"b_id": "Add to Cart"} if clicked else {}),
                    }
                ],
            }
        ]
    }


@pytest.mark.parametrize("who", CUSTOMERS)
@pytest.mark.parametrize("action", list(Action))
def test_the_six_sample_events_requests(action, who):
    customer_id, attributes = CUSTOMERS[who]
    clicked = action is Action.CLICK
    event_uuid = check_event_uuid("aa886712-4537-47c1-b126-2686efda2e26")
    buffer = Buffer(BatchPolicy())
    admission = buffer.offer(
        customer_id,
        event_uuid,
        encode_action(
            action.value,
            event_uuid,
            check_time(1725258666),
            check_platform("web"),
            encode_click_context(CONTEXT, "Add to Cart", None) if clicked else encode_context(CONTEXT),
        ),
        not clicked,
        attributes and encode_attributes(attributes),
        check_timezone_offset(19800),
        0.0,
        WALL,
    )
    assert admission is Admission.ACCEPTED
    assert json.loads(buffer.take(WALL).encode()) == sample(action.value, who)


def test_the_sample_extra_attributes_of_a_click():
    found = json.loads(encode_click_context(CONTEXT, None, {"widget_id": "cta1"}))
    assert found == CONTEXT | {"widget_id": "cta1"}


def test_made_uuids_are_shaped_like_the_samples():
    assert check_event_uuid(event_uuid_for("order-mail", 7)) == event_uuid_for("order-mail", 7)


# ── errors (api-facts.md, section 1.5) ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "title", "description", "code"),
    [
        (
            {
                "title": "Invalid Field Value",
                "description": "elements - Validators Failed : Validator: Element, Errored Field: actions",
                "code": "QWERTYUI",
            },
            "Invalid Field Value",
            "elements - Validators Failed : Validator: Element, Errored Field: actions",
            "QWERTYUI",
        ),
        (
            {"title": "Malformed JSON", "description": "The body is empty or no JSON"},
            "Malformed JSON",
            "The body is empty or no JSON",
            None,
        ),
        (
            {"title": "Authentication required", "description": "Authentication credentials are wrong"},
            "Authentication required",
            "Authentication credentials are wrong",
            None,
        ),
        (
            {"status": "fail", "error": {"message": "Rate limit breached", "type": "RateLimit", "request_id": "x1"}},
            "RateLimit",
            "Rate limit breached",
            None,
        ),
        (
            {"response_id": "x", "error": {"code": "E1", "message": "Not found", "target": "path", "details": []}},
            "path",
            "Not found",
            "E1",
        ),
        ({"error": "Forbidden", "message": "IP is not allowed"}, "Forbidden", "IP is not allowed", None),
    ],
)
def test_error_bodies_in_documented_and_gateway_shapes(body, title, description, code):
    sent = json.dumps(sample("MOE_PERSONALIZATION_MESSAGE_SHOWN", "new")).encode()
    found = read_error(json.dumps(body).encode(), sent)
    assert (found.title, found.description, found.code) == (title, description, code)
