"""The wheel alone, in an environment of its own: what it pulls, what importing it takes, and that the quickstart runs."""

import os
import subprocess
import venv
from pathlib import Path

import pytest
from docs.snippets import ROOT, snippets

pytestmark = pytest.mark.conformance
WHEELS = sorted((ROOT / "dist").glob("*.whl"))
FOUR = {"httpx", "attrs", "cattrs", "anyio"}
WHAT_THEY_NEED = {
    "httpcore",
    "h2",
    "hpack",
    "hyperframe",
    "h11",
    "certifi",
    "idna",
    "typing-extensions",
    "typing_extensions",
}
QUICKSTART = "from moengage_personalize import AsyncPersonalizeClient\n\n\nasync def main()"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with the wheel and nothing else."""
    if not WHEELS:
        pytest.skip("needs the wheel that `make` builds")
    home = tmp_path_factory.mktemp("alone")
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", WHEELS[-1]], check=True, timeout=240)
    return python


def run(python: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_pulls_the_four_packages_and_what_they_need(python):
    listed = run(python, "-m", "pip", "list", "--format=freeze").lower().split()
    found = {line.partition("==")[0] for line in listed} - {"pip", "setuptools", "wheel", "moengage-personalize"}
    assert found >= FOUR
    assert found - FOUR <= WHAT_THEY_NEED, sorted(found - FOUR - WHAT_THEY_NEED)


def test_it_runs_the_quickstart(python, personalize_emulator_process):
    (page,) = [each for each in snippets(ROOT / "docs/quickstart.md") if each.text.strip().startswith(QUICKSTART)]
    script = page.text.strip().replace("\nawait main()", "\nimport asyncio\nasyncio.run(main())")
    printed = run(python, "-c", script)
    assert "home-hero - matched" in printed
    assert "summer-sale - no match - our own title" in printed
    assert "delivered=1" in printed


def test_importing_it_and_making_a_client_takes_less_than_twice_what_importing_httpx_takes(python):
    # `make bench-import` has the number; this holds it in proportion on any machine
    measure = "import time, {}; begun = time.process_time(); {}; print(time.process_time() - begun)"
    ours = "from moengage_personalize import AsyncPersonalizeClient as C; C('WORKSPACE', 'key', '01')"
    code = {"httpx": measure.format("sys", "import httpx"), "ours": measure.format("httpx", ours)}
    least = {name: min(float(run(python, "-c", text)) for _ in range(9)) for name, text in code.items()}
    assert least["ours"] < 2 * least["httpx"]
