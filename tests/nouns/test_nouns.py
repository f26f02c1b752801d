"""The nouns: what they show, how they compare, what they keep to themselves."""

import copy
import os
import pickle
import random
import re
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import attrs
import pytest
from hypothesis import given, strategies as st

import moengage_personalize
from moengage_personalize import (
    Action,
    ApiError,
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeliveryReport,
    Effects,
    Event,
    Experience,
    ExperienceMetadata,
    Experiences,
    ExperiencesMetadata,
    FetchPolicy,
    InSession,
    InvalidInputError,
    NoAnswerError,
    NotAskedError,
    PayloadTooLargeError,
    PersonalizeError,
    RateLimitedError,
    Reason,
    ServerError,
    UnexpectedStatusError,
    UsageError,
    event_uuid_for,
)
from moengage_personalize._config import Secret, resolve
from moengage_personalize._effects import uuid4
from moengage_personalize._errors import bare
from moengage_personalize._events import check_event_uuid
from moengage_personalize._session import check_user_identifiers

# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

TREE = {
    ConfigurationError: (PersonalizeError, ValueError),
    InvalidInputError: (PersonalizeError, ValueError),
    UsageError: (PersonalizeError, RuntimeError),
    NoAnswerError: (PersonalizeError,),
    DeadlineExceededError: (NoAnswerError, TimeoutError),
    ConnectionFailedError: (NoAnswerError,),
    BadReplyError: (NoAnswerError,),
    NotAskedError: (NoAnswerError,),
    ApiError: (PersonalizeError,),
    BadRequestError: (ApiError,),
    AuthenticationError: (ApiError,),
    PayloadTooLargeError: (ApiError,),
    RateLimitedError: (ApiError,),
    ServerError: (ApiError,),
    UnexpectedStatusError: (ApiError,),
}
RETRYABLE = {NoAnswerError, NotAskedError, DeadlineExceededError, ConnectionFailedError, RateLimitedError, ServerError}


def every_error(kind=PersonalizeError):
    return {kind}.union(*map(every_error, kind.__subclasses__()))


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    assert {kind for kind in every_error() if kind.__module__ == PersonalizeError.__module__} == {
        PersonalizeError,
        *TREE,
    }
    for kind, bases in TREE.items():
        assert kind.__bases__ == bases
        assert kind.retryable is (kind in RETRYABLE)
        assert kind.__name__ in sys.modules[bare.__module__].__doc__
        assert getattr(sys.modules[kind.__module__], kind.__name__) is kind, "a traceback names where to import it from"
    assert PersonalizeError.retryable is False


