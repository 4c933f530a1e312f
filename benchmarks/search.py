"""Epochs until an offline search reaches the best value of a whole grid, on the digits.

    python -m benchmarks search

Every point of a grid is trained in full. Then bayes with W&B's hyperband searches the same points,
five times with another seed, through the real journal. Its trials are not trained again but
replayed, an epoch at a time, from what the grid has logged: the trainer is deterministic. To check
that, one of the searches is trained for real and must log the same. Draws the figure of
docs/sweeps.md. What is trained lies in ``runs/benchmark-search``; remove it to train anew.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import Goal, Table
from mlmodeldev.slurm.trial_entries import begun_trials, reconcile
from mlmodeldev.sweep import Sweep, loads
from mlmodeldev.sweep.loading import trial_arguments
from mlmodeldev.sweep.stopping import verdict
from mlmodeldev.trial.record import history
from mlmodeldev.trial.task import ListSource, TrialResult, TrialTask

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "images" / "search.svg"
RUNS = ROOT / "runs" / "benchmark-search"
SEEDS = 5
CHECKED = 3
"""The seed whose search is trained for real as well."""
SHUFFLES = 1001
EPOCHS = 9
METRIC = "val/accuracy"
SWEEP = f"""
name: NAME
method: METHOD
metric: {{name: {METRIC}, goal: maximize}}
early_terminate: {{type: hyperband, min_iter: 3, eta: 3}}
parameters:
  optimizer.lr: {{values: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]}}
  optimizer.warmup_fraction: {{values: [0.0, 0.1, 0.3]}}
  model.dropout: {{values: [0.0, 0.1]}}
  training.max_epochs: {{value: {EPOCHS}}}
