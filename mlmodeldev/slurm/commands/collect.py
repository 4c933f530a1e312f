"""``SlurmTrain.py collect``: the results as one table, and as a file for other tools."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mlmodeldev.slurm import sweep_state

HELP = "the results: best first, mean ± std over replicates, failures; and a CSV or Parquet file"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    sweep_state.add_options(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a row for each trial: .csv or .parquet (RUNS/SWEEP/results.csv)",
    )


def run(asked: argparse.Namespace) -> int:
    """Read all trials, write the file, print the table."""
    from mlmodeldev.sweep.results import collect, print_results, write_rows

    known = sweep_state.read(asked, lint=False)
    metric = known.sweep.definition.metric
    training = known.base.training
    name, goal = training.monitor, {"max": "maximize", "min": "minimize"}[training.mode]
    if metric is not None:
        name, goal = metric.name, metric.goal
    results = collect(known.entries, name, goal)
    file = Path(asked.out) if asked.out else known.folder / "results.csv"
    if asked.out or known.folder.is_dir():
        write_rows(results, file)
    if asked.json:
        print(json.dumps({"sweep": known.sweep.name, **results.as_dict()}, indent=1, default=str))
        return 0
    print_results(results, known.sweep.name)
    if file.is_file():
        print(f"rows: {file}")
    return 0
