"""Search a sweep without a server: workers that share a journal, and may come and go.

Example, inside of a Slurm job or on a laptop, as often and in as many places as there is room::

    python -m mlmodeldev.sweep.search worker --sweep sweep/bayes.yaml --slots 2 logger=csv

Each worker takes a trial, runs it, and writes what came of it; nobody coordinates. What a dead
worker has left is taken over with the same parameters in the same folder, so it goes on from its
checkpoint. ``optuna-dashboard RUNS/SWEEP/.search/journal.log`` shows the search.
"""

from __future__ import annotations

import argparse
import bisect
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.lease import believed
from mlmodeldev.project import project_root
from mlmodeldev.sweep.database import Database
from mlmodeldev.sweep.journal import Journal, Leases
from mlmodeldev.sweep.loading import Sweep, load, pruning, trial_arguments
from mlmodeldev.sweep.monitor import MonitorChoice, sweep_monitor
from mlmodeldev.sweep.sampler import Proposal, Sampler
from mlmodeldev.sweep.starter import Start, starter
from mlmodeldev.sweep.study import SearchStudy, add_folder_trials, import_trials
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.pool import WAIT, TrialResult, TrialTask, run_pool
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.task import Wait

FOLDER = ".search"
"""Beside the sweep's trials: journal, lock, the workers' leases."""
MAX_DEATHS = 4
"""A trial that was killed so many times, or whose worker was, has failed; before, it goes on."""
MAX_LOOKS = 64
"""Of the other workers' trials so many are looked at before one is begun, in turn."""
SIGKILLED = -9

_OVER = {TrialState.COMPLETE, TrialState.PRUNED}


