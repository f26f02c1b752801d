"""The connection's control channel, kept by h2: preface, SETTINGS, PING, our GOAWAY, HPACK's table sizes.

h2 sees nothing else (`_machine` says why), so its own stream and window bookkeeping stays empty. It is
given our encoder and decoder in place of its own, and resizes them as SETTINGS and their acknowledgements
demand.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import PingAckReceived, RemoteSettingsChanged, SettingsAcknowledged
from h2.settings import SettingCodes, Settings

from ._frames import MAX_FRAME_SIZE, frame
from ._headers import MAX_HEADER_LIST, RememberingDecoder, RememberingEncoder

UNLIMITED: Final = 2**31


@frozen
class PeerSettings:
    """What the peer's SETTINGS changed; None: not mentioned."""

    streams: int | None = None
    initial_window: int | None = None


@frozen
class SettingsTaken:
    """The peer acknowledged our SETTINGS."""


@frozen
class Pong:
    """The peer answered a PING of ours."""

    payload: bytes


class ControlChannel:
    """Frames of stream 0 in, news and bytes out.

    Args:
        stream_window: Bytes of DATA that a response may have without further credit.
    """

    def __init__(self, stream_window: int) -> None:
        self.encoder = RememberingEncoder()
        self.decoder = RememberingDecoder()
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.encoder = self.encoder
        self._h2.decoder = self.decoder
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_SIZE,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            },
        )

    def preface(self) -> bytes:
        """What a client says first: the preface and its SETTINGS."""
        self._h2.initiate_connection()
        return self._h2.data_to_send()

    def receive(
        self, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> tuple[list[PeerSettings | SettingsTaken | Pong], bytes]:
        """Take a SETTINGS or PING frame; returns what it says, and the answer to send.

        Raises:
            h2.exceptions.ProtocolError: it breaks the protocol; `error_code` says how.
        """
        news: list[PeerSettings | SettingsTaken | Pong] = []
        for event in self._h2.receive_data(frame(kind, flags, stream_id, payload)):
            match event:
                case RemoteSettingsChanged(changed_settings=changed):
                    streams = changed.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                    window = changed.get(SettingCodes.INITIAL_WINDOW_SIZE)
                    news.append(
                        PeerSettings(
                            streams.new_value if streams is not None else None,
                            window.new_value if window is not None else None,
                        )
                    )
                case SettingsAcknowledged():
                    news.append(SettingsTaken())
                case PingAckReceived(ping_data=data):
                    news.append(Pong(data))
        return news, self._h2.data_to_send()

    def ping(self, payload: bytes) -> bytes:
        """A PING with these eight bytes."""
        self._h2.ping(payload)
        return self._h2.data_to_send()

    def goodbye(self, error_code: ErrorCodes) -> bytes:
        """A GOAWAY: we take no streams from the peer anyway, so its last id is 0."""
        self._h2.clear_outbound_data_buffer()
        self._h2.close_connection(error_code)
        return self._h2.data_to_send()
