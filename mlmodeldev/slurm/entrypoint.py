"""What each task of a job begins with: find what it has to run, and run it.

    python -m mlmodeldev.slurm.entrypoint RUNS/SWEEP/.jobs/SUBMISSION/tasks-0.pkl

`mlmodeldev.slurm.submit` has written the file; `mlmodeldev.slurm.epilog` is what the job ends with.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, TrialInterrupted, UsageError
from mlmodeldev.lease import LEASE_SECONDS, owned
from mlmodeldev.machine import number_in
from mlmodeldev.project import PROJECT_VARIABLE, import_program
from mlmodeldev.slurm.epilog import KILL_SIGNALS, may_restart
from mlmodeldev.slurm.query import JOB_IS_OVER, show_job, task_name
from mlmodeldev.slurm.submission import Submission, job_note
from mlmodeldev.slurm.trial_entries import ENDED
from mlmodeldev.trial import signals
from mlmodeldev.trial.agent_run import leave_agent
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.task import WAIT, ListSource, TrialResult, TrialTask, Wait


def _read_jobs(file: Path) -> Any:
    """Return what submit has written for this job; a pickle, so nobody else may write there.

    Raises:
        UsageError: everybody may.
    """
    for place in (file, file.parent):
        if place.stat().st_mode & stat.S_IWOTH:
            raise UsageError(
                f"{place}: everybody may write there, so its code is not run; chmod o-w"
            )
    with file.open("rb") as opened:
        return pickle.load(opened)


def main(file: Path) -> None:
    """Run this task's trials; never returns, the exit status is theirs."""
    signals.listen()
    jobs = _read_jobs(file)
    is_array = len(jobs) > 1
    if os.environ.get("SLURM_PROCID", "0") == "0":
        _note_job_number(file, is_array)
    # the copy of the code, wherever the job was submitted from
    snapshot = Submission.read(file.parent / "jobs.json").snapshot
    os.environ[PROJECT_VARIABLE] = str(snapshot)
    jobs[int(os.environ["SLURM_ARRAY_TASK_ID"]) if is_array else 0]()


def _note_job_number(file: Path, is_array: bool) -> None:
    """Write the job's number down, where the command that submitted it had no time to.

    Args:
        file: what the tasks run.
        is_array: whether an array was submitted; else its variables are of some other job.
    """
    note = job_note(file.parent, int(file.stem.rpartition("-")[2]))
    number = os.environ["SLURM_ARRAY_JOB_ID" if is_array else "SLURM_JOB_ID"]
    with contextlib.suppress(FileExistsError), note.open("x") as opened:
        opened.write(number)


@dataclass
class Job:
    """The trials of one array task.

    Attributes:
        trials: what to run.
        slots: trials at once.
        modules: what trials import beside the program.
    """

    trials: Sequence[TrialTask]
    slots: int = 1
    modules: Sequence[str] = field(default_factory=tuple)

    def __call__(self) -> None:
        """Run; never returns."""
        _print_place()
        if len(self.trials) == 1 and self.trials[0].command is None:
            _exit(_train_here(self.trials[0]))
        from mlmodeldev.trial.pool import run_pool

        _exit(run_pool(PackedTrials(self.trials), self.slots, list(self.modules)))


@dataclass
class SearchJob:
    """One worker of a search, which draws its trials itself (`mlmodeldev.sweep.search`).

    Attributes:
        file: copy of the sweep file, made at submit.
        runs_dir: holds the sweep's folder.
        overrides: of every trial.
        slots: trials at once.
        modules: what trials import beside the program.
        seed, count: of the search.
        copy_of: the sweep file itself, whose name may be the sweep's.
    """

    file: Path
    runs_dir: Path
    overrides: Sequence[str]
    slots: int
    modules: Sequence[str]
    seed: int = 0
    count: int | None = None
    copy_of: str | None = None

    def __call__(self) -> None:
        """Work until there is nothing left to do; never returns."""
        _print_place()
        from mlmodeldev.sweep import load
        from mlmodeldev.sweep.search import search

        sweep, where = load(self.file, self.copy_of), self.runs_dir
        _exit(
            search(sweep, where, self.overrides, self.slots, self.modules, None, (), self.seed,
                   self.count)
        )  # fmt: skip


class PackedTrials(ListSource):
    """The trials of a job that runs several; what ended in an earlier start is passed over.

    One that is killed from outside (``kill -9``, lack of memory) is begun again, after the others,
    as often as a job of a single trial would come back.
    """

    def __init__(self, work: Iterable[TrialTask]) -> None:
        super().__init__(work)
        self._killed: deque[TrialTask] = deque()
        self._running = 0

    def take(self) -> TrialTask | Wait | None:
        work = self._next()
        self._running += isinstance(work, TrialTask)
        return work

    def _next(self) -> TrialTask | Wait | None:
        while isinstance(work := super().take(), TrialTask):
            if read_record(work.folder).get("state") not in ENDED:
                return work
        if self._killed:
            return self._killed.popleft()
        return WAIT if self._running else None  # one of those may be killed

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        super().report(work, ended)
        self._running -= 1
        print(f"{work.id}  {ended.state}{f' ({ended.reason})' if ended.reason else ''}", flush=True)
        if -ended.status in KILL_SIGNALS and may_restart(work.id):
            self._killed.append(work)
            return "pending"
        return None


def _train_here(work: TrialTask) -> int:
    """Run one trial in this process; return the exit status."""
    from mlmodeldev.machine import share_cores
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.trial.worker import write_to

    leave_agent()  # sbatch hands on what the submitting shell had
    os.environ.update(work.environment)
    share_cores()
    rank = number_in(os.environ, "SLURM_PROCID", 0)
    write_to(str(work.folder / ("log.txt" if not rank else f"log-{rank}.txt")))
    if rank == 0:
        _wait_for_lease(TrialFolder(work.folder))
    try:
        import_program(work.program).train(compose_settings(work.overrides))
    except UsageError as error:
        print(f"{work.program}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except TrialInterrupted as error:
        print(f"{work.program}: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _wait_for_lease(folder: TrialFolder) -> None:
    """Wait for an owner that may be dead: on another node Slurm, or its lease's end, can tell."""
    deadline = time.monotonic() + LEASE_SECONDS + 30
    while not signals.requested() and time.monotonic() < deadline:
        try:
            record = folder.read()
            if not owned(record):
                return
            job = task_name(record.get("slurm") or {})
            if job and show_job(job, tries=1).get("JobState", "") in JOB_IS_OVER:
                folder.update(lease=0)
        except UsageError:
            return
        time.sleep(1)


def _print_place() -> None:
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
    print(" ".join(f"{n}={os.environ[n]}" for n in names if n in os.environ), flush=True)


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
