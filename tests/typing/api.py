"""The public API, as a type checker sees it: checked, never run.

A change that breaks a user's type checking breaks this file first. `assert_type` says what is promised; a line with
`type: ignore` says what is refused, and is an error itself once it is not (warn_unused_ignores).
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type
from uuid import UUID

import attrs
import httpx

from moengage_personalize import (
    Action,
    Admission,
    ApiError,
    AsyncPersonalizeClient,
    AuthenticationError,
    BadReplyError,
    BadRequestError,
    BatchPolicy,
    Condition,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeliveryReport,
    DropReason,
    Effects,
    Event,
    Experience,
    ExperienceMetadata,
    Experiences,
    ExperiencesMetadata,
    FetchPolicy,
    Health,
    InSession,
    InvalidInputError,
    NoAnswerError,
    PayloadTooLargeError,
    PersonalizeError,
    RateLimitedError,
    Reason,
    ReservedCustomerIdWarning,
    RetryPolicy,
    ServerError,
    Stats,
    UnexpectedStatusError,
    UsageError,
    __version__,
    event_uuid_for,
)


@attrs.frozen
class Banner:
    title: str


class Typed(TypedDict):
    title: str


async def key_of_today() -> str:
    return "key"


def constructors(transport: httpx.AsyncBaseTransport) -> None:
    AsyncPersonalizeClient()
    AsyncPersonalizeClient("workspace", "key", "01")
    AsyncPersonalizeClient("workspace", lambda: "key", 101)
    client = AsyncPersonalizeClient(
        workspace_id="workspace",
        api_key=key_of_today,
        data_center=None,
        base_url="https://gateway.example.com",
        enabled=True,
        fetching=FetchPolicy(deadline=0.4, attempts=1, on_error="raise", identity="flat", max_keys=10),
        batching=BatchPolicy(linger=2, max_elements=50, max_pending=50_000, senders=4, grace=3, time_to_live=60),
        retrying=RetryPolicy(initial=0.1, maximum=5, budget=10),
        ssl_context=None,
        proxy=None,
        transport=transport,
        effects=Effects(wall=lambda: 0.0, uuid4=lambda: "x", jitter=lambda: 0.5),
    )
    assert_type(client.last_report, DeliveryReport | None)
    version: str = __version__
    del version
    FetchPolicy(on_error="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FetchPolicy(identity="none")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FetchPolicy(0.4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def lifecycle(client: AsyncPersonalizeClient) -> None:
    async with client as opened:
        assert_type(opened, AsyncPersonalizeClient)
    assert_type(await client.aclose(), DeliveryReport)
    assert_type(await client.aclose(grace=1), DeliveryReport)
    assert_type(await client.flush(), DeliveryReport)
    assert_type(await client.flush(timeout=1.0), DeliveryReport)
    client.pause()
    client.resume()


async def fetching(client: AsyncPersonalizeClient) -> None:
    session = InSession(day_of_week="Monday", time_of_day="00", ip_address="203.0.113.7", user_agent="UA")
    assert_type(InSession.at(datetime.now(UTC), ip_address=None, user_agent="UA"), InSession)
    experiences = await client.fetch(
        "home-hero",
        "home-offers",
        customer_id="john@example.com",
        user_identifiers={"u_em": "john@example.com"},
        session=session,
        attributes={"utm_medium": "email", "visits": 3, "ratio": 0.5, "vip": True},
        deadline=0.4,
        on_error="default",
    )
    assert_type(experiences, Experiences)
    assert_type(await client.fetch_all(customer_id=None, on_error="raise"), Experiences)
    assert_type(experiences["home-hero"], Experience)
    assert_type(experiences.get("home-hero"), Experience | None)
    assert_type(iter(experiences), Iterator[str])
    assert_type(len(experiences), int)
    assert_type(experiences.error, PersonalizeError | None)
    assert_type(experiences.raise_for_error(), Experiences)
    as_mapping: Mapping[str, Experience] = experiences
    assert_type(as_mapping["home-hero"].key, str)
    await client.fetch("home-hero", on_error="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.fetch(["home-hero"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.fetch("home-hero", attributes={"a": None})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


def reading(hero: Experience) -> None:
    assert_type(hero.key, str)
    assert_type(hero.matched, bool)
    assert_type(hero.reason, Reason)
    assert_type(hero.age, float)
    assert_type(hero.payload, Mapping[str, Any])
    assert_type(hero.undecodable, Mapping[str, str])
    assert_type(hero.context, dict[str, Any])
    assert_type(hero.get("Title"), Any)
    assert_type(hero.get("Title", "Welcome"), str)
    assert_type(hero.get("Title", default="Welcome"), str)
    assert_type(hero.get("Count", 0), int)
    assert_type(hero.get("Ratio", 0.5), float)
    assert_type(hero.get("Vip", default=False), bool)
    assert_type(hero.get("Offers", list[str]()), list[str])
    assert_type(hero.decode(Banner, default=Banner("Welcome")), Banner)
    assert_type(hero.decode(Typed, default=Typed(title="Welcome")), Typed)
    hero.decode(Banner)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    hero.matched = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def metadata(client: AsyncPersonalizeClient) -> None:
    found = await client.metadata()
    assert_type(found, ExperiencesMetadata)
    assert_type(await client.metadata("Active"), ExperiencesMetadata)
    assert_type(await client.metadata(["Active", "Paused", "Scheduled"], deadline=5), ExperiencesMetadata)
    assert_type(found.count, int)
    assert_type(found["home-hero"], ExperienceMetadata)
    assert_type(found["home-hero"].name, str)
    assert_type(found["home-hero"].status, str)
    await client.metadata("active")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def tracking(client: AsyncPersonalizeClient, hero: Experience, from_browser: dict[str, Any]) -> None:
    assert_type(event_uuid_for("order-mail", 7), str)
    assert_type(client.track_impression(hero, customer_id="john@example.com"), Admission)
    assert_type(
        client.track_impression(
            from_browser,
            customer_id="john@example.com",
            platform="ios",
            at=datetime.now(UTC),
            event_uuid=UUID(int=0),
            user_attributes={"name": "John"},
            user_timezone_offset=19_800,
        ),
        Admission,
    )
    assert_type(
        client.track_click(
            hero, customer_id="john", at=1_725_258_666, event_uuid="x", b_id="Add to Cart", attributes={"n": [1]}
        ),
        Admission,
    )
    event = Event(action=Action.CLICK, experience=hero, customer_id="john@example.com", at=1.5, b_id="Add to Cart")
    assert_type(client.track(event), Admission)
    client.track_impression(hero)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.track_impression(hero, "john@example.com")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.track_impression(hero, customer_id="john", b_id="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Event(Action.CLICK)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def watching(client: AsyncPersonalizeClient, report: DeliveryReport) -> None:
    stats = client.stats()
    assert_type(stats, Stats)
    as_report: DeliveryReport = stats
    assert_type(as_report.balanced, bool)
    for number in (
        *(report.offered, report.accepted, report.duplicate, report.unmatched, report.refused),
        *(report.dropped_at_the_door, report.recovered, report.replayed, report.delivered, report.rejected),
        *(report.dropped, report.forgotten, report.pending, report.spooled),
        *(stats.pending_bytes, stats.attributes_refused, stats.event_requests, stats.fetches, stats.fetch_requests),
        *(stats.retries, stats.connections_opened, stats.paused, stats.closed, stats.disabled),
    ):
        assert_type(number, int)
    assert_type(stats.oldest_age, float)
    assert_type(report.dropped_by_reason, Mapping[str, int])
    word: str = DropReason.OVERFLOW.value
    del word
    health = client.health()
    assert_type(health, Health)
    assert_type(health.condition, Condition)
    assert_type(health.detail, str)


def errors(error: PersonalizeError) -> None:
    assert_type(error.retryable, bool)
    assert_type(error.attempts, int)
    assert_type(error.status_code, int | None)
    assert_type(error.retry_after, float | None)
    assert_type(error.title, str | None)
    assert_type(error.description, str | None)
    assert_type(error.code, str | None)
    values: list[type[ValueError]] = [ConfigurationError, InvalidInputError]
    runtime: type[RuntimeError] = UsageError
    timeout: type[TimeoutError] = DeadlineExceededError
    no_answer: list[type[NoAnswerError]] = [DeadlineExceededError, ConnectionFailedError, BadReplyError]
    api: list[type[ApiError]] = [
        *(BadRequestError, AuthenticationError, PayloadTooLargeError),
        *(RateLimitedError, ServerError, UnexpectedStatusError),
    ]
    warning: type[UserWarning] = ReservedCustomerIdWarning
    del values, runtime, timeout, no_answer, api, warning


def every_admission_is_known(admission: Admission) -> str:
    match admission:
        case Admission.ACCEPTED | Admission.DUPLICATE | Admission.DROPPED | Admission.UNMATCHED:
            return "open"
        case Admission.REFUSED | Admission.PAUSED | Admission.CLOSED | Admission.DISABLED:
            return "shut"
