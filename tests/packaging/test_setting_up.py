"""Setting up on a machine that has not what is needed says what is."""

import subprocess

import pytest
from docs.snippets import ROOT


@pytest.fixture
def old_machine(tmp_path):
    """A PATH on which every Python is too old."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ["python3", "python3.13"]:
        (commands / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 || exit 1\n')
        (commands / name).chmod(0o755)
    for name in ["cat", "rm"]:
        (commands / name).symlink_to(f"/bin/{name}")
    return {"PATH": str(commands)}


def test_a_python_that_is_too_old_is_told_what_is_needed(old_machine, tmp_path):
    done = subprocess.run(
        ["/bin/sh", ROOT / ".ci/venv", tmp_path / "venv"], env=old_machine, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or later, and found none: `python3` is Python 3.9.2" in done.stderr
    assert "apt-get install python3.11 python3.11-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_one_that_is_named_is_the_only_one_tried(old_machine, tmp_path):
    done = subprocess.run(
        ["/bin/sh", ROOT / ".ci/venv", tmp_path / "venv"],
        env={**old_machine, "PYTHON": "python-of-mine"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "`python-of-mine` is" in done.stderr
