"""The library's rooms: imports run down only, the picture shows them, names are the field's."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

NOT_OURS = {"parse_known_args"}
"""Names of libraries."""
OLD_WORDS = {
    *("known", "asked", "told", "found", "held", "said", "bury", "doubt", "examine", "elsewhere"),
    *("strays", "latent", "prior", "ledger", "traps", "proposals", "additions", "beginning"),
    *("feeding", "sender", "warm", "shares"),
}
"""Words of an earlier vocabulary: a name says what it holds instead."""
OLD_NAMES = {
    *("key_guard", "whole_file", "whole_folder", "Item", "Recovery", "Prepared", "Work", "Ended"),
    *("Later", "LATER"),
}
OLD_FILES = {
    *("key_guard", "recovery", "others", "outputs", "latent", "prior", "ledger", "traps", "axes"),
    *("additions", "proposals", "declared", "elsewhere", "strays", "changes", "beginning"),
    *("ending", "feeding", "ask", "clients", "work", "warm", "shares", "running", "tracker"),
    *("facts", "opening", "sender", "account", "held", "found"),
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_import_runs_up_and_the_picture_is_made_of_them() -> None:
    done = run(sys.executable, "tools/architecture.py", "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_arrow_that_runs_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from collections import Counter

    import architecture

    layers = architecture.rooms()
    wrong = Counter({("trial", "slurm"): 1, ("slurm", "trial"): 4})
    assert architecture.upward(layers, wrong) == [("trial", "slurm")]
    assert ["secrets"] in layers


def test_the_library_imports_no_code_of_the_user() -> None:
    front = r"^\s*(from|import) (model|datamodule|trainer|inference|examples)\b"
    done = run("git", "grep", "-nE", front, "--", "mlmodeldev/*.py")
    assert done.stdout == ""


def names_of(file: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME} - NOT_OURS


def test_names_are_of_the_fields_vocabulary() -> None:
    files = [ROOT / name for name in run("git", "ls-files", "*.py").stdout.split()]
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        if file.is_file()
        for name in names_of(file)
        if OLD_WORDS & {*name.strip("_").lower().split("_")} or name in OLD_NAMES
    }
    assert wrong == set()
    assert {file.stem for file in files if "mlmodeldev" in file.parts} & OLD_FILES == set()
