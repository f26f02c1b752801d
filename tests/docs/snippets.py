"""Python in Markdown, found and run.

A block that is fenced as `python` is run: it may await, it sees what the blocks above it in the same file have made,
and the tests that it defines are called, unless they take fixtures. One that is fenced as `python fragment` stands for
something that cannot run here; it is compiled.
"""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```python(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@attrs.frozen
class Snippet:
    """One block.

    Attributes:
        place: File and line, for people and tracebacks.
        fragment: Whether it is only compiled.
        text: The Python, moved down to its own line numbers.
    """

    place: str
    fragment: bool
    text: str

    def code(self) -> Any:
        return compile(self.text, self.place.partition(":")[0], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run(self, namespace: dict[str, Any]) -> None:
        before = dict(namespace)
        await _settled(eval(self.code(), namespace))
        for name, value in list(namespace.items()):
            is_new_test = name.startswith("test_") and before.get(name) is not value
            if is_new_test and not inspect.signature(value).parameters:
                await _settled(value())


async def _settled(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def snippets(path: Path) -> list[Snippet]:
    """The blocks of a file, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        info = match["info"].strip()
        if info not in {"", "fragment"}:
            raise ValueError(f"{path.name}:{line}: a python block is run, or a fragment; not {info!r}")
        place = f"{path.relative_to(ROOT)}:{line + 1}"
        found.append(Snippet(place, info == "fragment", "\n" * line + match["text"]))
    return found
