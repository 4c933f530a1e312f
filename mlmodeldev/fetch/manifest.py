"""Datasets as data: which files, how large, which digest, where they go, what must be there.

Example::

    folder = prepare("cola", "data")                # data/cola/CoLA/train.tsv and so on
    folder = prepare("my_set.yaml", "data", offline=True)

A manifest is a YAML file; those in ``manifests/`` are found by name, any other by its path.
``docs/fetch.md`` describes the format and how to add one.

A laboratory's own copies: ``MLMODELDEV_MIRROR`` holds base addresses (``http``, ``https`` or
``file``, separated by spaces); each file is asked for as ``BASE/DATASET/FILE`` there first.
``MLMODELDEV_MANIFESTS`` names a folder of manifests that are found by name before ours, for
datasets of one's own or other versions of a known one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.fetch.source import FetchError, Source

FOLDER = Path(__file__).parent / "manifests"
MIRROR_VARIABLE = "MLMODELDEV_MIRROR"
FOLDER_VARIABLE = "MLMODELDEV_MANIFESTS"
_KEYS = ("title", "homepage", "licence", "files", "layout")
_SOURCE_KEYS = ("urls", "name", "bytes", "sha256", "md5", "headers", "hosts")
_FILE_KEYS = (*_SOURCE_KEYS, "unpack", "flatten", "max_bytes")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ManifestEntry:
    """One file of a dataset.

    Args:
        source: What to fetch.
        unpack: Folder below the dataset's to unpack it into; empty: leave it as it is.
        flatten: Leave out the one top folder of the archive.
        max_bytes: Most bytes after unpacking; ``None``: see ``unpack``.
    """

    source: Source
    unpack: str = ""
    flatten: bool = True
    max_bytes: int | None = None


@dataclass(frozen=True)
class Manifest:
    """A dataset: its files, and the paths that must be there when it is ready."""

    name: str
    title: str
    homepage: str
    licence: str
    entries: tuple[ManifestEntry, ...]
    layout: tuple[str, ...]

    @property
    def bytes(self) -> int | None:
        """Size of all downloads, or ``None`` if one is not known."""
        sizes = [entry.source.bytes for entry in self.entries]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def select(self, only: Sequence[str] | None) -> tuple[ManifestEntry, ...]:
        """Return the entries with these file names (``None``: all).

        Raises:
            UsageError: A name that no file has.
        """
        if only is None:
            return self.entries
        names = [entry.source.name for entry in self.entries]
        for name in only:
            if name not in names:
                raise UsageError(
                    f"{self.name} has no file {name!r}; it has {', '.join(names)}"
                    f"{nearest(name, names)}"
                )
        return tuple(entry for entry in self.entries if entry.source.name in only)


def names() -> list[str]:
    """Return the names of all manifests: the package's and those of ``MLMODELDEV_MANIFESTS``."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")})


def _folders() -> list[Path]:
    """Where manifests are looked for by name, the first one first."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own and not Path(own).expanduser().is_dir():
        raise UsageError(f"{FOLDER_VARIABLE}={own}: there is no such folder")
    return [*([Path(own).expanduser()] if own else []), FOLDER]


def load(name: str | Path) -> Manifest:
    """Read a manifest by its name, or by the path of a ``.yaml`` file.

    Raises:
        UsageError: There is none, or it says something that it can't.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = next(
            (f / f"{name}.yaml" for f in _folders() if (f / f"{name}.yaml").is_file()), path
        )
        if str(name) not in names():
            raise UsageError(
                f"no dataset is called {str(name)!r}; known are {', '.join(names())}, or give "
                f"the path of a .yaml file{nearest(str(name), names())}"
            )
    return _mirrored(_parse(path.stem, path, _read(path)))


def _mirrored(manifest: Manifest) -> Manifest:
    """Put the addresses of ``MLMODELDEV_MIRROR`` before the published ones."""
    bases = os.environ.get(MIRROR_VARIABLE, "").split()
    if not bases:
        return manifest

    def mirrored(entry: ManifestEntry) -> ManifestEntry:
        source = entry.source
        own = [f"{base.rstrip('/')}/{manifest.name}/{quote(source.name)}" for base in bases]
        try:
            # A name taken from the first address stays: files are found under it later; so do the
            # hosts that get the headers.
            changed = dataclasses.replace(source, urls=[*own, *source.urls], name=source.name)
        except UsageError as error:
            raise UsageError(f"{MIRROR_VARIABLE}: {error}") from None
        return dataclasses.replace(entry, source=changed)

    return dataclasses.replace(manifest, entries=tuple(map(mirrored, manifest.entries)))


def prepare(
    name: str | Path | Manifest,
    directory: str | Path,
    *,
    only: Sequence[str] | None = None,
    offline: bool | None = None,
    keep_archives: bool = True,
    touch: bool = False,
    **options: Any,
) -> Path:
    """Fetch and unpack a dataset into ``directory/NAME`` and return that folder.

    Args:
        only: Names of the files wanted; ``None``: all of them.
        offline: See ``fetch``. What is unpacked already needs no archive.
        keep_archives: ``False`` removes each archive of known SHA-256 when it is unpacked.
        touch: Renew the times of everything, for file systems that purge by age.
        options: More arguments of ``fetch``.

    Raises:
        FetchError: A file can't be had, or an archive holds something else than it should.
    """
    manifest = name if isinstance(name, Manifest) else load(name)
    folder = Path(directory).expanduser().absolute() / manifest.name
    entries = manifest.select(only)
    for entry in entries:
        _prepare_entry(entry, folder, keep_archives, {**options, "offline": offline}, touch)
    _check_layout(manifest, folder, entries)
    return folder


