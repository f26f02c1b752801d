"""A certificate authority made on the spot: TLS is on from the first minute, and nothing is switched off.

`trustme` (extra `emulator`) makes the authority. Unless a file is named for it, its private key never
leaves this process; where one is, the key lies beside the certificate, readable by its owner alone, so
that a restart is still trusted by those who trusted it before.
"""

import os
import ssl
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import trustme


def _kept(trustme: ModuleType, path: Path | None) -> Any:
    """The authority in a file and the key beside it; a new one, kept there, if they are not."""
    if path is None:
        return trustme.CA()
    key = path.with_name(f"{path.name}.key")
    if path.exists() and key.exists():
        return trustme.CA.from_pem(path.read_bytes(), key.read_bytes())
    authority = trustme.CA()
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(authority.private_key_pem.bytes())
    path.write_bytes(authority.cert_pem.bytes())
    return authority


@attrs.frozen
class Authority:
    """One certificate authority and the server certificate that it signed."""

    _authority: "trustme.CA" = attrs.field(repr=False)
    _certificate: "trustme.LeafCert" = attrs.field(repr=False)

    @classmethod
    def make(cls, *hosts: str, kept: Path | None = None) -> "Authority":
        """Makes an authority and a certificate for these names and addresses, and for loopback.

        Args:
            hosts: What the server is called.
            kept: The file of a certificate that is used again if it is there, and written if it is not.

        Raises:
            RuntimeError: The extra is not installed.
        """
        try:
            import trustme  # late: cryptography costs start-up time, and is an extra
        except ImportError as error:
            raise RuntimeError("TLS needs trustme: pip install 'moengage-personalize[emulator]'") from error
        authority = _kept(trustme, kept)
        anywhere = ("0.0.0.0", "::")  # noqa: S104 - names that no certificate can carry
        names = dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))
        certificate = authority.issue_cert(*(name for name in names if name not in anywhere))
        return cls(authority, certificate)

    @property
    def pem(self) -> bytes:
        """The authority's certificate, for `SSL_CERT_FILE` or a client's context."""
        return self._authority.cert_pem.bytes()

    def server_context(self) -> ssl.SSLContext:
        """A context that serves HTTP/2 and HTTP/1.1 by ALPN."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this authority and no other."""
        return ssl.create_default_context(cadata=self.pem.decode())
