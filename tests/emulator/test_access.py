"""Credentials, limits, and the shape of every refusal (api-facts, 1.5 to 1.7); metadata (section 4)."""

import base64

import pytest
from emulator.kit import NOW, World, ask, authorization, emulator, events, refused, said

ENDPOINTS = [("fetch", {}), ("events", events()), ("metadata", None)]


def basic(text):
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        b"",
        b"Bearer abc",
        b"Basic",
        b"Basic ???",
        basic("DEMO_WORKSPACE:data-key"),
        basic("OTHER:demo-key"),
        basic("DEMO_WORKSPACE"),
        basic("demo-key:DEMO_WORKSPACE"),
    ],
)
def test_wrong_credentials_are_a_401_on_every_endpoint(path, body, wrong):
    reply = ask(emulator(), path, body, authorization=wrong)
    assert reply.status == 401
    assert said(reply)["title"] == "Authentication required"
    assert "code" not in said(reply)


def test_the_scheme_s_case_and_spaces_do_not_matter():
    credentials = authorization()[b"authorization"].removeprefix(b"Basic ")
    assert ask(emulator(), "fetch", {}, authorization=b"basic  " + credentials).status == 200


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
@pytest.mark.parametrize("wrong", [None, b"", b"OTHER", b"demo_workspace"])
def test_a_missing_or_unknown_app_key_is_a_400(path, body, wrong):
    reply = ask(emulator(), path, body, moe_appkey=wrong)
    assert reply.status == 400
    assert "MOE-APPKEY" in said(reply)["description"]


def test_an_unknown_app_key_is_a_400_whatever_the_credentials():
    reply = ask(emulator(), "metadata", authorization=basic("OTHER:demo-key"), moe_appkey=b"OTHER")
    assert reply.status == 400
    assert "MOE-APPKEY" in said(reply)["description"]


def test_the_older_document_has_a_401_for_a_wrong_app_key():
    assert ask(emulator(identity="flat"), "fetch", {}, moe_appkey=b"OTHER").status == 401


def test_a_regenerated_key_ends_the_old_one_at_once():
    emu = emulator()
    emu.regenerate_key("new-key")
    assert ask(emu, "fetch", {}).status == 401
    assert ask(emu, "fetch", {}, authorization=basic("DEMO_WORKSPACE:new-key")).status == 200


def test_a_validation_failure_has_a_title_a_description_and_a_code_of_eight_letters():
    answer = said(ask(emulator(), "fetch", {"DAY_OF_THE_WEEK": "x"}))
    assert set(answer) == {"title", "description", "code"}
    assert answer["title"] == "Invalid Field Value"
    assert len(answer["code"]) == 8
    assert answer["code"].isalpha()


def test_malformed_json_has_its_own_title_and_no_code():
    answer = said(ask(emulator(), "fetch", b"{"))
    assert answer["title"] == "Malformed JSON"
    assert set(answer) == {"title", "description"}


def test_other_paths_are_a_404_and_other_methods_a_405():
    assert "endpoint" in refused(emulator(), "/v1/experiences/else", None, status=404)
    assert ask(emulator(), "fetch", None).status == 405
    assert ask(emulator(), "metadata", {}).status == 405


def test_a_body_above_the_payload_cap_is_a_413():
    emu = emulator(max_body=1000)
    assert ask(emu, "fetch", {"x": "y" * 1000}).status == 413
    assert ask(emu, "fetch", {"x": "y" * 900}).status == 200


def test_another_content_type_is_accepted_and_noted():
    emu = emulator()
    assert ask(emu, "fetch", {}, content_type=b"text/plain").status == 200
    assert "content type" in emu.ledger.requests[-1].notes[-1]
    assert ask(emu, "fetch", {}, content_type=b"application/JSON; charset=utf-8").status == 200
    assert emu.ledger.requests[-1].notes == ()


# The rate limit ------------------------------------------------------------------------------


def test_10000_fetches_a_minute_are_answered_and_the_next_is_a_429():
    world = World()
    emu = emulator(world=world)
    statuses = [ask(emu, "fetch", {}).status for _ in range(10_001)]
    assert statuses == [200] * 10_000 + [429]
    world.now += 60
    assert ask(emu, "fetch", {}).status == 200


def test_every_fetch_answer_says_what_is_left():
    emu = emulator(rate_limit=3, world=World(NOW + 12))
    for remaining, status, body in ((2, 200, {}), (1, 400, b"{"), (0, 200, {}), (0, 429, {})):
        reply = ask(emu, "fetch", body)
        assert reply.status == status
        headers = dict(reply.headers)
        assert headers[b"x-ratelimit-limit"] == b"3"
        assert headers[b"x-ratelimit-remaining"] == b"%d" % remaining
        assert headers[b"x-ratelimit-reset"] == b"%d" % (NOW + 60)  # epoch seconds
        assert headers.get(b"x-envoy-ratelimited") == (b"true" if status == 429 else None)
        assert b"retry-after" not in headers


def test_events_and_metadata_are_not_limited():
    emu = emulator(rate_limit=1)
    for path, body in (("events", events()), ("metadata", None)):
        for _ in range(3):
            reply = ask(emu, path, body)
            assert reply.status == 200
            assert b"x-ratelimit-limit" not in dict(reply.headers)


def test_requests_with_wrong_credentials_do_not_use_up_the_limit():
    emu = emulator(rate_limit=1)
    assert ask(emu, "fetch", {}, authorization=None).status == 401
    assert ask(emu, "fetch", {}).status == 200


def test_the_limit_can_be_lifted():
    emu = emulator(rate_limit=None)
    assert [name for name, _ in ask(emu, "fetch", {}).headers] == [b"content-type"]


# Metadata ------------------------------------------------------------------------------


def statuses(query):
    reply = ask(emulator_of_three(), f"metadata{query}")
    assert reply.status == 200
    metadata = said(reply)["metadata"]
    assert metadata["count"] == len(metadata["experiences"])
    assert all(set(entry) == {"experience_name", "experience_key", "status"} for entry in metadata["experiences"])
    return [entry["status"] for entry in metadata["experiences"]]


def emulator_of_three():
    import attrs

    from moengage_personalize.emulator import Experience

    one = Experience.simple("is-active", {"a": 1})
    return emulator(
        (
            one,
            attrs.evolve(one, key="is-paused", status="Paused"),
            attrs.evolve(one, key="is-scheduled", status="Scheduled"),
        )
    )


def test_metadata_lists_everything_unless_it_is_asked_for_some():
    assert statuses("") == ["Active", "Paused", "Scheduled"]
    assert statuses("?status=Active") == ["Active"]
    assert statuses("?status=Scheduled,Active") == ["Active", "Scheduled"]
    assert statuses("?status=Active&status=Paused") == ["Active", "Paused"]


@pytest.mark.parametrize("wrong", ["active", "ACTIVE", "Running", "", "active,paused"])
def test_a_wrongly_written_status_is_silently_an_empty_list(wrong):
    assert statuses(f"?status={wrong}") == []
