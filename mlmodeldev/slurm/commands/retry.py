"""``SlurmTrain.py retry``: run the trials that failed, or were lost, and no others."""

from __future__ import annotations

import argparse

from mlmodeldev.slurm import declared
from mlmodeldev.slurm.commands import submit

HELP = "run the failed trials again, and no others"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    declared.add_options(parser)
    submit.add_yes(parser)


def run(asked: argparse.Namespace) -> int:
    """Submit what failed."""
    from mlmodeldev.slurm.commands.status import in_queue
    from mlmodeldev.slurm.planning import state

    known = declared.read(asked)
    tasks = in_queue(known)
    failed = [e for e in known.entries if state(e, tasks.get(e.trial.id)) in ("failed", "lost")]
    if known.base.cluster.launcher == "local":
        return submit.here(known, asked, failed)
    return submit.to_cluster(known, asked.yes, asked.json, {e.trial.id for e in failed})
