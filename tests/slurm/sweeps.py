"""Sweeps of small, slow trials on the test cluster, driven through ``SlurmTrain.py``.

Example::

    sweep = SmallSweep(slurm, tmp_path, trials=6)
    sweep.train("submit", "--yes", "cluster.cpus_per_task=4")
    sweep.wait_for_step(trial, 5)
    sweep.wait_until_done()
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmodeldev.slurm.submission import jobs_of
from mlmodeldev.sweep import load
from tests.slurm.cluster import ROOT, Slurm

SMALL = (
    "logger=csv",
    "callbacks=none",
    "training.test=false",
    "training.max_epochs=3",
    "training.limit_val_batches=1",
    "training.checkpoint_every_n_steps=5",
    "processing.batch_size=64",
    "model.hidden_size=16",
    "model.num_layers=1",
)
TEXT = """\
# Expected best value: none
# Cost: seconds
# Command: python slurm/SlurmTrain.py
program: tests/slurm/slow_trainer.py
name: {name}
method: grid
metric: {{name: val/accuracy, goal: maximize}}
parameters:
  training.seed: {{values: {seeds}}}
command: ["${{env}}", "${{interpreter}}", "${{program}}", "${{args_no_hyphens}}"]
"""


class SmallSweep:
    """A sweep over seeds in a folder of its own.

    Attributes:
        trials: identities, in the sweep's order.
        seeds: the trials' seeds.
    """

    def __init__(
        self,
        slurm: Slurm,
        folder: Path,
        data: Path,
        trials: int,
        name: str = "small",
        step_seconds: float = 0.0,
        skew_seconds: float = 0.0,
    ) -> None:
        self.slurm, self.name = slurm, name
        self.file = folder / f"{name}.yaml"
        self.file.write_text(TEXT.format(name=name, seeds=list(range(trials))))
        trials = list(load(self.file).trials())
        self.trials = [trial.id for trial in trials]
        self.seeds = {trial.id: trial.overrides["training.seed"] for trial in trials}
        self.runs = folder / "runs"
        self._released = folder / f"{name}.released"
        self.folder = self.runs / name
        self.fixed = [
            *SMALL,
            f"artefacts.runs_dir={self.runs}",
            f"artefacts.data_dir={data}",
            "cluster.setup=["
            f"'export OMP_NUM_THREADS=1 STEP_SECONDS={step_seconds} SKEW_SECONDS={skew_seconds}"
            f" RELEASE={self._released}']",
        ]

    def release(self) -> None:
        """Let the trials go on without waiting."""
        self._released.touch()

    def train(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call ``python slurm/SlurmTrain.py``; profile ``debug`` unless another is named."""
        named = any(a.startswith(("cluster=", "--cluster")) for a in arguments)
        action, *rest = arguments
        command = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), action]
        command += ["--sweep", str(self.file), *([] if named else ["cluster=debug"])]
        done = subprocess.run(
            [*command, *self.fixed, *rest],
            env=self.slurm.env,
            cwd=self.file.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def record(self, trial: str) -> dict[str, Any]:
        """Return a trial's record; empty before it began."""
        file = self.folder / trial / "trial.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def state(self, trial: str) -> str:
        """Return a trial's state."""
        return str(self.record(trial).get("state"))

    def job(self, trial: str) -> str:
        """Return a trial's job as squeue names it."""
        return jobs_of(self.folder)[trial]

    def number(self, trial: str) -> str:
        """Return the number under which Slurm knows a running trial's job."""
        return str(self.record(trial)["slurm"]["job_id"])

    def node(self, trial: str) -> str:
        """Return the node that a trial runs on."""
        return self.slurm.run("squeue", "-h", "-j", self.job(trial), "-o", "%N")

    def step(self, trial: str) -> int:
        """Return the step of the newest checkpoint."""
        files = (self.folder / trial / "checkpoints").glob("step-*.ckpt")
        return max((int(f.stem.partition("-")[2]) for f in files), default=-1)

    def wait_for(self, trial: str, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition on a trial; where it doesn't come, say what is known of it."""
        try:
            self.slurm.wait_for(reached, seconds, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.report(trial)}") from None

    def wait_for_step(self, trial: str, step: int, seconds: float = 300) -> None:
        """Wait until a trial has a checkpoint of this step or a later one."""
        self.wait_for(trial, lambda: self.step(trial) >= step, seconds, f"step {step} of {trial}")

    def wait_for_attempt(self, trial: str, attempt: int, seconds: float = 300) -> None:
        """Wait until an attempt has begun."""

        def begun() -> bool:
            return self.record(trial).get("attempts") == attempt

        self.wait_for(trial, begun, seconds, f"attempt {attempt} of {trial}")

    def wait_until(self, trial: str, state: str, seconds: float = 300) -> None:
        """Wait for a trial's state."""
        self.wait_for(trial, lambda: self.state(trial) == state, seconds, f"{trial}: {state}")

    def report(self, trial: str) -> str:
        """Return what is known of a trial, for a failing test."""
        parts = [json.dumps(self.record(trial), indent=1)]
        files = [self.folder / trial / "log.txt", *self.folder.glob(".jobs/*/*_log.out")]
        parts += [f"--- {f}\n{f.read_text()[-3000:]}" for f in files if f.exists()]
        return "\n".join(parts) + self.slurm.run("squeue", check=False)

    def weights(self, trial: str) -> bytes:
        """Return the final checkpoint's weights, byte for byte."""
        import torch

        file = max((self.folder / trial / "checkpoints").glob("step-*.ckpt"))
        state = torch.load(file, weights_only=True)["state_dict"]
        return b"".join(state[name].numpy().tobytes() for name in sorted(state))
