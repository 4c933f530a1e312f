"""Registered models: versions of a name, which one is champion, where each comes from.

``promote`` makes a version the champion, ``rollback`` the one before it again; the challenger is
the version that was registered last. What keeps versions and aliases is a `Registry`: a folder
(`mlmodeldev.tracking.registry_folder`), MLflow or W&B.

Example::

    registry = open_registry(Path("runs"))
    promote(registry, "digits")                                 # the challenger is champion now
    model_folder("models:/digits@champion", Path("runs"))       # what inference.py loads
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mlmodeldev.errors import UsageError, nearest

CHAMPION, CHALLENGER = "champion", "challenger"
STAGES = {"production": CHAMPION, "staging": CHALLENGER}
"""Stages, as registries of an earlier kind have them, by the alias that they are now."""

SCHEME = "models:/"
REGISTRY_VARIABLE = "MLMODELDEV_REGISTRY"
"""Names the registry, as ``--registry`` does; else it is a folder among the runs."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))")


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        number: as the registry counts: from 1, W&B from 0.
        created: seconds since 1970.
        digest: of the model's files; the same model is registered once.
        tags: where it comes from: trial, commit, data, metrics, CKA picture.
        model: where its files lie: a folder, or what the registry calls them.
    """

    number: int
    created: float
    digest: str
    tags: dict[str, Any]
    model: str = ""


@dataclass(frozen=True)
class Aliases:
    """Which versions have a name of their own.

    Attributes:
        champion: the version in use; None: there is none yet.
        challenger: the one that may take its place.
        former: champions before, the latest last.
    """

    champion: int | None = None
    challenger: int | None = None
    former: tuple[int, ...] = ()

    def of(self, number: int) -> list[str]:
        """Return the aliases of a version."""
        pairs = ((CHAMPION, self.champion), (CHALLENGER, self.challenger))
        return [alias for alias, version in pairs if version == number]


class Registry(Protocol):
    """What keeps versions and aliases; each call is whole or not at all, by many at once."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def names(self) -> list[str]:
        """Return the registered models' names."""

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, the oldest first; none of a name that is not registered."""

    def aliases(self, name: str) -> Aliases:
        """Return which versions have an alias."""

    def add(self, name: str, model: Path, tags: Mapping[str, Any], picture: Path | None) -> Version:
        """Copy an export as the next version and make it the challenger; the same one only once."""

    def change(self, name: str, change: Callable[[Aliases], Aliases]) -> Aliases:
        """Replace the aliases by what a function makes of them; return them."""

    def model(self, name: str, number: int) -> Path:
        """Return a folder on this machine that holds a version's export, fetched if need be."""


def open_registry(runs_dir: Path, place: str | Path | None = None) -> Registry:
    """Return the registry.

    Args:
        runs_dir: of the project; a registry in a folder lies in its ``.registry``.
        place: a folder, ``mlflow`` or ``wandb`` (`mlmodeldev.tracking.registry_place`); None: what
            `REGISTRY_VARIABLE` names, if anything.

    Raises:
        UsageError: it is none.
    """
    from mlmodeldev.tracking.registry_place import registry_at

    named = place or os.environ.get(REGISTRY_VARIABLE) or runs_dir / ".registry"
    return registry_at(str(named), runs_dir)


def former_champions(champions: Sequence[int], champion: int | None) -> tuple[int, ...]:
    """Return the champions before this one, of a list that may be one change ahead or behind.

    Where champion and list can't be changed in one step, a kill may come between the two.

    >>> former_champions([1, 3], 3), former_champions([1, 3], 1), former_champions([1, 3], 2)
    ((1,), (), (1, 3))
    """
    backwards = [*champions][::-1]
    if champion not in backwards:
        return tuple(champions)
    return tuple(champions[: len(champions) - backwards.index(champion) - 1])


# --- what is done with it


