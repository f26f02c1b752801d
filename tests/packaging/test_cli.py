"""The command line's dispatcher."""

import pytest

from moengage_personalize import __version__
from moengage_personalize.cli import main


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"moengage-personalize {__version__}\n")


def test_without_a_command_it_says_where_to_start(capsys):
    assert main([]) == 0
    assert "moengage-personalize emulator" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"]])
def test_what_it_does_not_know_is_an_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: moengage-personalize" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "x"]])
def test_the_rest_of_the_arguments_is_the_emulators(arguments, capsys):
    with pytest.raises(SystemExit):
        main(["emulator", *arguments])
    said = capsys.readouterr()
    assert "usage: moengage-personalize emulator" in said.out + said.err
