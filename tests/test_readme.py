"""The README's commands, run word for word in a fresh clone, in the order in which they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the work tree as it is, with this environment in place of a new one."""
    target = tmp_path_factory.mktemp("clone") / "MLModelDev"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, listed):
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
            (target / name).chmod(source.stat().st_mode)
    venv = Path(sys.prefix)
    (target / ".venv").symlink_to(venv)
    return target


def run(command: str, clone: Path) -> str:
    environment = {**os.environ, "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readme_runs(clone: Path) -> None:
    shown = {command: run(command, clone) for command in commands() if command != "make test"}
    assert len(shown) >= 12
    demo = shown["make demo"]
    assert demo.count("done  val/accuracy") == 4
    for picture in re.findall(r"^CKA: +(.+)$", demo, re.MULTILINE):
        assert (clone / picture).stat().st_size > 10_000
    assert "next:" in demo
    folder = Path(shown["python trainer.py"].splitlines()[-1])
    record = json.loads((folder / "trial.json").read_text())
    assert record["state"] == "done"
    assert record["metric"]["value"] >= 0.95
    seven = next(text for command, text in shown.items() if command.endswith("seven.png"))
    assert seven.startswith("seven ")


def test_links_of_the_readme_and_docs_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{file.name}: {link}"