def check_name(name: str) -> str:
    """Return a model's name if it can be one.

    Raises:
        UsageError: it can't.
    """
    if name.lower() in (CHAMPION, CHALLENGER, "latest"):
        raise UsageError(f"{name!r}: is the name of an alias, not one for a model")
    if not is_name(name):
        raise UsageError(f"{name!r}: a model's name has letters, digits, '.', '_' and '-' only")
    return name


def is_name(name: str) -> bool:
    """Return whether a model of a registry has a name that we can write."""
    return bool(_NAME.fullmatch(name))


def promote(registry: Registry, name: str, number: int | None = None) -> Aliases:
    """Make a version the champion.

    Args:
        number: None: the challenger.

    Raises:
        UsageError: there is no such version, or no challenger.
    """
    numbers = [version.number for version in _versions(registry, name)]
    if number is not None and number not in numbers:
        raise UsageError(f"{name}: has no version {number} (there are {_listed(numbers)})")

    def change(aliases: Aliases) -> Aliases:
        chosen = number if number is not None else aliases.challenger
        if chosen is None:
            raise UsageError(f"{name}: has no challenger; name a version: {_listed(numbers)}")
        if chosen == aliases.champion:
            return aliases
        before = () if aliases.champion is None else (aliases.champion,)
        challenger = None if chosen == aliases.challenger else aliases.challenger
        return Aliases(chosen, challenger, (*aliases.former, *before))

    return registry.change(name, change)


def rollback(registry: Registry, name: str) -> Aliases:
    """Make the champion before the champion again; who is rolled back is no challenger.

    Raises:
        UsageError: there was none before.
    """
    _versions(registry, name)

    def change(aliases: Aliases) -> Aliases:
        if not aliases.former:
            raise UsageError(f"{name}: there was no champion before, nothing to go back to")
        return replace(aliases, champion=aliases.former[-1], former=aliases.former[:-1])

    return registry.change(name, change)


def find_version(registry: Registry, name: str, wanted: str) -> Version:
    """Return a model's version.

    Args:
        wanted: a number, ``latest``, an alias, or the stage that an alias stands for.

    Raises:
        UsageError: no such model or version, or nothing has that alias.
    """
    versions = {version.number: version for version in _versions(registry, name)}
    alias = STAGES.get(wanted.lower(), wanted.lower())
    if alias in (CHAMPION, CHALLENGER):
        number = getattr(registry.aliases(name), alias)
        if number is None:
            makes = "promote" if alias == CHAMPION else "register"
            raise UsageError(f"{name}: has no {alias} (mlmodeldev registry {makes} {name} ...)")
    elif wanted == "latest":
        number = max(versions)
    else:
        digits = wanted.removeprefix("v")
        number = int(digits) if digits.isdecimal() else None
    if number not in versions:
        aliases = registry.aliases(name)
        there = [each for each in (CHAMPION, CHALLENGER) if getattr(aliases, each) is not None]
        named = ", ".join([_listed(list(versions)), "latest", *there])
        hint = nearest(wanted, [CHAMPION, CHALLENGER, "latest"])
        raise UsageError(f"{name}: has no version {wanted} (there are {named}){hint}")
    return versions[number]


def model_folder(uri: str, runs_dir: Path, registry: Registry | None = None) -> Path:
    """Return the folder of an export that a name like ``models:/digits@champion`` stands for.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        runs_dir: of the project, where the registry is no other.

    Raises:
        UsageError: it stands for none.
    """
    match = _URI.fullmatch(uri)
    if not match:
        raise UsageError(
            f"{uri}: names no registered model; models:/NAME@{CHAMPION} or models:/NAME/3 would"
        )
    registry = registry or open_registry(runs_dir)
    name, wanted = match[1], match[2] or match[3]
    return registry.model(name, find_version(registry, name, wanted).number)


def _versions(registry: Registry, name: str) -> list[Version]:
    versions = registry.versions(check_name(name))
    if not versions:
        names = registry.names()
        raise UsageError(
            f"{name}: no such model is registered in {registry.place}{nearest(name, names)}"
        )
    return versions


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
