"""The page "Bring your own": its files are written, its commands run, in a new project."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import runpy
from pathlib import Path

import pytest

from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.template import init
from mlmodeldev.testing.isolated import run_isolated

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "bring-your-own.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def files() -> dict[str, str]:
    """The blocks that begin with the name of a file."""
    matches = ((re.match(r"# (\S+\.(?:py|yaml))\n", text), text) for _, text in BLOCKS)
    return {match[1]: text for match, text in matches if match}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "project"
    assert init.main([str(folder), "--tracker", "csv", "--yes"]) == 0
    for name, text in files().items():
        (folder / name).write_text(text)
    return folder


def train(arguments: list[str]) -> str:
    """What trainer.py does with a command line; return the trial's folder."""
    return str(importlib.import_module("trainer").train(compose_settings(arguments)).folder)


def look(program: str) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        runpy.run_path(program, run_name="__main__")
    return shown.getvalue()


def test_the_page_runs(project: Path) -> None:
    """In processes of their own that have imported torch already: six commands, six starts."""
    trained = 0
    for command in COMMANDS:
        python, program, *arguments = command.split()
        assert python == "python"
        log = project / "log.txt"
        if program == "trainer.py":
            folder = Path(run_isolated(project, log, train, arguments))
            record = json.loads((project / folder / "trial.json").read_text())
            assert record["state"] == "done", command
            assert (project / folder / "last" / "model.safetensors").is_file(), command
            trained += 1
        else:  # eight ones add up to more than zero
            assert run_isolated(project, log, look, program).strip() == "1"
    assert trained == 5


def test_the_figures_of_the_smallest_are_counted() -> None:
    lines = [line for line in files()["mine.py"].splitlines()[1:] if line.strip()]
    row = next(line for line in PAGE.splitlines() if line.startswith("| here |"))
    yaml = [files()[f"conf/{group}/mine.yaml"].splitlines()[1:] for group in ("model", "data")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["3", str(len(lines)), str(sum(map(len, yaml)))]
    assert len(lines) <= 30
