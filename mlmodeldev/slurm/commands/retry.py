"""``SlurmTrain.py retry``: run the trials that failed, or were lost, and no others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mlmodeldev.slurm import sweep_diff, sweep_state
from mlmodeldev.slurm.commands import submit

HELP = "run the failed trials again, and no others, as they were submitted"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    submit.add_yes(parser)


def run(asked: argparse.Namespace) -> int:
    """Submit what failed."""
    from mlmodeldev.slurm.commands.status import in_queue
    from mlmodeldev.slurm.plan import state

    _recall(asked)
    known = sweep_state.read(asked)
    sweep_diff.tell(known, "retry")
    tasks = in_queue(known)
    failed = [e for e in known.entries if state(e, tasks.get(e.trial.id)) in ("failed", "lost")]
    if known.base.cluster.launcher == "local":
        return submit.here(known, asked, failed)
    return submit.to_cluster(known, asked.yes, asked.json, {e.trial.id for e in failed})


def _recall(asked: argparse.Namespace) -> None:
    """Add what the last submission was told; what is given now comes before it."""
    from mlmodeldev.slurm.submission import submissions

    made = submissions(sweep_state.folder_of(asked))
    if not made:
        return
    asked.overrides = merged(made[-1].overrides, sweep_state.fixed_overrides(asked, default=False))
    asked.cluster = None
    asked.count = made[-1].count if asked.count is None else asked.count
    asked.seed = asked.seed or made[-1].seed


def merged(before: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return overrides without those of the first that the second sets anew.

    >>> merged(["cluster=hec", "optimizer.lr=0.1"], ["cluster=mila"])
    ['optimizer.lr=0.1', 'cluster=mila']
    """
    keys = {_key(item) for item in given}
    return [*(item for item in before if _key(item) not in keys), *given]


def _key(item: str) -> str:
    return item.partition("=")[0].lstrip("+~")
