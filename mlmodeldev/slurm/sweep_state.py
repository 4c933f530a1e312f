"""A sweep as it stands: its file, the settings of every trial, and the declared trials' records.

Example::

    sweep_state = read_sweep_state(args)             # args: the options of `add_sweep_options`
    for entry in sweep_state.entries:
        print(entry.trial.id, entry.state)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import project_root
from mlmodeldev.settings.conf_files import default_choice
from mlmodeldev.slurm.query import slurm_is_here
from mlmodeldev.slurm.submission import submission_names
from mlmodeldev.slurm.trial_entries import TrialEntry, reconcile

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.sweep import Sweep
    from mlmodeldev.sweep.starter import Starter


CLUSTER_VARIABLE = "MLMODELDEV_CLUSTER"
"""Names the profile under conf/cluster/ that is used where no other is asked for."""


@dataclass(frozen=True)
class SweepState:
    """A sweep and its trials.

    Attributes:
        file: the sweep file.
        base: settings before a trial's own values.
        overrides: what the command line sets for every trial.
        entries: the declared trials, in the sweep's order.
        seed, count: of random draws, as asked for.
        user_overrides: as the user gave them, with the cluster's profile.
        submitted: names of the submissions that there were before all this was read.
        wandb_states: of the trials that W&B holds, where it was asked, by identity.
    """

    file: Path
    sweep: Sweep
    base: Settings
    overrides: list[str]
    entries: list[TrialEntry]
    seed: int = 0
    count: int | None = None
    user_overrides: list[str] = field(default_factory=list)
    submitted: frozenset[str] = frozenset()
    wandb_states: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The sweep's folder, which holds its trials' folders."""
        return _sweep_folder(self.base, self.sweep)

    @property
    def is_search(self) -> bool:
        """Whether trials are drawn as results come in, so that no list of them is declared."""
        return self.sweep.method == "bayes"

    @property
    def program(self) -> str:
        """The module that has ``train``: ``trainer``, or ``folder.name`` of another file."""
        return self.sweep.invocation.module

    def starter(self, root: Path) -> Starter | None:
        """Return how the trials are started; None: as forks of ``program``.

        Args:
            root: the project's folder, or a copy of it.

        Raises:
            UsageError: settings, a search or early stopping, of which the program knows nothing.
        """
        from mlmodeldev.sweep.starter import starter

        definition = self.sweep.definition
        invocation = self.sweep.invocation_in(root)
        if invocation.is_foreign and (self.is_search or definition.early_terminate):
            raise UsageError(
                f"{self.file}: a search and early_terminate need the log of trainer.py;"
                f" {invocation.name} has them on W&B's server only; see wandb sweep"
            )
        return starter(invocation.at(root), self.sweep.call, self.user_overrides)

    @property
    def modules(self) -> list[str]:
        """The modules that a trial imports beside the program: the model's and the data's."""
        groups = (self.base.model, self.base.data)
        return [str(group["_target_"]).rpartition(".")[0] for group in groups]


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a sweep."""
    parser.add_argument("--sweep", default="sweep/config.yaml", help="sweep file")
    parser.add_argument("--count", type=int, help="at most so many trials")
    parser.add_argument("--seed", type=int, default=0, help="of random draws (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="profile under conf/cluster/, as cluster=NAME; default: generic where there is"
        f" Slurm, else local ({CLUSTER_VARIABLE} changes it)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting of every trial")


def read_sweep_state(args: argparse.Namespace, lint: bool = True) -> SweepState:
    """Read the sweep file and the settings.

    Args:
        args: options of `add_sweep_options`.
        lint: refuse a sweep whose keys or values the trainer would refuse, trial after trial.

    Raises:
        UsageError: for the first mistake.
    """
    with _without_collection():
        return _read(args, lint)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Let no garbage be looked for: a long file and a million trials are kept, whole, to the end.

    Python would go through all of them again and again, a third of the time that is taken.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is it gone through afterwards
        if collects:
            gc.enable()


def _read(args: argparse.Namespace, lint: bool) -> SweepState:
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.sweep import load
    from mlmodeldev.sweep.chosen_files import compose_beside
    from mlmodeldev.sweep.loading import pruning
    from mlmodeldev.sweep.monitor import MonitorChoice, sweep_monitor

    if "=" in (getattr(args, "wandb", None) or ""):  # --wandb optimizer.lr=0.1
        args.overrides, args.wandb = [args.wandb, *args.overrides], ""
    if args.count is not None and args.count < 1:
        raise UsageError(f"--count {args.count}: must be at least 1")
    user_overrides = fixed_overrides(args)
    # a typo is told before the sweep's mistakes are
    before, beside = compose_beside(user_overrides, lambda: load(_sweep_file(args.sweep)))
    file = _sweep_file(args.sweep)
    sweep = load(file)
    if missing := sweep.invocation.missing:
        raise UsageError(f"{file}: {': '.join(missing)}")
    monitor = MonitorChoice()
    if not sweep.invocation.is_foreign:
        monitor = sweep_monitor(sweep, user_overrides, before)
    overrides = [*pruning(sweep), *monitor.overrides, *user_overrides]
    base = compose_settings([*beside, *overrides], partial=True)  # the sweep sets the rest
    if lint:
        _lint(sweep, overrides, beside)
        if monitor.warning:
            print(f"warning: {monitor.warning}", file=sys.stderr)
    submitted = submission_names(_sweep_folder(base, sweep))
    entries = list(reconcile(sweep, Path(base.artefacts.runs_dir), args.count, args.seed))
    sweep_state = SweepState(
        *(file, sweep, base, overrides, entries, args.seed, args.count, user_overrides, submitted)
    )
    sweep_state.starter(project_root())  # which refuses what another program can't do
    return sweep_state


def read_sweep_folder(args: argparse.Namespace) -> Path:
    """Return the sweep's folder; its trials are not looked at."""
    from mlmodeldev.sweep import load
    from mlmodeldev.sweep.chosen_files import compose_beside

    base, _ = compose_beside(args.overrides, lambda: load(_sweep_file(args.sweep)))
    return _sweep_folder(base, load(_sweep_file(args.sweep)))


