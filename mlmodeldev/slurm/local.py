"""Run a sweep's trials on this machine, one after the other or several at once.

Example::

    run_local(entries, "trainer", fixed=["logger=csv"], modules=["model", "datamodule"], slots=2)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_INTERRUPTED, UsageError
from mlmodeldev.machine import visible_gpus
from mlmodeldev.slurm.sweep_state import ENDED, TrialEntry
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.trial.folder import owned
from mlmodeldev.trial.pool import TrialResult, TrialTask, run_pool

if TYPE_CHECKING:
    from mlmodeldev.slurm.sweep_state import SweepState
    from mlmodeldev.sweep.starter import Start


def run_here(known: SweepState, slots: int | None, seed: int = 0, count: int | None = None) -> int:
    """Run a declared sweep on this machine: its list, or a search.

    Args:
        known: the sweep and its settings.
        slots: trials at once; None: ``cluster.trials_per_gpu`` on each GPU, or on as many as a
            trial takes.
        seed, count: of a search.

    Raises:
        UsageError: less than one trial at once.
    """
    from mlmodeldev.project import project_root

    if slots is None:
        gpus = len(visible_gpus()) // most_devices(known)
        slots = known.base.cluster.trials_per_gpu * max(1, gpus)
    if slots < 1:
        raise UsageError(f"--jobs {slots}: must be at least 1")
    root = project_root()
    start = known.starter(root)
    if known.sweep.method == "bayes":
        from mlmodeldev.sweep.search import search

        return search(
            known.sweep,
            known.folder.parent,
            known.overrides,
            slots,
            known.modules,
            root,
            seed=seed,
            count=count,
        )
    fixed, modules = known.overrides, known.modules
    return run_local(known.entries, known.program, fixed, modules, root, slots, start=start)


def most_devices(known: SweepState) -> int:
    """Return how many devices the largest of the trials takes."""
    asked = [known.base.training.devices]
    for parameter in known.sweep.definition.parameters:
        if parameter.name == "training.devices":
            asked += parameter.fields.get("values") or [parameter.fields.get("value")]
    return max([1, *(each for each in asked if isinstance(each, int))])


def run_local(
    entries: Sequence[TrialEntry],
    program: str,
    fixed: Sequence[str],
    modules: Sequence[str],
    root: Path,
    slots: int = 1,
    retry: bool = False,
    start: Start | None = None,
) -> int:
    """Run what is missing or interrupted; say a line for each trial.

    Args:
        entries: the declared trials.
        program: module that has ``train``.
        fixed: overrides of every trial, beside its own.
        modules: what the trials import beside the program.
        root: the project's folder.
        slots: trials at once.
        retry: run what failed, too.
        start: how a foreign program is started; None: as forks of ``program``.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.
    """
    source = TrialEntrySource(entries, program, fixed, retry, start)
    status = run_pool(source, slots, [program, *modules], root)
    if not status and not retry and any(entry.state == "failed" for entry in entries):
        status = 1
    if status == EXIT_INTERRUPTED:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
    return status


class TrialEntrySource:
    """The pool's source of an enumeration: entries that have not ended, a line said for each."""

    def __init__(
        self,
        entries: Sequence[TrialEntry],
        program: str,
        fixed: Sequence[str],
        retry: bool = False,
        start: Start | None = None,
    ) -> None:
        self.program, self.fixed, self.start = program, list(fixed), start
        self._passed_over = ENDED if retry else ENDED | {"failed"}
        self._ahead = iter(enumerate(entries, 1))
        self._total = len(entries)

    def take(self) -> TrialTask | None:
        for number, entry in self._ahead:
            head = f"[{number}/{self._total}] {entry.trial.id}  {entry.trial.name}"
            if entry.state in self._passed_over:
                hint = "; retry runs it again" if entry.state == "failed" else ""
                print(f"{head}  {entry.state} already{hint}", flush=True)
                continue
            if entry.runs_in_wandb or owned(entry.record):
                print(f"{head}  running elsewhere; left to it", flush=True)
                continue
            print(f"{head}  ...", flush=True)
            return entry_work(entry, self.program, self.fixed, (head, entry), self.start)
        return None

    def report(self, work: TrialTask, ended: TrialResult) -> None:
        head, entry = work.tag
        print(f"{head}  {outcome(entry.again(), ended)}  {ended.seconds:.1f} s", flush=True)

    def tick(self) -> None:
        """A list has nothing to renew."""


def entry_work(
    entry: TrialEntry,
    program: str,
    fixed: Iterable[str],
    tag: object = None,
    start: Start | None = None,
) -> TrialTask:
    """Return a declared trial as the pool's work."""
    overrides = trial_overrides(entry, list(fixed))
    work = TrialTask(entry.trial.id, entry.folder, overrides, program, tag=tag)
    return start(work, entry.trial.overrides) if start else work


def trial_overrides(entry: TrialEntry, fixed: Sequence[str]) -> list[str]:
    """Return the command line of a trial: its own values, and where it lies."""
    return trial_arguments(entry.trial.overrides, entry.folder, fixed)


def outcome(entry: TrialEntry, ended: TrialResult) -> str:
    """Say in a few words how a trial ended."""
    if ended.state in ENDED and entry.value is not None:
        return f"{ended.state}  {entry.record['metric']['name']} {entry.value:.4f}"
    if ended.state == "done":
        return ended.state
    return f"{ended.state} ({ended.reason}; see log.txt)"
