"""What registries on a server have in common: one change at a time, models copied here and checked.

The server counts the versions and keeps aliases and files. Of a model that is asked for, a copy
lies among the runs (`MODELS_FOLDER`) under the digest of its files: it appears whole or not at all,
is checked each time, and may be deleted at any time.

Changes from one folder of runs wait for each other. Those from elsewhere do not: of two versions
that are promoted at the same moment, the later one is champion, and who promoted the other one is
told.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import replace_folder, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock
from mlmodeldev.tracking.registry import Aliases, Version
from mlmodeldev.tracking.registry_folder import LOCK_SECONDS, folder_digest

MODELS_FOLDER = ".registry-models"
"""In the folder of runs: copies of registered models, by the digests of their files."""
LINEAGE = "lineage"
"""Beside a model's files on the server: a folder with the CKA picture, which is no part of it."""


@dataclass(frozen=True)
class Package:
    """What is to become a version: an export, its digest, where it comes from, a picture."""

    model: Path
    digest: str
    tags: dict[str, Any]
    picture: Path | None


class RemoteRegistry(ABC):
    """Versions and aliases on a server.

    Args:
        place: where that is, for messages.
        runs_dir: of the project; copies of models lie there.
    """

    def __init__(self, place: str, runs_dir: Path) -> None:
        self.place = place
        self.models = runs_dir.expanduser().absolute() / MODELS_FOLDER

    # --- what each kind does in its way

    @abstractmethod
    def names(self) -> list[str]:
        """Return the registered models' names."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, the oldest first; none of a name that is not registered."""

    @abstractmethod
    def aliases(self, name: str) -> Aliases:
        """Return which versions have an alias."""

    @abstractmethod
    def _store(self, name: str, package: Package) -> Version:
        """Make the next version, in one step, after its files are there."""

    @abstractmethod
    def _write(self, name: str, before: Aliases, after: Aliases) -> None:
        """Change the aliases, so that a kill in between leaves a state that is one or the other."""

    @abstractmethod
    def _fetch(self, name: str, version: Version, folder: Path) -> None:
        """Copy a version's files, and nothing else, into an empty folder."""

    @abstractmethod
    def _asking(self) -> contextlib.AbstractContextManager[None]:
        """Turn whatever the client raises into a `UsageError` of one line."""

    def _lock_file(self, name: str) -> Path:
        return self.models / f".{name}.lock"

    # --- what is the same

    def add(self, name: str, model: Path, tags: Mapping[str, Any], picture: Path | None) -> Version:
        """Copy an export as the next version and make it the challenger; the same one only once.

        Raises:
            UsageError: the server does not answer or refuses, or another registers for ten minutes.
        """
        digest = folder_digest(model)
        with self._locked(self._lock_file(name)), self._asking():
            same = [version for version in self.versions(name) if version.digest == digest]
            package = Package(model, digest, dict(tags), picture)
            version = same[-1] if same else self._store(name, package)
            aliases = self.aliases(name)
            if version.number not in (aliases.champion, aliases.challenger):
                self._write(name, aliases, replace(aliases, challenger=version.number))
            return version

    def change(self, name: str, change: Callable[[Aliases], Aliases]) -> Aliases:
        """Replace the aliases by what a function makes of them; return them.

        Raises:
            UsageError: the server does not answer or refuses, or another was at it as well.
        """
        with self._locked(self._lock_file(name)), self._asking():
            before = self.aliases(name)
            after = change(before)
            if after != before:
                self._write(name, before, after)
            now = self.aliases(name)
            if now.champion != after.champion:
                raise UsageError(
                    f"{name}: another has made version {now.champion} the champion at the same time"
                )
            return now

    def model(self, name: str, number: int) -> Path:
        """Return the folder of a copy of a version's export, which is fetched if need be.

        Raises:
            UsageError: it can't be had, or is not what was registered.
        """
        with self._asking():
            where = f"models:/{name}/{number}"
            versions = {version.number: version for version in self.versions(name)}
            if number not in versions:
                raise UsageError(f"{where}: there is no such version ({self.place})")
            version = versions[number]
            if not version.digest:
                raise UsageError(f"{where}: was not registered by mlmodeldev ({self.place})")
            folder = self.models / version.digest
            if _is_whole(folder, version.digest):
                return folder
            with self._locked(self.models / f".{version.digest}.lock"):
                if not _is_whole(folder, version.digest):
                    with replace_folder(folder) as made:
                        self._fetch(name, version, made)
                        if folder_digest(made) != version.digest:
                            raise UsageError(
                                f"{where}: what {self.place} has is not what was registered (its"
                                " files have another digest)"
                            )
            return folder

    @contextlib.contextmanager
    def _locked(self, file: Path) -> Iterator[None]:
        from filelock import Timeout

        with writing_to(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ProcessLock(file, timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise UsageError(
                f"{file}: another process has kept this lock for {LOCK_SECONDS:.0f} s"
            ) from None


def _is_whole(folder: Path, digest: str) -> bool:
    return folder.is_dir() and folder_digest(folder) == digest
