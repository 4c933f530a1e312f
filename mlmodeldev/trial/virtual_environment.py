"""The environment that a trial ran in, built again: a virtual environment, package by package.

pip installs the recorded versions with its user's own configuration and nothing beside them. What
a call has installed the next one keeps; `MARK` is written when all of it is there.

Example::

    python = build(trial, place / "environment", project=place / "code")
    environment_of(python, isolated=True)["packages"]       # those of the trial's environment.json
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlmodeldev.atomic import copy_file, replace_folder, write_json, write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.trial.comparison import Trial
from mlmodeldev.trial.environment import LIBRARY_NAME, environment_of, normalized
from mlmodeldev.trial.software import LIBRARY, library_digest

MARK = "complete.json"
"""In the environment's folder: the packages that it has, all of them."""

_BEGUN = "installing.json"
"""Packages that pip is at; after a kill they may be there by half."""
_AT_ONCE = 16
"""Packages that one call of pip installs."""
_NAMED = 10
"""Packages in a line at most."""
_TORCH_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")
_TORCH_INDEX = "https://download.pytorch.org/whl/"
_NO_SUCH_VERSION = re.compile(r"No matching distribution found for ([^\s=@]+)")


def build(trial: Trial, folder: Path, project: Path, base: str | None, partly: bool) -> str:
    """Make the environment, or go on with it; return its interpreter.

    Args:
        trial: its record names the packages.
        folder: the environment's own.
        project: the trial's code; its library, if it has one, is the environment's.
        base: the Python to make it of; None: this one, or another of the recorded version.
        partly: do without packages that no index has.

    Raises:
        UsageError: there is no such Python, pip refuses, or no index has a package.
    """
    wanted = dict(trial.environment.get("packages") or {})
    wanted.pop(LIBRARY_NAME, None)
    if not wanted:
        raise UsageError(f"{trial.folder}: keeps no environment.json, so none can be built")
    python = folder / "bin" / "python"
    if not _is_complete(folder, wanted):
        _make(folder, base or _base_python(str(trial.environment.get("python"))))
        lacking = _install(python, folder, wanted, trial.environment.get("origins") or {})
        if lacking and not partly:
            raise UsageError(_refusal(lacking, wanted, python))
        if not lacking:
            write_json(folder / MARK, wanted)
    _place_library(trial, folder, project)
    return str(python)


def _is_complete(folder: Path, wanted: Mapping[str, str]) -> bool:
    try:
        return bool(json.loads((folder / MARK).read_text()) == wanted)
    except (OSError, ValueError):
        return False


def _refusal(lacking: Sequence[str], wanted: Mapping[str, str], python: Path) -> str:
    few = ", ".join(f"{name}=={wanted[name]}" for name in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    return (
        f"no index has {few}{more}; install them by hand (python -m pip --python {python} install"
        " ...) and repeat the command, or go on without them by --anyway"
    )


# --- Python


def _base_python(version: str) -> str:
    """Return an interpreter of the recorded version but for its last number.

    Raises:
        UsageError: there is none.
    """
    minor = ".".join(version.split(".")[:2])
    if platform.python_version().startswith(f"{minor}."):
        return sys.executable
    candidate = shutil.which(f"python{minor}")
    if candidate and _answers(candidate, minor):
        return candidate
    raise UsageError(
        f"the trial ran on Python {version}: this one is {platform.python_version()}, and there is"
        f" no python{minor} on the PATH; install it, or name one by --python FILE"
    )


def _answers(python: str, minor: str) -> bool:
    """Whether it is what its name says; pyenv has programs for versions that it lacks."""
    try:
        return str(environment_of(python)["python"]).startswith(f"{minor}.")
    except UsageError:
        return False


def _make(folder: Path, base: str) -> None:
    """Make an empty environment; pip is not in it, unless the trial's had one."""
    if (folder / "pyvenv.cfg").is_file() and (folder / "bin" / "python").exists():
        return
    command = [base, "-m", "venv", "--without-pip", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"--python {base}: does not run ({error.strerror})") from None
    if done.returncode:
        raise UsageError(f"{base} -m venv {folder}: {_last_line(done.stderr or done.stdout)}")


# --- packages


def _install(
    python: Path, folder: Path, wanted: Mapping[str, str], origins: Mapping[str, str]
) -> list[str]:
    """Install what is missing; return the packages that were not to be had.

    Raises:
        UsageError: pip fails of another reason.
    """
    halves, lacking = _halves(folder), list[str]()
    missing = [*_missing(python, wanted, halves)]
    for names in _batches(missing):
        print(
            f"environment: {len(wanted) - len(missing) + missing.index(names[0])} of {len(wanted)}"
            f" packages; installing {names[0]}{' ...' if len(names) > 1 else ''}",
            file=sys.stderr,
            flush=True,
        )
        write_json(folder / _BEGUN, names)
        lacking += _install_batch(python, names, wanted, origins, bool(halves & {*names}))
        (folder / _BEGUN).unlink()
    still = [*_missing(python, wanted, set())]
    return [name for name in wanted if name in {*lacking, *still}]


def _halves(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / _BEGUN).read_text()))
    except (OSError, ValueError):
        return set()


