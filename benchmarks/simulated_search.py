"""A search's journal of any length, with many workers in its middle; what one more worker takes.

    python -m benchmarks.simulated_search FOLDER TRIALS RUNNING       # prints JSON

The journal is written as `mlmodeldev.sweep.study` would have: one trial is begun and ended for
real, the lines of the others are its own with other numbers. Each running trial has a record and a
worker on another host, whose leases are fresh.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.simulated_cluster import EPOCHS, METRIC, counted_calls, taken
from mlmodeldev.lease import lease_end
from mlmodeldev.sweep import Sweep, loads
from mlmodeldev.trial.task import TrialResult, TrialTask

TURNS = 5
SEARCH = """
name: search
program: trainer.py
method: bayes
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  optimizer.weight_decay: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  optimizer.warmup_fraction: {min: 0.0, max: 0.5}
"""


def fill(runs: Path, trials: int, running: int) -> Sweep:
    """Write the journal, folders of its trials, and leases of the workers."""
    from mlmodeldev.sweep.search import SearchSource

    sweep = loads(SEARCH)
    source = SearchSource(sweep, runs)
    turn(source)
    source.close()
    journal = source.journal.path
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    of_trial = [line for line in lines if "trial_id" in line or line["op_code"] == 4]
    draw = random.Random(0)
    with journal.open("a") as file:
        for number in range(1, trials + running):
            is_running = number >= trials
            for line in _lines(of_trial, number, draw, is_running):
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            folder = source.base / _id(number)
            folder.mkdir()
            state = "running" if is_running else "done"
            record = {"state": state, "overrides": {}, "owner": _owner(number)}
            (folder / "trial.json").write_text(json.dumps({**record, "lease": lease_end()}))
    leases = source.leases.folder
    leases.mkdir(exist_ok=True)
    for number in range(trials, trials + running):
        lease = {"state": "running", "owner": _owner(number), "lease": lease_end()}
        (leases / f"worker-{number}.json").write_text(json.dumps(lease))
    return sweep


def _id(number: int) -> str:
    return f"t{number:07d}"


def _owner(number: int) -> dict[str, Any]:
    return {"host": f"n{number}", "pid": 7, "started": 7, "namespace": 1, "token": str(number)}


def _lines(
    lines: list[dict[str, Any]], number: int, draw: random.Random, is_running: bool
) -> Iterator[dict[str, Any]]:
    """Yield a trial's lines: those of the first one, with other numbers and values."""
    value = draw.random()
    for line in lines:
        if line["op_code"] == 4:  # its beginning
            params = {name: draw.uniform(0.001, 0.1) for name in line["params"]}
            attributes = {**line["user_attrs"], "id": _id(number), "owner": f"worker-{number}"}
            yield {**line, "params": params, "user_attrs": attributes}
        elif not is_running:
            values = {"values": [value]} if line.get("values") else {}
            step = {"intermediate_value": value} if "intermediate_value" in line else {}
            yield {**line, "trial_id": number, **values, **step}


def turn(source: Any) -> tuple[float, float]:
    """Begin a trial and end it; return the CPU seconds of each."""
    with contextlib.redirect_stdout(io.StringIO()):
        begun = time.process_time()
        task = source.take()
        taken_at = time.process_time()
        assert isinstance(task, TrialTask), task
        task.folder.mkdir(parents=True, exist_ok=True)
        log = [{"epoch": e + 1, METRIC: math.tanh(e)} for e in range(EPOCHS)]
        (task.folder / "log.json").write_text(json.dumps(log))
        again = time.process_time()
        source.report(task, TrialResult(0, "done", None, 1.0))
    return taken_at - begun, time.process_time() - again


def main(folder: str, trials: str, running: str) -> int:
    """Fill a journal and take part in its search; print what that took."""
    from mlmodeldev.sweep.search import SearchSource

    runs = Path(folder)
    os.fsync = lambda _: None  # the disk is not what is measured
    sweep = fill(runs, int(trials), int(running))
    with counted_calls(runs) as counts:
        begun = time.process_time()
        source = SearchSource(sweep, runs, seed=1)
        start = taken(counts, begun)
    with counted_calls(runs) as counts:
        turns = [turn(source) for _ in range(TURNS)]
    source.close()
    journal = source.journal.path.stat().st_size
    result = {
        "start": start,
        "take": statistics.median(take for take, _ in turns),
        "report": statistics.median(report for _, report in turns),
        "calls": counts.total // TURNS,
        "journal_mb": round(journal / 1e6, 1),
        "mib": taken(counts, begun)["mib"],
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
