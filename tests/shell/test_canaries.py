"""Nothing logs, reprs, pickles or raises a secret, a customer id or a payload (reliability.md, T13)."""

import logging
import pickle
import traceback
from pathlib import Path

import httpx
import pytest
from support.moengage import CONTEXT, MoEngage, error, make_client, served, serving

import moengage_personalize
from moengage_personalize import AsyncPersonalizeClient, BatchPolicy, Event, InSession, PersonalizeError, RetryPolicy

pytestmark = pytest.mark.anyio

KEY, WORKSPACE = "canary-key-4711", "CANARY_WORKSPACE"
PERSON, ADDRESS, AGENT = "canary@person.example", "198.51.100.77", "CanaryAgent/1.0"
PAYLOAD, EMAIL = "canary-payload-text", "canary@mail.example"
CANARIES = (KEY, WORKSPACE, PERSON, ADDRESS, AGENT, PAYLOAD, EMAIL, "Y2FuYXJ5", "Q0FOQVJZ")
PACKAGE = str(Path(moengage_personalize.__file__).parent)
CANARY_CONTEXT = {**CONTEXT, "audience_name": PAYLOAD}
SESSION = InSession(ip_address=ADDRESS, user_agent=AGENT)


def sing(text):
    return [canary for canary in CANARIES if canary in text]


def traced(raised):
    """Everything that a traceback with locals shows of our frames (the frames of the caller are the caller's)."""
    found, seen = [], set()
    while raised is not None and id(raised) not in seen:
        seen.add(id(raised))
        found += [str(raised), repr(raised), repr(getattr(raised, "__dict__", {}))]
        for frame, _ in traceback.walk_tb(raised.__traceback__):
            if frame.f_code.co_filename.startswith(PACKAGE):
                found += [
                    f"{frame.f_code.co_qualname}: {name} = {_shown(value)}" for name, value in frame.f_locals.items()
                ]
        raised = raised.__cause__ or raised.__context__
    return found


def _shown(value):
    try:
        return repr(value)
    except Exception as trouble:
        return f"unprintable: {type(trouble).__name__}"


def silent(raised):
    assert [line for line in traced(raised) if sing(line)] == []
    assert sing(repr(pickle.loads(pickle.dumps(raised)).__dict__) + str(raised)) == []


def client_of(moengage, **options):
    return AsyncPersonalizeClient(WORKSPACE, KEY, "01", transport=moengage, **options)


