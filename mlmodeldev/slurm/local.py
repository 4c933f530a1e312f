"""Run a sweep's trials on this machine, one after the other or several at once.

Example::

    status = run_here(sweep_state, slots=2)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.lease import owned
from mlmodeldev.machine import visible_gpus
from mlmodeldev.project import project_root
from mlmodeldev.slurm.older_code import older_code
from mlmodeldev.slurm.trial_entries import ENDED, TrialEntry
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.trial.pool import run_pool
from mlmodeldev.trial.task import TrialResult, TrialTask

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.sweep.starter import Starter


def run_here(sweep_state: SweepState, slots: int | None = None) -> int:
    """Run what is missing or interrupted of a sweep, or search; say a line for each trial.

    Args:
        sweep_state: the sweep and its settings.
        slots: trials at once; None: ``cluster.trials_per_gpu`` on each GPU, or on as many as a
            trial takes.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.

    Raises:
        UsageError: less than one trial at once.
    """
    if slots is None:
        gpus = len(visible_gpus()) // most_devices(sweep_state)
        slots = sweep_state.base.cluster.trials_per_gpu * max(1, gpus)
    if slots < 1:
        raise UsageError(f"--jobs {slots}: must be at least 1")
    if not sweep_state.is_search:
        status = _run_entries(sweep_state, sweep_state.entries, slots)
        left_failed = any(entry.state == "failed" for entry in sweep_state.entries)
        return status or int(left_failed)
    from mlmodeldev.sweep.search import search

    return search(
        sweep_state.sweep,
        sweep_state.folder.parent,
        sweep_state.overrides,
        slots,
        sweep_state.modules,
        project_root(),
        seed=sweep_state.seed,
        count=sweep_state.count,
    )


def run_again(sweep_state: SweepState, entries: Sequence[TrialEntry]) -> int:
    """Run trials that failed, one after the other; return the exit status as `run_here` does."""
    return _run_entries(sweep_state, entries, slots=1, retry=True)


def _run_entries(
    sweep_state: SweepState, entries: Sequence[TrialEntry], slots: int, retry: bool = False
) -> int:
    program, root = sweep_state.program, project_root()
    start = sweep_state.starter(root)
    source = TrialEntrySource(entries, program, sweep_state.overrides, retry, start)
    status = run_pool(source, slots, [program, *sweep_state.modules], root)
    if status == EXIT_INTERRUPTED:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
    return status


def most_devices(sweep_state: SweepState) -> int:
    """Return how many devices the largest of the trials takes."""
    devices = [sweep_state.base.training.devices]
    for parameter in sweep_state.sweep.definition.parameters:
        if parameter.name == "training.devices":
            devices += parameter.fields.get("values") or [parameter.fields.get("value")]
    return max([1, *(each for each in devices if isinstance(each, int))])


_LEFT = "running elsewhere; left to it"


class TrialEntrySource:
    """The pool's source of an enumeration: entries that have not ended, a line said for each.

    Args:
        entries: the declared trials.
        program: module that has ``train``.
        fixed: overrides of every trial, beside its own.
        retry: run what failed, too.
        start: how they are started; None: as forks of ``program``.
    """

    def __init__(
        self,
        entries: Sequence[TrialEntry],
        program: str,
        fixed: Sequence[str],
        retry: bool = False,
        start: Starter | None = None,
    ) -> None:
        self.program, self.fixed, self.start = program, list(fixed), start
        self._passed_over = ENDED if retry else ENDED | {"failed"}
        self._ahead = iter(enumerate(entries, 1))
        self._total = len(entries)

    def take(self) -> TrialTask | None:
        for number, entry in self._ahead:
            head = f"[{number}/{self._total}] {entry.trial.id}  {entry.trial.name}"
            if entry.state not in self._passed_over:
                entry = entry.again()  # noqa: PLW2901 - another command may have run it meanwhile
            if entry.state in self._passed_over:
                print(f"{head}  {entry.state} already{_hint(entry)}", flush=True)
                continue
            if entry.runs_in_wandb or owned(entry.record):
                print(f"{head}  {_LEFT}", flush=True)
                continue
            print(f"{head}  ...", flush=True)
            return trial_task(entry, self.program, self.fixed, (head, entry), self.start)
        return None

    def report(self, work: TrialTask, ended: TrialResult) -> str | None:
        head, entry = work.tag
        now = entry.again()
        if ended.status == EXIT_BAD_INPUT and owned(now.record):  # begun at the same moment
            print(f"{head}  {_LEFT}", flush=True)
            return "running"
        print(f"{head}  {_outcome(now, ended)}  {ended.seconds:.1f} s", flush=True)
        return None

    def tick(self) -> None:
        """A list has nothing to renew."""


def _hint(entry: TrialEntry) -> str:
    """Return what runs a trial again that is passed over, where something may."""
    if entry.state == "failed":
        return "; retry runs it again"
    older = ", ".join(older_code(entry)[:3])
    return f"; {older} has changed since, retry --changed runs it anew" if older else ""


def trial_task(
    entry: TrialEntry,
    program: str,
    fixed: Sequence[str],
    tag: object = None,
    start: Starter | None = None,
) -> TrialTask:
    """Return a declared trial as what a pool runs: its own values, and where it lies."""
    # Hydra's spelling is for trainers: another program's values may have none
    own = {} if start and start.invocation.is_foreign else entry.trial.overrides
    overrides = trial_arguments(own, entry.folder, fixed)
    work = TrialTask(entry.trial.id, entry.folder, overrides, program, tag=tag)
    return start(work, entry.trial.overrides) if start else work


def _outcome(entry: TrialEntry, ended: TrialResult) -> str:
    """Return in a few words how a trial ended."""
    if ended.state in ENDED and entry.metric is not None and entry.value is not None:
        return f"{ended.state}  {entry.metric['name']} {entry.value:.4f}"
    if ended.state == "done":
        return ended.state
    log = "; see log.txt" if (entry.folder / "log.txt").is_file() else ""
    return f"{ended.state} ({ended.reason}{log})"
