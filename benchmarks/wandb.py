"""W&B: what logging costs a step, and how long an agent stands idle between two trials.

    python -m benchmarks wandb

The real client talks to the loopback server of the tests. Both figures are of things measured side
by side, in turn, so that other programs slow all alike:

* One trial trains with logging to W&B in one epoch and without in the next, and so on. What counts
  is the time that the training loop spends in the tracker, pictures and tables of the validation
  included, as a share of the time of the training batches. The rest is done by threads beside it;
  so the step time of the epochs with W&B is set against that of those without, in wall-clock and in
  CPU time, which a busy machine blurs by more than it is.
* ``wandb agent`` and ours are given the same sweep in turn. Idle is the time from the end of one
  trial's run to the beginning of the next one's, as the server sees them: the poll, the start of
  Python and the imports included.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 31
"""One to warm up, then pairs."""
TRIALS = 4
ROUNDS = 2
OURS, THEIRS = ("python", "-m", "mlmodeldev.slurm.agent"), ("wandb", "agent")

_DRIVER = """
import json, sys, time
from mlmodeldev.callbacks import stack
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.tracking.wandb_logger import WandbTrialLogger
from pytorch_lightning import Callback
import torch, trainer
torch.set_num_threads(1)
epochs, on, spent = [], [True], [0.0]
def switched(name):
    plain = getattr(WandbTrialLogger, name)
    def call(self, *given, **named):
        if on[0]:
            begun = time.perf_counter()
            plain(self, *given, **named)
            spent[0] += time.perf_counter() - begun
    setattr(WandbTrialLogger, name, call)
for name in ("log_metrics", "log_image", "log_table"):
    switched(name)
class Turns(Callback):
    train = None
    def on_train_epoch_start(self, trainer, module):
        self.close(trainer)
        on[0], spent[0] = trainer.current_epoch % 2 == 0, 0.0
        self.begun, self.cpu = time.perf_counter(), time.process_time()
    def on_validation_start(self, trainer, module):
        self.train = time.perf_counter() - self.begun
        self.cpu_train = time.process_time() - self.cpu
    def on_train_end(self, trainer, module):
        self.close(trainer)
    def close(self, trainer):
        if self.train is None:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbTrialLogger):
                logger._background.drain(60)
        epochs.append({"on": on[0], "tracker": spent[0], "train": self.train,
                       "cpu_train": self.cpu_train})
        self.train = None
plain = stack.make_callbacks
stack.make_callbacks = lambda *given: [*plain(*given), Turns()]
trainer.train(compose_settings(sys.argv[1:]))
print("EPOCHS", json.dumps(epochs))
"""


def run() -> Table:
    """Measure both."""
    from tests.wandb.server import Server

    table = Table(
        "Weights & Biases",
        ["what", "beside", "ours", "ratio"],
        note=(
            "The real client against the loopback server of the tests. Logging: the digits with the"
            f" default settings, {EPOCHS // 2} pairs of an epoch with W&B and one without, medians."
            f" Idle between trials: medians over {ROUNDS} rounds of a sweep of"
            f" {TRIALS} short trials, the two agents in turn."
        ),
    )
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop, steps = logging_cost(server, Path(folder))
            idle = idle_seconds(server, Path(folder))
    finally:
        server.close()
    theirs, ours = (statistics.median(idle[agent]) for agent in (THEIRS, OURS))
    for clock, (on, off, ratio) in steps.items():
        what = f"training batches of an epoch, without W&B and with it, {clock}, s"
        table.add(what, f"{off:.2f}", f"{on:.2f}", f"{ratio:.3f}")
    table.add("of it in the tracker", "", f"{loop:.2%}", "")
    table.add(
        "idle between two trials, `wandb agent` and ours, s",
        f"{theirs:.2f}", f"{ours:.2f}", f"{ours / theirs:.2f}",
    )  # fmt: skip
    table.goals.append(Goal("logging's share of the step time", 100 * loop, 2, unit=" %"))
    table.goals.append(Goal("idle between trials against wandb agent", ours / theirs, 0.5))
    return table


def _environment(server: Any, folder: Path) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lead = {"WANDB_DIR": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}
    return {**given, **server.environment(), **lead}


def _run(command: list[str], server: Any, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(server, folder), capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def logging_cost(server: Any, folder: Path) -> tuple[float, dict[str, tuple[float, float, float]]]:
    """Return the tracker's share, and by clock: seconds with W&B, without it, their ratio."""
    where = [f"artefacts.runs_dir={folder}/share", f"artefacts.data_dir={folder}/data"]
    where += [f"training.max_epochs={EPOCHS}", "logger.wandb.models=none"]
    output = _run([sys.executable, "-c", _DRIVER, *where], server, folder)
    match = re.search(r"EPOCHS (.*)", output)
    assert match, output
    epochs = json.loads(match[1])[1:]  # the first one warms up
    pairs = [(b, a) if b["on"] else (a, b) for a, b in zip(epochs[::2], epochs[1::2], strict=True)]
    median = statistics.median
    steps = {
        clock: (
            median(on[key] for on, _ in pairs),
            median(off[key] for _, off in pairs),
            median(on[key] / off[key] for on, off in pairs),
        )
        for clock, key in (("wall-clock", "train"), ("CPU time", "cpu_train"))
    }
    return median(on["tracker"] / on["train"] for on, _ in pairs), steps


def idle_seconds(server: Any, folder: Path) -> dict[tuple[str, ...], list[float]]:
    """Return the times between two trials, for each agent, which take turns."""
    idle: dict[tuple[str, ...], list[float]] = {THEIRS: [], OURS: []}
    for number in range(ROUNDS):
        for agent in (THEIRS, OURS) if number % 2 else (OURS, THEIRS):
            path = _sweep(server, folder, f"{agent[0]}-{number}")
            _run([*agent, path], server, folder)
            runs = server.store.sweeps[path.rpartition("/")[2]].runs
            times = [(dict(run.times)["begin"], dict(run.times)["end"]) for run in runs]
            idle[agent] += [after[0] - before[1] for before, after in itertools.pairwise(times)]
    return idle


def _sweep(server: Any, folder: Path, name: str) -> str:
    config = {
        "program": "trainer.py",
        "method": "grid",
        "parameters": {
            "training.seed": {"values": list(range(TRIALS))},
            "training.max_epochs": {"value": 2},
            "callbacks.cka.enabled": {"value": False},
            "artefacts.runs_dir": {"value": f"{folder}/{name}"},
            "artefacts.data_dir": {"value": f"{folder}/data"},
        },
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(config))
    output = _run(["wandb", "sweep", "--project", "bench", str(file)], server, folder)
    match = re.search(r"wandb agent (\S+)", output)
    assert match, output
    return match[1]