ANSWERS = {
    "400": lambda: error(400, f"value {PERSON} of customer_id is not one of ours: {ADDRESS}"),
    "401": lambda: error(401, f"no such workspace {WORKSPACE}"),
    "403": lambda: error(403),
    "413": lambda: error(413),
    "429": lambda: error(429, retry_after="1"),
    "500": lambda: httpx.Response(500, text=f"<html>{PERSON}</html>"),
    "302": lambda: error(302, location=f"https://elsewhere.example/{PERSON}"),
    "hang": lambda: 3_600,
    "refused": lambda: httpx.ConnectError(f"cannot connect for {PERSON}"),
    "bug": lambda: RuntimeError(f"{KEY} {PERSON}"),
    "garbage": lambda: httpx.Response(200, text=f"{PAYLOAD} {PERSON}"),
    "odd": lambda: httpx.Response(200, json={"experiences": PAYLOAD}),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_their_trouble_shows_nothing(answer, caplog):
    caplog.set_level(logging.DEBUG)
    moengage = MoEngage(fetch=lambda body: ANSWERS[answer](), events=lambda body: ANSWERS[answer]())
    moengage.metadata = lambda body: (
        error(401, f"no such workspace {WORKSPACE}") if answer == "400" else ANSWERS[answer]()
    )
    retrying = RetryPolicy(initial=0.01, maximum=0.01)
    async with client_of(moengage, retrying=retrying, batching=BatchPolicy(grace=0.1)) as client:
        with pytest.raises(PersonalizeError) as caught:
            await client.fetch(
                "hero",
                customer_id=PERSON,
                user_identifiers={"u_em": EMAIL},
                session=SESSION,
                attributes={"canary": PAYLOAD},
                on_error="raise",
            )
        silent(caught.value)
        with pytest.raises(PersonalizeError) as caught:
            await client.metadata()
        silent(caught.value)
        client.track_click(
            CANARY_CONTEXT, customer_id=PERSON, attributes={"x": PAYLOAD}, user_attributes={"email": EMAIL}
        )
        await client.flush(0.5)
        assert sing(repr(client) + repr(client.stats()) + repr(client.health()) + repr(client._buffer)) == []
    assert sing(caplog.text) == []
    assert sing(repr(client.last_report)) == []


BAD_CALLS = {
    "keys": lambda client: client.fetch("", customer_id=PERSON, session=SESSION),
    "customer": lambda client: client.fetch("hero", customer_id=[PERSON]),
    "identifiers": lambda client: client.fetch("hero", user_identifiers={"u_em": [EMAIL]}),
    "collision": lambda client: client.fetch("hero", customer_id=PERSON, attributes={"USER_AGENT": AGENT}),
    "value": lambda client: client.fetch("hero", customer_id=PERSON, attributes={"canary": [PAYLOAD]}),
    "surrogate": lambda client: client.fetch("hero", customer_id=PERSON, attributes={"canary": PAYLOAD + "\ud800"}),
    "deadline": lambda client: client.fetch("hero", customer_id=PERSON, session=SESSION, deadline=-1),
    "session": lambda client: client.fetch("hero", customer_id=PERSON, session=(ADDRESS, AGENT)),
    "on_error": lambda client: client.fetch("hero", customer_id=PERSON, on_error="explode"),
    "fetch_all": lambda client: client.fetch_all(customer_id=PERSON, attributes={"USER_AGENT": AGENT}),
}
BAD_EVENTS = {
    "context": lambda client: client.track_impression({"cid": PAYLOAD}, customer_id=PERSON),
    "customer": lambda client: client.track_impression(CANARY_CONTEXT, customer_id=[PERSON]),
    "platform": lambda client: client.track_impression(CANARY_CONTEXT, customer_id=PERSON, platform=PAYLOAD),
    "time": lambda client: client.track_impression(CANARY_CONTEXT, customer_id=PERSON, at=1e12),
    "uuid": lambda client: client.track_impression(CANARY_CONTEXT, customer_id=PERSON, event_uuid=PAYLOAD),
    "offset": lambda client: client.track_click(CANARY_CONTEXT, customer_id=PERSON, user_timezone_offset=60_000),
    "attributes": lambda client: client.track_click(CANARY_CONTEXT, customer_id=PERSON, attributes={"x": {PAYLOAD}}),
    "user": lambda client: client.track_click(CANARY_CONTEXT, customer_id=PERSON, user_attributes={"x": {EMAIL}}),
    "collision": lambda client: client.track_click(CANARY_CONTEXT, customer_id=PERSON, attributes={"cid": PAYLOAD}),
    "event": lambda client: client.track(Event(action="seen", experience=CANARY_CONTEXT, customer_id=PERSON)),
}


@pytest.mark.parametrize("call", BAD_CALLS)
async def test_bad_calls_show_nothing(call):
    async with client_of(MoEngage()) as client:
        with pytest.raises(ValueError) as caught:
            await BAD_CALLS[call](client)
    silent(caught.value)


@pytest.mark.parametrize("call", BAD_EVENTS)
async def test_bad_events_show_nothing(call):
    async with client_of(MoEngage()) as client:
        with pytest.raises(ValueError) as caught:
            BAD_EVENTS[call](client)
    silent(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": KEY + "\r\n"},
        {"workspace_id": WORKSPACE + ":"},
        {"data_center": "01.evil.com#"},
        {"base_url": f"https://{KEY}@evil.example"},
    ],
)
def test_bad_configuration_shows_no_secret(arguments):
    with pytest.raises(ValueError) as caught:
        AsyncPersonalizeClient(**{"workspace_id": WORKSPACE, "api_key": KEY, "data_center": "01", **arguments})
    silent(caught.value)


async def test_values_show_nothing():
    moengage = MoEngage(
        fetch=lambda body: serving(hero={**served(Title=PAYLOAD), "experience_context": CANARY_CONTEXT})
    )
    async with client_of(moengage) as client:
        experiences = await client.fetch("hero", customer_id=PERSON, session=SESSION)
    event = Event(action="x", experience=CANARY_CONTEXT, customer_id=PERSON)
    shown = [experiences, experiences["hero"], SESSION, event, client]
    assert sing(" ".join(f"{value!r} {value!s}" for value in shown)) == []


async def test_an_unopened_client_shows_nothing():
    client = make_client()
    with pytest.raises(PersonalizeError) as caught:
        await client.fetch("hero", customer_id=PERSON, session=SESSION)
    silent(caught.value)
