"""How soon ``trainer.py`` answers what needs no training, and how soon a first trial is through.

    python -m benchmarks start

Each command is a process of its own, one after the other in turn; Python alone, ``import torch``
and ``import pytorch_lightning`` are the yardsticks. Times are medians, CPU time that of the process
and its children.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7
LIMIT = 1.0
LIGHTNING = "python -c 'import pytorch_lightning'"
FIRST_TRIAL = "python trainer.py debug=fast logger=csv"
RATIO = 0.9
"""A trial of three steps against the bare import of Lightning: the goal."""
COMMANDS = {
    "python -c pass": (["-c", "pass"], 0),
    "python -c 'import torch'": (["-c", "import torch"], 0),
    "python trainer.py --help": (["trainer.py", "--help"], 0),
    "python trainer.py optimizer.lrr=1": (["trainer.py", "optimizer.lrr=1"], 2),
    LIGHTNING: (["-c", "import pytorch_lightning"], 0),
    FIRST_TRIAL: (["trainer.py", "debug=fast", "logger=csv", "artefacts.runs_dir={runs}"], 0),
}


def run(rounds: int = ROUNDS) -> Table:
    """Run each command in turn; compare the medians with a second."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, (arguments, status) in COMMANDS.items():
            seconds = timed(arguments, status)
            if turn:  # the first round warms the disk's cache
                taken[name].append(seconds)
    table = Table(
        "Start",
        ["command", "exit status", "wall s", "CPU s"],
        note=f"Processes of their own, {rounds} times in turn, medians.",
    )
    for name, times in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        table.add(f"`{name}`", COMMANDS[name][1], f"{wall:.2f}", f"{cpu:.2f}")
        if name == FIRST_TRIAL:
            ratio = wall / statistics.median(wall for wall, _ in taken[LIGHTNING])
            table.goals.append(Goal(f"`{name}`, times the import of Lightning", ratio, RATIO))
        elif "trainer.py" in name:
            table.goals.append(Goal(f"`{name}`, wall", wall, LIMIT, " s"))
            table.goals.append(Goal(f"`{name}`, CPU", cpu, LIMIT, " s"))
    return table


def timed(arguments: list[str], status: int) -> tuple[float, float]:
    """Run Python with these arguments; return wall-clock and CPU seconds.

    Raises:
        RuntimeError: the exit status is another one.
    """
    with tempfile.TemporaryDirectory() as runs:
        words = [word.format(runs=runs) for word in arguments]
        before, begun = os.times(), time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)
        wall, after = time.perf_counter() - begun, os.times()
    if done.returncode != status:
        raise RuntimeError(f"{arguments}: exit status {done.returncode}, not {status}")
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


if __name__ == "__main__":
    print(run().text())
