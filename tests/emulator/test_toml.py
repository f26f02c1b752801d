"""Experiences and scenarios from TOML: what may be said, and how mistakes are answered."""

import os
import tomllib
from pathlib import Path

import pytest
from emulator.kit import emulator, served
from hypothesis import given, strategies as st

from moengage_personalize.emulator import Catalogue, load_catalogue
from moengage_personalize.emulator._places import line_of, places
from moengage_personalize.emulator._reload import Reloader
from moengage_personalize.emulator._toml import catalogue_of, demo_catalogue, load_scenario, scenario_of, trouble_of

MISTAKES = """
global_control_group = 0.2
nonsense = 1

[[network]]
cidr = "1.2.3.4/99"
country = "IN"

[[experience]]
key = "abc"
status = "active"

[[experience]]
key = "abcdef"
name = "Fine name"

  [[experience.audience]]
  when = { dayz = 1 }
    [[experience.audience.variation]]
    payload.X = { value = 1, data_type = "money" }

  [[experience.audience]]
    [[experience.audience.variation]]
    weight = "heavy"
    payload.Text = \"\"\"
[[experience]]
key = "in a string"
\"\"\"

  [[experience.audience]]
  when = { days = ["Sunday", "Sundy"] }
    [[experience.audience.variation]]
    weight = 0
    payload = {}
"""


def complaints(text):
    with pytest.raises(ValueError, match=r"^x\.toml:") as caught:
        catalogue_of(text, "x.toml")
    return str(caught.value).split("\n")


def test_every_mistake_is_named_with_its_line_and_its_path():
    assert complaints(MISTAKES) == [
        "x.toml:3: nonsense: there is no such setting",
        "x.toml:6: network[0].cidr: '1.2.3.4/99' does not appear to be an IPv4 or IPv6 network",
        "x.toml:9: experience[0].audience: is missing",
        "x.toml:11: experience[0].status: 'active' is none of Active, Paused, Scheduled",
        "x.toml:18: experience[1].audience[0].when.dayz: there is no such setting",
        (
            "x.toml:20: experience[1].audience[0].variation[0].payload.X: data_type 'money' is none of "
            "string, number, boolean, json, float"
        ),
        "x.toml:24: experience[1].audience[1].variation[0].weight: must be a number, is 'heavy'",
        (
            "x.toml:31: experience[1].audience[2].when.days: 'Sundy' is none of "
            "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
        ),
        "x.toml:33: experience[1].audience[2].variation[0].weight: must be above 0, is 0.0",
    ]


