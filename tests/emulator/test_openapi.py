"""The OpenAPI description that the emulator serves, and the emulator, hold each other to it."""

import json

import pytest
from emulator.kit import authorization

from moengage_personalize.emulator import Emulator
from moengage_personalize.emulator._control import control
from moengage_personalize.emulator._messages import Request

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

pytestmark = pytest.mark.conformance

_emulator = Emulator(rate_limit=None)
_description = json.loads(control(_emulator, Request(method="GET", path="/_emulator/openapi.json")).body)
# A body that is too large is refused before it is looked at.
_checks = {
    "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 415]},
    "positive_data_acceptance": {"expected-statuses": [200, 401, 404, 413]},
}
_config = schemathesis.Config.from_dict({"seed": 1, "checks": _checks})
_schema = schemathesis.openapi.from_dict(_description, config=_config)
_schema.app = _emulator.app
_credentials = {name.decode(): value.decode() for name, value in authorization().items()}


@_schema.auth()
class Credentials:
    def get(self, case, context):
        return _credentials["authorization"]

    def set(self, case, data, context):
        case.headers["Authorization"] = data
        case.headers["MOE-APPKEY"] = _credentials["moe-appkey"]


@_schema.parametrize()
@hypothesis.settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_whatever_the_description_allows_is_accepted_and_whatever_it_forbids_is_refused(case):
    # unknown query parameters are ignored, so nothing that metadata is asked can be wrong
    from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection

    # its invented credentials have a workspace that nobody knows, which is a 400; tests/emulator/test_access.py has keys
    lenient = [ignored_auth, negative_data_rejection] if case.method == "GET" else [ignored_auth]
    case.call_and_validate(excluded_checks=lenient)
