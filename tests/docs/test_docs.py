"""What README and docs say is so: their Python runs, their tables are the code's, their links lead somewhere."""

import re
from datetime import UTC, datetime

import attrs
import pytest
from docs.snippets import ROOT, snippets

import moengage_personalize
from moengage_personalize import (
    Admission,
    AsyncPersonalizeClient,
    BatchPolicy,
    DropReason,
    FetchPolicy,
    Reason,
    RetryPolicy,
)

README = ROOT / "README.md"
# tests/fetching/test_docs.py runs the one against scripted answers, tests/testkit/test_docs.py the other as a suite
OWN_TESTS = {"fetching.md", "testing.md"}
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OWN_TESTS], ids=lambda page: page.name)
@pytest.mark.anyio
@pytest.mark.real_loops
async def test_its_python_runs(page, emulated):
    async with AsyncPersonalizeClient() as client:
        hero = (await client.fetch("home-hero", customer_id="customer-1"))["home-hero"]
        namespace = {"__name__": "snippet", "client": client, "customer_id": "customer-1", "hero": hero}
        namespace["shown_at"] = datetime.now(UTC)
        for snippet in snippets(page):
            if snippet.fragment:
                snippet.code()
            else:
                await snippet.run(namespace)
    assert client.last_report.pending == client.last_report.dropped == 0


@pytest.mark.parametrize(
    ("page", "example"),
    [("README.md", "fastapi_app"), ("docs/workers.md", "arq_worker"), ("docs/workers.md", "taskiq_worker")],
)
def test_an_example_stands_in_the_docs_as_it_runs(page, example):
    code = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8").split('"""\n', 1)[1].strip()
    assert [snippet for snippet in snippets(ROOT / page) if snippet.text.strip() == code]


def test_the_twenty_lines_are_no_more():
    lines = (ROOT / "examples/fastapi_app.py").read_text(encoding="utf-8").split('"""\n', 1)[1].splitlines()
    assert len([line for line in lines if line and not line.startswith(("from ", "import "))]) <= 20


def test_the_tests_that_the_readme_shows_are_run():
    example = (ROOT / "examples/test_fastapi_app.py").read_text(encoding="utf-8")
    (shown,) = [snippet.text.strip() for snippet in snippets(README) if "personalize_fake" in snippet.text]
    assert shown in example


@by_name
def test_its_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@by_name
def test_every_make_target_that_it_names_exists(page):
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)`", page.read_text(encoding="utf-8"))) <= targets


def test_the_readme_lists_every_policy_with_its_default():
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| `([^`]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    policies = [getattr(moengage_personalize, name) for name in moengage_personalize.__all__ if name.endswith("Policy")]
    assert {FetchPolicy, BatchPolicy, RetryPolicy} <= set(policies)
    fields = {(policy.__name__, field.name, field.default) for policy in policies for field in attrs.fields(policy)}
    assert sorted(rows) == sorted((owner, name, shown(default)) for owner, name, default in fields)


def shown(default):
    match default:
        case str():
            return f'"{default}"'
        case bool() | None:
            return str(default)
        case _:
            return f"{default:_}"


def test_the_readme_lists_every_environment_variable():
    package = ROOT / "moengage_personalize"
    read = {name for path in package.glob("*.py") for name in re.findall(r'"(MOENGAGE_[A-Z_]+)"', path.read_text())}
    rows = re.findall(r"^\| `(MOENGAGE_[A-Z_]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(read)


@pytest.mark.parametrize(
    ("page", "kind"),
    [("docs/quickstart.md", Reason), ("docs/delivery.md", Admission), ("docs/delivery.md", DropReason)],
)
def test_every_word_of_ours_is_explained(page, kind):
    rows = re.findall(rf"^\| `{kind.__name__}\.(\w+)` \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(kind.__members__)
