"""Trackers: what logging costs a step, and what closing costs beyond the tracker's own library.

    python -m benchmarks trackers

One trial for each choice of ``logger``; its epochs log to the trackers and not at all, in turn, so
that load and drift hit both alike. CPU time is taken, which other programs hardly blur: of the
training thread in the trackers' methods, as a share of its batches; and of the whole process, with
what the trackers' threads do, of an epoch that logs against the one beside it that does not. What
W&B's client does in a process of its own is in neither.

An end is measured in seconds of waiting: ours, with tables and models, and then in the same process
the library alone, with the same rows and models; ClearML's has no such figure, so that all of its
end counts. The servers of W&B and ClearML are those of the tests.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.step_time import use_mlflow
from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 21
"""One to warm up, then pairs."""
ROUNDS = 1
"""Of all choices in turn, a trial each."""
CHOICES = ("csv", "tensorboard", "wandb", "mlflow", "clearml", "[wandb,mlflow]")
_OPTIONAL = ("mlflow", "clearml")  # in the folder of optional packages
LIMIT_SHARE, LIMIT_CLOSE = 2.0, 2.0


def run(epochs: int = EPOCHS, rounds: int = ROUNDS) -> Table:
    """Measure every choice."""
    from tests.clearml.server import Server as ClearmlServer
    from tests.wandb.server import Server

    table = Table(
        "Trackers",
        ["logger", "of a step, %", "process beside none", "close, s", "library alone, s"],
        note=(
            "The digits with the default settings, one thread; metrics.csv is written in each."
            f" Medians of {rounds} x {epochs // 2} pairs of an epoch that logs and one that"
            " does not, in CPU time: the training thread's in the tracker as a share of its"
            " batches, and the whole process's. Close: the end of the trial in the tracker, and"
            " that of the same rows and models with its library alone, medians."
        ),
    )
    there = use_mlflow()
    chosen = [c for c in CHOICES if there or not any(name in c for name in _OPTIONAL)]
    outcomes: dict[str, list[dict[str, Any]]] = {choice: [] for choice in chosen}
    server = Server()
    try:
        with ClearmlServer() as clearml, tempfile.TemporaryDirectory() as folder:
            addresses = {**server.environment(), **clearml.environment()}
            for number in range(rounds):
                for choice in chosen:
                    where = Path(folder) / f"{number}-{choice.strip('[]').replace(',', '-')}"
                    outcomes[choice].append(_trial(choice, epochs, where, addresses))
    finally:
        server.close()
    for choice, trials in outcomes.items():
        _add(table, choice, trials)
    return table


def _add(table: Table, choice: str, trials: list[dict[str, Any]]) -> None:
    median = statistics.median
    pairs = [pair for trial in trials for pair in _pairs(trial["epochs"])]
    share = 100 * median(on["calls"] / on["thread"] for on, _ in pairs)
    process = median(on["process"] / off["process"] for on, off in pairs)
    close, alone = (
        median(sum(trial[which].values()) for trial in trials) for which in ("close", "alone")
    )
    ends = (f"{close:.2f}", f"{alone:.2f}" if alone else "") if close else ("", "")
    table.add(choice, f"{share:.2f}", f"{process:.3f}", *ends)
    goal = Goal(f"logger={choice}, of a step", share, LIMIT_SHARE, unit=" %")
    table.goals.append(goal)
    if close:
        beyond = max(0.0, close - alone)
        table.goals.append(
            Goal(f"logger={choice}, close beyond its own", beyond, LIMIT_CLOSE, unit=" s")
        )


def _pairs(epochs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the epochs that logged, each with one beside it that did not; the first warms up."""
    rest = epochs[1:]
    pairs = zip(rest[::2], rest[1::2], strict=False)
    return [(b, a) if b["on"] else (a, b) for a, b in pairs]


def _trial(choice: str, epochs: int, folder: Path, addresses: dict[str, str]) -> dict[str, Any]:
    given = {
        k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "MLFLOW_", "CLEARML_"))
    }
    folder.mkdir()
    command = [
        *(sys.executable, "-m", "benchmarks.tracker_trial", f"logger={choice}"),
        f"training.max_epochs={epochs}",
        f"artefacts.runs_dir={folder}/runs",
        f"artefacts.data_dir={folder.parent}/data",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
        env={**given, **addresses, "WANDB_DIR": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    from benchmarks.tracker_trial import MARK

    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    outcome: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return outcome


if __name__ == "__main__":
    print(run().text())