"""
FIXED = (
    *("logger=csv", "callbacks=none", "training.test=false", "processing.batch_size=64"),
    f"artefacts.data_dir={RUNS}/data",
)
MODULES = ["trainer", "model", "datamodule"]

Curve = list[float]
"""A value for each epoch."""


def run() -> Table:
    """Train the grid, replay the searches, train one of them, draw them."""
    curves = _grid()
    epochs = [value for curve in curves.values() for value in curve]
    best, size = max(epochs), len(epochs)
    with tempfile.TemporaryDirectory() as base:
        searches = [_replayed(curves, seed, Path(base) / str(seed)) for seed in range(SEEDS)]
    spent = [_reached(values, best) for values in searches]
    _check_by_training(searches[CHECKED], best)
    table = Table(
        "Search",
        ["epochs until the grid's best value", "epochs", "of the grid's"],
        note=(
            f"The best {METRIC} of {len(curves)} points of {EPOCHS} epochs on the digits is"
            f" {best:.4f}; reached is that very value, or more. Only the whole grid shows that it"
            " is the best; at which place of its order it stands is chance. Searches are replayed"
            f" from what the grid has logged; that of seed {CHECKED} was trained as well, and"
            " logged the same."
        ),
    )
    table.add("the whole grid", size, "1.00")
    table.add("the grid in its order", *_shown(_reached(epochs, best), size))
    table.add(f"the grid, shuffled, median of {SHUFFLES}", *_shown(_shuffled(curves, best), size))
    for seed, count in enumerate(spent):
        table.add(f"bayes and hyperband, seed {seed}", *_shown(count, size))
    share = statistics.median(count or 2 * size for count in spent) / size
    table.goals.append(Goal("median share of the grid's epochs", share, 0.5, ""))
    draw(epochs, searches, FIGURE)
    return table


def _shown(epochs: int | None, of: int) -> tuple[str, str]:
    return ("not reached", "") if epochs is None else (str(epochs), f"{epochs / of:.2f}")


def _sweep(method: str, name: str, target: float | None = None) -> Sweep:
    text = SWEEP.replace("METHOD", method).replace("NAME", name)
    return loads(
        text if target is None else text.replace("maximize}", f"maximize, target: {target}}}")
    )


def _grid() -> dict[str, Curve]:
    """Train every point that is not trained yet; return what each has logged, in their order."""
    from mlmodeldev.trial.pool import run_pool

    entries = list(reconcile(_sweep("grid", "digits"), RUNS))
    tasks = [
        TrialTask(e.trial.id, e.folder, trial_arguments(e.trial.overrides, e.folder, FIXED))
        for e in entries
        if e.state != "done"
    ]
    status = run_pool(ListSource(tasks), 2, MODULES, ROOT)
    assert status == 0, status
    return {entry.trial.id: history(entry.folder, METRIC) for entry in entries}


def _replayed(curves: dict[str, Curve], seed: int, runs: Path) -> Curve:
    """Search with one worker; return the value of each epoch that was spent."""
    from mlmodeldev.sweep.search import SearchSource

    sweep = _sweep("bayes", "searched")
    rule = sweep.definition.early_terminate
    assert rule is not None
    logged: list[Curve] = []
    with contextlib.redirect_stdout(io.StringIO()):
        source = SearchSource(sweep, runs, seed=seed)
        while isinstance(task := source.take(), TrialTask):
            own: Curve = []
            stopped = None
            for value in curves[task.id]:
                own.append(value)
                if stopped := verdict(rule, own, logged, "maximize"):
                    break
            logged.append(own)
            task.folder.mkdir(parents=True)
            (task.folder / "log.json").write_text(json.dumps([{METRIC: v} for v in own]))
            state = "pruned" if stopped else "done"
            source.report(task, TrialResult(0, state, stopped, 0.0))
    return [value for own in logged for value in own]


def _check_by_training(replayed: Curve, best: float) -> None:
    """Train one search until it reaches the best value; it must log what was replayed."""
    from mlmodeldev.sweep.search import search

    sweep = _sweep("bayes", f"trained-{CHECKED}", best)
    assert search(sweep, RUNS, FIXED, 1, MODULES[1:], ROOT, seed=CHECKED) == 0
    trained = [
        v
        for entry in begun_trials(sweep, RUNS / sweep.folder)
        for v in history(entry.folder, METRIC)
    ]
    assert trained == replayed[: len(trained)], "a trained search logs other values than a replay"
    assert _reached(trained, best) == _reached(replayed, best)


def _reached(values: Sequence[float], best: float) -> int | None:
    return next((epoch for epoch, value in enumerate(values, 1) if value >= best), None)


def _shuffled(curves: dict[str, Curve], best: float) -> int:
    """Return the epochs that the grid needs in the median over random orders of its points."""
    draw, order, spent = random.Random(0), list(curves.values()), []
    for _ in range(SHUFFLES):
        draw.shuffle(order)
        spent.append(_reached([value for curve in order for value in curve], best) or 0)
    return int(statistics.median(spent))


def _running_best(values: Sequence[float]) -> Curve:
    return list(itertools.accumulate(values, max))


def draw(grid: Curve, searches: list[Curve], file: Path) -> None:
    """Draw the best value over the epochs spent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "search"  # the same picture is the same file
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    axes.axhline(max(grid), color="0.8", linewidth=0.8)
    axes.step(
        range(1, len(grid) + 1),
        _running_best(grid),
        "0.35",
        label="grid, in its order",
        where="post",
    )
    for number, search in enumerate(searches):
        label = "bayes and hyperband, 5 seeds" if not number else None
        epochs = _reached(search, max(grid)) or len(search)
        curve = _running_best(search[:epochs])
        axes.step(range(1, epochs + 1), curve, "C0", alpha=0.55, label=label, where="post")
        axes.plot(epochs, curve[-1], "o", color="C0", markersize=4)
    axes.axvline(len(grid) / 2, color="C3", linewidth=0.8, linestyle=":")
    axes.annotate(
        "half of the grid's epochs", (len(grid) / 2, 0.5), xytext=(5, 0),
        textcoords="offset points", color="C3", fontsize=8,
    )  # fmt: skip
    axes.set(
        xlabel="epochs spent", ylabel=f"best {METRIC} so far", ylim=(0, 1), xlim=(0, len(grid))
    )
    axes.legend(loc="lower right")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    print(run().text())
