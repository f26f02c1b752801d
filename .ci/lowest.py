"""Prints a pip constraint for each dependency of the package, extras included: its lower bound, exactly.

`make lowest` installs by them and runs the tests, so that every bound in pyproject.toml is one that was tried.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement


def constraints(pyproject: Path) -> Iterator[str]:
    """Yields `name==lowest` for each direct dependency.

    Raises:
        SystemExit: One has no lower bound.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        bounds = [part.version for part in requirement.specifier if part.operator in {">=", "=="}]
        if requirement.name == project["name"]:
            continue  # an extra that is made of others
        if len(bounds) != 1:
            sys.exit(f"{pyproject}: {text!r} needs one lower bound")
        yield f"{requirement.name}=={bounds[0]}"


if __name__ == "__main__":
    print("\n".join(constraints(Path("pyproject.toml"))))
