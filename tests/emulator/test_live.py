"""What the live page is told, and that its colours can be read."""

import json
import re
from importlib import resources

import pytest
from emulator.kit import CLICKED, NOW, World, action, ask, element, emulator, events, request, served, uuid4
from support.colours import contrast

from moengage_personalize.emulator import Emulator
from moengage_personalize.emulator._control import control


def read(emu, path):
    reply = control(emu, request(path))
    assert reply.status == 200
    return json.loads(reply.body)


def live(emu, since=0):
    return read(emu, f"/_emulator/live?since={since}")


def test_only_what_is_new_is_told():
    emu = emulator()
    for _ in range(3):
        ask(emu, "events", events())
    first = live(emu)
    assert [entry["number"] for entry in first["requests"]] == [1, 2, 3]
    assert (first["last"], first["left_out"]) == (3, 0)
    assert live(emu, 2)["requests"] == first["requests"][2:]
    assert live(emu, 3)["requests"] == []
    assert live(emu, 99)["left_out"] == 0


def test_a_burst_is_cut_and_says_so():
    emu = emulator()
    for _ in range(100):
        ask(emu, "events", events())
    told = live(emu, 10)
    assert [entry["number"] for entry in told["requests"]] == list(range(41, 101))
    assert told["left_out"] == 30


def test_the_pulse_is_one_minute_with_its_quiet_seconds():
    world = World()
    emu = emulator(world=world)
    served(emu, {})
    world.now += 2
    ask(emu, "events", b"{")
    pulse = live(emu)["pulse"]
    assert [second["at"] for second in pulse] == list(range(int(NOW) - 57, int(NOW) + 3))
    assert [second["fetches"] for second in pulse[-3:]] == [1, 0, 0]
    assert [second["failed"] for second in pulse[-3:]] == [0, 0, 1]


def test_coalescing_is_told_as_two_histograms():
    emu = emulator()
    ask(emu, "events", events(element(action(), action(), action()), element()))
    ask(emu, "events", events())
    told = live(emu)
    assert told["elements_per_request"] == [{"label": "1", "count": 1}, {"label": "2", "count": 1}]
    assert [bar["count"] for bar in told["actions_per_element"]] == [2, 0, 1]


def test_the_newest_batches_are_told_as_impressions_and_clicks_of_each_customer():
    emu = emulator()
    for _ in range(9):
        ask(emu, "events", events())
    both = element(action(), action(action=CLICKED), action())
    ask(emu, "events", events(both, element(action(action=CLICKED), customer_id="a@b")))
    ask(emu, "events", b"{")
    batches = live(emu)["batches"]
    assert batches[0] == {"request": 10, "at": NOW, "elements": [[2, 1], [0, 1]]}
    assert [batch["request"] for batch in batches] == [10, 9, 8, 7, 6, 5, 4, 3]


def test_variations_are_told_with_how_they_fare():
    emu = emulator()
    context = served(emu, {})["home-hero"]["experience_context"]
    ask(emu, "events", events(element(action(attributes=context), action(action=CLICKED, attributes=context))))
    (experience,) = live(emu)["experiences"]
    (variation,) = experience["audiences"][0]["variations"]
    assert (variation["served"], variation["impressions"], variation["clicks"]) == (1, 1, 1)
    assert variation["says"] == "Hi"


def test_a_story_is_told_newest_first():
    world = World()
    emu = emulator(world=world)
    identity = {"identifiers": {"customer_id": "asha@example.com"}}
    context = served(emu, identity)["home-hero"]["experience_context"]
    for name, later in (("MOE_PERSONALIZATION_MESSAGE_SHOWN", 1), (CLICKED, 2)):
        world.now = NOW + later
        sent = action(action=name, attributes={**context, "b_id": "Shop"}, moe_event_uuid=uuid4(later))
        ask(emu, "events", events(element(sent, customer_id="asha@example.com", user_attributes={"tier": "gold"})))
    ask(emu, "events", events())
    story = read(emu, "/_emulator/story?customer=asha%40example.com")
    assert [step["kind"] for step in story["steps"]] == ["click", "impression", "fetch"]
    assert story["steps"][0]["b_id"] == "Shop"
    assert story["profile"] == {"tier": "gold"}
    assert read(emu, "/_emulator/story?customer=nobody") == {"customer": "nobody", "profile": None, "steps": []}


def test_the_demo_can_be_told_and_says_whom_each_audience_is_for():
    told = live(Emulator())
    audiences = [audience["when"] for one in told["experiences"] for audience in one["audiences"]]
    assert "tier is gold" in audiences
    assert "Saturday or Sunday, Mobile" in audiences
    assert "utm_medium = email or newsletter" in audiences


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", b"text/html; charset=utf-8"),
        ("/_emulator/page/app.js", b"text/javascript; charset=utf-8"),
        ("/_emulator/page/style.css", b"text/css; charset=utf-8"),
        ("/_emulator/page/icon.svg", b"image/svg+xml"),
    ],
)
def test_the_page_comes_from_the_package_and_may_load_nothing_from_outside(path, kind):
    reply = control(emulator(), request(path))
    headers = dict(reply.headers)
    assert headers[b"content-type"] == kind
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert not re.search(rb"(src|href|url\()=?[\"']?(https?:)?//", reply.body)
    assert b" style=" not in reply.body


# Colours ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_a_contrast_of_4_5_to_1(scheme):
    style = resources.files("moengage_personalize.emulator").joinpath("page/style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ink in ("ink", "muted", "shown", "clicked", "bad", "odd"):
        for paper in ("paper", "card"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for ink in ("shown", "clicked", "bad", "odd"):
        assert contrast(colours[ink], colours[f"{ink}-soft"]) >= 4.5, ink
    for ink in ("ink", "muted"):
        assert contrast(colours[ink], colours["sunk"]) >= 4.5, ink
