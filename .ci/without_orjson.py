"""Runs pytest as if orjson were not installed. The arguments are pytest's."""

import sys

import pytest

sys.modules["orjson"] = None  # type: ignore[assignment]  # which makes `import orjson` an ImportError
sys.exit(pytest.main(sys.argv[1:]))
