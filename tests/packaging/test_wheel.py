"""What is shipped, and that it is what these tests run.

`make` builds the wheel, installs it and says in MOENGAGE_TEST_WHEEL where it lies. Without that there is nothing to see.
"""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import moengage_personalize

DIST = os.environ.get("MOENGAGE_TEST_WHEEL")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not DIST, reason="needs the wheel that `make test` builds")


@pytest.fixture(scope="module")
def wheel():
    (path,) = Path(DIST).glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_package_under_test_is_the_installed_one():
    assert Path(moengage_personalize.__file__).is_relative_to(sysconfig.get_path("purelib"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "moengage_personalize").rglob("*") if path.is_file())
    package = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert shipped == {
        *package,
        "_moengage_personalize_pytest.py",
    }  # the plugin: pytest imports it, and not the package
    assert {path.rpartition("/")[2] for path in shipped} >= {"py.typed", "demo.toml"}


def test_the_wheel_holds_its_licence_and_one_command(wheel):
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    (command,) = [point for point in entry_points(group="console_scripts") if point.name == "moengage-personalize"]
    assert command.value == "moengage_personalize.cli:main"


def test_its_version_is_the_packages(metadata):
    assert metadata["Version"] == moengage_personalize.__version__
    assert metadata["Requires-Python"] == ">=3.11"


def test_every_requirement_has_a_lower_bound_that_make_lowest_runs_with(metadata):
    bounds = subprocess.run(
        [sys.executable, ROOT / ".ci/lowest.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    named = {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in metadata.get_all("Requires-Dist")}
    assert {bound.partition("==")[0] for bound in bounds} == named
    assert "anyio==4.10" in bounds


PLUGIN = "_moengage_personalize_pytest"


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ([], {"passed": 1}),
        (["-p", PLUGIN], {"passed": 1}),  # named once more, it is loaded once
        (["-p", f"no:{PLUGIN}"], {"errors": 1}),
    ],
    ids=["as installed", "named twice", "unwanted"],
)
def test_pytest_has_its_fixtures_unless_it_is_told_otherwise(pytester, arguments, outcome):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile("def test_it(personalize_fake):\n    personalize_fake.assert_nothing_tracked()")
    pytester.runpytest_subprocess("-p", "no:schemathesis", "-p", "no:hypothesispytest", *arguments).assert_outcomes(
        **outcome
    )


def test_importing_the_package_needs_no_extra_and_is_lean():
    # What an extra brings, and what takes long to import, is loaded by those who use it.
    late = (
        "trustme cryptography uvloop fastapi starlette trio cattrs pytest"
        " moengage_personalize.emulator moengage_personalize.testing moengage_personalize.cli"
    ).split()
    code = (
        "import sys; from moengage_personalize import AsyncPersonalizeClient;"
        f" print(*[name for name in {late} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
