"""docs/testing.md is a test suite: its blocks are files, and pytest passes them."""

import os
import re
import sys

import pytest
from docs.snippets import ROOT, snippets
from testkit.test_plugin import INI, run_pytest

from moengage_personalize import testing
from moengage_personalize.testing import FakePersonalize

PAGE = ROOT / "docs/testing.md"


def test_its_files_are_a_suite_that_passes(pytester, monkeypatch):
    pytester.makeini(INI)
    tests = 0
    for snippet in snippets(PAGE):
        name, text = re.fullmatch(r"# (\w+\.py)\n(.*)", snippet.text.strip(), re.DOTALL).groups()
        (pytester.path / name).write_text(text + "\n")
        tests += text.count("def test_")
    assert tests > 12
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), *sys.path]))
    run_pytest(pytester).assert_outcomes(passed=tests + 1)  # one of them has two parameters


def test_every_method_and_every_name_is_told_of():
    text = PAGE.read_text()
    names = [name for name in vars(FakePersonalize) if not name.startswith("_")]
    untold = {"close"}  # by `with`, and by the fixture
    assert {name for name in names if not re.search(rf"`(personalize_fake\.)?{name}\b", text)} == untold
    assert {name for name in testing.__all__ if name not in text} == {"Asked", "OfflineClient"}


@pytest.mark.parametrize("name", ["emulator", "fastapi", "spool", "starlette", "testing"])
def test_the_modules_that_are_called_public_are_named(name):
    assert f"`{name}`" in (ROOT / "docs/versioning.md").read_text()
