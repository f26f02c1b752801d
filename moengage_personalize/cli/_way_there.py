"""What came of connecting, judged: address, connection, TLS, HTTP/2. Without I/O.

Invariant: the steps before the one that failed are ok, those after it are unknown.
"""

from __future__ import annotations

from typing import Literal

import attrs

from ._diagnosis import SKEW, Finding, skewed, skipped


@attrs.frozen(kw_only=True)
class Handshake:
    """What came of connecting.

    Attributes:
        stage: How far it went.
        error: What stopped it.
        code: OpenSSL's number of a certificate's fault.
        protocol: What ALPN agreed upon.
        tls: The version of TLS.
        skew: Seconds that this machine's clock is ahead of the server's, if an unverified answer told.
    """

    stage: Literal["address", "connection", "tls", "done"]
    error: str = ""
    code: int | None = None
    protocol: str | None = None
    tls: str | None = None
    skew: float | None = None


def way_there(host: str, found: Handshake) -> list[Finding]:
    """Judges address, connection, TLS and HTTP/2."""
    steps = ["address", "connection", "tls", "http2"]
    reached = steps.index("http2" if found.stage == "done" else found.stage)
    findings = [Finding(step=step, verdict="ok", evidence=_FINE[step].format(host)) for step in steps[:reached]]
    match found.stage:
        case "address":
            findings.append(
                _unreachable("address", found, f"Does {host} exist? Check the data centre or base URL, DNS.")
            )
        case "connection":
            findings.append(_unreachable("connection", found, "Check firewalls, port and base URL."))
        case "tls":
            findings.append(_broken_tls(found))
        case "done" if found.protocol == "h2":
            findings.append(Finding(step="http2", verdict="ok", evidence=f"ALPN chose h2, over {found.tls}"))
        case "done":
            chosen = found.protocol or "nothing"
            remedy = (
                "Something between here and MoEngage (a gateway, a proxy that opens TLS) does not speak HTTP/2. The"
                " client falls back to HTTP/1.1, which works, with a connection for each request at a time."
            )
            said = f"h2 was offered, ALPN chose {chosen}"
            findings.append(Finding(step="http2", verdict="wrong", evidence=said, remedy=remedy, cause="no-http2"))
    return [*findings, *skipped(steps[len(findings) :])]


_FINE = {
    "address": "{} has an address",
    "connection": "{} takes connections",
    "tls": "the certificate of {} is valid, and from an authority that is trusted here",
}

_LAX = range(80, 95)  # OpenSSL's, of what only X509_V_FLAG_X509_STRICT asks


def _unreachable(step: str, found: Handshake, remedy: str) -> Finding:
    return Finding(step=step, verdict="wrong", evidence=found.error, remedy=remedy, cause="unreachable")


def _broken_tls(found: Handshake) -> Finding:
    match found.code:
        case 9 | 10 if found.skew is not None and abs(found.skew) > SKEW:
            return Finding(
                step="tls",
                verdict="wrong",
                evidence=f"{found.error}; this machine's clock is {skewed(found.skew)}",
                remedy="Set this machine's clock; certificates are judged by it.",
                cause="clock-skewed",
            )
        case 9 | 10:
            remedy = "The server's certificate is out of date, or this machine's clock is wrong."
        case 18 | 19 | 20 | 21:
            remedy = (
                "The authority is not trusted here. A private one (a gateway's, the emulator's) is named by"
                " SSL_CERT_FILE or --ca-file; for MoEngage itself, somebody opens the connection on the way."
            )
        case code if code in _LAX:
            remedy = (
                "A certificate is not made as RFC 5280 has it, which Python minds from 3.13 on. Have it issued anew, or"
                " pass the client an ssl_context without ssl.VERIFY_X509_STRICT."
            )
        case 62 | 64:
            remedy = "The certificate is another server's: check the base URL, and who answers there."
        case _:
            remedy = (
                "What answers there does not speak TLS 1.2 or newer as it should: check base URL, port and gateways."
            )
    return Finding(step="tls", verdict="wrong", evidence=found.error, remedy=remedy, cause="broken-tls")
