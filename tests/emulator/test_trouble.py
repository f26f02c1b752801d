"""Trouble on request: plans, timelines, and what the application makes of them."""

import asyncio
import json

import httpx
import pytest
from emulator.kit import NOW, World, action, ask, authorization, element, emulator, events, request, said

from moengage_personalize.emulator import Trouble
from moengage_personalize.emulator._control import control
from moengage_personalize.emulator._toml import scenario_of


def plan(emu, path="events", body=None):
    return emu.plan(request(path, events() if body is None else body))


def do(emu, path="events", body=None):
    """A request, trouble included."""
    asked = request(path, events() if body is None else body)
    return emu.handle(asked, emu.plan(asked))


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
def test_a_status_is_answered_with_an_error_body_and_changes_nothing(status):
    emu = emulator()
    emu.trouble(status=status)
    reply = do(emu)
    assert reply.status == status
    assert set(said(reply)) == {"title", "description"}
    assert emu.ledger.counts.received == 0
    assert emu.ledger.requests[-1].trouble == f"status {status}"


def test_retry_after_goes_out_in_whole_seconds():
    emu = emulator()
    emu.trouble(status=429, retry_after=1.6)
    assert dict(do(emu).headers)[b"retry-after"] == b"2"


def test_other_endpoints_are_left_alone():
    emu = emulator()
    emu.trouble(status=503, endpoints=("fetch",))
    assert do(emu).status == 200
    assert do(emu, "fetch", {}).status == 503
    assert plan(emu, "/_emulator/counts").label is None


def test_a_share_of_requests_meets_it():
    world = World()
    emu = emulator(world=world)
    emu.trouble(status=503, share=0.3)
    for world.dice, status in ((0.0, 503), (0.29, 503), (0.3, 200), (0.9, 200)):
        assert do(emu).status == status


def test_a_body_above_the_size_is_a_413_and_a_smaller_one_passes():
    emu = emulator()
    emu.trouble(max_body=600)
    assert do(emu).status == 200
    assert do(emu, body=events(*(element() for _ in range(5)))).status == 413


@pytest.mark.parametrize(
    "poisoned",
    [element(user_attributes={"cursed": 1}), element(action(attributes={**action()["attributes"], "cursed": "x"}))],
)
def test_a_poison_attribute_fails_its_whole_request(poisoned):
    emu = emulator()
    emu.trouble(poison="cursed")
    assert do(emu).status == 200
    reply = do(emu, body=events(element(), poisoned))
    assert reply.status == 400
    assert said(reply)["title"] == "Invalid Field Value"
    assert emu.ledger.counts.received == 1


def test_delays_add_up_and_the_first_outcome_decides():
    emu = emulator()
    emu.trouble(latency=0.2)
    emu.trouble(latency=0.3, status=500)
    emu.trouble(status=503)
    found = plan(emu)
    assert found.delay == pytest.approx(0.5)
    assert found.status == 500


def test_log_normal_latency_has_its_median_and_a_long_tail():
    import random

    trouble = Trouble(latency=0.2, sigma=1.0)
    dice = random.Random(7)
    delays = sorted(trouble.delay(dice.random) for _ in range(4001))
    assert 0.19 < delays[2000] < 0.21
    assert 0.9 < delays[int(4001 * 0.95)] < 1.2  # 0.2 * exp(1.645)


def test_a_timeline_begins_and_ends_by_the_clock():
    world = World()
    emu = emulator(world=world)
    emu.play(
        scenario_of(
            "[[step]]\nafter = 5\nduration = 10\nstatus = 500\n[[step]]\nafter = 15\nduration = 5\noutage = true"
        )
    )
    seen = []
    for second in range(22):
        world.now = NOW + second
        is_out = emu.troubles.outage(world.now)  # asked first: planning forgets what is over
        seen.append((plan(emu).status, is_out))
    assert seen == [(None, False)] * 5 + [(500, False)] * 10 + [(None, True)] * 5 + [(None, False)] * 2
    assert emu.troubles.current(world.now) == ()


def test_the_next_change_is_when_something_begins_or_ends():
    emu = emulator()
    assert emu.troubles.next_change(NOW) == float("inf")
    emu.trouble(outage=True, after=5, duration=10)
    assert emu.troubles.next_change(NOW) == 5
    assert emu.troubles.next_change(NOW + 5) == 10
    assert emu.troubles.next_change(NOW + 15) == float("inf")


def test_a_trouble_must_do_something():
    with pytest.raises(ValueError, match="must do something"):
        Trouble(share=0.5)


# Under an application ------------------------------------------------------------------------------


def run(emu, send):
    async def body():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(emu.app),
            base_url="https://emulator.test",
            headers=[*authorization().items(), (b"content-type", b"application/json")],
        ) as http:
            return await asyncio.wait_for(send(http), 5)

    return asyncio.run(body())


def report(http):
    return http.post("/v1/experiences/events", json=events())


