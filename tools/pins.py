"""Print the exact version of everything that the project needs, as it is installed here.

    python tools/pins.py             name==version, as requirements.lock holds it
    python tools/pins.py --labels    with the labels of local builds, such as +cu130

What else the environment holds is left out, so a well-used one gives the same lines as a new one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("tensorboard", "accelerate", "dashboard", "parquet", "dev")
"""Those that are tested together; the others bring too much (docs/dependencies.md)."""
TOOLS = {"pip", "setuptools", "wheel"}  # as in `pip freeze`


def declared() -> list[Requirement]:
    """Return what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name in EXTRAS for text in extras[name])]
    return [Requirement(text) for text in texts]


def needed(given: list[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """Return what is asked for and all that it needs in turn, by normal names."""
    result: dict[str, importlib.metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in given]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        result[name] = importlib.metadata.distribution(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in done:
                done.add((name, wanted))
                texts = result[name].requires or []
                waiting += [(Requirement(text), wanted) for text in texts]
    return result


def pins(labels: bool) -> Iterator[str]:
    """Yield the lines, in the order of `pip freeze`."""
    for distribution in sorted(needed(declared()).values(), key=lambda d: d.name.lower()):
        if canonicalize_name(distribution.name) not in TOOLS:
            version = Version(distribution.version)
            yield f"{distribution.name}=={distribution.version if labels else version.public}"


def main() -> int:
    """Print the lines; exit status 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="python tools/pins.py", description=__doc__)
    parser.add_argument("--labels", action="store_true", help="keep labels such as +cu130")
    try:
        print("\n".join(pins(parser.parse_args().labels)))
    except importlib.metadata.PackageNotFoundError as error:
        print(f"pins: {error.name} is not installed in {sys.prefix}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
