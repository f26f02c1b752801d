"""The command line as a whole: what it needs, how it starts, how it ends."""

import errno
import os
import subprocess
import sys

import click
import pytest

from moengage_personalize import (
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidInputError,
    RateLimitedError,
    ServerError,
    UnexpectedStatusError,
    __version__,
)
from moengage_personalize.cli import _app, main
from moengage_personalize.cli._ending import status_of
from moengage_personalize.cli._output import printable
from moengage_personalize.spool import SpoolDirectoryError

COMMANDS = "doctor fetch metadata impression click replay spool codegen emulator".split()


def python(*arguments, **environment):
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_it_says_its_version(run):
    done = run("--version")
    assert (done.status, done.out) == (0, f"moengage-personalize {__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_command_it_says_where_to_start(arguments, run):
    done = run(*arguments)
    assert done.status == 0
    assert "moengage-personalize emulator" in done.out
    assert all(f"\n  {command} " in done.out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["fetch", "--nonsense"], ["spool", "nonsense"]])
def test_what_it_does_not_know_is_a_usage_error(arguments, run):
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Usage: moengage-personalize" in done.err


@pytest.mark.parametrize("command", [*COMMANDS, "spool ls", "spool show", "spool replay", "spool forget"])
def test_every_command_has_help(command, run):
    done = run(*command.split(), "--help")
    assert done.status == 0
    assert f"moengage-personalize {command}" in done.out


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "x"]])
def test_the_options_of_the_emulator_are_its_own(arguments, run):
    done = run("emulator", *arguments)
    assert done.status == (0 if arguments == ["--help"] else 2)
    assert "usage: moengage-personalize emulator" in done.out + done.err


def test_help_and_version_import_neither_httpx_nor_rich():
    code = (
        "import sys; from moengage_personalize.cli import main; main(sys.argv[1:]);"
        "print(*{'httpx', 'h2', 'rich', 'cattrs', 'anyio', 'asyncio'} & set(sys.modules), file=sys.stderr)"
    )
    for arguments in (["--version"], ["--help"], ["fetch", "--help"], ["doctor", "--help"], ["replay", "--help"]):
        loaded = set(python("-c", code, *arguments).stderr.split())
        assert loaded <= {"asyncio"}, arguments


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_names_the_extra(missing):
    code = (
        "import sys, importlib.util as u; find = u.find_spec;"
        f"u.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest);"
        f"sys.modules[{missing!r}] = None;"
        "from moengage_personalize.cli import main; sys.exit(main(['fetch', 'home-hero']))"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert done.stderr == f'moengage-personalize needs {missing}: pip install "moengage-personalize[cli]"\n'


def test_the_emulator_as_a_module_needs_no_click():
    code = (
        "import sys; sys.modules['click'] = None; import runpy; sys.argv = ['emulator', '--help'];"
        "runpy.run_module('moengage_personalize.emulator', run_name='__main__')"
    )
    assert python("-c", code).returncode == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("met", "metadata"), ("fetch --id", "--identity"), ("spool for", "forget"), ("metadata --status Pa", "Paused")],
)
def test_shells_complete_commands_options_and_choices(typed, offered):
    words = ["moengage-personalize", *typed.split()]
    done = python(
        "-c",
        "import sys; from moengage_personalize.cli import main; sys.exit(main([]))",
        _MOENGAGE_PERSONALIZE_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(words),
        COMP_CWORD=str(len(words) - 1),
    )
    assert offered in [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("no"), 2),
        (ConfigurationError("no"), 2),
        (AuthenticationError("no"), 2),
        (BadRequestError("no"), 2),
        (UnexpectedStatusError("no"), 2),
        (ConnectionFailedError("no"), 3),
        (DeadlineExceededError("no"), 3),
        (BadReplyError("no"), 3),
        (ServerError("no"), 3),
        (RateLimitedError("no"), 3),
        (SpoolDirectoryError("no"), 4),
        (FileNotFoundError(2, "No such file", "x"), 4),
        (KeyError("a bug"), 70),
    ],
)
def test_the_exit_status_says_whose_trouble_it_is(error, status, run, monkeypatch):
    assert status_of(error) == status

    @click.command("fetch")
    def failing():
        raise error

    monkeypatch.setattr(_app.Commands, "get_command", lambda *_: failing)
    done = run("fetch")
    assert (done.status, done.out) == (status, "")
    assert done.err.splitlines()[-1].startswith("moengage-personalize: ")
    of_the_set_up = isinstance(
        error, AuthenticationError | BadRequestError | UnexpectedStatusError | ConnectionFailedError
    )
    assert ("moengage-personalize doctor" in done.err) is of_the_set_up
    assert len(done.err.splitlines()) == 1 + of_the_set_up or status == 70


def test_a_warning_is_said_once(run, server):
    done = run("click", "home-hero", "--customer-id", "guest")
    assert done.status == 0
    (said,) = done.err.splitlines()
    assert said.startswith("moengage-personalize: warning: customer_id is a value that MoEngage reserves")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named_with_where_they_were_named(content, run, monkeypatch, tmp_path):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
        done = run("metadata", "--ca-file", path)
        assert (done.status, done.err) == (
            2,
            f"moengage-personalize: --ca-file names no file of certificates that can be read: {path}\n",
        )
    for name, value in {"WORKSPACE_ID": "w", "PERSONALIZE_API_KEY": "k", "DATA_CENTER": "01"}.items():
        monkeypatch.setenv(f"MOENGAGE_{name}", value)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    said = f"SSL_CERT_FILE names no file of certificates that can be read: {path}"
    done = run("metadata")
    assert (done.status, done.err) == (2, f"moengage-personalize: {said}\n")
    examined = run("doctor", "--json").json()
    assert (examined["causes"], examined["steps"][0]["evidence"]) == (["configuration"], said)


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_an_interrupted_command_ends_with_130(error, run, monkeypatch):
    @click.command("fetch")
    def failing():
        raise error

    monkeypatch.setattr(_app.Commands, "get_command", lambda *_: failing)
    assert run("fetch").status == 130


def test_a_reader_who_leaves_is_no_error_of_ours(run, monkeypatch):
    @click.command("fetch")
    def failing():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(_app.Commands, "get_command", lambda *_: failing)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # click replaces it
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    assert "Traceback" not in run("fetch").err


def test_warnings_are_one_line(run, monkeypatch):
    import warnings

    @click.command("fetch")
    def warning():
        warnings.simplefilter("always")
        warnings.warn("of something", UserWarning, stacklevel=1)

    monkeypatch.setattr(_app.Commands, "get_command", lambda *_: warning)
    assert run("fetch").err == "moengage-personalize: warning: of something\n"


def test_nothing_that_is_printed_moves_a_cursor():
    assert printable("a\x1b[2Jb\tc\nd\x9be") == "a\N{REPLACEMENT CHARACTER}[2Jb c d\N{REPLACEMENT CHARACTER}e"
    assert printable({"é": "\x1b"}) == '{"é": "\\u001b"}'


def test_main_returns_a_status_and_never_raises():
    assert main(["--version"]) == 0
