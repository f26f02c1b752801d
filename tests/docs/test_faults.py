"""What docs/faults.md says is shown by a test is shown by a test that exists, and it knows every word of ours."""

import ast
import re

import pytest
from docs.snippets import ROOT

from moengage_personalize import DropReason, Reason

TEXT = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
COLUMNS = ["what happened", "fetch", r"track_\*", "tried again", "kept", "shown by"]
UNSHOWN = {"SIGKILL, a crash, without one"}  # a promise of nothing: there is nothing that could fail
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith("|---")
]
FAULTS = [row for row in ROWS if row != COLUMNS]


def names_by_file():
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        found[path.relative_to(ROOT).as_posix()] = {name for name in names if name.startswith("test_")}
    return found


def is_there(shown, found):
    """Whether it is a test's name, a file, or `file::name`."""
    file, _, name = shown.rpartition("::")
    if file:
        return name in found.get(file, ())
    return shown in found or any(shown in names for names in found.values())


def test_every_row_has_every_column():
    assert len(FAULTS) > 50
    assert [row[0] for row in FAULTS if len(row) != len(COLUMNS)] == []


def test_every_test_that_it_names_exists():
    found = names_by_file()
    shown = {name for row in FAULTS for name in re.findall(r"`([^`]+)`", row[-1])}
    assert {name for name in shown if not is_there(name, found)} == set()


def test_every_row_is_shown_by_a_test():
    assert {row[0] for row in FAULTS if not row[-1]} == UNSHOWN


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_stands_in_it(reason):
    assert any(f"`{reason.value}`" in row[1] for row in FAULTS)


@pytest.mark.parametrize("reason", DropReason)
def test_every_reason_for_a_loss_stands_in_it(reason):
    assert any(f"dropped as `{reason.value}`" in row[4] for row in FAULTS)
