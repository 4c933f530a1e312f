"""What a sweep costs beside its training: starting trials, planning, asking and telling, reading.

    python -m benchmarks sweep

A trial is one epoch of the digits without callbacks. Its overhead is what passes from one trial's
end to the next one's, less the training itself, which a wrapper around `trainer.train` times. The
same training is taken off the time of a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import Goal, Table
from mlmodeldev.slurm.trial_entries import ENDED, reconcile
from mlmodeldev.sweep import Sweep, loads
from mlmodeldev.trial.task import ListSource, TrialResult, TrialTask

ROOT = Path(__file__).resolve().parents[1]
POINTS = 10_000
MANY = {10**5: 5.0, 10**6: 30.0}
"""Points of a plan, and the seconds that it may take."""
WIDE = 10_000
FINISHED = 1_000
WORKERS = 4
TRIALS = 12
QUICK = ("logger=csv", "callbacks=none", "training.max_epochs=1", "training.test=false")
TIMED = """
import time, trainer
def train(settings):
    begun = time.perf_counter()
    result = trainer.train(settings)
    (result.folder / "seconds.txt").write_text(str(time.perf_counter() - begun))
"""
GRID = f"""
name: grid
method: grid
parameters:
  optimizer.lr: {{distribution: q_uniform, min: 0.001, max: 0.1, q: 0.001}}
  optimizer.weight_decay: {{min: 1, max: {POINTS // 99 + 1}}}
"""
SEARCH = """
name: search
method: bayes
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  optimizer.weight_decay: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  optimizer.warmup_fraction: {min: 0.0, max: 0.5}
  model.dropout: {distribution: q_uniform, min: 0.0, max: 0.5, q: 0.05}
  processing.batch_size: {values: [16, 32, 64, 128]}
"""


def run() -> Table:
    """Measure all of it."""
    table = Table(
        "Sweep",
        ["what", "time", "goal"],
        note=(
            f"Overhead of a one-epoch digits trial: medians of {TRIALS} trials in a warm worker and"
            f" of 3 processes. Ask and tell: a search of 5 parameters with {FINISHED} trials behind"
            f" it, {WORKERS} workers at once; the time from trial to trial over all workers, and"
            " what one worker waits."
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        _starts(table, Path(folder) / "starts")
        _lists(table, Path(folder) / "lists")
        _plans(table, Path(folder))
        _asks(table, Path(folder) / "asks")
    return table


def _row(table: Table, name: str, seconds: float, limit: float | None = None) -> None:
    unit, factor = ("s", 1.0) if seconds >= 1 or (limit or 0) >= 1 else ("ms", 1000.0)
    text = "" if limit is None else f"≤ {limit * factor:g} {unit}"
    table.add(name, f"{seconds * factor:.3g} {unit}", text)
    if limit is not None:
        table.goals.append(Goal(name, seconds * factor, limit * factor, f" {unit}"))


class _Clock(ListSource):
    """A list of trials that notes when each ended."""

    def __init__(self, tasks: list[TrialTask]) -> None:
        super().__init__(tasks)
        self.times: list[float] = []

    def report(self, work: TrialTask, ended: TrialResult) -> None:
        assert ended.state == "done", ended
        self.times.append(time.perf_counter())


def _starts(table: Table, base: Path) -> None:
    from mlmodeldev.trial.pool import run_pool

    base.mkdir()
    (base / "timed_trainer.py").write_text(TIMED)
    where = [f"artefacts.runs_dir={base}/runs", f"artefacts.data_dir={base}/data"]
    tasks = []
    for number in range(TRIALS + 1):
        name = f"t{number}"
        overrides = [*QUICK, *where, f"artefacts.trial={name}", f"optimizer.lr=0.00{number + 1}"]
        tasks.append(TrialTask(name, base / "runs/single" / name, overrides, "timed_trainer"))
    source = _Clock(tasks)
    modules = ["timed_trainer", "trainer", "model", "datamodule"]
    sys.path.insert(0, str(ROOT))
    run_pool(source, 1, modules, base)
    passed = [b - a for a, b in zip(source.times, source.times[1:], strict=False)]
    trained = [float((task.folder / "seconds.txt").read_text()) for task in tasks[1:]]
    training = statistics.median(trained)
    forked = statistics.median(p - t for p, t in zip(passed, trained, strict=True))
    alone = statistics.median(_process(where, number) for number in range(3)) - training
    _row(table, "training of the trial itself", training)
    _row(table, "overhead, a process for each trial", alone)
    _row(table, "overhead, warm worker", forked, 0.1)
    table.add("process / worker", f"{alone / forked:.0f}×", "≥ 40×")
    table.goals.append(Goal("40 / (process / worker)", 40 * forked / alone, 1.0, ""))


def _process(where: list[str], number: int) -> float:
    command = [sys.executable, "trainer.py", *QUICK, *where, f"artefacts.trial=p{number}"]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.perf_counter() - begun


def _lists(table: Table, base: Path) -> None:
    begun = time.perf_counter()
    sweep = loads(GRID)
    entries = list(reconcile(sweep, base))
    due = [(e.trial.id, e.trial.name) for e in entries if e.state not in ENDED]
    planned = time.perf_counter() - begun
    assert len(due) >= POINTS
    for entry in entries:
        entry.folder.mkdir(parents=True)
        record = {"state": "done", "metric": {"name": "val/accuracy", "value": 0.5}, "attempts": 1}
        (entry.folder / "trial.json").write_text(json.dumps(record, indent=1))
    begun = time.perf_counter()
    assert not [e for e in reconcile(loads(GRID), base) if e.state not in ENDED]
    _row(table, f"plan of {len(due)} points", planned, 1.0)
    _row(table, f"reconcile {len(due)} finished trials", time.perf_counter() - begun, 2.0)


def _plans(table: Table, base: Path) -> None:
    """Time ``plan --json`` as it is typed: start, file, check, identities and output."""
    (base / "other.py").touch()
    for points, limit in MANY.items():
        side = round(points**0.5)
        first = f"a: {{min: 1, max: {side}}}, b: {{min: 1, max: {-(-points // side)}}}"
        seconds, megabytes = _plan(base, f"method: grid\nparameters: {{{first}}}\n")
        _row(table, f"plan --json of {points} points", seconds, limit)
        table.add(f"memory of it, {points} points", f"{megabytes} MB", "≤ 500 MB")
        table.goals.append(Goal(f"memory, {points} points", megabytes, 500, " MB"))
    wide = "".join(f"  g{i % 97}.p{i}: {{values: [0, 1, 2]}}\n" for i in range(WIDE))
    seconds, _ = _plan(base, f"method: random\nrun_cap: 3\nparameters:\n{wide}")
    _row(table, f"plan --json of {WIDE} swept parameters", seconds, 2.0)


def _plan(base: Path, text: str) -> tuple[float, int]:
    """Return the seconds that a plan takes, and the megabytes of its process."""
    file = base / "plan.yaml"
    command = ["${interpreter}", "${program}", "${args_json_file}"]
    file.write_text(f"program: {base}/other.py\ncommand: {json.dumps(command)}\n{text}")
    words = ["plan", "--json", "--sweep", str(file), "cluster=debug", f"artefacts.runs_dir={base}"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "slurm/SlurmTrain.py", *words],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - begun, usage.ru_maxrss // 1024


def _asks(table: Table, runs: Path) -> None:
    sweep = loads(SEARCH)
    _prefill(sweep, runs)
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(WORKERS), context.Queue()
    workers = [
        context.Process(target=_worker, args=(runs, number, gate, results))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    taken = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    begun, ended = min(t[0] for t in taken), max(t[1] for t in taken)
    waits = [wait for t in taken for wait in t[2]]
    _row(table, "ask + tell, trial to trial", (ended - begun) / len(waits), 0.02)
    _row(table, "ask + tell, a worker's wait", statistics.median(waits))


def _prefill(sweep: Sweep, runs: Path) -> None:
    from mlmodeldev.sweep.search import SearchSource

    source = SearchSource(sweep, runs, seed=9)
    source.sampler.startup = 10**9  # random points are enough to fill it
    for _ in range(FINISHED):
        _turn(source)


def _turn(source: Any) -> float:
    """Ask and tell; return the seconds both took."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        begun = time.perf_counter()
        task = source.take()
        seconds = time.perf_counter() - begun
        task.folder.mkdir(parents=True)
        lr = float(task.overrides[-8].partition("=")[2]) if len(task.overrides) > 8 else 0.5
        (task.folder / "log.json").write_text(json.dumps([{"val/accuracy": lr}] * 5))
        begun = time.perf_counter()
        source.report(task, TrialResult(0, "done", None, 1.0))
    return seconds + time.perf_counter() - begun


def _worker(runs: Path, seed: int, gate: Any, results: Any) -> None:
    from mlmodeldev.sweep.search import SearchSource

    source = SearchSource(loads(SEARCH), runs, seed=seed)
    _turn(source)
    gate.wait(120)
    begun = time.time()
    waits = [_turn(source) for _ in range(25)]
    results.put((begun, time.time(), waits))


if __name__ == "__main__":
    print(run().text())
