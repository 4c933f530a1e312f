"""A registry of models in a plain folder, for labs that have no server.

``<registry>/<name>/<number>/`` holds ``version.json``, the export in ``model/`` and the CKA
picture; ``<registry>/<name>/aliases.json`` says who is champion. A version appears whole and never
changes; aliases are one small file. Changes of a name wait for each other (a lock beside them).

Example::

    registry = FolderRegistry(Path("runs/.registry"))
    registry.add("digits", Path("runs/digits/ab12cd34/best"), {"trial": "digits/ab12cd34"}, None)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import copy_file, replace_folder, write_json, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import ProcessLock
from mlmodeldev.tracking.registry import Aliases, Version

LOCK_SECONDS = 600.0
"""How long to wait while another registers: a large model takes its time to be copied."""


class FolderRegistry:
    """Versions and aliases in a folder.

    Args:
        folder: of the registry; made by the first `add`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.folder)

    def names(self) -> list[str]:
        """Return the registered models' names."""
        folders = {file.parents[1].name for file in self.folder.glob("[!.]*/[1-9]*/version.json")}
        return sorted(folders)

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, the oldest first; none of a name that is not registered."""
        files = self.folder.glob(f"{name}/[1-9]*/version.json")
        return sorted(map(_read_version, files), key=lambda version: version.number)

    def aliases(self, name: str) -> Aliases:
        """Return which versions have an alias."""
        content = _read_json(self.folder / name / "aliases.json", {})
        former = tuple(content.get("former", ()))
        return Aliases(content.get("champion"), content.get("challenger"), former)

    def add(self, name: str, model: Path, tags: Mapping[str, Any], picture: Path | None) -> Version:
        """Copy an export as the next version and make it the challenger; the same one only once.

        Raises:
            UsageError: it can't be read or written, or another registers for ten minutes.
        """
        digest = folder_digest(model)
        with self._locked(name):
            versions = self.versions(name)
            same = [version for version in versions if version.digest == digest]
            number = versions[-1].number + 1 if versions else 1
            place = str(self.model(name, number))
            made = Version(number, time.time(), digest, dict(tags), place)
            version = same[-1] if same else self._store(name, made, model, picture)
            aliases = self.aliases(name)
            if version.number != aliases.champion:
                self._write(name, replace(aliases, challenger=version.number))
            return version

    def _store(self, name: str, version: Version, model: Path, picture: Path | None) -> Version:
        folder = self.folder / name / str(version.number)
        with replace_folder(folder) as made:
            shutil.copytree(model, made / "model", copy_function=copy_file)
            if folder_digest(made / "model") != version.digest:
                raise UsageError(f"{model}: has changed while it was copied; register it again")
            if picture is not None:
                shutil.copy2(picture, made / picture.name)
                version.tags["cka"] = str(folder / picture.name)
            content = {key: value for key, value in asdict(version).items() if key != "model"}
            write_json(made / "version.json", {"version": 1, **content})
        return version

    def change(self, name: str, change: Callable[[Aliases], Aliases]) -> Aliases:
        """Replace the aliases by what a function makes of them; return them."""
        with self._locked(name):
            aliases = change(self.aliases(name))
            self._write(name, aliases)
            return aliases

    def model(self, name: str, number: int) -> Path:
        """Return the folder that holds a version's export."""
        return self.folder / name / str(number) / "model"

    def _write(self, name: str, aliases: Aliases) -> None:
        write_json(self.folder / name / "aliases.json", asdict(aliases))

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        from filelock import Timeout

        place = self.folder / name
        with writing_to(place):
            place.mkdir(parents=True, exist_ok=True)
        try:
            with ProcessLock(place / ".lock", timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise UsageError(
                f"{place}: another process has kept its lock for {LOCK_SECONDS:.0f} s"
            ) from None


def folder_digest(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def _read_version(file: Path) -> Version:
    content = _read_json(file, None)
    values = {key: content[key] for key in ("number", "created", "digest", "tags")}
    return Version(**values, model=str(file.parent / "model"))


def _read_json(file: Path, default: Any) -> Any:
    """Return what a file of the registry holds.

    Raises:
        UsageError: it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = default
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"{file}: is damaged")
    return content
