"""What is recorded: a real trial, a submission, a search's journal, data that are prepared.

Each is run in a process of its own while strace looks on; `Recorded` is what it has done.

Example::

    recorded = record(tmp_path, submission)
    recorded.writes, recorded.promises, recorded.folder
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import TrialResult, Trials, in_fork
from tests.reliability.after_power_cut import CODE
from tests.reliability.disk import Disk, Writes, after_cut, same
from tests.reliability.promises import Promises
from tests.reliability.recorded_writes import begin_recording, read_writes, wait_for_record

GROWING = ("metrics.csv", "journal.log")
PRINTED = ".output"
"""Was opened before the record began."""


@dataclass
class Recorded:
    """A program's changes in a folder, and what they promise."""

    folder: Path
    writes: Writes
    promises: Promises

    @property
    def count(self) -> int:
        """How many operations there were, each of which the power may go after."""
        return len(self.writes.operations)


def record(scratch: Path, program: Callable[[Path], None]) -> Recorded:
    """Run a module's function in a process of its own, and record what it does in its folder."""
    folder, file = scratch / "recorded", scratch / "record"
    folder.mkdir(parents=True)
    before = Disk.read(folder)
    code = in_fork(scratch / "printed", _run, program, folder, file)
    assert code == 0, (scratch / "printed").read_text()
    return _read(folder, file, before)


def _run(program: Callable[[Path], None], folder: Path, file: Path) -> None:
    begin_recording(file)
    program(folder)


def _read(folder: Path, file: Path, before: Disk) -> Recorded:
    wait_for_record(file)
    writes = read_writes(file, folder, before)
    whole = after_cut(writes, len(writes.operations), "all of it")
    differing = [name for name in same(whole, folder) if not name.endswith(PRINTED)]
    assert differing == [], "the record is not all that was done"
    return Recorded(folder, writes, Promises(writes, lambda path: path.endswith(GROWING)))


# --- a trial

SMALL = (
    "logger=csv",
    "training.max_epochs=2",
    "training.limit_train_batches=5",
    "training.limit_val_batches=2",
    "training.log_every_n_steps=1",
    "training.checkpoint_every_n_steps=2",
    "processing.batch_size=16",
    "model.hidden_size=8",
    "model.num_layers=1",
    "model.dropout=0.1",
    "callbacks.cka.enabled=false",
)


def record_trial(scratch: Path, data: Path, *overrides: str) -> tuple[Recorded, TrialResult]:
    """Record a real trial from its first write to its last."""
    trials = Trials(scratch / "runs", data)
    (scratch / "runs" / "single").mkdir(parents=True)
    before, file = Disk.read(trials.runs), scratch / "record"
    ended = trials.run(*SMALL, *overrides, name="whole", patch=partial(begin_recording, file))
    assert ended.code == 0, ended.output
    return _read(trials.runs, file, before), ended


# --- a folder that is replaced

RETURNED = ".returned-"
"""Begins the name of what is made when a call has returned, with its number."""


def replaced_at_once(folder: Path) -> None:
    """Replace a folder three times."""
    from mlmodeldev.atomic import replace_folder

    for number in (1, 2, 3):
        with replace_folder(folder / "best") as new:
            (new / "deep").mkdir()
            (new / "weights").write_text(f"{number}" * 1000)
            (new / "deep" / "state").write_text(f"{number}" * 100)
        (folder / f"{RETURNED}{number}").mkdir()


def replaced_by_renames(folder: Path) -> None:
    """Do so where the file system can't exchange two names."""
    from mlmodeldev import atomic

    atomic._exchange = lambda new, path: False
    replaced_at_once(folder)


# --- a submission

SBATCH = ".sbatch"
"""Is there from the moment on at which Slurm has the jobs."""


def submission(folder: Path) -> None:
    """Submit a search's two workers; sbatch is a function here."""
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm import submit

    project = folder.parent / "project"
    for name in CODE:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(f"# {name}")
    sweep = folder.parent / "sweep.yaml"
    sweep.write_text("method: random\n")
    state: Any = SimpleNamespace(
        folder=folder / "runs" / "small",
        file=sweep,
        user_overrides=[],
        overrides=[],
        count=4,
        seed=0,
        program="trainer.py",
        modules=[],
        is_search=True,
        starter=lambda _: None,
    )
    cluster = Cluster(launcher="slurm", cpus_per_task=1, gpus_per_task=0)
    plan: Any = SimpleNamespace(cluster=cluster, sweep_state=state, arrays=[[[], []]], throttle=2)

    def sbatch(script: Path, *_: Any) -> str:
        (folder / SBATCH).touch()
        return "1201"

    submit._run_sbatch = sbatch
    submit.launch(plan, project)
    submit.launch(plan, project)  # another, which finds the snapshot


# --- a search's journal


def journal(folder: Path) -> None:
    """Make a study, and three trials of it with their values."""
    import optuna

    from mlmodeldev.sweep.journal import Journal

    made = Journal(folder / "digits" / ".search")
    study = made.study("digits", "maximize")
    for value in (0.1, 0.2, 0.3):
        with made.lock:
            number = made.storage.create_new_trial(study)
        with made.batch():
            made.storage.set_trial_user_attr(number, "trial", str(value))
            made.storage.set_trial_state_values(
                number, optuna.trial.TrialState.COMPLETE, values=[value]
            )


# --- prepared data

KEY = {"input": "ab"}


def make_arrays(folder: Path) -> dict[str, int]:
    """Write an array by numpy, and one through memory."""
    import numpy as np

    from mlmodeldev.data.cache import new_array

    np.save(folder / "numbers.npy", np.arange(1000))
    mapped = new_array(folder / "mapped.npy", np.int16, (300, 4))
    mapped[:] = np.arange(1200).reshape(300, 4)
    return {"count": 1000}


def prepared(folder: Path) -> None:
    """Prepare arrays."""
    from mlmodeldev.data.cache import cached_arrays

    cached_arrays(folder / "prepared", "set", KEY, make_arrays)
