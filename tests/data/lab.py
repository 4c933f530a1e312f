"""A repository of somebody who uses DVC, and how its commands are run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / ".venv-dvc" / "bin" / "python"


def _program() -> list[str] | None:
    named = shutil.which(os.environ.get("MLMODELDEV_DVC") or "dvc")
    if named:
        return [named]
    return [str(OWN), "-m", "dvc"] if OWN.exists() else None


DVC = _program()

needs_dvc = pytest.mark.skipif(DVC is None, reason="no dvc; make test-dvc makes one")


def run(folder, *command, status=0):
    """Run a command to its end; return all that it printed."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(folder, *arguments, status=0):
    assert DVC is not None
    return run(folder, *DVC, *arguments, status=status)


def version(folder, *arguments, status=0):
    """Run ``mlmodeldev version`` as somebody would in that folder; return what it printed."""
    command = [sys.executable, "-m", "mlmodeldev", "version", *arguments]
    return run(folder, *command, status=status)


def kept(printed):
    """Return the versions that the command printed."""
    return [line.split()[1] for line in printed.splitlines() if line.startswith("version:")]


def commit(folder, message="Data"):
    run(folder, "git", "add", ".gitignore")
    run(folder, "git", "commit", "-qm", message)


def set_environment(setenv, scratch):
    """Set what DVC, git and S3 read, nothing of which is this machine's."""
    if not (os.environ.get("MLMODELDEV_DVC") or shutil.which("dvc")) and OWN.exists():
        program = scratch / "dvc"  # a lab's own repository has no .venv-dvc
        program.write_text(f'#!/bin/sh\nexec {OWN} -m dvc "$@"\n')
        program.chmod(0o755)
        setenv("MLMODELDEV_DVC", str(program))
    for name, value in {
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DVC_GLOBAL_CONFIG_DIR": str(scratch / "dvc-config"),
        "DVC_SITE_CACHE_DIR": str(scratch / "dvc-site"),
    }.items():
        setenv(name, value)


def begin(folder):
    """Make an empty repository with the project's .gitignore."""
    folder.mkdir()
    shutil.copy(ROOT / ".gitignore", folder)
    run(folder, "git", "init", "-q")
    return folder
