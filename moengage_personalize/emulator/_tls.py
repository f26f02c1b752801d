"""A certificate authority made on the spot: TLS is on from the first minute, and nothing is switched off.

`trustme` (extra `emulator`) makes the authority; its private key never leaves this process. Only the
certificate is written to a file, for clients to trust.
"""

import ssl
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import trustme


@attrs.frozen
class Authority:
    """One certificate authority and the server certificate that it signed."""

    _authority: "trustme.CA" = attrs.field(repr=False)
    _certificate: "trustme.LeafCert" = attrs.field(repr=False)

    @classmethod
    def make(cls, *hosts: str) -> "Authority":
        """Makes an authority and a certificate for these names and addresses, and for loopback.

        Raises:
            RuntimeError: The extra is not installed.
        """
        try:
            import trustme  # late: cryptography costs start-up time, and is an extra
        except ImportError as error:
            raise RuntimeError("TLS needs trustme: pip install 'moengage-personalize[emulator]'") from error
        authority = trustme.CA()
        anywhere = ("0.0.0.0", "::")  # noqa: S104 - names that no certificate can carry
        names = dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))
        return cls(authority, authority.issue_cert(*(name for name in names if name not in anywhere)))

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
