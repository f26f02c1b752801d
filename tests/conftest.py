"""Backends and Hypothesis profiles for all tests."""

import asyncio
import os

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from support.clock import JumpingLoop

# The second as an installed wheel brings it; named here for those who run the tests against the sources.
pytest_plugins = ["pytester", "_moengage_personalize_pytest"]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

REAL = [
    pytest.param(("asyncio", {"loop_factory": asyncio.SelectorEventLoop}), id="asyncio"),
    pytest.param(("asyncio", {"loop_factory": uvloop.new_event_loop}), id="uvloop"),
]


@pytest.fixture
def anyio_backend():
    """Tests without sockets run on a clock that jumps."""
    return "asyncio", {"loop_factory": JumpingLoop}


def pytest_generate_tests(metafunc):
    """A module, class or test marked `real_loops` runs on asyncio and on uvloop, on the wall clock."""
    if "anyio_backend" in metafunc.fixturenames and metafunc.definition.get_closest_marker("real_loops"):
        metafunc.parametrize("anyio_backend", REAL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CI promises that everything is installed, a test that would be skipped has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("MOENGAGE_REQUIRE_CONFORMANCE") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and MOENGAGE_REQUIRE_CONFORMANCE=1 promises that it can run: {report.longrepr}"
    return report
