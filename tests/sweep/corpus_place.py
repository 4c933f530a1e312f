"""The corpus of sweep files, its programs in a folder of their own, and the real `wandb agent`.

    python -m tests.sweep.corpus_place record   # what the real agent calls; minutes

A loopback server hands out the points that W&B's published engine gave (`make_corpus_points.py`);
what the programs then saw is written to `corpus/agent.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.wandb.server import Server

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
AGENT = CORPUS / "agent.json"
VARIABLES = {"CORPUS_PLACE": "/data/set"}

Row = dict[str, Any]


def shapes() -> dict[str, str]:
    """Return the sweep files by name, as text."""
    documents = (CORPUS / "sweeps.yaml").read_text(encoding="utf-8").split("\n---\n")
    return {yaml.safe_load(text)["name"]: text for text in documents}


def points() -> dict[str, list[dict[str, Any]]]:
    """Return what W&B's engine gives for each shape."""
    answers: dict[str, list[dict[str, Any]]]
    answers = json.loads((CORPUS / "points.json").read_text(encoding="utf-8"))["points"]
    return answers


def make_place(folder: Path) -> Path:
    """Make a project of the corpus's programs in a folder; return it."""
    for file in CORPUS.glob("*.py"):
        shutil.copy(file, folder)
    for file in CORPUS.glob("*.sh"):
        shutil.copy(file, folder)
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("{}\n")
    return folder


def rows(file: Path) -> list[Row]:
    """Return what the programs wrote down."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def run_agent(server: Server, place: Path, name: str) -> list[Row]:
    """Run a shape by `wandb sweep` and `wandb agent`; return what its program saw."""
    file, seen = place / "sweep.yaml", place / "seen.jsonl"
    file.write_text(shapes()[name], encoding="utf-8")
    seen.unlink(missing_ok=True)
    path = Path(sys.executable).parent
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))},
        **server.environment(),
        **VARIABLES,
        "CORPUS_SEEN": str(seen),
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WANDB_DIR": str(place),
        "WANDB_AGENT_REPORT_INTERVAL": "1",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=place, env=env, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stderr

    printed = run("wandb", "sweep", "--project", "corpus", str(file))
    match = re.search(r"wandb agent (\S+)", printed)
    assert match, printed
    sweep = server.store.sweeps[match[1].rpartition("/")[2]]
    given = points()[name]
    sweep.config["method"], sweep._grid = "grid", iter(given)
    run("wandb", "agent", "--count", str(len(given)), match[1])
    return rows(seen)


def record() -> None:
    """Write what the real agent's programs saw; what is recorded already is kept."""
    import wandb

    answers: dict[str, list[Row]] = recorded() if AGENT.is_file() else {}
    answers = {name: answers[name] for name in shapes() if name in answers}
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        place = make_place(Path(folder))
        for name in shapes():
            if name not in answers:
                answers[name] = run_agent(server, place, name)
                print(f"{name}: {len(answers[name])}", flush=True)
                ordered = {each: answers[each] for each in shapes() if each in answers}
                text = json.dumps({"agent": f"wandb {wandb.__version__}", "seen": ordered}, indent=1)
                AGENT.write_text(text + "\n", encoding="utf-8")
    server.close()


def recorded() -> dict[str, list[Row]]:
    """Return what the real agent's programs saw, for each shape."""
    seen: dict[str, list[Row]] = json.loads(AGENT.read_text(encoding="utf-8"))["seen"]
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sweep.corpus_place", description=__doc__)
    parser.add_argument("action", choices=["record"])
    parser.parse_args()
    record()
