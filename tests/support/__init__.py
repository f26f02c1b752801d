"""Helpers of the tests. They are importable as `support`."""
