"""The extractor: a block that is broken must not pass."""

import pytest
from docs.snippets import ROOT, Snippet, snippets

pytestmark = pytest.mark.anyio


def page(tmp_path, text, monkeypatch):
    monkeypatch.setattr("docs.snippets.ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text)
    return snippets(path)


async def test_blocks_see_those_before_them_and_may_await(tmp_path, monkeypatch):
    text = "a\n```python\nimport anyio\nx = 1\n```\n```sh\nno\n```\n```python\nawait anyio.sleep(0)\nx += 1\n```\n"
    namespace = {}
    for snippet in page(tmp_path, text, monkeypatch):
        await snippet.run(namespace)
    assert namespace["x"] == 2


async def test_the_tests_that_a_block_defines_are_called():
    with pytest.raises(AssertionError):
        await Snippet("x.md:1", False, "async def test_it():\n    assert False").run({})


async def test_an_error_names_file_and_line(tmp_path, monkeypatch):
    (snippet,) = page(tmp_path, "one\n\n```python\n\n1 / 0\n```\n", monkeypatch)
    with pytest.raises(ZeroDivisionError) as error:
        await snippet.run({})
    last = error.traceback[-1]
    assert (snippet.place, last.lineno + 1) == ("page.md:4", 5)


def test_a_fragment_is_marked_and_anything_else_is_an_error(tmp_path, monkeypatch):
    assert page(tmp_path, "```python fragment\nx = ...\n```\n", monkeypatch)[0].fragment
    with pytest.raises(ValueError, match="not 'skip'"):
        page(tmp_path, "```python skip\nx\n```\n", monkeypatch)


def test_the_readme_has_snippets():
    assert len(snippets(ROOT / "README.md")) > 5
