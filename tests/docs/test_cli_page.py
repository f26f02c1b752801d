"""What docs/cli.md says of the command line is so."""

import re
import signal

import click
import pytest
from docs.snippets import ROOT

from moengage_personalize.cli import _diagnosis, _ending, _lines
from moengage_personalize.cli._app import app

TEXT = (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def commands(command=app, name=""):
    yield name, command
    if isinstance(command, click.Group):
        for each in command.list_commands(click.Context(command)):
            yield from commands(command.get_command(click.Context(command), each), each)


@pytest.mark.parametrize("name", [name for name, _ in commands() if name])
def test_every_command_stands_in_it(name):
    assert f"`{name}`" in TEXT


def test_every_option_that_it_names_exists():
    own = {name for _, command in commands() for option in command.params for name in option.opts}
    foreign = {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= own | foreign


def test_every_cause_stands_in_its_table():
    modules = ("_diagnosis", "_way_there", "_doctor")
    source = "".join((ROOT / f"moengage_personalize/cli/{name}.py").read_text() for name in modules)
    causes = set(re.findall(r'cause(?:=|, trouble = "[^"]*", )"([a-z0-9-]+)"', source)) | {"wrong-base-url"}
    section = TEXT.partition("## doctor")[2].partition("\n## ")[0]
    assert causes == set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.MULTILINE))
    assert _diagnosis.SKEW == 10.0
    assert "10 seconds" in section


def test_every_exit_code_stands_in_its_table():
    section = TEXT.partition("## Exit codes")[2].partition("\n## ")[0]
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in row.split(",")}
    names = "OK NEGATIVE USAGE TROUBLE LOCAL BUG INTERRUPTED".split()
    assert told == {getattr(_ending, name) for name in names} | {128 + signal.SIGTERM}


def test_every_member_of_a_line_stands_in_its_table():
    section = TEXT.partition("## replay")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == _lines._MEMBERS
