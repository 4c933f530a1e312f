"""DVC, a program of its own: where it is, how it is called, what it says when it fails.

It brings a hundred packages, some of which disagree with the project's own, so it is never
imported. Its repository is the nearest folder above that has ``.dvc``, else git's.

Example::

    dvc = Dvc(Path.cwd())
    dvc.begin()                                       # once in a repository
    dvc.run("add", "--quiet", "data/cola")
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mlmodeldev.atomic import write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.address import split_address
from mlmodeldev.project import run_git
from mlmodeldev.secrets import mask

VARIABLE = "MLMODELDEV_DVC"
"""Names the program; it comes before one on the PATH and one of the project's."""

ENVIRONMENT = ".venv-dvc"
"""DVC's own environment in a clone; ``make .venv-dvc`` makes it."""

_CONFIG = """[core]
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,symlink,copy"
"""
"""Linked, data take their room once: DVC keeps all of them in its cache."""

_IGNORED = (".fetch", "prepared", ".record.lock*")
"""Markers, caches and locks of ours: no data."""


def find_dvc(*folders: Path) -> list[str]:
    """Return the words that DVC's command line begins with.

    Args:
        folders: those that may have an environment of DVC's own, the first one first.

    Raises:
        UsageError: there is none, with how to get one.
    """
    if named := os.environ.get(VARIABLE):
        if program := shutil.which(named):
            return [program]
        raise UsageError(f"{VARIABLE}={named}: no such program")
    if program := shutil.which("dvc"):
        return [program]
    for folder in folders:
        python = folder / ENVIRONMENT / "bin" / "python"
        if (python.parent / "dvc").exists() and python.exists():
            return [str(python), "-m", "dvc"]  # also where the clone was moved since
    raise UsageError(
        f"no dvc on the PATH and none in {ENVIRONMENT}: make {ENVIRONMENT} in a clone, else python"
        f" -m venv {ENVIRONMENT} && {ENVIRONMENT}/bin/pip install dvc dvc-s3;"
        f" {VARIABLE}=/path/to/dvc names one"
    )


def repository_of(path: Path) -> Path:
    """Return the root of DVC's repository that a path is to be kept in.

    Raises:
        UsageError: the path lies in no git repository.
    """
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    git = run_git(folder, "rev-parse", "--show-toplevel")
    if git is None:
        raise UsageError(f"{path}: lies in no git repository; git keeps the versions (git init)")
    top = Path(git)
    for place in (folder, *folder.parents):
        if (place / ".dvc").is_dir():
            return place
        if place.resolve() == top.resolve():
            return place
    return top


class Dvc:
    """DVC in one repository.

    Attributes:
        root: of the repository.
    """

    def __init__(self, root: Path, project: Path | None = None) -> None:
        self.root = root
        self._program = find_dvc(*([project] if project else []), root)

    @property
    def _config(self) -> Path:
        return self.root / ".dvc" / "config"

    def begin(self) -> None:
        """Make the repository where there is none: links into the cache, no calls home."""
        if (self.root / ".dvc").is_dir():
            return
        self.run("init", "--quiet", cwd=self.root)
        write_text(self._config, _CONFIG)
        self.ignore(*_IGNORED)

    def ignore(self, *patterns: str) -> None:
        """Add what is missing to ``.dvcignore``."""
        file = self.root / ".dvcignore"
        text = file.read_text("utf-8") if file.is_file() else ""
        if new := [pattern for pattern in patterns if pattern not in text.splitlines()]:
            start = text if not text or text.endswith("\n") else f"{text}\n"
            write_text(file, start + "".join(f"{pattern}\n" for pattern in new))

    def has_remote(self) -> bool:
        """Whether there is a default remote to push to."""
        if not (self.root / ".dvc").is_dir():
            return False
        for name in ("config", "config.local"):
            file = self.root / ".dvc" / name
            if file.is_file() and any(
                line.partition("=")[0].strip() == "remote"
                for line in file.read_text("utf-8").splitlines()
            ):
                return True
        try:
            return bool(self.run("config", "core.remote", cwd=self.root).strip())
        except UsageError:
            return False

    def set_remote(self, url: str, endpoint: str | None = None) -> None:
        """Make an address the default remote; see `check_address`."""
        self.run("remote", "add", "--quiet", "--force", "--default", "store", url)
        if endpoint:
            self.run("remote", "modify", "store", "endpointurl", endpoint)

    def run(self, *arguments: str, cwd: Path | None = None, show: bool = False) -> str:
        """Run a command of DVC's; return what it prints.

        Args:
            arguments: of its command line.
            cwd: where; this process's working directory is where relative paths begin.
            show: let it show its progress, where somebody looks.

        Raises:
            UsageError: what DVC says against it.
        """
        shown = show and sys.stderr.isatty()
        command = [*self._program, *arguments, *(["--quiet"] if show and not shown else [])]
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdout=None if shown else subprocess.PIPE,
                stderr=None if shown else subprocess.PIPE,
                text=True,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"{command[0]}: can't be run ({error.strerror})") from None
        if done.returncode:
            raise UsageError(f"dvc {arguments[0]}: {_reason(done.stderr or '')}")
        return done.stdout or ""


def _reason(text: str) -> str:
    """Return DVC's own reason on one line, keys masked."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return mask(" ".join(errors or lines[-1:]) or "failed")


def check_address(option: str, url: str) -> None:
    """Refuse an address that holds a key: DVC writes it into a file that git keeps.

    Raises:
        UsageError: naming the option, not the key.
    """
    parts = split_address(url, option)
    if "://" in url and (
        parts.password or parts.query or (parts.scheme == "s3" and parts.username)
    ):
        raise UsageError(
            f"{option}: an address with a key in it would be written into .dvc/config, which git"
            " keeps; keys belong in the environment (AWS_ACCESS_KEY_ID ...) or in"
            " .dvc/config.local (dvc remote modify --local)"
        )
