"""The project: the folder of trainer.py, model.py and conf/; and what git says of it.

    project_root()                               # Path("/data/digits")
    put_on_path(project_root())                  # its modules, also those below src/, import
    run_git(project_root(), "rev-parse", "HEAD")     # a commit, or None where there is none

The library may be installed anywhere, so its own files never tell where the project is.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError

PROJECT_VARIABLE = "MLMODELDEV_PROJECT"
"""Names the project's folder, for a process that is started elsewhere; it comes before all else."""

SOURCES = (Path(), Path("src"))
"""Where a project's modules lie, below its folder; the first place that has one is taken."""

_MARK = Path("conf") / "config.yaml"


def is_file(path: Path) -> bool:
    """Whether a file is there; also of a name that is too long for one, or can be no name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def project_root() -> Path:
    """Return the project's folder.

    It is what ``MLMODELDEV_PROJECT`` names, else the folder of the trainer.py (or inference.py,
    slurm/SlurmTrain.py) that runs or was imported, else the working directory or its nearest
    parent that has ``conf/config.yaml``.

    Raises:
        UsageError: there is no such folder.
    """
    named = os.environ.get(PROJECT_VARIABLE)
    if named:
        root = Path(named).expanduser().absolute()
        if not (root / _MARK).is_file():
            raise UsageError(f"{PROJECT_VARIABLE}={named}: no project there (it has no {_MARK})")
        return root
    for folder in _candidates():
        if (folder / _MARK).is_file():
            return folder
    raise UsageError(
        f"{Path.cwd()}: no project here (no {_MARK} in this folder or above it); change into one,"
        f" set {PROJECT_VARIABLE}, or make one: mlmodeldev init DIR"
    )


def _candidates() -> Iterator[Path]:
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if program is not None and Path(program).name in ("trainer.py", "inference.py"):
        yield Path(program).resolve().parent
    if program is not None and Path(program).name == "SlurmTrain.py":
        yield Path(program).resolve().parents[1]
    trainer = getattr(sys.modules.get("trainer"), "__file__", None)  # a notebook imports it
    if trainer is not None:
        yield Path(trainer).resolve().parent
    here = Path.cwd()
    yield from (here, *here.parents)


def import_places(root: Path) -> list[str]:
    """Return the folders that a project's modules are imported from, the first one first."""
    return [str(root / source) for source in SOURCES if (root / source).is_dir()]


def put_on_path(root: Path) -> None:
    """Let imports begin in the project; what is on ``sys.path`` already stays where it is."""
    at = 0
    for place in import_places(root):
        if place in sys.path:
            at = sys.path.index(place) + 1
        else:
            sys.path.insert(at, place)
            at += 1


def import_program(name: str) -> Any:
    """Import a program by its module's name; return the module.

    What lies beside its file imports as well, as it does where Python is given the file: after
    the project's own modules, before all others.
    """
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin and "." in name:
        folder = Path(spec.origin).parent
        top = str(folder.parents[name.count(".") - 1])
        if str(folder) not in sys.path:
            at = sys.path.index(top) + 1 if top in sys.path else 0
            sys.path.insert(at, str(folder))
    return importlib.import_module(name)


def run_git(root: Path, *arguments: str, seconds: float = 60) -> str | None:
    """Return what a git command prints in a folder; None: no repository, no git, or an error."""
    try:
        return git_output(root, *arguments, seconds=seconds).decode().strip("\n")
    except (UsageError, UnicodeDecodeError):
        return None


def git_output(root: Path, *arguments: str, seconds: float = 60) -> bytes:
    """Return the bytes that a git command prints in a folder.

    Raises:
        UsageError: there is no git, or what git says against it.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"git {arguments[0]}: {error}") from None
    if done.returncode:
        raise UsageError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