def test_latency_is_slept_before_the_answer():
    world = World()
    emu = emulator(world=world)
    emu.trouble(latency=10)
    assert run(emu, report).status_code == 200
    assert world.slept == [10]


def test_a_drip_pauses_after_every_byte():
    world = World()
    emu = emulator(world=world)
    emu.trouble(drip=0.5)
    reply = run(emu, report)
    assert reply.json()["status"] == "success"
    assert world.slept == [0.5] * len(reply.content)


@pytest.mark.parametrize(
    ("outcome", "accepted"), [("reset", 0), ("refuse", 0), ("goaway", 0), ("disconnect", 0), ("lose", 1)]
)
def test_what_needs_a_connection_is_an_error_without_one(outcome, accepted):
    emu = emulator()
    emu.trouble(outcome=outcome)
    with pytest.raises(ConnectionResetError, match=outcome):
        run(emu, report)
    assert emu.ledger.counts.accepted == accepted
    assert emu.ledger.requests[-1].trouble == outcome


def test_an_outage_without_a_server_is_an_error_too():
    emu = emulator()
    emu.trouble(outage=True)
    with pytest.raises(ConnectionRefusedError):
        run(emu, report)
    assert emu.ledger.counts.requests == 0


def test_a_drained_request_is_answered():
    emu = emulator()
    emu.trouble(outcome="drain")
    assert run(emu, report).status_code == 200


def test_a_hanging_request_waits_for_its_client_to_leave():
    emu = emulator()
    emu.trouble(outcome="hang")

    async def impatient(http):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(report(http), 0.01)

    run(emu, impatient)
    assert emu.ledger.requests[-1].status == 0


def test_the_application_serves_its_own_endpoints_too():
    emu = emulator()

    async def read(http):
        await report(http)
        return (await http.get("/_emulator/counts")).json(), (await http.get("/")).text

    counts, page = run(emu, read)
    assert counts["accepted"] == 1
    assert page.startswith("<!doctype html>")


def test_the_application_speaks_lifespan():
    emu, sent = emulator(), []
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(messages)}

    async def send(message):
        sent.append(message["type"])

    asyncio.run(emu.app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# The control endpoints ------------------------------------------------------------------------------


def press(emu, path, body=None, **rest):
    return control(emu, request(f"/_emulator/{path}", body, **rest))


def test_trouble_is_switched_on_and_off_at_an_endpoint():
    emu = emulator()
    wish = {"endpoints": ["events"], "status": 503, "duration": 10, "name": "busy"}
    (entry,) = said(press(emu, "trouble", wish))["troubles"]
    assert entry["label"] == "busy"
    assert entry["ends_in"] == 10
    assert do(emu).status == 503
    assert said(press(emu, "trouble")) == {"troubles": [entry]}
    assert said(press(emu, f"trouble?number={entry['number']}", method="DELETE")) == {"troubles": []}
    assert do(emu).status == 200


def test_all_trouble_ends_at_once():
    emu = emulator()
    press(emu, "trouble", {"status": 503})
    press(emu, "trouble", {"latency": 1})
    press(emu, "trouble", method="DELETE")
    assert do(emu).status == 200


def test_a_wish_that_makes_no_sense_is_a_400_that_says_so():
    for wish, words in (({"status": 200}, "between 400 and 599"), ({"boom": 1}, "boom: there is no such setting")):
        reply = press(emulator(), "trouble", wish)
        assert reply.status == 400
        assert words in said(reply)["description"]


def test_a_scenario_is_played_at_an_endpoint():
    emu = emulator()
    troubles = said(press(emu, "scenario", b"[[step]]\nafter = 3\nstatus = 500"))["troubles"]
    assert troubles[0]["begins_in"] == 3
    assert press(emu, "scenario", b"[[step]]\nafter = 3").status == 400


def test_a_key_is_regenerated_at_an_endpoint():
    emu = emulator()
    assert press(emu, "key", {"api_key": "other"}).status == 200
    assert ask(emu, "fetch", {}).status == 401
    assert press(emu, "key", {"api_key": ""}).status == 400


def test_a_page_of_another_origin_may_not_press_buttons():
    emu = emulator()
    assert press(emu, "reset", {}, origin=b"https://evil.example", host=b"127.0.0.1:1").status == 403
    assert press(emu, "reset", {}, origin=b"https://127.0.0.1:1", host=b"127.0.0.1:1").status == 200
    assert press(emu, "reset", {}).status == 200


def test_a_reset_forgets_what_came_and_keeps_what_is():
    emu = emulator(rate_limit=5)
    emu.trouble(latency=1)
    do(emu)
    press(emu, "reset", {})
    assert emu.ledger.counts.requests == 0
    assert not emu.ledger.events
    assert len(emu.profiles) == 0
    assert plan(emu).delay == 1
    once = action()
    assert do(emu, body=events(element(once))).status == 200
    assert emu.ledger.counts.accepted == 1


def test_unknown_control_paths_are_a_404():
    assert press(emulator(), "else").status == 404
    assert json.loads(press(emulator(), "else", {}).body)["title"] == "Request Error"
