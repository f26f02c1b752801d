"""The pytest plugin, in pytest runs of its own: under each runner of asynchronous tests, and under none."""

import os
import re
import subprocess
import sys

import pytest

PLUGIN = "_moengage_personalize_pytest"
# starlette's own: it would rather have another library for its TestClient
STARLETTE = "ignore:Using `httpx` with `starlette.testclient`:Warning"
INI = f"""
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    {STARLETTE}
    ignore:Please use `import python_multipart`:PendingDeprecationWarning
"""
APPLICATION = """
from typing import Annotated
from contextlib import asynccontextmanager
from fastapi import Depends, FastAPI, Request
from moengage_personalize import AsyncPersonalizeClient

@asynccontextmanager
async def lifespan(app):
    async with AsyncPersonalizeClient() as app.state.personalize:
        yield

app = FastAPI(lifespan=lifespan)

def personalize(request: Request) -> AsyncPersonalizeClient:
    return request.app.state.personalize

@app.get("/")
async def home(client: Annotated[AsyncPersonalizeClient, Depends(personalize)]):
    hero = (await client.fetch("home-hero", customer_id="john", deadline=0.4))["home-hero"]
    client.track_impression(hero, customer_id="john")
    return {"title": hero.get("Title", default="Welcome"), "reason": hero.reason}

@app.get("/def")
def def_endpoint(client: Annotated[AsyncPersonalizeClient, Depends(personalize)]):
    client.track_impression({}, customer_id="john")
"""
ASYNC_TESTS = """
import asyncio
import pytest
from moengage_personalize import Reason

async def shown(fake):
    fake.serve("home-hero", {"Title": "Hi"})
    hero = (await fake.client.fetch("home-hero", customer_id="john"))["home-hero"]
    fake.client.track_impression(hero, customer_id="john")
    fake.assert_shown("home-hero", customer_id="john", times=1)
    fake.times_out(times=1)
    assert (await fake.client.fetch("home-hero", deadline=60))["home-hero"].reason is Reason.TIMEOUT

async def made(fake):
    fake.serve("home-hero", {"Title": "Hi"})
    async with fake.client_class() as client:
        assert (await client.fetch("home-hero"))["home-hero"].matched

async def emulated(emulator):
    import httpx
    from moengage_personalize import AsyncPersonalizeClient
    async with AsyncPersonalizeClient(
        emulator.workspace_id, emulator.api_key, "01", transport=httpx.ASGITransport(emulator.app)
    ) as client:
        hero = (await client.fetch("home-hero", customer_id="john"))["home-hero"]
        client.track_impression(hero, customer_id="john")
    assert emulator.ledger.counts.impressions == 1
"""


def run_pytest(pytester, *arguments):
    """Runs pytest in a process of its own, with the plugins that matter here: it starts in half a second."""
    plugins = [PLUGIN, "anyio", "pytest_asyncio.plugin", "no:cacheprovider"]
    return pytester.runpytest_subprocess(*(part for plugin in plugins for part in ("-p", plugin)), *arguments)


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a test file as a user would."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini(INI)

    def run(text, *arguments):
        pytester.makepyfile(text)
        return run_pytest(pytester, *arguments)

    return run


def test_loading_it_imports_nothing_of_ours(pytester):
    pytester.makepyfile(
        """
        import sys
        OURS = {"moengage_personalize", "httpx", "httpcore", "h2", "hpack", "anyio", "attrs", "attr", "cattrs", "asyncio"}
        def test_it(request):
            assert request.config.pluginmanager.has_plugin("_moengage_personalize_pytest")
            assert not OURS & sys.modules.keys()
        """
    )
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_its_fixtures_are_listed_with_what_they_are(run):
    listed = run("", "--fixtures").stdout.str()
    for name in ("fake", "emulator", "emulator_server", "emulator_process", "emulator_options", "emulator_arguments"):
        assert re.search(rf"^personalize_{name} -- .*\n    \w", listed, re.MULTILINE), name


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_it_works_under_anyio(run, backend):
    options = {"use_uvloop": backend == "uvloop"}
    text = f"""{ASYNC_TESTS}
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio", {options}

async def test_it(personalize_fake, anyio_backend):
    assert ("uvloop" in type(asyncio.get_running_loop()).__module__) is {options["use_uvloop"]}
    await shown(personalize_fake)

@pytest.fixture
async def client(personalize_fake):
    async with personalize_fake.client_class() as client:
        yield client

async def test_a_fixture(client, personalize_fake):
    await client.fetch("home-hero")
    assert len(personalize_fake.asked) == 1

async def test_the_class(personalize_fake):
    await made(personalize_fake)

async def test_the_emulator(personalize_emulator):
    await emulated(personalize_emulator)
"""
    run(text).assert_outcomes(passed=4)


