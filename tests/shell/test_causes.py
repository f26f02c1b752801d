"""What a failed connection says of its cause: enough to mend it, and nothing of the visitor, the key or the proxy."""

import socket
import ssl
from itertools import pairwise

import httpcore
import httpx
import pytest
from support.moengage import make_client

from moengage_personalize import AsyncPersonalizeClient, ConnectionFailedError
from moengage_personalize._cause import cause_of
from moengage_personalize.emulator import Emulator, serve

pytestmark = pytest.mark.anyio
NOT_ACCEPTED = "the server's certificate is not accepted here"
REMEDY = "(SSL_CERT_FILE, or ssl_context=, names other authorities)"


def chained(*errors):
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def verdict(message):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed for secret.example")
    error.verify_message = message
    return error


def handshake(reason):
    error = ssl.SSLError(1, "secret")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("secret"), "ConnectError"),
        (
            chained(httpx.ConnectError("secret"), ConnectionRefusedError(111, "secret")),
            "ConnectError: Connection refused",
        ),
        (
            chained(httpx.ConnectError("secret"), OSError("secret"), OSError("secret"), TimeoutError(110, "secret")),
            "ConnectError: Connection timed out",
        ),
        (
            chained(
                httpx.ConnectError("x"), OSError("x"), ExceptionGroup("secret", [OSError("x"), OSError(101, "secret")])
            ),
            "ConnectError: Network is unreachable",
        ),
        (
            chained(
                httpx.ConnectError("secret"), httpcore.ConnectError(OSError("secret")), TimeoutError(110, "secret")
            ),
            "ConnectError: Connection timed out",
        ),
        (
            chained(httpx.ConnectError("secret"), httpcore.ConnectError(ConnectionRefusedError(111, "secret"))),
            "ConnectError: Connection refused",
        ),
        (
            chained(httpx.ConnectError("secret"), socket.gaierror(-2, "secret")),
            "ConnectError: the host's name has no address, or nobody here can tell",
        ),
        (
            chained(httpx.ConnectError("secret"), verdict("certificate has expired")),
            f"ConnectError: {NOT_ACCEPTED}, certificate has expired {REMEDY}",
        ),
        (
            chained(httpx.ConnectError("x"), handshake("WRONG_VERSION_NUMBER")),
            "ConnectError: TLS failed, wrong version number",
        ),
        (chained(httpx.ConnectError("secret"), handshake(None)), "ConnectError: TLS failed"),
    ],
)
def test_the_end_of_the_chain_is_told_in_the_systems_words(error, said):
    assert cause_of(error) == said


def test_what_the_caller_was_handling_is_not_the_cause():
    error = httpx.ConnectError("secret")
    error.__context__ = FileNotFoundError(2, "secret")
    assert cause_of(error) == "ConnectError"


def test_a_chain_without_an_end_ends():
    error = httpx.ConnectError("secret")
    error.__cause__ = error
    assert cause_of(error) == "ConnectError"


async def test_the_page_is_told_why():
    def refused(request):
        raise chained(httpx.ConnectError("secret"), ConnectionRefusedError(111, "secret"))

    async with make_client(httpx.MockTransport(refused)) as client:
        page = await client.fetch("home-hero", customer_id="john@example.com", deadline=0.2)
    assert isinstance(page.error, ConnectionFailedError)
    assert str(page.error) == "the exchange failed: ConnectError: Connection refused"


@pytest.mark.real_loops
async def test_a_proxy_that_is_not_there_is_told_without_its_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = f"http://john:secret@127.0.0.1:{port}"
    async with AsyncPersonalizeClient("workspace", "key", "01", proxy=proxy) as client:
        page = await client.fetch("home-hero", deadline=10)
    assert str(page.error) == "the exchange failed: ConnectError: Connection refused"


@pytest.mark.real_loops
async def test_an_authority_that_is_not_trusted_is_named_as_the_cause(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with (
        serve(Emulator()) as server,
        AsyncPersonalizeClient("workspace", "key", base_url=server.base_url) as client,
    ):
        page = await client.fetch("home-hero", deadline=10)
    said = f"{NOT_ACCEPTED}, unable to get local issuer certificate {REMEDY}"
    assert str(page.error) == f"the exchange failed: ConnectError: {said}"
