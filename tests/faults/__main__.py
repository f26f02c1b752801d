"""`python -m faults CONFIG`: the fault server alone, for `FaultServerProcess`."""

from __future__ import annotations

import json
import sys

from faults.server import ServerConfig, serve

raw = json.loads(sys.argv[1])
serve(ServerConfig(**raw | {"alpn": tuple(raw["alpn"])}))
