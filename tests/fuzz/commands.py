"""Targets that are whole commands, as a user types them: each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.fuzz.cluster import OUTPUTS, answering, make_output
from tests.fuzz.mutation import spoiled_json
from tests.fuzz.overrides import make_overrides
from tests.fuzz.state_files import JOBS, LOG, RECORD, SWEEP, TABLE, make_folder
from tests.fuzz.sweep_texts import make_sweep
from tests.fuzz.target import Target, assert_line

ROOT = Path(__file__).parents[2]
STATUS = {0, 1, 2, 75}
"""Done, a trial failed, bad input, interrupted (AGENTS.md)."""


def call(command: Any, words: list[str]) -> tuple[int, str, str]:
    """Call a command as the shell would; return its exit status and what it printed."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = command(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return int(status or 0), out.getvalue(), errors.getvalue()


def assert_answer(status: int, out: str, errors: str) -> None:
    """Check the exit status, and that bad input is told in one line after the warnings."""
    assert status in STATUS, f"exit status {status}"
    assert "Traceback" not in errors, errors[-2000:]
    assert "Traceback" not in out, out[-2000:]
    if status == 2:
        lines = [
            line for line in errors.split("\n") if line and not line.startswith(("usage:", " "))
        ]
        assert lines, "refused without a word"
        assert_line(lines[-1])


@contextlib.contextmanager
def slurm(folder: Path, texts: dict[str, str], status: int) -> Any:
    """Let Slurm's commands be there, and answer; nothing else is run."""
    there = folder / "bin"
    there.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "sacct", "sacctmgr", "scancel"):
        (there / name).write_text("#!/bin/sh\nexit 1\n")
        (there / name).chmod(0o755)
    paths = {"PATH": f"{there}:{os.environ['PATH']}", "MLMODELDEV_CLUSTER": "generic"}
    with mock.patch.dict(os.environ, paths), mock.patch("subprocess.run", answering(texts, status)):
        yield


# --- trainer.py


def make_trainer(rng: Random) -> list[str]:
    """Return a command line of trainer.py."""
    words = make_overrides(rng)
    if rng.random() < 0.4:
        words = (
            rng.choice((["debug=fast"], ["logger=csv"], ["experiment=cola"], ["data=cifar10"]))
            + words
        )
    if rng.random() < 0.3:
        words += rng.choice(
            (["--cfg", "job"], ["--cfg", "x"], ["--info"], ["--help"], ["-c"], ["--resolve"])
        )
    return [word.replace("\0", "") for word in words]


def check_trainer(given: list[str], folder: Path) -> None:
    """Settings are taken, up to the trial's folder, or a line says what is wrong; nothing is trained."""
    import trainer
    from mlmodeldev.settings.command_line import run
    from mlmodeldev.trial.folder import TrialFolder

    def train(settings: Any) -> Any:
        if not str(settings.artefacts.runs_dir).startswith(str(folder)):
            return SimpleNamespace(folder=folder)
        return SimpleNamespace(folder=TrialFolder.open(settings).path)

    def command(words: list[str]) -> int:
        with (
            mock.patch.object(sys, "argv", ["trainer.py", *words]),
            mock.patch.object(trainer, "train", train),
        ):
            run(trainer.main, train)
        return 0

    assert_answer(*call(command, [f"artefacts.runs_dir={folder}/runs", *given]))


# --- SlurmTrain.py


def make_plan(rng: Random) -> tuple[list[str], bytes, dict[str, str], int]:
    """Return a command that reads a sweep file, the file, and what Slurm says."""
    words = rng.choice(
        (["plan"], ["plan", "--json"], ["plan", "--commands"], ["check"], ["plan", "--count", "3"])
    )
    if rng.random() < 0.3:
        words = [*words, *make_overrides(rng)]
    _, texts, status = make_output(rng)
    sweep = make_sweep(rng) if rng.random() < 0.8 else SWEEP.encode()
    return [word.replace("\0", "") for word in words], sweep, texts, status


