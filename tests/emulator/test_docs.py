"""What docs/emulator.md says is so: its tests exist, its files are read, its options are the command's."""

import re
import socket
from pathlib import Path

import attrs
import pytest

from moengage_personalize.emulator import Trouble
from moengage_personalize.emulator._main import _arguments, main
from moengage_personalize.emulator._toml import catalogue_of, scenario_of

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "docs" / "emulator.md").read_text("utf-8")


def test_every_rule_names_tests_that_there_are():
    there = {
        name
        for path in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = re.findall(r"^\| .* \| [DXIU, ]+ \| (.+) \|$", TEXT, re.MULTILINE)
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= there, set(named) - there


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_its_toml_is_read():
    experiences, scenario = blocks("toml")
    (experience,) = catalogue_of(experiences)
    assert [len(audience.variations) for audience in experience.audiences] == [2, 1]
    assert [step.label for step in scenario_of(scenario)] == ["a slow morning", "outage", "status 429"]


@pytest.mark.parametrize("number", range(2))
def test_its_python_compiles(number):
    compile(blocks("python")[number], "docs/emulator.md", "exec")


def test_its_options_are_those_of_the_command():
    options = {name for action in _arguments()._actions for name in action.option_strings if name.startswith("--")}
    told = set(re.findall(r"^\| (`--.*?) \|", TEXT, re.MULTILINE))
    assert set(re.findall(r"--[\w-]+", " ".join(told))) == options - {"--help"}


def test_its_fields_are_those_of_trouble():
    section = TEXT.partition("## Trouble")[2].partition("A scenario is")[0]
    told = {
        name for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert told == {field.name for field in attrs.fields(Trouble)}


@pytest.mark.parametrize("option", ["--port", "--page-port"])
def test_a_port_that_is_taken_is_told_with_the_way_out(option, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        others = {"--port": "0", "--page-port": "0", option: str(taken.getsockname()[1])}
        assert main([word for pair in others.items() for word in pair]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "already in use" in said
    assert said.endswith("; is another one running? --port 0 and --page-port 0 take free ports")
