"""The tutorial, followed word for word from its clone on: files are written, commands are typed."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.commands import FILE

PAGE = (ROOT / "docs" / "tutorial.md").read_text()


def _run(command: str, folder: Path, **variables: str) -> str:
    """Type a command line, with nothing in the environment that other tests left there."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_", "MLMODEL"))
    }
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**kept, **variables, "PATH": path},
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _repository(place: Path) -> dict[str, str]:
    """Make a repository of the work tree; return what lets git find it under the page's address."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    place.mkdir()
    names = "\0".join(n for n in listed if (ROOT / n).is_file() and not (ROOT / n).is_symlink())
    pack = ["tar", "-c", "--null", "-T", "-"]
    packed = subprocess.run(pack, cwd=ROOT, input=names.encode(), capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=place, input=packed.stdout, check=True)
    own = "-c user.name=tests -c user.email=tests@example.org -c commit.gpgsign=false"
    _run(f"git init -q && git add -A && git {own} commit -qm all --no-verify", place)
    (address,) = re.findall(r"git clone (\S+)", PAGE)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{place}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


@pytest.mark.slow
@pytest.mark.project
def test_the_tutorial_runs(tmp_path: Path) -> None:
    variables = {**_repository(tmp_path / "upstream"), "OMP_NUM_THREADS": "1"}
    folder, shown = tmp_path, {}
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        if match := FILE.match(text):
            (folder / match[1]).parent.mkdir(exist_ok=True)
            (folder / match[1]).write_text(text)
        for command in text.splitlines() if kind == "bash" else ():
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
                (folder / ".venv").symlink_to(sys.prefix)  # this environment in place of a new one
                (Path(sys.prefix) / ".installed").touch()  # younger than the clone's lock
            else:
                shown[command] = _run(command, folder, **variables)
    assert len(shown) >= 11
    assert "6 done" in shown["python slurm/SlurmTrain.py --sweep sweep/mlp.yaml"]
    assert "±" in shown["python slurm/SlurmTrain.py collect --sweep sweep/mlp.yaml"]
    rows = list(csv.DictReader((folder / "runs/mlp/results.csv").open()))
    best = {
        w: max(float(r["val/accuracy"]) for r in rows if r["model.hidden"] == w)
        for w in ("16", "64")
    }
    assert best["64"] >= 0.85
    figures = shown["python figures.py"].splitlines()
    assert [line.split()[0] for line in figures] == ["16", "64"]
    assert all(line.endswith("over 3 seeds") for line in figures)
    for name in ("accuracy.pdf", "cka.pdf", "runs/mlp/report.html"):
        assert (folder / name).stat().st_size > 5_000, name