def check_plan(given: tuple[list[str], bytes, dict[str, str], int], folder: Path) -> None:
    """A plan is printed, or a line says why there is none; `check` lists the file's mistakes."""
    from mlmodeldev.cli import slurm_train
    from mlmodeldev.sweep.__main__ import main as sweep_main

    words, sweep, texts, status = given
    (folder / "sweep.yaml").write_bytes(sweep)
    with slurm(folder, texts, status):
        if words[0] == "check":
            code, out, errors = call(sweep_main, ["check", str(folder / "sweep.yaml")])
            assert code in (0, 1, 2)
            assert "Traceback" not in out + errors
            return
        code, out, errors = call(slurm_train, [words[0], "--sweep", str(folder / "sweep.yaml"), *words[1:],
                                               f"artefacts.runs_dir={folder}/runs"])  # fmt: skip
    assert_answer(code, out, errors)
    if code == 0 and "--json" in words:
        json.loads(out)


def make_status(
    rng: Random,
) -> tuple[list[str], list[dict[str, bytes]], bytes, dict[str, str], int]:
    """Return a command that reads trials, their folders, a submission, and what Slurm says."""
    words = rng.choice((["status"], ["status", "--json"], ["collect"], ["collect", "--json"], ["report"],
                        ["collect", "--out", "x.csv"], ["status", "--usage"], ["logs", "x"], ["clean"]))  # fmt: skip
    healthy = {"trial.json": json.dumps({**RECORD, "state": "done"}).encode(),
               "log.json": json.dumps(LOG).encode(), "metrics.csv": TABLE.encode()}  # fmt: skip
    jobs = spoiled_json(rng, JOBS) if rng.random() < 0.4 else json.dumps(JOBS).encode()
    _, texts, status = make_output(rng)
    if rng.random() < 0.4:
        texts, status = dict(OUTPUTS), 0
    return words, [make_folder(rng), healthy], jobs, texts, status


def check_status(
    given: tuple[list[str], list[dict[str, bytes]], bytes, dict[str, str], int], folder: Path
) -> None:
    """The healthy trial is shown whatever the other's folder holds and Slurm says."""
    from mlmodeldev.cli import slurm_train
    from mlmodeldev.sweep import loads

    words, contents, jobs, texts, status = given
    (folder / "sweep.yaml").write_text(SWEEP)
    trials = list(loads(SWEEP).trials())
    for trial, content in zip(trials, contents, strict=True):
        place = folder / "runs" / "odd" / trial.id
        place.mkdir(parents=True)
        for name, data in content.items():
            (place / name).write_bytes(data)
    note = folder / "runs" / "odd" / ".jobs" / "20260101-000000-x"
    note.mkdir(parents=True)
    (note / "jobs.json").write_bytes(jobs.replace(b'"a"', f'"{trials[0].id}"'.encode()))
    with slurm(folder, texts, status):
        code, out, errors = call(slurm_train, [words[0], "--sweep", str(folder / "sweep.yaml"), *words[1:],
                                               f"artefacts.runs_dir={folder}/runs"])  # fmt: skip
    assert_answer(code, out, errors)
    if words[0] == "status" and "--usage" not in words and code == 0:
        assert trials[1].id in out
    if "--json" in words and code == 0:
        json.loads(out)


TARGETS = [
    Target(
        "trainer.py",
        (
            "mlmodeldev.settings.command_line",
            "mlmodeldev.settings.composition_errors",
            "mlmodeldev.settings.validation",
        ),
        make_trainer,
        check_trainer,
        whole=True,
    ),
    Target(
        "plan, check",
        ("mlmodeldev.slurm.plan", "mlmodeldev.slurm.sweep_state", "mlmodeldev.slurm.preflight"),
        make_plan,
        check_plan,
        whole=True,
    ),
    Target(
        "status, collect, report",
        (
            "mlmodeldev.slurm.commands.trials",
            "mlmodeldev.slurm.commands.table",
            "mlmodeldev.report.content",
            "mlmodeldev.sweep.results",
        ),
        make_status,
        check_status,
        whole=True,
    ),
]
