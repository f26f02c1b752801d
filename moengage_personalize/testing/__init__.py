"""For the tests of applications that use this package, and for development without MoEngage.

`FakePersonalize` plays MoEngage as a test has scripted it, and asserts what was shown and clicked; `FaultyTransport`
puts trouble between a client and its server; `offline_client` needs no server at all. With pytest, the fixtures
`personalize_fake`, `personalize_emulator`, `personalize_emulator_server` and `personalize_emulator_process` are there
without being imported. pytest itself is not needed here.
"""

from ._fake import FakePersonalize
from ._faults import FaultyTransport
from ._offline import OfflineClient, offline_client
from ._record import Asked, Tracked

__all__ = ["Asked", "FakePersonalize", "FaultyTransport", "OfflineClient", "Tracked", "offline_client"]
