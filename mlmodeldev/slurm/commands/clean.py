"""``SlurmTrain.py clean``: remove copies of the code that no job needs any more."""

from __future__ import annotations

import argparse
import json

from mlmodeldev.slurm import sweep_state

HELP = "remove copies of the code that no job in the queue uses"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)


def run(asked: argparse.Namespace) -> int:
    """Remove them, for all sweeps of the runs folder."""
    from mlmodeldev.slurm.snapshot import remove_unused
    from mlmodeldev.slurm.submission import FOLDER, submissions
    from mlmodeldev.slurm.tasks import live_arrays

    known = sweep_state.read(asked, lint=False)
    runs = known.folder.parent
    sweeps = [folder.parent for folder in runs.glob(f"*/{FOLDER}")]
    used = set()
    for sweep in sweeps:
        live = set(live_arrays(sweep))
        used |= {s.snapshot for s in submissions(sweep) if live & {job for job, _ in s.arrays}}
    removed = remove_unused(runs, used)
    names = [folder.name for folder in removed]
    print(json.dumps({"removed": names}) if asked.json else f"removed: {' '.join(names) or '-'}")
    return 0
