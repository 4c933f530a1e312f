"""What a job does: run its trials. submitit calls it in every task of the job.

A job of one trial runs it in its own process, on as many ranks as there are tasks; a job of
several runs them in the pool of forked workers. Signals belong to the trial
(`mlmodeldev.trial.interrupt`), submitit's own handlers are replaced. The exit status goes to
`mlmodeldev.slurm.ending`, which says what becomes of the job.

Example::

    executor.submit(Job([Work("gtsqtqg3", folder, ["optimizer.lr=0.001"])], slots=1))
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.trial import interrupt
from mlmodeldev.trial.record import LEASE_SECONDS, TrialFolder, owned
from mlmodeldev.trial.work import ListSource, Work


@dataclass
class Job:
    """The trials of one array task.

    Attributes:
        trials: what to run.
        slots: trials at once.
        modules: what trials import beside the program.
    """

    trials: Sequence[Work]
    slots: int = 1
    modules: Sequence[str] = field(default_factory=tuple)

    def __call__(self) -> None:
        """Run; never returns, so that submitit adds nothing of its own."""
        interrupt.listen()
        _say_where()
        status = _alone(self.trials[0]) if len(self.trials) == 1 else self._together()
        sys.stdout.flush()
        sys.stderr.flush()
        sys.exit(status)

    def _together(self) -> int:
        from mlmodeldev.trial.pool import run_pool

        source = _Told(self.trials)
        return run_pool(source, self.slots, list(self.modules))


class _Told(ListSource):
    """A list of trials that says in the job's log how each ended."""

    def report(self, work: Work, ended: object) -> None:
        state, reason = getattr(ended, "state", ""), getattr(ended, "reason", None)
        print(f"{work.id}  {state}{f' ({reason})' if reason else ''}", flush=True)


def _alone(work: Work) -> int:
    """Run one trial in this process; return the exit status."""
    import importlib

    from mlmodeldev.settings.cli import TrialInterrupted
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.threads import share_cores
    from mlmodeldev.trial.worker import write_to

    share_cores()
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    write_to(str(work.folder / ("log.txt" if not rank else f"log-{rank}.txt")))
    if rank == 0:
        _wait_for_lease(TrialFolder(work.folder))
    try:
        importlib.import_module(work.program).train(compose_settings(work.overrides))
    except UsageError as error:
        print(f"{work.program}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except TrialInterrupted as error:
        print(f"{work.program}: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _wait_for_lease(folder: TrialFolder) -> None:
    """Wait for an owner that may be dead: on another node only its lease's end can tell."""
    deadline = time.monotonic() + LEASE_SECONDS + 30
    while not interrupt.requested() and time.monotonic() < deadline:
        try:
            if not owned(folder.read()):
                return
        except UsageError:
            return
        time.sleep(1)


def _say_where() -> None:
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
    print(" ".join(f"{n}={os.environ[n]}" for n in names if n in os.environ), flush=True)
