"""pytest-asyncio sets a fixture up in one task and tears it down in another."""

import asyncio

import pytest
import pytest_asyncio
from support.moengage import CONTEXT, MoEngage, make_client

tasks = []


@pytest_asyncio.fixture
async def moengage():
    scripted = MoEngage()
    yield scripted
    assert len(scripted.actions) == 1, "leaving delivered what was pending"


@pytest_asyncio.fixture
async def client(moengage):
    tasks.append(asyncio.current_task())
    async with make_client(moengage) as client:
        yield client
        tasks.append(asyncio.current_task())
        assert tasks[0] is not tasks[-1] or len(set(tasks)) > 1


@pytest.mark.asyncio
async def test_a_client_lives_in_a_fixture(client):
    tasks.append(asyncio.current_task())
    assert (await client.fetch("hero"))["hero"].matched
    client.track_impression(CONTEXT, customer_id="john")
