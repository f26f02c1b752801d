"""A certificate authority made on the spot: one certificate that a client must accept, and the ones that it
must refuse.
"""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import attrs
import trustme

HOST = "localhost"


@attrs.frozen
class Certificates:
    """PEM files in one directory, so that servers in other processes and languages can read them."""

    directory: Path

    @classmethod
    def create(cls, directory: Path) -> Certificates:
        """Issue everything once: key generation is the slow part of a test run."""
        authority, stranger = trustme.CA(), trustme.CA()
        yesterday = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=1)
        issued = {
            "good": authority.issue_cert(HOST, "127.0.0.1"),
            "wrong_ca": stranger.issue_cert(HOST, "127.0.0.1"),
            "wrong_host": authority.issue_cert("elsewhere.test"),
            "expired": authority.issue_cert(HOST, not_before=yesterday - dt.timedelta(days=1), not_after=yesterday),
        }
        for name, leaf in issued.items():
            leaf.private_key_pem.write_to_path(str(directory / f"{name}.key"))
            for number, blob in enumerate(leaf.cert_chain_pems):
                blob.write_to_path(str(directory / f"{name}.pem"), append=number > 0)
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        return cls(directory)

    @property
    def authority(self) -> Path:
        """What a client of these servers trusts."""
        return self.directory / "ca.pem"

    def chain(self, kind: str = "good") -> Path:
        return self.directory / f"{kind}.pem"

    def key(self, kind: str = "good") -> Path:
        return self.directory / f"{kind}.key"

    def client_context(self) -> ssl.SSLContext:
        """A fresh context each time: a transport sets ALPN on the one that it is given."""
        return ssl.create_default_context(cafile=str(self.authority))
