"""Epochs until an offline search reaches the best value of a whole grid, on the digits.

    python -m benchmarks search

Every point of a grid is trained in full. Then bayes with W&B's hyperband searches the same points,
five times with another seed; its trials are not trained again but replayed, an epoch at a time,
from what the grid has logged: the trainer is deterministic, so they would log the same. Draws the
figure of docs/sweeps.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.table import Goal, Table
from mlmodeldev.slurm.reconcile import folder_name, reconcile
from mlmodeldev.sweep import Sweep, loads
from mlmodeldev.sweep.launching import trial_arguments
from mlmodeldev.sweep.stopping import verdict
from mlmodeldev.trial.work import Ended, ListSource, Work

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "images" / "search.svg"
SEEDS = 5
EPOCHS = 9
METRIC = "val/accuracy"
SWEEP = f"""
name: digits
method: METHOD
metric: {{name: {METRIC}, goal: maximize}}
early_terminate: {{type: hyperband, min_iter: 1, eta: 3}}
parameters:
  optimizer.lr: {{values: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]}}
  model.depth: {{min: 1, max: 3}}
  optimizer.warmup_fraction: {{values: [0.0, 0.2]}}
  training.max_epochs: {{value: {EPOCHS}}}
"""
FIXED = (
    *("logger=csv", "callbacks=none", "training.test=false"),
    *("model.width=16", "processing.batch_size=128"),
)

Curve = list[float]
"""The best value so far, after each epoch that was spent."""


def run() -> Table:
    """Train the grid, replay the searches, draw them."""
    with tempfile.TemporaryDirectory() as base:
        curves = _train(Path(base) / "grid")
        grid = [value for curve in curves.values() for value in curve]
        best = max(grid)
        searches = [_search(curves, seed, Path(base) / f"seed-{seed}") for seed in range(SEEDS)]
    spent = [_reached(search, best) for search in searches]
    table = Table(
        "Search",
        ["search", "epochs", "share of the grid's"],
        note=(
            f"Epochs until {METRIC} is {best:.4f}, the best of a grid of {len(curves)} points of"
            f" {EPOCHS} epochs on the digits."
        ),
    )
    table.add("grid, all of it", len(grid), "1.00")
    for seed, epochs in enumerate(spent):
        table.add(f"bayes and hyperband, seed {seed}", *_shown(epochs, len(grid)))
    share = statistics.median(epochs or 2 * len(grid) for epochs in spent) / len(grid)
    table.goals.append(Goal("median share of the grid's epochs", share, 0.5, ""))
    draw(_running_best(grid), searches, FIGURE)
    return table


def _shown(epochs: int | None, of: int) -> tuple[str, str]:
    return ("not reached", "") if epochs is None else (str(epochs), f"{epochs / of:.2f}")


def _sweep(method: str) -> Sweep:
    return loads(SWEEP.replace("METHOD", method))


def _train(runs: Path) -> dict[str, Curve]:
    """Train every point; return what each has logged, in the grid's order."""
    from mlmodeldev.trial.pool import run_pool

    entries = list(reconcile(_sweep("grid"), runs))
    fixed = [*FIXED, f"artefacts.data_dir={runs.parent}/data"]
    work = [
        Work(e.trial.id, e.folder, trial_arguments(e.trial.overrides, e.folder, fixed))
        for e in entries
    ]
    status = run_pool(ListSource(work), 2, ["trainer", "model", "datamodule"], ROOT)
    assert status == 0, status
    return {
        e.trial.id: [row[METRIC] for row in json.loads((e.folder / "log.json").read_text())]
        for e in entries
    }


def _search(curves: dict[str, Curve], seed: int, runs: Path) -> Curve:
    """Search with one worker; return the best value after each epoch."""
    from mlmodeldev.sweep.search import SearchSource

    sweep = _sweep("bayes")
    rule = sweep.definition.early_terminate
    assert rule is not None
    logged: list[Curve] = []
    values: Curve = []
    with contextlib.redirect_stdout(io.StringIO()):
        source = SearchSource(sweep, runs, seed=seed)
        while isinstance(work := source.take(), Work):
            own: Curve = []
            for value in curves[work.id]:
                own.append(value)
                values.append(value)
                if stopped := verdict(rule, own, logged, "maximize"):
                    break
            logged.append(own)
            work.folder.mkdir(parents=True)
            (work.folder / "log.json").write_text(json.dumps([{METRIC: v} for v in own]))
            source.report(work, Ended(0, "pruned" if stopped else "done", stopped, 0.0))
    assert (runs / folder_name(sweep)).is_dir()
    return _running_best(values)


def _running_best(values: Curve) -> Curve:
    best, found = float("-inf"), []
    for value in values:
        best = max(best, value)
        found.append(best)
    return found


def _reached(curve: Curve, best: float) -> int | None:
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= best), None)


def draw(grid: Curve, searches: list[Curve], file: Path) -> None:
    """Draw the best value over the epochs spent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "search"  # the same picture is the same file
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    axes.step(range(1, len(grid) + 1), grid, color="0.45", label="grid", where="post")
    for number, search in enumerate(searches):
        label = "bayes and hyperband, 5 seeds" if not number else None
        axes.step(range(1, len(search) + 1), search, "C0", alpha=0.6, label=label, where="post")
    axes.set(xlabel="epochs spent", ylabel=f"best {METRIC} so far")
    axes.set_ylim(max(grid) - 0.25, max(grid) + 0.01)
    axes.legend(loc="lower right")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    print(run().text())
