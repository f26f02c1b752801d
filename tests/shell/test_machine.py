"""The whole client against a model: see `support.client_machine`."""

import gc

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("support.client_machine")

from support.client_machine import ClientMachine, SpooledClientMachine  # noqa: E402 - after it is to be rewritten

pytestmark = pytest.mark.filterwarnings(  # anyio's, when a task is cancelled before its first step
    "ignore:coroutine 'Pump._serve' was never awaited:RuntimeWarning"
)

ClientMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
SpooledClientMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
TestClient = ClientMachine.TestCase
TestClientWithASpool = SpooledClientMachine.TestCase


@pytest.fixture(autouse=True)
def collected():
    """That warning comes when the collector does: in these tests, then, and in nobody else's."""
    yield
    gc.collect()
