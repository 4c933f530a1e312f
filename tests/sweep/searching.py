"""A search's workers in processes of their own, around a program that trains nothing.

The program keeps a trial's folder as the trainer does: claims it, writes ``log.json``, goes on
from where it was, and listens to signals. It needs no torch, so a worker starts in a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlmodeldev.trial.record import read_record

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, math, os, signal, time
from types import SimpleNamespace
from mlmodeldev.atomic import write_json
from mlmodeldev.errors import TrialInterrupted
from mlmodeldev.sweep.stopping import verdict
from mlmodeldev.trial import signals
from mlmodeldev.trial.record import history
from mlmodeldev.trial.folder import TrialFolder

EPOCHS, SECONDS = int(os.environ.get("EPOCHS", "6")), float(os.environ.get("SECONDS_EACH", "0.02"))

def value_of(settings, epoch):
    lr, warmup = settings.optimizer.lr, settings.optimizer.warmup_fraction
    height = math.exp(-(math.log10(lr) + 2.5) ** 2) - (warmup - 0.2) ** 2
    return height * (1 - 0.5**epoch)

def train(settings):
    folder = TrialFolder.open(settings)
    if folder.read().get("state") in ("done", "pruned"):
        return
    folder.claim()
    folder.update(overrides=settings.overrides)
    state = folder.path / "checkpoints" / "state.json"
    entries = json.loads(state.read_text()) if state.is_file() else []
    with (folder.path / "begun.txt").open("a") as file:
        file.write(f"{os.getpid()} {len(entries)}\\n")
    if settings.training.monitor == "defect":
        folder.finish("failed", "ValueError: a defect")
        raise ValueError("a defect")
    rule, ended = settings.callbacks.pruning, "done"
    while len(entries) < EPOCHS:
        epoch = len(entries) + 1
        entries.append({"epoch": epoch, "val/accuracy": value_of(settings, epoch)})
        write_json(folder.path / "log.json", entries)
        write_json(state, entries)
        if rule.enabled:
            own = [entry["val/accuracy"] for entry in entries]
            beside = (f for f in folder.path.parent.glob("*/log.json") if f.parent != folder.path)
            others = [history(f.parent, "val/accuracy") for f in beside]
            if reason := verdict(rule, own, others, rule.goal):
                folder.finish("pruned", reason)
                return
        if signals.requested():
            folder.finish("interrupted", signals.requested())
            raise TrialInterrupted(signals.requested())
        time.sleep(SECONDS)
    folder.finish("done", metric={"name": "val/accuracy", "value": entries[-1]["val/accuracy"]})
"""

SWEEP = """\
# Command: none. Expected best value: none. Cost: none
program: fake.py
name: hunt
method: {method}
run_cap: {cap}
metric: {{name: val/accuracy, goal: maximize}}
parameters:
  optimizer.lr: {{distribution: log_uniform_values, min: 0.00001, max: 1.0}}
  optimizer.warmup_fraction: {{distribution: beta, a: 2, b: 5}}
  training.seed: {{value: 0}}
command: ["${{env}}", "${{interpreter}}", "${{program}}", "${{args_no_hyphens}}"]
"""

WORKER = """
import sys
from mlmodeldev.trial import worker
worker.HEAVY = ("mlmodeldev.sweep.stopping", "mlmodeldev.trial.record")
from mlmodeldev.sweep.search import main
sys.exit(main(sys.argv[1:]))
"""


class Hunt:
    """A sweep, its folder, and workers on it."""

    def __init__(self, here: Path, method: str = "bayes", cap: int = 8, more: str = "") -> None:
        (here / "fake.py").write_text(PROGRAM)
        if not (here / "conf").exists():  # which makes the folder a project
            (here / "conf").symlink_to(ROOT / "conf")
        self.here, self.file = here, here / "hunt.yaml"
        self.file.write_text(SWEEP.format(method=method, cap=cap) + more)
        self.runs = here / "runs"
        self.folder = self.runs / "hunt"
        self.journal = self.folder / ".search" / "journal.log"

    def words(self, *arguments: str) -> list[str]:
        """The command line of a worker."""
        words = ["worker", "--sweep", str(self.file), "--runs", str(self.runs)]
        return [*words, "--root", str(self.here), *arguments, "logger=csv"]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a worker."""
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *self.words(*arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def work(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run a worker to its end; return its status and what it printed."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    @property
    def trials(self) -> list[Path]:
        """The trials' folders."""
        return sorted(file.parent for file in self.folder.glob("*/trial.json"))

    def states(self) -> list[str]:
        """The trials' states."""
        return [read_record(folder)["state"] for folder in self.trials]

    def values(self) -> dict[str, float]:
        """The last value of each trial, by its identity."""
        return {
            folder.name: json.loads((folder / "log.json").read_text())[-1]["val/accuracy"]
            for folder in self.trials
        }

    def running(self, besides: set[Path] = frozenset()) -> tuple[Path, int]:
        """Wait for a trial that is in its middle; return its folder and its process."""

        def trial_in_its_middle() -> tuple[Path, int] | None:
            for folder in self.trials:
                record = read_record(folder)
                written = (folder / "checkpoints" / "state.json").is_file()
                if folder not in besides and record.get("state") == "running" and written:
                    return folder, record["owner"]["pid"]
            return None

        return until(trial_in_its_middle)


def until(find: Callable[[], object], seconds: float = 60) -> object:
    """Return the first result that is not None or False."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = find()
        if result is not None and result is not False:
            return result
        time.sleep(0.01)
    raise AssertionError("it never came")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in listed for one in family(int(child)))]
