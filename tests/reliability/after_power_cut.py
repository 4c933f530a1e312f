"""What must hold of a folder that a power cut has left, by the product's own readers.

Each function returns what does not hold, in words; nothing: all is well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from mlmodeldev.data.cache import open_cached
from mlmodeldev.errors import UsageError
from mlmodeldev.slurm.snapshot import _is_whole as snapshot_is_whole
from mlmodeldev.slurm.submission import submissions
from mlmodeldev.sweep.journal import Journal
from mlmodeldev.trial.checkpoint import Logged, logged_at, newest_whole
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_text_rows

EXPORTS = ("best", "last")
CODE = ("conf/config.yaml", "mlmodeldev/__init__.py", "trainer.py")
"""Of the project that is submitted."""


@dataclass
class Undisturbed:
    """A trial's folder at its end, as it was without a power cut."""

    folder: Path

    def __post_init__(self) -> None:
        self.rows = read_text_rows(self.folder / "metrics.csv")[1]
        self.log = json.loads((self.folder / "log.json").read_text())
        self.exports = {name: files_of(self.folder / name) for name in EXPORTS}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def trial_problems(folder: Path, whole: Undisturbed) -> list[str]:
    """Return what keeps a trial's folder from being one that goes on, or that is done."""
    if not folder.is_dir():
        return []
    problems = []
    try:
        record = TrialFolder(folder).read()
        if (folder / "config.yaml").exists():
            assert isinstance(yaml.safe_load((folder / "config.yaml").read_text()), dict)
    except (UsageError, AssertionError, yaml.YAMLError) as error:
        return [str(error)]
    step, logged = 0, Logged()
    if checkpoint := newest_whole(folder / "checkpoints"):
        step, logged = int(checkpoint.stem.partition("-")[2]), logged_at(checkpoint)
    rows = [row for row in read_text_rows(folder / "metrics.csv")[1] if int(row["step"]) < step]
    expected = [row for row in whole.rows if int(row["step"]) < step]
    # where a validation is yet to come, its row and the epoch's are, too
    least = (logged.rows or 0) if logged.validation_due else len(expected)
    if rows != expected[: len(rows)] or len(rows) < least:
        problems.append(f"metrics.csv: {len(rows)} rows before step {step}, not {len(expected)}")
    entries = json.loads(file.read_text()) if (file := folder / "log.json").exists() else []
    if entries != whole.log[: len(entries)] or any(
        entry["step"] <= step - logged.validation_due for entry in whole.log[len(entries) :]
    ):
        problems.append(f"log.json: {len(entries)} entries at step {step}")
    if record.get("state") == "done":
        problems += _problems_of_done(folder, whole)
    return problems


def _problems_of_done(folder: Path, whole: Undisturbed) -> list[str]:
    problems = [
        f"done, and {name}/ is not whole"
        for name in EXPORTS
        if files_of(folder / name) != whole.exports[name]
    ]
    if read_text_rows(folder / "metrics.csv")[1] != whole.rows:
        problems.append("done, and rows of metrics.csv are missing")
    return problems


def submission_problems(folder: Path, slurm_has_them: bool) -> list[str]:
    """Return what jobs that Slurm has would lack."""
    if not slurm_has_them:
        return []
    made = submissions(folder / "runs" / "small")
    if not made:
        return ["jobs.json tells of no submission"]
    problems = []
    for each in made:
        if not each.arrays and each.intent is None:
            continue
        if not snapshot_is_whole(each.snapshot, CODE):
            problems.append(f"{each.snapshot.name}: is no whole copy of the code")
        if each.sweep_file.read_text() != "method: random\n":
            problems.append("the copy of the sweep file is damaged")
    return problems


def journal_problems(folder: Path) -> list[str]:
    """Return what a worker that comes back would miss, or be kept from."""
    journal = Journal(folder / "digits" / ".search")
    study = journal.study("digits", "maximize")
    trials = journal.storage.get_all_trials(study)
    done = [trial.values for trial in trials if trial.values]
    problems = []
    if done != [[0.1], [0.2], [0.3]][: len(done)]:
        problems.append(f"the journal has {done}")
    journal.storage.create_new_trial(study)
    if len(Journal(folder / "digits" / ".search").storage.get_all_trials(study)) != len(trials) + 1:
        problems.append("what is written after the cut can't be read")
    return problems


def prepared_problems(folder: Path, key: dict[str, str]) -> list[str]:
    """Return whether damaged arrays would be taken for whole."""
    for place in (folder / "prepared").glob("set-*"):
        marker = json.loads((place / "prepared.json").read_text())
        cached = open_cached(place, marker["key"])
        if cached is None:
            continue
        mapped = np.arange(1200).reshape(300, 4)
        if not np.array_equal(cached.array("numbers"), np.arange(1000)):
            return ["numbers.npy is damaged"]
        if not np.array_equal(cached.array("mapped"), mapped) or key["input"] not in str(marker):
            return ["mapped.npy is damaged"]
    return []
