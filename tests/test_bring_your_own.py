"""The page "Bring your own": its files are written, its commands run, in a new project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    run("-m", "mlmodeldev", "init", str(folder), "--tracker", "csv", "--yes", cwd=ROOT)
    for name, text in files().items():
        (folder / name).write_text(text)
    return folder


def run(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_runs(project: Path) -> None:
    shown = {}
    for command in COMMANDS:
        program, *arguments = command.split()
        assert program == "python"
        shown[command] = run(*arguments, cwd=project).splitlines()[-1]
        if "trainer.py" in command:
            record = json.loads((Path(shown[command]) / "trial.json").read_text())
            assert record["state"] == "done", command
            assert (Path(shown[command]) / "last" / "model.safetensors").is_file(), command
    assert len(shown) == 6
    assert shown["python look.py"] == "1"  # eight ones add up to more than zero


def test_the_figures_of_the_smallest_are_counted() -> None:
    lines = [line for line in files()["mine.py"].splitlines()[1:] if line.strip()]
    row = next(line for line in PAGE.splitlines() if line.startswith("| here |"))
    yaml = [files()[f"conf/{group}/mine.yaml"].splitlines()[1:] for group in ("model", "data")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["3", str(len(lines)), str(sum(map(len, yaml)))]
    assert len(lines) <= 30
