"""TLS without I/O: bytes of the socket in, bytes of HTTP/2 out, and the other way round.

The invariant: `seal` refuses before the handshake is complete, certificate and host name verified, so not
one byte of a request can leave before. One party alone writes to the socket, whatever the session wants to
say by itself (key updates, alerts) goes out in order with the rest.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

_READ: Final = 65_536


class TlsPipe:
    """One client session over a byte stream.

    Args:
        context: Verification and versions; ALPN is set on it here.
        server_name: What the certificate must be for.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.established = False

    @property
    def protocol(self) -> str | None:
        """What ALPN agreed upon."""
        return self._session.selected_alpn_protocol()

    def open(self, data: bytes) -> bytes | None:
        """Take bytes from the socket; returns what they say, or None if the peer ended the session.

        Raises:
            ssl.SSLError: the handshake failed, or the session is broken.
        """
        self._incoming.write(data)
        if not self.established:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            self.established = True
        chunks = []
        try:
            while chunk := self._session.read(_READ):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return b"".join(chunks) or None

    def seal(self, data: bytes) -> bytes:
        """Encrypt. Returns all that is to be written now, the session's own messages included."""
        view = memoryview(data)
        while view:
            view = view[self._session.write(view) :]
        return self._outgoing.read()

    def end(self) -> bytes:
        """Say goodbye, without waiting for the answer."""
        with suppress(ssl.SSLError):  # it wants the peer's goodbye, or there is no session to end
            self._session.unwrap()
        return self._outgoing.read()
