"""Python and its packages: the versions that work, none that is known to do harm, the lock.

Names are read where pip keeps them, nothing is imported.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from mlmodeldev.doctor.line import Line, Scope, fail, ok, warn
from mlmodeldev.trial import environment, software

MALICIOUS = {
    "pytorch-lightning": ("2.6.2", "2.6.3"),
    "lightning": ("2.6.2", "2.6.3"),
}
"""Releases that steal keys (GHSA-w37p-236h-pfx3)."""
OLDEST_PYTHON = (3, 11)
LOCK = "requirements.lock"
_SHOWN = 4


def python(scope: Scope) -> Iterator[Line]:
    """Say which interpreter runs; one that is too old could not have come as far as this."""
    version, place = sys.version.split()[0], sys.executable
    if sys.version_info[:2] < OLDEST_PYTHON:
        least = ".".join(map(str, OLDEST_PYTHON))
        yield fail(f"Python {version} ({place}): {least} or newer is needed", "make venv")
    elif sys.prefix == sys.base_prefix and not _is_conda():
        yield ok(f"Python {version} ({place}); no environment of its own")
    else:
        yield ok(f"Python {version} ({place})")


def _is_conda() -> bool:
    return (Path(sys.prefix) / "conda-meta").is_dir()


def packages(scope: Scope) -> Iterator[Line]:
    """Look for what is missing, too old, too new, malicious, or breaks others' imports."""
    installed = environment.packages()
    problems = [*_malicious(installed), *_out_of_bounds(installed), *_torchvision(installed)]
    yield from problems
    if not problems:
        yield ok(f"all {len(list(requirements()))} that are needed, in versions that work")


def _malicious(installed: Mapping[str, str]) -> Iterator[Line]:
    for name, versions in MALICIOUS.items():
        if installed.get(name) in versions:
            yield fail(
                f"{name} {installed[name]}: a malicious release, which steals keys"
                " (GHSA-w37p-236h-pfx3): change all that were on this machine",
                f"{_pip()} install --force-reinstall '{name}>=2.6.4,<2.7'",
            )


def _out_of_bounds(installed: Mapping[str, str]) -> Iterator[Line]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion

    for text in requirements():
        needed = Requirement(text)
        version = installed.get(canonicalize_name(needed.name))
        if version in MALICIOUS.get(canonicalize_name(needed.name), ()):
            continue  # which is another line
        mend = f"{_pip()} install '{needed.name}{needed.specifier}'"
        try:
            if version is None:
                yield fail(f"{needed.name}: is not installed", mend)
            elif not needed.specifier.contains(version, prereleases=True):
                what = f"{needed.name} {version}: {needed.specifier} is needed"
                yield fail(what, mend)
        except InvalidVersion:
            yield warn(f"{needed.name}: its version {version!r} can't be read", mend)


def _torchvision(installed: Mapping[str, str]) -> Iterator[Line]:
    if "torchvision" in installed:
        yield warn(
            f"torchvision {installed['torchvision']}: nothing here needs it, and a build for"
            " another torch breaks the imports of Lightning and transformers",
            f"{_pip()} uninstall torchvision",
        )


def requirements() -> Iterator[str]:
    """Yield what the library needs, as pip writes it; a clone's own file comes first."""
    file = software.LIBRARY.parent / "pyproject.toml"
    if file.is_file():
        listed = tomllib.loads(file.read_text("utf-8"))["project"]["dependencies"]
    else:
        listed = metadata.requires("mlmodeldev") or []
    yield from (text for text in listed if "extra ==" not in text)


def lock(scope: Scope) -> Iterator[Line]:
    """Compare what is installed with the lock; what is not installed was not wanted here."""
    file = scope.root / LOCK
    if not file.is_file():
        return
    installed, locked = environment.packages(), _locked(file)
    other = [
        f"{name} {installed[name]} ({version})"
        for name, version in locked.items()
        if name in installed and _public(installed[name]) != _public(version)
    ]
    if not other:
        yield ok(f"{LOCK}: {len(locked.keys() & installed.keys())} packages, as it says")
        return
    more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
    mend = "make venv" if (scope.root / "Makefile").is_file() else f"{_pip()} install -r {LOCK}"
    yield warn(f"other versions than in {LOCK}: {', '.join(other[:_SHOWN])}{more}", mend)


def _locked(file: Path) -> dict[str, str]:
    from packaging.utils import canonicalize_name

    lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines()]
    pairs = [line.partition("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version.split()[0] for name, _, version in pairs}


def _public(version: str) -> str:
    """Return a version without its build: ``2.13.0`` of ``2.13.0+cpu``."""
    return version.partition("+")[0]


def _pip() -> str:
    return f"{sys.executable} -m pip"