@pytest.mark.parametrize("kind", [PersonalizeError, *TREE])
def test_every_error_survives_pickling_and_copying_whole(kind):
    error = kind("m", attempts=2, status_code=400, retry_after=1.5, title="t", description="d", code="c")
    error.add_note("note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == "m"
        assert again.args == ("m",)
        assert vars(again) == vars(error)
    assert (error.attempts, error.status_code, error.retry_after) == (2, 400, 1.5)
    assert (error.title, error.description, error.code, error.__notes__) == ("t", "d", "c", ["note"])


def test_an_error_that_a_subclass_builds_otherwise_survives_pickling():
    error = pickle.loads(pickle.dumps(StrangeError(1, 2)))
    assert (type(error), str(error), error.extra) == (StrangeError, "strange", 3)


def test_an_error_of_somebody_elses_stays_in_its_module():
    assert StrangeError.__module__ == __name__
    private = type("PrivateError", (PersonalizeError,), {"__module__": "shop._errors"})
    assert private.__module__ == "shop._errors"


class StrangeError(PersonalizeError):
    def __init__(self, one, two):
        super().__init__("strange")
        self.extra = one + two


# ── secrets and settings ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_shows_itself_to_nobody_who_does_not_ask():
    secret = Secret.of("hidden")
    assert secret.reveal() == "hidden"
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        repr([secret]),
        repr({"key": secret}),
        f"{secret}",
    ):
        assert "hidden" not in shown
        assert "***" in shown
    with pytest.raises(TypeError, match=r"^a Secret is not pickled, and so is no client: each process makes its own$"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        secret._reveal = None


def settings(*args, environ=None, **kwargs):
    kwargs = {"base_url": None, "enabled": True} | kwargs
    return resolve(*args, environ=environ or {}, **kwargs)


def sealed(workspace_id="ws-hidden", api_key="key-hidden"):
    return Secret.of(workspace_id), Secret.of(api_key)


ENVIRON = {
    "MOENGAGE_WORKSPACE_ID": "env-ws",
    "MOENGAGE_PERSONALIZE_API_KEY": "env-key",
    "MOENGAGE_DATA_CENTER": "dc-03",
}


def test_settings_show_no_credentials():
    shown = repr(settings(*sealed(), "01"))
    assert "hidden" not in shown
    assert "https://sdk-01.moengage.com" in shown
    assert "hidden" not in repr(settings(sealed()[0], lambda: "hidden", "01"))


def test_the_environment_supplies_what_is_not_passed():
    found = settings(None, None, None, environ=ENVIRON)
    assert (found.workspace_id.reveal(), found.api_key.reveal()) == ("env-ws", "env-key")
    assert (found.base_url, found.enabled) == ("https://sdk-03.moengage.com", True)


def test_arguments_win_over_the_environment():
    environ = ENVIRON | {"MOENGAGE_PERSONALIZE_BASE_URL": "https://env.example"}
    found = settings(*sealed(), "02", environ=environ)
    assert (found.workspace_id.reveal(), found.api_key.reveal()) == ("ws-hidden", "key-hidden")
    assert found.base_url == "https://sdk-02.moengage.com"
    assert settings(*sealed(), None, environ=environ).base_url == "https://env.example"
    assert (
        settings(*sealed(), "02", base_url="https://mine.example", environ=environ).base_url == "https://mine.example"
    )


def test_empty_variables_are_as_good_as_none():
    environ = ENVIRON | {"MOENGAGE_PERSONALIZE_BASE_URL": "", "MOENGAGE_PERSONALIZE_DISABLED": ""}
    assert settings(None, None, None, environ=environ).base_url == "https://sdk-03.moengage.com"
    with pytest.raises(ConfigurationError, match="workspace_id is missing"):
        settings(None, None, None, environ=ENVIRON | {"MOENGAGE_WORKSPACE_ID": ""})


@pytest.mark.parametrize("word", ["1", "true", "TRUE", " yes ", "on"])
def test_disabled_needs_no_credentials(word):
    found = settings(None, None, None, environ={"MOENGAGE_PERSONALIZE_DISABLED": word})
    assert (found.enabled, found.base_url) == (False, "https://disabled.invalid")
    assert not settings(None, None, None, enabled=False).enabled


@pytest.mark.parametrize("word", ["0", "false", "no", " Off ", ""])
def test_a_no_does_not_disable(word):
    assert settings(*sealed(), "01", environ={"MOENGAGE_PERSONALIZE_DISABLED": word}).enabled


@pytest.mark.parametrize("word", ["maybe", "disabled", "2"])
def test_a_word_that_is_neither_yes_nor_no_is_an_error(word):
    with pytest.raises(ConfigurationError, match=r"^MOENGAGE_PERSONALIZE_DISABLED must be 1 \(true, yes, on\), or 0 "):
        settings(*sealed(), "01", environ={"MOENGAGE_PERSONALIZE_DISABLED": word})


def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        settings(None, None, None)
    assert str(caught.value) == (
        "workspace_id, api_key and data_center (01 to 06, or 101; the number in the address of your MoEngage dashboard)"
        " are missing: pass them, or set MOENGAGE_WORKSPACE_ID, MOENGAGE_PERSONALIZE_API_KEY and MOENGAGE_DATA_CENTER"
    )
    with pytest.raises(ConfigurationError, match="^workspace_id and api_key are missing: pass them, or set MOENGAGE_W"):
        settings(None, None, None, environ={"MOENGAGE_PERSONALIZE_BASE_URL": "https://env.example"})


def test_policies_are_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        FetchPolicy().deadline = 2.0
    with pytest.raises(TypeError):
        FetchPolicy(2.0)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_moment_fills_day_and_hour_in_utc():
    kolkata = timezone(timedelta(hours=5, minutes=30))
    session = InSession.at(datetime(2026, 11, 23, 3, 15, tzinfo=kolkata), ip_address="::1", user_agent="UA")
    assert session == InSession(day_of_week="Sunday", time_of_day="21", ip_address="::1", user_agent="UA")
    assert InSession.at(datetime(2026, 11, 23, 3, 15, tzinfo=UTC)) == InSession(day_of_week="Monday", time_of_day="03")


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1)))  # noqa: DTZ001
def test_every_moment_has_a_day_and_an_hour(moment):
    session = InSession.at(moment)
    assert session.day_of_week == f"{moment.astimezone(UTC):%A}"
    assert session.time_of_day == f"{moment.astimezone(UTC):%H}"


