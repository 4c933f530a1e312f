"""Slurm's commands as scripts of a test's own, first on PATH: what one site's print, or refuse.

Example::

    stubs = Stubs(tmp_path, monkeypatch)
    stubs.add("sbatch", 'env > "$HERE/environment"; echo "15;main"')
    ...
    stubs.read("environment")
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest


class Stubs:
    """A folder of commands, and of what they leave there: ``$HERE``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "stubs"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")

    def add(self, name: str, *lines: str) -> None:
        """Write a command, in the words of a shell."""
        file = self.folder / name
        here = f"HERE={shlex.quote(str(self.folder))}"
        file.write_text("\n".join(["#!/bin/bash", here, *lines, ""]))
        file.chmod(0o755)

    def read(self, name: str) -> str:
        """Return what a command has left; empty: nothing."""
        file = self.folder / name
        return file.read_text() if file.exists() else ""