def _sweep_folder(settings: Settings, sweep: Sweep) -> Path:
    return Path(settings.artefacts.runs_dir).expanduser().absolute() / sweep.folder


def fixed_overrides(args: argparse.Namespace, default: bool = True) -> list[str]:
    """Return what the command line sets for every trial, the cluster's profile included.

    Args:
        args: has ``cluster`` and ``overrides``.
        default: where no profile is named, take the one that fits this machine.
    """
    return [*_profile(args, default), *args.overrides]


def _profile(args: argparse.Namespace, default: bool) -> list[str]:
    """Return ``cluster=NAME``, or nothing where the settings' default holds."""
    if any(item.partition("=")[0] == "cluster" for item in args.overrides):
        return []
    name = args.cluster or (os.environ.get(CLUSTER_VARIABLE) if default else None)
    if name is None and default:
        here = slurm_is_here() and default_choice("cluster") == "local"
        name = "generic" if here else None  # a project's own default comes before it
    return [] if name in (None, "local") else [f"cluster={name}"]


def _sweep_file(name: str) -> Path:
    """Return the file; a relative name is looked for here and in the project's folder."""
    path = Path(name)
    file = path if path.exists() or path.is_absolute() else project_root() / path
    if not file.exists():
        folder = project_root() / "sweep" if file.parent == project_root() else file.parent
        there = sorted(each.name for each in folder.glob("[!.]*.yaml"))
        hint = nearest(file.stem, [Path(name).stem for name in there])
        listed = f" ({folder.name}/ has: {', '.join(there[:8])})" if there else ""
        listed = listed or "; --sweep FILE names one"
        raise UsageError(f"{file}: no such sweep file{hint}{listed}")
    return file


def _lint(sweep: Sweep, overrides: Sequence[str], beside: Sequence[str]) -> None:
    """Print a sweep file's warnings, or raise its first error.

    Args:
        overrides: of every trial.
        beside: choices of the sweep's that these need.
    """
    from mlmodeldev.settings.composition import refusal, unset
    from mlmodeldev.sweep.chosen_files import without
    from mlmodeldev.sweep.lint import check_loaded

    def refused(key: str, value: object, chosen: Sequence[str]) -> str | None:
        needed = without(beside, [*chosen, *overrides, key])
        return refusal(key, value, (*needed, *overrides, *chosen))

    def lacks(chosen: Sequence[str]) -> dict[str, str]:
        return unset([*without(beside, [*chosen, *overrides]), *overrides, *chosen])

    problems = check_loaded(sweep, refused, unset=lacks)
    for problem in problems:
        if problem.severity == "error":
            raise UsageError(str(problem).replace(": error:", ":", 1))
    for problem in problems:
        print(problem, file=sys.stderr)