def test_a_session_shows_what_was_given_and_nothing_of_it():
    session = InSession(ip_address="203.0.113.7", user_agent="Mozilla", time_of_day="07")
    assert repr(session) == "InSession(time_of_day=…, ip_address=…, user_agent=…)"
    assert pickle.loads(pickle.dumps(session)) == session
    assert InSession() == InSession(day_of_week=None)


def test_user_identifiers_are_copied():
    identifiers = {"u_em": "john@example.com"}
    checked = check_user_identifiers(identifiers)
    identifiers["u_em"] = "mary@example.com"
    assert checked == {"u_em": "john@example.com"}


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_made_uuid_is_the_same_in_every_process_and_for_ever():
    assert event_uuid_for("order-mail", 7, "home-hero") == "b03a632a-1efd-4af0-aaa9-b7a72d6e3af7"


@given(one=st.lists(st.text() | st.integers(), min_size=1), other=st.lists(st.text() | st.integers(), min_size=1))
def test_made_uuids_are_v4_shaped_and_differ_where_their_parts_do(one, other):
    assert check_event_uuid(event_uuid_for(*one)) == event_uuid_for(*one)
    assert (event_uuid_for(*one) == event_uuid_for(*other)) is (one == other)


def test_borders_and_types_of_parts_count():
    made = {
        event_uuid_for(*parts) for parts in [("ab", "c"), ("a", "bc"), ("abc",), ("1",), (1,), (True,), ("", "abc")]
    }
    assert len(made) == 7


@pytest.mark.parametrize(
    "given_uuid", ["AA886712-4537-47C1-B126-2686EFDA2E26", UUID("aa886712-4537-47c1-b126-2686efda2e26")]
)
def test_a_uuid_is_sent_in_its_canonical_form(given_uuid):
    assert check_event_uuid(given_uuid) == "aa886712-4537-47c1-b126-2686efda2e26"


def test_an_event_shows_nothing():
    event = Event(action=Action.CLICK, experience={"cid": "x"}, customer_id="john", b_id="b")
    assert repr(event) == "Event(CLICK)"


# ── effects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fresh_uuids_are_version_4_and_differ():
    made = {uuid4() for _ in range(100_000)}
    assert len(made) == 100_000
    for each in sorted(made)[::20]:
        assert UUID(each).version == 4
        assert str(UUID(each)) == each == check_event_uuid(each)
    assert {each[19] for each in made} == set("89ab")
    for place in (0, 15, 20, 35):
        assert {each[place] for each in made} == set("0123456789abcdef")


def test_threads_never_share_a_uuid():
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda _: [uuid4() for _ in range(5_000)], range(4)))
    assert len({each for share in shares for each in share}) == 20_000


