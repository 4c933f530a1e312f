"""What each task of a job begins with: find what it has to run, and run it.

    python -m mlmodeldev.slurm.entrypoint RUNS/SWEEP/.jobs/SUBMISSION/tasks-0.pkl

`mlmodeldev.slurm.arrays` has written the file; `mlmodeldev.slurm.epilog` is what the job ends with.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from pathlib import Path

from mlmodeldev.slurm.submission import job_note
from mlmodeldev.trial import signals


def main(file: Path) -> None:
    """Run this task's trials; never returns, the exit status is theirs."""
    signals.listen()
    if os.environ.get("SLURM_PROCID", "0") == "0":
        _note(file)
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    with file.open("rb") as opened:
        job = pickle.load(opened)[index]
    job()


def _note(file: Path) -> None:
    """Write the job's number down, where the command that submitted it had no time to."""
    note = job_note(file.parent, int(file.stem.rpartition("-")[2]))
    number = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ["SLURM_JOB_ID"]
    with contextlib.suppress(FileExistsError), note.open("x") as opened:
        opened.write(number)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
