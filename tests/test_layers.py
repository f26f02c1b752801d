"""Imports point downwards, and the nouns and the core do nothing but decide.

Read from the sources, so that an import inside a function counts too. `if TYPE_CHECKING:` does not: it is not there at
run time.
"""

import ast
from pathlib import Path

import pytest

import moengage_personalize
import moengage_personalize.spool

PACKAGE = Path(moengage_personalize.__file__).parent
NAME = "moengage_personalize"

NOUNS = {"_errors", "_config", "_session", "_events", "_experiences", "_decode", "_explain", "_report", "_version"}
OUTSIDE = {"_effects"}  # the outside world as one value: the only file that may read the wall clock or draw chance
SHELL = {
    "_ambient",
    "_client",
    "_engine",
    "_pump",
    "_alarm",
    "_cause",
    "_fetcher",
    "_kept",
    "_lifecycle",
    "_questions",
    "_tower",
    "_exchange",
    "_credentials",
    "_door",
    "_drift",
    "_flying",
    "_keys",
    "_spooling",
    "http2",
    "spool",
}
AROUND = {"emulator", "cli", "testing", "starlette", "fastapi"}

# Each part of the house, and the parts that it may import. What is in none of these sets is a layer nobody chose.
MAY_IMPORT = {
    "nouns": {"nouns"},
    "core": {"nouns", "core"},
    "outside": {"outside"},
    "shell": {"nouns", "core", "outside", "shell"},
    "around": {"public", "around"},
    "public": {"nouns", "core", "outside", "shell", "public"},
}
# The standard library, and attrs and cattrs, less whatever reaches outside or waits.
FORBIDDEN = {
    "asyncio",
    "anyio",
    "trio",
    "sniffio",
    "uvloop",
    "httpx",
    "httpcore",
    "h2",
    "h11",
    "hpack",
    "certifi",
    "logging",
    "warnings",
    "time",
    "random",
    "secrets",
    "socket",
    "ssl",
    "select",
    "selectors",
    "threading",
    "multiprocessing",
    "subprocess",
    "concurrent",
    "os",
    "sys",
    "io",
    "pathlib",
    "tempfile",
    "mmap",
    "queue",
    "sched",
    "signal",
    "contextvars",
    "weakref",
}
WAITING = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter", "uuid1", "uuid4", "random", "urandom", "sleep"}
# What stands around imports the public API only, but for what has one meaning in two places.
ALSO = {("cli.codegen", "moengage_personalize._decode:fold")}
PUBLIC_OF_THE_SPOOL = {f"moengage_personalize.spool:{name}" for name in moengage_personalize.spool.__all__}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(name):
    first = name.split(".", maxsplit=1)[0]
    for layer, members in {
        "nouns": NOUNS,
        "core": {"core"},
        "outside": OUTSIDE,
        "shell": SHELL,
        "around": AROUND,
        "public": {""},
    }.items():
        if first in members:
            return layer
    return None


class Imports(ast.NodeVisitor):
    """Finds what a module imports, as absolute names."""

    def __init__(self, path):
        self.package = (NAME, *path.relative_to(PACKAGE).parent.parts)
        self.found = set()

    def visit_If(self, node):
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node):
        base = list(self.package[: len(self.package) - node.level + 1]) if node.level else []
        origin = ".".join(base + ([node.module] if node.module else []))
        for alias in node.names:
            whole = f"{origin}.{alias.name}"
            self.found.add(whole if is_module(whole) else f"{origin}:{alias.name}")


def is_module(name):
    parts = name.split(".")
    path = PACKAGE.joinpath(*parts[1:])
    return parts[0] == NAME and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def imports_of(path):
    visitor = Imports(path)
    visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.found


def within(imported):
    """The module of ours that is imported, relative to the package; None if it is none of ours."""
    module = imported.partition(":")[0]
    if module.split(".")[0] != NAME:
        return None
    return module.removeprefix(NAME).removeprefix(".")


def pure():
    return [path for path in modules() if layer_of(name_of(path)) in {"nouns", "core"}]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_downwards(path):
    layer = layer_of(name_of(path))
    assert layer is not None, f"{name_of(path)} belongs to no layer: say to which"
    for imported in imports_of(path):
        module = within(imported)
        if layer == "around" and imported in PUBLIC_OF_THE_SPOOL:
            continue
        if module is not None and (name_of(path), imported) not in ALSO:
            assert layer_of(module) in MAY_IMPORT[layer], f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(name_of(p)) == "around"], ids=name_of)
def test_what_stands_around_imports_public_names_only(path):
    for imported in imports_of(path) - {imported for name, imported in ALSO if name == name_of(path)}:
        module, _, name = imported.partition(":")
        if within(imported) == "":
            assert name in moengage_personalize.__all__, f"{name_of(path)} imports {imported}"
        elif within(imported) is not None:
            own = name_of(path).split(".")[0]
            assert own == module.split(".")[1] or not any(part.startswith("_") for part in module.split("."))


@pytest.mark.parametrize("path", pure(), ids=name_of)
def test_the_nouns_and_the_core_import_nothing_that_waits_or_reaches_outside(path):
    for imported in imports_of(path):
        assert imported.replace(":", ".").split(".")[0] not in FORBIDDEN, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", pure(), ids=name_of)
def test_the_nouns_and_the_core_never_wait_and_ask_no_clock_and_no_chance(path):
    for top in ast.parse(path.read_text("utf-8")).body:
        for node in ast.walk(top):
            assert not isinstance(node, WAITING), f"{name_of(path)}:{node.lineno} waits"
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                assert name not in CLOCKS | {"open", "print", "input"}, f"{name_of(path)}:{node.lineno} calls {name}"


def test_httpx_is_imported_in_few_files():
    having = {
        name_of(path)
        for path in modules()
        if any(each.split(".")[0].split(":")[0] == "httpx" for each in imports_of(path))
    }
    assert {layer_of(name) for name in having} <= {"shell", "around"}


def test_every_module_opens_with_its_theory():
    for path in modules():
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert docstring or path.name == "_version.py", f"{name_of(path)} has no docstring"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", {"time"}),
        ("def f():\n    import time", {"time"}),
        ("from ..core import buffer", {"moengage_personalize.core.buffer"}),
        ("from .wire import encode", {"moengage_personalize.core.wire:encode"}),
        ("from .. import Event", {"moengage_personalize:Event"}),
        ("from .._errors import X", {"moengage_personalize._errors:X"}),
        ("if TYPE_CHECKING:\n    import time", set()),
        ("import os.path as p, json", {"os.path", "json"}),
    ],
)
def test_this_test_sees_imports(source, found):
    visitor = Imports(PACKAGE / "core" / "made_up.py")
    visitor.visit(ast.parse(source))
    assert visitor.found == found