def _missing(python: Path, wanted: Mapping[str, str], halves: set[str]) -> Iterator[str]:
    """Yield what is not there as recorded, torch first: no other's wish may choose its build."""
    there = environment_of(str(python), isolated=True)["packages"]
    for name in sorted(wanted, key=lambda name: (name != "torch", name)):
        if there.get(name) != wanted[name] or name in halves:
            yield name


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield names in groups; torch, the largest, alone."""
    alone = [name for name in names if name == "torch"]
    others = [name for name in names if name != "torch"]
    if alone:
        yield alone
    for start in range(0, len(others), _AT_ONCE):
        yield others[start : start + _AT_ONCE]


def _install_batch(
    python: Path,
    names: Sequence[str],
    wanted: Mapping[str, str],
    origins: Mapping[str, str],
    over_halves: bool,
) -> list[str]:
    """Install packages; return those that no index has."""
    left, lacking = list(names), list[str]()
    options = ["--ignore-installed"] if over_halves else []
    gone = [name for name in left if _is_gone(origins.get(name, ""))]
    left = [name for name in left if name not in gone]
    while left:
        refused = _pip(python, [_requirement(name, wanted, origins) for name in left], options)
        if refused is None:
            break
        name = next((each for each in left if normalized(each) == normalized(refused)), None)
        if name is None:  # another's, such as what builds it
            raise UsageError(f"environment: no index has {refused}, which {left[0]} ... needs")
        left.remove(name)
        build = wanted[name].partition("+")[2]
        if not _TORCH_BUILD.fullmatch(build) or _pip(
            python,
            [f"{name}=={wanted[name]}"],
            [*options, f"--extra-index-url={_TORCH_INDEX}{build}"],
        ):
            lacking.append(name)
    return [*gone, *lacking]


def _is_gone(origin: str) -> bool:
    """Whether a package was installed from a folder that is not here."""
    return origin.startswith("/") and not Path(origin).is_dir()


def _requirement(name: str, wanted: Mapping[str, str], origins: Mapping[str, str]) -> str:
    """Return what pip is to install; a package of the user's own is not looked for in an index."""
    origin = origins.get(name)
    if origin is None:
        return f"{name}=={wanted[name]}"
    return origin if origin.startswith("/") else f"{name} @ {origin}"


def _pip(python: Path, requirements: Sequence[str], options: Sequence[str]) -> str | None:
    """Install requirements into an environment; return the name of one that no index has.

    Raises:
        UsageError: pip is not here, or fails of another reason.
    """
    if importlib.util.find_spec("pip") is None:
        raise UsageError(f"{sys.executable} has no pip; install it: python -m ensurepip")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    quiet = ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--no-input"]
    done = subprocess.run(
        [*command, *quiet, *options, *requirements],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_variables(),
        check=False,
    )
    if done.returncode == 0:
        return None
    refused = _NO_SUCH_VERSION.search(done.stderr)
    if "Retrying (" in done.stderr or refused is None:
        raise UsageError(
            f"environment: pip could not install {requirements[0]}"
            f"{f' and {len(requirements) - 1} more' if requirements[1:] else ''}:"
            f" {_last_line(done.stderr)}; the same command goes on"
        )
    return refused[1]


def _variables() -> dict[str, str]:
    """Return this process's variables, less those that lead pip to another place."""
    apart = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    return {**{n: v for n, v in os.environ.items() if n not in apart}, "PIP_USER": "0"}


def _last_line(text: str) -> str:
    """Return the last line that names an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR: ")


# --- the library


def _place_library(trial: Trial, folder: Path, project: Path) -> None:
    """Let the environment import the library that the trial ran with.

    It is the project's, where that has its own; else this one, if it is the same; else the index's.
    """
    (packages,) = folder.glob("lib/python*/site-packages")
    if (project / LIBRARY_NAME).is_dir():
        write_text(packages / "project.pth", f"{project}\n")
        return
    software = trial.record.get("software") or {}
    if (packages / LIBRARY_NAME).is_dir():
        return
    if software.get("library_digest") == library_digest():
        with replace_folder(packages / LIBRARY_NAME) as new:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(
                LIBRARY, new, ignore=ignored, dirs_exist_ok=True, copy_function=copy_file
            )
        return
    requirement = f"{LIBRARY_NAME}=={software.get('library')}"
    if _pip(folder / "bin" / "python", [requirement], []):
        raise UsageError(
            f"no index has {requirement}, and this one is not the same (its digest is"
            f" {library_digest()}, the trial's {software.get('library_digest')}); --repository"
            " names a clone, or install it by hand into"
            f" {folder / 'bin' / 'python'} and repeat the command"
        )
