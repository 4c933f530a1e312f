"""A project whose trainer.py writes in a moment what a trial leaves behind; for `trial reproduce`.

Its one number is made of a setting, a line of code, an untracked file and the data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

TRAINER = """
import json, os, random, sys
from pathlib import Path

import yaml

from mlmodeldev.data.versions import fingerprint
from mlmodeldev.trial.code import code_digests
from mlmodeldev.trial.environment import environment
from mlmodeldev.trial.provenance import changes, provenance
from mlmodeldev.trial.software import software
from mlmodeldev.trial.source import keep_source

import model

root = Path(__file__).resolve().parent
settings = json.loads(os.environ["MLMODELDEV_SETTINGS"])
places = settings["artefacts"]
folder = Path(places["runs_dir"]) / places["sweep"] / places["trial"]
if status := int(os.environ.get("PRETENDED_STATUS", "0")):
    sys.exit(status)
data = Path(places["data_dir"]) / "numbers.txt"
base = data.parent
folder.mkdir(parents=True)
code = code_digests(settings, root)
value = settings["optimizer"]["lr"] * model.SCALE + len(model.WORDS) + len(data.read_text())
rows = "step,train/loss,time/logged\\n"
rows += "".join(f"{step},{value / (step + 1)},{random.random()}\\n" for step in range(3))
(folder / "metrics.csv").write_text(rows)
(folder / "log.json").write_text(json.dumps([{"epoch": 1, "train/loss": value}]))
(folder / "config.yaml").write_text(yaml.safe_dump(settings))
(folder / "environment.json").write_text(json.dumps(environment()))
keep_source(folder, root, code, settings, None)
(folder / "changes.diff").write_text(changes(root, code))
record = {"state": "done", "token": folder.name, "code": code, "software": software()}
record["data"] = {"inputs": {str(data.relative_to(base)): fingerprint(data)}, "dvc": []}
(folder / "trial.json").write_text(json.dumps({**record, **provenance(root, code)}))
"""
MODEL = """from pathlib import Path

SCALE = 2
WORDS = (Path(__file__).parent / "words.txt").read_text()
"""
SETTINGS: dict[str, Any] = {
    "artefacts": {"runs_dir": "runs", "data_dir": "data", "sweep": "single", "fresh": False},
    "model": {"_target_": "model.Net"},
    "optimizer": {"lr": 0.5},
    "training": {"devices": "auto", "num_nodes": "auto"},
    "logger": {"wandb": {"project": "p"}, "csv": None},
}


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Project:
    """The project, in git but for ``words.txt``.

    Args:
        root: where to write it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in {
            "trainer.py": TRAINER,
            "model.py": MODEL,
            "conf/config.yaml": "{}\n",
            ".gitignore": "/runs/\n/data/\n__pycache__/\n",
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        git(root, "init", "-q")
        self.commit()
        (root / "words.txt").write_text("a table of words")
        (root / "data").mkdir()
        (root / "data" / "numbers.txt").write_text("1 2 3")

    def commit(self) -> None:
        git(self.root, "add", "--all", ".", ":!words.txt")
        git(self.root, "commit", "-qm", "next")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def train(self, name: str, beside: Path | None = None, **optimizer: float) -> Path:
        """Run a trial; return its folder.

        Args:
            name: the trial's.
            beside: a folder of packages that the environment lacks.
            optimizer: settings.
        """
        places = {**SETTINGS["artefacts"], "trial": name}
        settings = {**SETTINGS, "artefacts": places}
        settings["optimizer"] = {**SETTINGS["optimizer"], **optimizer}
        variables = {
            "MLMODELDEV_SETTINGS": json.dumps(settings),
            "MLMODELDEV_PROJECT": str(self.root),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, beside)))),
        }
        environment = {**os.environ, **variables}
        command = [sys.executable, "trainer.py"]
        subprocess.run(command, cwd=self.root, env=environment, check=True)
        return self.root / "runs" / "single" / name


def change_json(file: Path, *keys: str, value: Any) -> None:
    """Change one entry of a JSON file."""
    content = json.loads(file.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(json.dumps(content))


def change_setting(folder: Path, group: str, name: str, value: Any) -> None:
    """Change one setting of a trial's config.yaml."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings[group][name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