ONE = """[[experience]]
key = "{key}"
[[experience.audience]]
[[experience.audience.variation]]
payload.Title = "Hi"
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = ", "x.toml:1: Invalid value"),
        ("a = 1\na = 2", "x.toml:2: Cannot overwrite a value"),
        (ONE.format(key="abcd"), "x.toml:2: experience[0].key: must have 5 to 50 characters, has 4"),
        (ONE.format(key="a" * 51), "x.toml:2: experience[0].key: must have 5 to 50 characters, has 51"),
        (ONE.format(key="twice") * 2, "x.toml:7: experience[1].key: 'twice' is another experience's key"),
        ("global_control_group = 2", "x.toml:1: global_control_group: must be a share between 0 and 1, is 2.0"),
        ("experience = 5", "x.toml:1: experience: is of the wrong type"),
        ("[[profile]]\ncustomer_id = 5", "x.toml:2: profile[0].customer_id: must be text, is 5"),
        (
            ONE.format(key="abcde") + "[[experience.audience.variation]]\npayload = {}\n" * 5,
            "x.toml:3: experience[0].audience[0].variation: needs 1 to 5 variations, has 6",
        ),
        (
            ONE.format(key="abcde") + "[[experience.audience]]\nvariation=[{payload={}}]\n" * 10,
            "x.toml:1: experience[0].audience: needs 1 to 10 audiences, has 11",
        ),
        (
            ONE.format(key="abcde") + "[[experience]]\nkey='other'\nname='abcd'\naudience=[{variation=[{payload={}}]}]",
            "x.toml:8: experience[1].name: must have 5 to 256 characters, has 4",
        ),
    ],
)
def test_a_mistake_is_named(text, complaint):
    assert complaints(text)[0].startswith(complaint)


def test_the_demo_uses_everything_that_there_is():
    demo = demo_catalogue()
    assert {experience.status for experience in demo} == {"Active", "Paused", "Scheduled"}
    conditions = [audience.when for experience in demo for audience in experience.audiences]
    for criterion in ("profile", "attributes", "days", "hours", "devices", "countries"):
        assert any(getattr(when, criterion) for when in conditions), criterion
    types = {
        value.data_type
        for experience in demo
        for audience in experience.audiences
        for variation in audience.variations
        for value in variation.payload.values()
    }
    assert types == {"string", "number", "boolean", "json", "float"}
    assert demo.profiles
    assert demo.networks


def test_a_file_says_what_a_catalogue_is(tmp_path):
    path = tmp_path / "experiences.toml"
    path.write_text(ONE.format(key="home-hero"))
    assert served(emulator(path), {})["home-hero"]["payload"]["Title"]["value"] == "Hi"


# Live reload ------------------------------------------------------------------------------


def touch(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_an_edit_is_picked_up_and_a_mistake_changes_nothing(tmp_path):
    path = tmp_path / "experiences.toml"
    path.write_text(ONE.format(key="first"))
    emu = emulator(load_catalogue(path))
    reloader = Reloader(emu, path)
    assert reloader.look() is None

    touch(path, ONE.format(key="second"))
    assert reloader.look() == f"{path}: 1 experiences"
    assert set(served(emu, {})) == {"second"}

    touch(path, ONE.format(key="bad"))
    assert f"{path}:2: experience[0].key" in reloader.look()
    assert emu.complaint.startswith(f"{path}:2: ")
    assert set(served(emu, {})) == {"second"}
    assert reloader.look() is None

    path.unlink()
    assert reloader.look() is None
    path.write_text(ONE.format(key="third"))
    assert reloader.look() == f"{path}: 1 experiences"
    assert emu.complaint is None
    assert set(served(emu, {})) == {"third"}


def test_profiles_survive_an_edit():
    emu = emulator()
    emu.profiles.update("asha@example.com", {"tier": "gold"})
    emu.replace_experiences(Catalogue())
    assert emu.profiles["asha@example.com"] == {"tier": "gold"}


# Scenarios ------------------------------------------------------------------------------


def test_a_scenario_is_a_list_of_steps(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(
        """
        [[step]]
        name = "a slow morning"
        latency = 0.3
        sigma = 0.5
        duration = 10

        [[step]]
        after = 10
        outage = true
        duration = 10

        [[step]]
        after = 20
        endpoints = "events"
        status = 503
        retry_after = 2
        share = 0.5
        """
    )
    slow, outage, busy = load_scenario(path)
    assert (slow.latency, slow.sigma, slow.duration, slow.label) == (0.3, 0.5, 10, "a slow morning")
    assert (outage.after, outage.outage) == (10, True)
    assert (busy.endpoints, busy.status, busy.retry_after, busy.share) == (("events",), 503, 2, 0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[step]]\nstatus = 200", "s:2: step[0].status: must be between 400 and 599, is 200"),
        ("[[step]]\nafter = 1", "s:1: step[0]: a trouble must do something"),
        ("[[step]]\noutage = true\n[[step]]\noutcome = 'explode'", "s:4: step[1].outcome: 'explode' is none of hang"),
        ("[[step]]\nlatency = -1", "s:2: step[0].latency: must be 0 or more, is -1"),
        ("[[step]]\nhang = true", "s:2: step[0].hang: there is no such setting"),
        ("[[step]]\noutage = 'no'", "s:2: step[0].outage: must be true or false, is 'no'"),
        ("[[step]]\noutage = true\nendpoints = ['fetch', 'all']", "s:3: step[0].endpoints: must name some of fetch"),
    ],
)
def test_a_mistake_in_a_scenario_is_named(text, complaint):
    with pytest.raises(ValueError, match=r"^s:") as caught:
        scenario_of(text, "s")
    assert str(caught.value).startswith(complaint)


def test_a_wish_from_json_is_checked_in_the_same_way():
    with pytest.raises(ValueError, match=r"^share: must be a share"):
        trouble_of({"outage": True, "share": 2})


# Lines ------------------------------------------------------------------------------

TEXTS = st.text(alphabet="ab[]{}=#\"'\\\n,. ", max_size=60)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), TEXTS), max_size=6, unique_by=lambda pair: pair[0]))
def test_the_line_of_a_key_is_found_whatever_its_neighbours_hold(pairs):
    lines, expected = [], {}
    for name, text in pairs:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        expected[name] = sum(line.count("\n") + 1 for line in lines) + 1
        lines.append(f'{name} = """\n{quoted}"""  # [comment] = "')
    document = "\n".join(lines)
    assert set(tomllib.loads(document)) == set(expected)
    assert {path[0]: line for path, line in places(document).items()} == expected


def test_a_path_inside_an_inline_value_has_the_line_of_its_statement():
    found = places("a = 1\nb = [\n  { c = 1 },\n]\n\n[d.'e f']\ng.h = 2\n[[i]]\n[[i]]\n[i.j]\nk = 1")
    for path, line in {
        ("b", 0, "c"): 2,
        ("d", "e f"): 6,
        ("d", "e f", "g", "h"): 7,
        ("i", 1): 9,
        ("i", 1, "j", "k"): 11,
        ("nowhere",): 1,
    }.items():
        assert line_of(path, found) == line
