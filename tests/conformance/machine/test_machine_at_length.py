"""The machine of `tests/shell/test_machine.py`, for a minute."""

import gc

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("support.client_machine")

from support.client_machine import ClientMachine, SpooledClientMachine  # noqa: E402 - after it is to be rewritten

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.filterwarnings("ignore:coroutine 'Pump._serve' was never awaited:RuntimeWarning"),
]

ClientMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=50)
SpooledClientMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestClientAtLength = ClientMachine.TestCase
TestClientWithASpoolAtLength = SpooledClientMachine.TestCase


@pytest.fixture(autouse=True)
def collected():
    """That warning comes when the collector does: in these tests, then, and in nobody else's."""
    yield
    gc.collect()
