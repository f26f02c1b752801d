"""What the tests of the life cycle share: certificates, an emulator, and how long this machine stood still."""

import asyncio

import pytest
from faults.certificates import Certificates
from support.emulated import emulated, emulator  # noqa: F401


@pytest.fixture
def anyio_backend():
    """A test that must hold on uvloop too is marked `real_loops`."""
    return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates.create(tmp_path_factory.mktemp("certificates"))