def under_pytest_asyncio(scope):
    return f"""{ASYNC_TESTS}
import pytest_asyncio
pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

@pytest_asyncio.fixture(loop_scope="{scope}")
async def client(personalize_fake):
    async with personalize_fake.client_class() as client:
        yield client

async def test_it(personalize_fake):
    await shown(personalize_fake)

async def test_again(personalize_fake):
    personalize_fake.assert_nothing_tracked()
    await shown(personalize_fake)

async def test_a_fixture(client, personalize_fake):
    await client.fetch("home-hero")
    assert len(personalize_fake.asked) == 1

async def test_the_class(personalize_fake):
    await made(personalize_fake)

async def test_the_emulator(personalize_emulator):
    await emulated(personalize_emulator)
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_it_works_under_pytest_asyncio(run, pytester, mode):
    pytester.makepyfile(test_function=under_pytest_asyncio("function"), test_session=under_pytest_asyncio("session"))
    unmarked = """
async def test_without_a_mark(personalize_fake):
    assert not (await personalize_fake.client.fetch("home-hero"))["home-hero"].matched
"""
    more = {"strict": "", "auto": unmarked}[mode]
    run(more, "-o", f"asyncio_mode={mode}").assert_outcomes(passed=10 + bool(more))


def test_it_works_in_plain_tests_with_starlettes_client(run, pytester):
    pytester.makepyfile(shop=APPLICATION)
    run("""
import pytest
from fastapi.testclient import TestClient
from moengage_personalize import UsageError
from shop import app, personalize

@pytest.fixture(autouse=True)
def personalized(personalize_fake, monkeypatch):
    personalize_fake.serve("home-hero", {"Title": "Hello John"}, customer_id="john")
    monkeypatch.setattr("shop.AsyncPersonalizeClient", personalize_fake.client_class)

@pytest.fixture
def overridden(personalize_fake):
    app.dependency_overrides[personalize] = lambda: personalize_fake.client
    yield
    app.dependency_overrides.clear()

def check(browser, fake):
    assert browser.get("/").json()["title"] == "Hello John"
    fake.times_out("home-hero", times=1)
    assert browser.get("/").json() == {"title": "Welcome", "reason": "timeout"}
    assert browser.get("/").json()["title"] == "Hello John"
    fake.assert_shown("home-hero", customer_id="john", times=2)

def test_overridden_without_lifespan(overridden, personalize_fake):
    check(TestClient(app), personalize_fake)

def test_overridden_with_lifespan(overridden, personalize_fake):
    with TestClient(app) as browser:
        check(browser, personalize_fake)

def test_an_application_that_makes_its_own(personalize_fake):
    with TestClient(app) as browser:
        check(browser, personalize_fake)

def test_a_def_endpoint_is_told_what_to_do_in_the_test_already(overridden, personalize_fake):
    with pytest.raises(UsageError, match="from_thread"):
        TestClient(app).get("/def")
""").assert_outcomes(passed=4)


def test_the_failure_of_an_assertion_is_short_and_points_at_the_test(run):
    result = run("def test_it(personalize_fake):\n    personalize_fake.assert_shown('home-hero')\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *AssertionError: expected at least once, found 0 times: impression of 'home-hero'"])
    assert "_record.py" not in result.stdout.str()


def test_the_emulator_as_a_server_is_where_the_environment_leads(run):
    run("""
import asyncio
import pytest
from moengage_personalize import AsyncPersonalizeClient

@pytest.fixture
def personalize_emulator_options():
    return {"experiences": {"home-hero": {"Title": "Ours"}}}

async def visit():
    async with AsyncPersonalizeClient() as client:
        hero = (await client.fetch("home-hero", customer_id="john", deadline=30))["home-hero"]
        client.track_impression(hero, customer_id="john")
    return hero

def test_it(personalize_emulator, personalize_emulator_server):
    assert asyncio.run(visit()).get("Title") == "Ours"
    assert personalize_emulator.ledger.counts.impressions == 1

def test_the_environment_is_put_back():
    with pytest.raises(ValueError, match="MOENGAGE_WORKSPACE_ID"):
        AsyncPersonalizeClient()
""").assert_outcomes(passed=2)


@pytest.mark.conformance
def test_the_emulator_as_a_process_is_where_the_environment_leads(run):
    run("""
import asyncio
import pytest
from moengage_personalize import AsyncPersonalizeClient

@pytest.fixture
def personalize_emulator_arguments():
    return ("--workspace-id", "OURS")

async def visit():
    async with AsyncPersonalizeClient() as client:
        hero = (await client.fetch("home-hero", customer_id="john", deadline=30))["home-hero"]
        client.track_impression(hero, customer_id="john")

def test_it(personalize_emulator_process):
    asyncio.run(visit())
    assert personalize_emulator_process.counts()["impressions"] == 1
""").assert_outcomes(passed=1)