def _prepare_entry(
    entry: ManifestEntry, folder: Path, keep: bool, options: dict[str, Any], touch: bool
) -> None:
    from mlmodeldev.fetch.download import fetch
    from mlmodeldev.fetch.unpacking import is_unpacked, renew, unpack
    from mlmodeldev.fetch.verify import forget

    source, target = entry.source, folder / entry.unpack
    archive = folder / source.name
    done = bool(entry.unpack and source.sha256) and is_unpacked(target, {"sha256": source.sha256})
    if done and not (keep and archive.exists()):
        if touch:
            renew(target)
    else:
        archive = fetch(source, folder, touch=touch, **options)
        if entry.unpack:
            _logger.info("%s: unpacking", source.name)
            unpack(archive, target, flatten=entry.flatten, max_bytes=entry.max_bytes, touch=touch)
    if entry.unpack and source.sha256 and not keep:
        archive.unlink(missing_ok=True)
        forget(archive)


def _check_layout(manifest: Manifest, folder: Path, entries: Sequence[ManifestEntry]) -> None:
    """Look for the paths of the layout that the wanted entries are to bring."""
    roots = {entry.unpack or entry.source.name for entry in entries}
    for path in manifest.layout:
        if path.split("/")[0] in roots and not (folder / path).exists():
            raise FetchError(f"{manifest.name}: {folder / path} is missing after unpacking")


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a manifest is a mapping with the keys {', '.join(_KEYS)}")
    return content


def _parse(name: str, path: Path, content: dict[str, Any]) -> Manifest:
    _check_keys(path, content, _KEYS, needed="files")
    files = content["files"]
    if not isinstance(files, list) or not files:
        raise UsageError(f"{path}: files must be a list with at least one entry")
    layout = content.get("layout") or ()
    if not isinstance(layout, list | tuple):
        raise UsageError(f"{path}: layout must be a list of paths")
    licence = str(content.get("licence", ""))
    entries = tuple(_entry(path, item, licence) for item in files)
    _check_places(path, entries)
    return Manifest(
        name=name,
        title=str(content.get("title", name)),
        homepage=str(content.get("homepage", "")),
        licence=licence,
        entries=entries,
        layout=tuple(_inside(path, item) for item in layout),
    )


def _entry(path: Path, item: Any, licence: str) -> ManifestEntry:
    if not isinstance(item, dict):
        raise UsageError(
            f"{path}: each of files is a mapping with the keys {', '.join(_FILE_KEYS)}"
        )
    _check_keys(path, item, _FILE_KEYS, needed="urls")
    headers = item.get("headers", {})
    texts = isinstance(headers, dict) and all(
        isinstance(each, str) for pair in headers.items() for each in pair
    )
    if not texts:
        raise UsageError(f"{path}: headers must be a mapping of names to texts")
    if not isinstance(item.get("max_bytes"), int | None):
        raise UsageError(f"{path}: max_bytes={item['max_bytes']!r} is no number of bytes")
    arguments = {key: item[key] for key in _SOURCE_KEYS if key in item}
    try:
        source = Source(**arguments, licence=licence)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return ManifestEntry(
        source,
        unpack=_inside(path, item["unpack"]) if item.get("unpack") else "",
        flatten=bool(item.get("flatten", True)),
        max_bytes=item.get("max_bytes"),
    )


def _check_places(path: Path, entries: Sequence[ManifestEntry]) -> None:
    """Refuse files of which one would take the place of another, or of what comes out of it.

    A folder within that of an earlier file is its own: it is unpacked when the other is there.
    """
    files: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        other = files.setdefault(entry.source.name, number)
        if other != number:
            raise UsageError(
                f"{path}: files {other} and {number} are both called {entry.source.name}; give one"
                " of them another name (name)"
            )
    folders: dict[PurePosixPath, str] = {}
    above: dict[PurePosixPath, str] = {}
    for entry in entries:
        if not entry.unpack:
            continue
        name, folder = entry.source.name, PurePosixPath(entry.unpack)
        if not folder.parts:
            raise UsageError(
                f"{path}: {name} can't be unpacked into {entry.unpack!r}, where it lies itself;"
                " choose a folder (unpack)"
            )
        if folder in folders:
            raise UsageError(
                f"{path}: {folders[folder]} and {name} are both unpacked into {folder}; the later"
                " would replace the earlier"
            )
        if folder in above:
            raise UsageError(
                f"{path}: {above[folder]} is unpacked within {folder}, the folder of {name}; list"
                f" {name} before it"
            )
        if folder.parts[0] in files:
            raise UsageError(
                f"{path}: {name} can't be unpacked into {folder}: {folder.parts[0]} is one of the"
                " files; choose another folder (unpack)"
            )
        folders[folder] = name
        above.update((parent, name) for parent in folder.parents)


def _check_keys(path: Path, content: dict[str, Any], allowed: Sequence[str], needed: str) -> None:
    for key in content:
        if key not in allowed:
            raise UsageError(
                f"{path}: {key!r} is no key of a manifest; there are {', '.join(allowed)}"
                f"{nearest(str(key), allowed)}"
            )
    if needed not in content:
        raise UsageError(f"{path}: {needed} is missing")


def _inside(path: Path, item: Any) -> str:
    """Return a relative path that stays in the dataset's folder."""
    from mlmodeldev.fetch.archive import safe_path

    if not isinstance(item, str):
        raise UsageError(f"{path}: {item!r} is not a path")
    return str(safe_path(path, item))
