"""W&B: what logging costs a step, and how long an agent stands idle between two trials.

    python -m benchmarks wandb

The real client talks to the loopback server of the tests. The cost of logging is the time that the
training loop spends in the tracker, as a share of the time it trains; both are of one run, so that
other programs slow both down. Idle is the time from the end of one trial's run to the beginning of
the next one's, as the server sees them: the poll, the start of Python and the imports included. The
same sweep is given to ``wandb agent`` and to our agent, in turn.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 4

_DRIVER = """
import sys, time
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.tracker import Tracker
import trainer
from pytorch_lightning import Callback
spent, plain = [0.0], Tracker.log_metrics
def timed(self, *given, **named):
    begun = time.perf_counter()
    plain(self, *given, **named)
    spent[0] += time.perf_counter() - begun
Tracker.log_metrics = timed
from mlmodeldev.training import session
fit = session.Attempt.fit
def measured(self, *given):
    begun = time.perf_counter()
    fit(self, *given)
    print("SHARE", spent[0] / (time.perf_counter() - begun))
session.Attempt.fit = measured
trainer.train(compose_settings(sys.argv[1:]))
"""


def run() -> Table:
    """Measure both."""
    from tests.wandb.server import Server

    table = Table(
        "Weights & Biases",
        ["what", "wandb agent", "ours", "ratio"],
        note=(
            "The real client against the loopback server of the tests; a row every 10 steps."
            f" Idle between trials: median over a sweep of {TRIALS} short trials."
        ),
    )
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            share = logging_share(server, Path(folder))
            theirs = idle_seconds(server, Path(folder), ["wandb", "agent"])
            ours = idle_seconds(server, Path(folder), ["python", "-m", "mlmodeldev.slurm.agent"])
    finally:
        server.close()
    table.add("logging, share of the step time", "", f"{share:.2%}", "")
    table.add("idle between two trials, s", f"{theirs:.2f}", f"{ours:.2f}", f"{ours / theirs:.2f}")
    table.goals.append(Goal("logging's share of the step time", share, 0.02))
    table.goals.append(Goal("idle between trials against wandb agent", ours / theirs, 0.5))
    return table


def _environment(server: object, folder: Path) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    lead = server.environment()  # type: ignore[attr-defined]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**given, **lead, "WANDB_DIR": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}


def _run(command: list[str], server: object, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(server, folder), capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def logging_share(server: object, folder: Path) -> float:
    """Return the share of the training time that the loop spends in the tracker."""
    where = [f"artefacts.runs_dir={folder}/share", f"artefacts.data_dir={folder}/data"]
    where.append("training.max_epochs=4")
    said = _run([sys.executable, "-c", _DRIVER, *where], server, folder)
    found = re.search(r"SHARE (\S+)", said)
    assert found, said
    return float(found[1])


def idle_seconds(server: object, folder: Path, agent: list[str]) -> float:
    """Return the median time between two trials of a sweep."""
    config = {
        "program": "trainer.py",
        "method": "grid",
        "parameters": {
            "training.seed": {"values": list(range(TRIALS))},
            "training.max_epochs": {"value": 2},
            "callbacks.cka.enabled": {"value": False},
            "artefacts.runs_dir": {"value": f"{folder}/{agent[0]}"},
            "artefacts.data_dir": {"value": f"{folder}/data"},
        },
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(config))
    said = _run(["wandb", "sweep", "--project", "bench", str(file)], server, folder)
    found = re.search(r"wandb agent (\S+)", said)
    assert found
    _run([*agent, found[1]], server, folder)
    name = found[1].rpartition("/")[2]
    runs = server.store.sweeps[name].runs  # type: ignore[attr-defined]
    times = [(dict(run.times)["begin"], dict(run.times)["end"]) for run in runs]
    return statistics.median(after[0] - before[1] for before, after in itertools.pairwise(times))
