"""The corpus of sweep files, its programs in a folder of their own, and the real `wandb agent`.

    python -m tests.sweep.corpus_place record   # what the real agent calls; minutes

A loopback server hands out the points that W&B's published engine gave (`make_corpus_points.py`);
what the programs then saw is written to `corpus/agent.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.wandb.server import Server
from tests.wandb.store import ENTITY
from tests.wandb.sweeps import Sweep

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
    """Run a shape by the real `wandb agent`; return what its program saw."""
    seen = place / "seen.jsonl"
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

    sweep, given = Sweep(server.store, ENTITY, "corpus", shapes()[name]), points()[name]
    sweep.config["method"], sweep._grid = "grid", iter(given)
    server.store.sweeps[sweep.name] = sweep
    done = subprocess.run(
        ["wandb", "agent", "--count", str(len(given)), f"{ENTITY}/corpus/{sweep.name}"],
        cwd=place, env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
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
                answer = {"agent": f"wandb {wandb.__version__}", "seen": ordered}
                AGENT.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
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
