"""The files that a clone ships for its user to replace: what the library's tests rest on.

``files/`` has a copy of each: trainer.py, model.py, conf/, README.md ... Where the top level holds
the same, tests run in place. Where the user has changed it, they run in a copy of the checkout in
which these files are as shipped; the user's own tests (``tests/test_mine*.py``) run in place.

    python -m tests.shipped check            # what differs; status 1 if anything does
    python -m tests.shipped renew            # upstream: ship the top level as it is now
    python -m tests.shipped run make lint    # a command, in place or in such a copy
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlmodeldev.project import run_git
from mlmodeldev.slurm.snapshot import code_files
from mlmodeldev.template.source import NOT_SHARED, TOP_LEVEL

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).resolve().parent / "files"
PATTERNS = (*TOP_LEVEL, "README.md")
OWN_TESTS = "test_mine*.py"
"""Names of the user's tests; all others in tests/ are the library's."""
_LINKED = (".venv", ".venv-dvc", ".venv-extras", ".venv-docs")


def user_files(root: Path) -> set[str]:
    """Return the files of a checkout that are its user's to replace, of those git knows of."""
    excluded = {path for pattern in NOT_SHARED for path in root.glob(pattern)}
    there = {path for pattern in PATTERNS for path in root.glob(pattern)} - excluded
    names = {path.relative_to(root).as_posix() for path in there if path.is_file()}
    return names & set(code_files(root)) if root == ROOT else names


def differing(root: Path = ROOT) -> list[str]:
    """Return the user's files that are not as shipped: changed, added or removed."""
    return sorted(
        name
        for name in user_files(root) | user_files(FILES)
        if _content(root / name) != _content(FILES / name)
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def renew() -> None:
    """Make the files at the top level those that are shipped."""
    shutil.rmtree(FILES, ignore_errors=True)
    for name in user_files(ROOT):
        _copy(ROOT / name, FILES / name)


@contextlib.contextmanager
def shipped_copy() -> Iterator[Path]:
    """Give a copy of the checkout, a repository of its own, with the user's files as shipped."""
    with tempfile.TemporaryDirectory(prefix="mlmodeldev-shipped-") as folder:
        copy = Path(folder) / ROOT.name
        for name in set(code_files(ROOT)) - user_files(ROOT):
            if not fnmatch.fnmatch(name, f"tests/{OWN_TESTS}"):
                _copy(ROOT / name, copy / name)
        for name in user_files(FILES):
            _copy(FILES / name, copy / name)
        for name in _LINKED:
            if (ROOT / name).exists():
                (copy / name).symlink_to(ROOT / name)
        _commit(copy)
        yield copy


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)  # the time too: make looks at it


def _commit(folder: Path) -> None:
    own = ("user.name=tests", "user.email=tests@example.org", "commit.gpgsign=false")
    options = [word for each in own for word in ("-c", each)]
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "as shipped", "--no-verify")):
        run_git(folder, *options, *command)  # without git, the tests that need it say so


def run_in_copy(command: Sequence[str], below: Path = Path()) -> int:
    """Run a command in a copy, or in a folder below its top; return its exit status.

    Words that are paths of this checkout become those of the copy.
    """
    with shipped_copy() as copy:
        words = [
            str(copy) + word.removeprefix(str(ROOT)) if word.startswith(f"{ROOT}{os.sep}") else word
            for word in command
        ]
        environment = {k: v for k, v in os.environ.items() if k != "MLMODELDEV_PROJECT"}
        environment["PYTHONPATH"] = str(copy)  # before the checkout, where the package is installed
        return subprocess.run(
            [command[0], *words[1:]], cwd=copy / below, env=environment, check=False
        ).returncode


def summary(names: Sequence[str]) -> str:
    """Return a line that says which files are the user's and what follows from it."""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
    return (
        f"{listed}: not as shipped. The library's tests run in a copy of this checkout that has"
        f" the files as shipped; tests/{OWN_TESTS} run here, on yours."
    )
