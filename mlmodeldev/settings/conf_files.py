"""Where files of settings lie: the project's ``conf/``, and behind it the library's.

A project's file comes before the library's of the same name, so any of them can be replaced.
"""

from __future__ import annotations

from pathlib import Path

from mlmodeldev import conf
from mlmodeldev.project import is_file, project_root

LIBRARY_CONF = Path(conf.__path__[0])
"""The library's files of settings."""


def conf_folders() -> tuple[Path, Path]:
    """Return the folders of settings, the one that comes first in front."""
    return project_root() / "conf", LIBRARY_CONF


def newest() -> tuple[str, int, int]:
    """Return what changes when a file does: the folder, how many there are, the latest change."""
    files = [file for folder in conf_folders() for file in folder.rglob("*.yaml")]
    latest = max((file.stat().st_mtime_ns for file in files), default=0)
    return str(conf_folders()[0]), len(files), latest


def choices_of(group: str) -> list[str]:
    """Return the files of a group, such as ``model``: what may be chosen."""
    try:
        return sorted(
            {file.stem for folder in conf_folders() for file in (folder / group).glob("*.yaml")}
        )
    except (OSError, ValueError):  # no folder can have this name
        return []


def groups() -> set[str]:
    """Return the names of all groups."""
    folders = (path for folder in conf_folders() for path in folder.iterdir() if path.is_dir())
    return {path.name for path in folders if any(path.glob("*.yaml"))}


def file_of_choice(group: str, name: str | None) -> Path | None:
    """Return the file behind ``group=name``, if there is one."""
    files = (folder / group / f"{name}.yaml" for folder in conf_folders())
    return next((file for file in files if is_file(file)), None)


def default_choice(group: str) -> str | None:
    """Return the file of a group that ``conf/config.yaml`` chooses; None: it chooses none.

    So also where the file can't be read: what composes settings says why.
    """
    import yaml

    try:
        config = yaml.safe_load((conf_folders()[0] / "config.yaml").read_text(encoding="utf-8"))
        chosen = [entry for entry in config.get("defaults", []) if isinstance(entry, dict)]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, yaml.YAMLError):
        return None
    return next((entry[group] for entry in chosen if group in entry), None)


def list_groups() -> str:
    """Return a line for each group with what may be chosen of it, for ``--help``."""
    lines = [f"{group}: {', '.join(choices_of(group))}" for group in sorted(groups())]
    return "\n".join(lines)