class SearchSource:
    """The pool's source of a searched sweep (`mlmodeldev.trial.pool.Source`).

    Args:
        sweep: any method; grid and random give the trials that enumeration gives.
        runs_dir: trials lie in ``<runs_dir>/<sweep>/<trial>``.
        fixed: overrides of every trial.
        program: module that has ``train``.
        seed: of draws and suggestions.
        count: at most so many trials in all, over all workers; the file's ``run_cap`` besides.
        retry: run trials again that had failed before this worker began.
        linger: wait for the trials of other workers, to take them over should those die. Else a
            worker that finds nothing to do leaves; what then dies waits for the next worker.
        start: how a trial is started; None: as a fork of ``program``.
    """

    def __init__(
        self,
        sweep: Sweep,
        runs_dir: Path,
        fixed: Iterable[str] = (),
        program: str = "trainer",
        seed: int = 0,
        count: int | None = None,
        retry: bool = False,
        linger: bool = False,
        start: Start | None = None,
    ) -> None:
        self.sweep, self.program, self.fixed, self.start = sweep, program, list(fixed), start
        self.retry, self.linger = retry, linger
        self.base = runs_dir.expanduser().absolute() / sweep.folder
        caps = [c for c in (count, sweep.definition.run_cap) if c is not None]
        self.cap = min(caps, default=None)
        url = sweep.definition.extensions.storage
        folder = self.base / FOLDER
        self.journal = Database.of_folder(url, folder) if url else Journal(folder)
        self.study = SearchStudy(self.journal, sweep)
        self.sampler = Sampler(sweep, seed, count)
        self.leases = Leases(self.base / FOLDER / "workers")
        self.mine: dict[str, FrozenTrial] = {}
        self.is_watching = False  # an owner of whom it is not sure yet whether it lives
        self._looked_at = -1  # the last number among the others' trials
        self.begun = datetime.now()
        self.leases.renew()
        self.journal.catch_up()
        with self.journal.lock:
            if sweep.method == "bayes":
                add_folder_trials(self.study, self.sampler, self.base)

    # --- what the pool calls

    def take(self) -> TrialTask | Wait | None:
        self.journal.catch_up()
        with self.journal.lock:
            self.is_watching = False
            rows = self.study.rows()
            row = self._left_behind(rows) or self._retried(rows) or self._new()
            if row is not None:
                self.mine[row.user_attrs["id"]] = row
                return self._task(row)
            if self.mine or self.is_watching or (self.linger and self._any_running()):
                return WAIT
            return None

    def report(self, task: TrialTask, result: TrialResult) -> str | None:
        with self.journal.lock:
            row = self.journal.storage.get_trial(self.mine.pop(task.id)._trial_id)
            print(f"{task.id}  {row.user_attrs['name']}  {result.state}", flush=True)
            if result.state in ("done", "pruned"):
                self.study.finish(row, task.folder, result.state == "pruned")
            elif result.state == "interrupted":
                self.study.release(row)
            elif result.status == SIGKILLED and self._may_go_on(row):
                # else the next worker would take it for one that failed by itself
                if (task.folder / "trial.json").is_file():
                    TrialFolder(task.folder).update(state="interrupted")
                self.study.release(row)
                return "pending"
            else:
                self.study.fail(row, result.reason)
        return None

    def tick(self) -> None:
        self.leases.renew()

    def close(self) -> None:
        """Give the worker's lease up."""
        self.leases.give_up()

    # --- parts

    def _may_go_on(self, row: FrozenTrial) -> bool:
        """Count a death; return whether the trial may be gone on with."""
        deaths: int = row.user_attrs.get("deaths", 0) + 1
        self.study.set_attributes(row, deaths=deaths)
        return deaths < MAX_DEATHS

    def _left_behind(self, rows: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """Write how other workers' trials ended meanwhile; take one over that nobody runs.

        Of many that somebody runs, the next `MAX_LOOKS` after those of the last time: a look reads
        two files, while all other workers wait for the lock.
        """
        others = (row for row in rows if row.state is TrialState.RUNNING)
        others = (row for row in others if row.user_attrs["id"] not in self.mine)
        owned_rows: list[FrozenTrial] = []
        for row in others:
            if row.user_attrs["owner"] is not None:
                owned_rows.append(row)
            elif self._take_over(row):
                return row
        numbers = [row.number for row in owned_rows]
        first = bisect.bisect_right(numbers, self._looked_at) % max(1, len(numbers))
        for row in [*owned_rows[first:], *owned_rows[:first]][:MAX_LOOKS]:
            self._looked_at = row.number
            if self._take_over(row):
                return row
        return None

    def _take_over(self, row: FrozenTrial) -> bool:
        """Take a trial over that nobody runs; one that is over gets its result instead."""
        folder = self.base / row.user_attrs["id"]
        record = read_record(folder)
        state = record.get("state")
        # both are asked each time, so that both are watched from the first look on
        alive = [believed(record), self.leases.alive(row.user_attrs["owner"])]
        if any(each is not False for each in alive):
            self.is_watching |= True not in alive
            return False
        if state in ("done", "pruned"):
            self.study.finish(row, folder, state == "pruned")
        elif state == "failed" and not self.retry:
            self.study.fail(row, record.get("reason"))
        elif state == "running" and not self._may_go_on(row):
            self.study.fail(row, f"died {MAX_DEATHS} times")
        else:
            self.study.set_attributes(row, owner=self.leases.name)
            return True
        return False

    def _retried(self, rows: Sequence[FrozenTrial]) -> FrozenTrial | None:
        if not self.retry:
            return None
        again = {row.user_attrs.get("retry_of") for row in rows}
        for row in rows:
            ended = row.datetime_complete if row.state is TrialState.FAIL else None
            if ended is not None and ended < self.begun and row.number not in again:
                trial = self.sampler.trial(row.user_attrs["overrides"])
                proposal = Proposal(trial, row.params, row.distributions)
                return self.study.begin(proposal, self.leases.name, retry_of=row.number)
        return None

    def _new(self) -> FrozenTrial | None:
        """Begin a new point; one whose folder is finished already gets its result at once."""
        while True:
            rows = [row for row in self.study.rows() if "retry_of" not in row.user_attrs]
            if self._is_over(rows):
                return None
            begun = {row.user_attrs["id"] for row in rows}
            proposal = self.sampler.next(self.study.load(), begun, rows)
            if proposal is None:
                return None
            row = self.study.begin(proposal, self.leases.name)
            if not read_record(self.base / proposal.trial.id):
                return row
            self.study.release(row)
            row = self.journal.storage.get_trial(row._trial_id)
            if self._take_over(row):
                return row

    def _is_over(self, rows: Sequence[FrozenTrial]) -> bool:
        if self.cap is not None and len(rows) >= self.cap:
            return True
        metric = self.sweep.definition.metric
        if metric is None or metric.target is None:
            return False
        sign = 1 if metric.goal == "maximize" else -1
        values = [row.value for row in rows if row.state in _OVER and row.value is not None]
        return any(sign * value >= sign * metric.target for value in values)

    def _any_running(self) -> bool:
        return any(row.state is TrialState.RUNNING for row in self.study.rows())

    def _task(self, row: FrozenTrial) -> TrialTask:
        name = row.user_attrs["id"]
        folder = self.base / name
        own = pruning(self.sweep, self.journal.address, self.study.name, row.number)
        overrides = trial_arguments(row.user_attrs["overrides"], folder, [*own, *self.fixed])
        print(f"{name}  {row.user_attrs['name']}  ...", flush=True)
        task = TrialTask(name, folder, overrides, self.program)
        return self.start(task, row.user_attrs["overrides"]) if self.start else task


def search(
    sweep: Sweep,
    runs_dir: Path,
    fixed: Sequence[str] = (),
    slots: int = 1,
    modules: Sequence[str] = (),
    root: Path | None = None,
    earlier: Sequence[Path] = (),
    seed: int = 0,
    count: int | None = None,
    retry: bool = False,
    linger: bool = False,
) -> int:
    """Be a worker until there is nothing left to do.

    Args:
        sweep: the sweep.
        runs_dir: trials lie in ``<runs_dir>/<sweep>/<trial>``.
        fixed: overrides of every trial.
        slots: trials at once on this machine.
        modules: what trials import beside the sweep's ``program``.
        root: the folder that the modules lie in; the project's own by default.
        earlier: folders of earlier sweeps whose results the search begins with.
        seed, count, retry, linger: as for `SearchSource`.

    Returns:
        Exit status: 0 all ended well, 1 some failed, 75 interrupted.
    """
    place = root or project_root()
    invocation = sweep.invocation_in(place).at(place)
    if invocation.is_foreign:
        raise UsageError(
            f"{sweep.definition.file}: a search needs the log of trainer.py, which"
            f" {invocation.name} does not keep"
        )
    program, start = invocation.module, starter(invocation, sweep.call)
    source = SearchSource(sweep, runs_dir, fixed, program, seed, count, retry, linger, start)
    try:
        for folder in earlier:
            with source.journal.lock:
                added = import_trials(source.study, source.sampler, folder)
            print(f"{added} results of {folder} are known now")
        status = run_pool(source, slots, [program, *modules], root)
    finally:
        source.close()
    if status == EXIT_INTERRUPTED:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return _run_worker(args)
    except UsageError as error:
        print(f"search: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _run_worker(args: argparse.Namespace) -> int:
    from mlmodeldev.sweep.chosen_files import compose_beside

    sweep = load(args.sweep)
    base, _ = compose_beside(args.overrides, lambda: sweep)
    monitor = MonitorChoice()
    if not args.root and not sweep.invocation.is_foreign:
        monitor = sweep_monitor(sweep, args.overrides, base)
    if monitor.warning:
        print(f"warning: {monitor.warning}", file=sys.stderr)
    # The user's model and data, imported once before the forks; another project's program
    # imports its own.
    groups = () if args.root else (base.model, base.data)
    modules = [str(group["_target_"]).rpartition(".")[0] for group in groups]
    for name in ("slots", "count"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    return search(
        sweep,
        Path(args.runs or base.artefacts.runs_dir),
        [*monitor.overrides, *args.overrides],
        args.slots,
        modules,
        Path(args.root) if args.root else None,
        args.earlier,
        args.seed,
        args.count,
        args.retry,
        args.linger,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlmodeldev.sweep.search",
        description="Search a sweep offline. Start as many workers as there is room for.",
        epilog="Exit status: 0 done, 1 a trial failed, 2 bad input, 75 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    worker = actions.add_parser("worker", help="run trials until there is nothing left to do")
    worker.add_argument("--sweep", default="sweep/bayes.yaml", help="sweep file")
    worker.add_argument("--runs", help="folder of all sweeps' trials (artefacts.runs_dir)")
    worker.add_argument("--slots", type=int, default=1, help="trials at once (1)")
    worker.add_argument("--seed", type=int, default=0, help="of draws and suggestions (0)")
    worker.add_argument("--count", type=int, help="at most so many trials, over all workers")
    worker.add_argument("--retry", action="store_true", help="run failed trials again")
    worker.add_argument("--linger", action="store_true", help="wait for other workers' trials")
    worker.add_argument(
        "--prior",
        dest="earlier",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="learn from a sweep's folder",
    )
    worker.add_argument("--root", help="folder of the sweep's program, where it is not this one")
    worker.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every trial")
    return parser


if __name__ == "__main__":
    sys.exit(main())
