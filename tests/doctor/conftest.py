"""A place where faults are planted, and the lines of one check there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.doctor.checks import CHECKS, disk
from mlmodeldev.doctor.command import read_scope
from mlmodeldev.doctor.line import Line
from mlmodeldev.doctor.run import run_checks
from mlmodeldev.slurm.command_line import _parser
from tests.slurm.stubs import Stubs

SWEEP = """\
# Expected best value: none
# Cost: seconds
# Command: python slurm/SlurmTrain.py
program: trainer.py
name: small
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.001, 0.01]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""
SCONTROL = """\
case "$*" in
  *ping*) echo "Slurmctld(primary) at here is UP" ;;
  *version*) echo "slurm 23.11.4" ;;
  *config*) printf 'MaxArraySize = 1001\\nAccountingStorageEnforce = none\\n' ;;
  *partition*) echo "PartitionName=gpu Default=YES MaxTime=1:00:00 State=UP" ;;
  *node*) echo "NodeName=n1 NodeAddr=127.0.0.1 CPUTot=64 RealMemory=129000 Gres=gpu:a100:4 \
Partitions=gpu" ;;
esac
"""


class Place:
    """A machine of the test's own.

    Attributes:
        folder: holds the runs, the data, the home and whatever a test adds.
        overrides: settings, as on the command line.
        replaced: fields of the scope that a test sets.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.home = folder / "home"
        self.home.mkdir()
        self.sweep = folder / "small.yaml"
        self.sweep.write_text(SWEEP)
        self.overrides: list[str] = []
        self.replaced: dict[str, Any] = {}
        for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC", "SCRATCH", "SLURM_JOB_ID", "WORK"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("MLMODELDEV_CLUSTER", "local")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(disk, "LITTLE", 0)  # the machine that tests run on may be full

    def stubs(self, **commands: str) -> Stubs:
        """Put Slurm's commands on PATH; by default all is well."""
        made = Stubs(self.folder, self.patch)
        fine = {"sbatch": "exit 0", "squeue": "exit 0", "sacctmgr": "exit 1", "scontrol": SCONTROL}
        for name, lines in {**fine, **commands}.items():
            made.add(name, lines)
        return made

    def program(self, name: str, text: str) -> Path:
        """Write a program of the shell's."""
        file = self.folder / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
        return file

    def lines(self, *checks: str) -> list[Line]:
        """Return the lines of these checks; without names, of all."""
        args = _parser({"doctor": "mlmodeldev.doctor.command"}).parse_args(["doctor"])
        args.sweep, args.overrides = str(self.sweep), [
            f"artefacts.runs_dir={self.folder}/runs",
            f"artefacts.data_dir={self.folder}/data",
            *self.overrides,
        ]  # fmt: skip
        scope = dataclasses.replace(read_scope(args), **self.replaced)
        chosen = [check for check in CHECKS if not checks or check.name in checks]
        assert len(chosen) == (len(checks) or len(CHECKS))
        return list(run_checks(scope, checks=chosen))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)