def test_a_forked_child_draws_uuids_of_its_own():
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
        child = os.fork()
    if child == 0:
        os.write(write, "".join(uuid4() for _ in range(1_000)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    drawn = os.read(read, 36_000).decode()
    childs = {drawn[place : place + 36] for place in range(0, 36_000, 36)}
    assert len(childs) == 1_000
    assert childs.isdisjoint(uuid4() for _ in range(1_000))
    os.close(read)
    os.close(write)


def test_effects_are_one_frozen_value():
    effects = Effects()
    assert 0 <= effects.jitter() < 1
    assert effects.wall() > 1_700_000_000
    state = random.getstate()
    effects.uuid4()
    effects.jitter()
    assert random.getstate() == state, "the application's own generator is left alone"


# ── experiences ──────────────────────────────────────────────────────────────────────────────────────────────────────


def served(key="hero", **how):
    return Experience(key=key, reason=Reason.MATCHED, source="network", context={"cid": "1"}, **how)


def test_experiences_are_equal_when_everything_they_hold_is():
    assert served(payload={"a": 1}) == served(payload={"a": 1})
    assert hash(served(payload={"a": 1})) == hash(served(payload={"a": 2}))
    assert served(payload={"a": 1}) != served(payload={"a": 2})
    assert served(age=1.0) != served()
    assert served() != "hero"
    unserved = Experience(key="hero", reason=Reason.MATCHED, source="network")
    assert served() != unserved


def test_an_experience_without_that_variable_answers_the_default():
    assert served().get("Title", "Welcome") == "Welcome"
    assert served().get("Title") is None


def test_a_key_that_was_not_asked_is_a_key_error():
    experiences = Experiences(entries={"hero": served()})
    assert isinstance(experiences, Mapping)
    assert (list(experiences), len(experiences), "hero" in experiences) == (["hero"], 1, True)
    assert experiences["hero"] == served()
    with pytest.raises(KeyError, match=re.escape("'banner' was not asked for")) as caught:
        experiences["banner"]
    assert caught.value.__suppress_context__
    assert experiences.get("banner") is None


def test_an_error_is_raised_when_asked_for():
    fine = Experiences(entries={})
    assert fine.raise_for_error() is fine
    error = RateLimitedError("m")
    with pytest.raises(RateLimitedError) as caught:
        Experiences(entries={}, error=error).raise_for_error()
    assert caught.value is error


def test_experiences_show_keys_and_reasons():
    shown = Experiences(entries={"hero": served(payload={"Title": "hidden"})}, error=ServerError("hidden"))
    assert repr(shown) == "<Experiences {'hero': matched}, ServerError>"
    assert repr(Experiences(entries={})) == "<Experiences {}>"


def test_metadata_is_a_mapping_by_key():
    entry = ExperienceMetadata(name="Hero", key="hero", status="Active")
    metadata = ExperiencesMetadata(entries={"hero": entry}, count=1)
    assert (dict(metadata), len(metadata), list(metadata)) == ({"hero": entry}, 1, ["hero"])
    with pytest.raises(KeyError):
        metadata["banner"]


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("counts", "balanced"),
    [
        ({}, True),
        (
            {
                "offered": 5,
                "accepted": 1,
                "duplicate": 1,
                "unmatched": 1,
                "refused": 1,
                "dropped_at_the_door": 1,
                "pending": 1,
            },
            True,
        ),
        ({"offered": 1}, False),
        ({"recovered": 1, "replayed": 1, "delivered": 2}, True),
        ({"recovered": 4, "delivered": 1, "rejected": 1, "dropped": 1, "forgotten": 1}, True),
        ({"offered": 1, "accepted": 1}, False),
        ({"recovered": 1, "pending": 1, "spooled": 1}, True),
        ({"recovered": 1, "pending": 1, "spooled": 2}, False),
    ],
)
def test_a_report_balances_or_does_not(counts, balanced):
    assert DeliveryReport(**counts).balanced is balanced


def test_everything_that_is_public_is_there():
    for name in moengage_personalize.__all__:
        assert hasattr(moengage_personalize, name)
