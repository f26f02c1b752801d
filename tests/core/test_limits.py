import pytest
from hypothesis import given, strategies as st

from moengage_personalize.core.breaker import Quota
from moengage_personalize.core.wire.limits import read_quota, retry_after

NOW = 1_795_459_200.0  # Mon, 23 Nov 2026 18:40:00 GMT
NAMES = [b"Retry-After", b"date", b"x-ratelimit-limit", b"X-RateLimit-Remaining", b"x-ratelimit-reset", b"server"]


def headers(**told):
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in told.items()]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, None),
        ({"Retry_After": " 7 "}, 7.0),
        ({"retry_after": "7", "x_ratelimit_reset": "30"}, 7.0),
        ({"retry_after": "9" * 40}, 999_999_999.0),
        ({"retry_after": "Mon, 23 Nov 2026 18:41:00 GMT"}, 60.0),
        ({"retry_after": "Mon, 23 Nov 2026 18:39:00 GMT"}, 0.0),
        ({"retry_after": "Mon, 23 Nov 2026 18:41:00 GMT", "date": "Mon, 23 Nov 2026 18:40:50 GMT"}, 10.0),
        ({"retry_after": "soon", "x_ratelimit_reset": "30"}, None),
        ({"retry_after": "²"}, None),
        ({"x_ratelimit_reset": "30"}, 30.0),
        ({"x_ratelimit_reset": "30", "x_ratelimit_remaining": "0"}, 30.0),
        ({"x_ratelimit_reset": "30", "x_ratelimit_remaining": "1"}, None),
        ({"x_ratelimit_reset": f"{NOW + 30:.0f}"}, 30.0),
        ({"x_ratelimit_reset": f"{NOW - 30:.0f}"}, 0.0),
        ({"x_ratelimit_reset": "-1"}, None),
    ],
)
def test_a_server_asks_to_wait_in_seconds_by_a_date_or_by_its_reset(told, seconds):
    assert retry_after(headers(**told), NOW) == seconds


@pytest.mark.parametrize(
    ("told", "quota"),
    [
        ({}, None),
        ({"x_ratelimit_reset": "30"}, None),
        ({"x_ratelimit_remaining": "3"}, Quota(None, 3, None)),
        ({"X_RateLimit_Limit": "10", "x_ratelimit_reset": "30"}, Quota(10, None, 30.0)),
        ({"x_ratelimit_limit": "10", "x_ratelimit_remaining": "x", "x_ratelimit_reset": "x"}, Quota(10, None, None)),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": f"{NOW + 30:.0f}"}, Quota(None, 0, 30.0)),
    ],
)
def test_a_quota_is_read_as_far_as_it_is_told(told, quota):
    assert read_quota(headers(**told), NOW) == quota


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=40) | st.integers().map(lambda n: b"%d" % n))))
def test_whatever_a_server_says_is_no_error_and_no_time_is_negative(told):
    seconds, quota = retry_after(told, NOW), read_quota(told, NOW)
    assert seconds is None or seconds >= 0
    assert quota is None or quota.resets_in is None or quota.resets_in >= 0
