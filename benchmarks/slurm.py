"""How fast the launcher is, on a Slurm of four nodes that is brought up for it.

    python -m benchmarks slurm          (root on Debian; see tests/slurm/cluster.py)

A thousand trials are submitted as held arrays, and for comparison the same script a thousand times
by sbatch, in turns. One trial is timed from ``submit`` to its first optimizer step, then its node
dies.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.table import Goal, Table
from tests.slurm.cluster import Cluster
from tests.slurm.sweeps import SmallSweep

TRIALS = 1000
TURNS = 5
"""So that what else the machine does slows both alike."""


def run(trials: int = TRIALS) -> Table:
    """Measure on a cluster of its own."""
    table = Table(
        "Slurm",
        ["what", "s"],
        note=f"A real Slurm of 4 nodes on the machine itself; {trials} trials of one sweep. The"
        " times to a step hold two of Slurm's own waits: its scheduler's, and the seconds until it"
        " believes a node dead (SlurmdTimeout, here 10, on most clusters 300).",
    )
    with (
        tempfile.TemporaryDirectory() as name,
        Cluster(nodes=4, accounting=False) as cluster,
        _environment(cluster.env),
    ):
        folder = Path(name)
        _many(table, SmallSweep(cluster, folder, folder / "data", trials))
        _one(table, SmallSweep(cluster, folder, folder / "data", 1, "one", 0.2))
    return table


def _many(table: Table, sweep: SmallSweep) -> None:
    """Submit, show and cancel many trials; nothing of them runs."""
    hold = "+cluster.sbatch.hold=true"
    sweep.train("plan", hold)  # reads what the disk has cold
    submit = _timed(lambda: sweep.train("submit", hold))
    sweep.train("cancel")
    arrays, calls = _side_by_side(sweep, hold)
    sweep.train("submit", hold)
    status = _timed(lambda: sweep.train("status", "--json"))
    shown = _timed(lambda: sweep.train("status"))
    count = len(sweep.trials)
    table.add(f"`sbatch`, {count} calls", f"{calls:.2f}")
    table.add(f"{count} trials as arrays", f"{arrays:.2f}")
    table.add("the whole command `SlurmTrain.py submit`", f"{submit:.2f}")
    table.add("`SlurmTrain.py status`, the table", f"{shown:.2f}")
    table.add("`SlurmTrain.py status --json`", f"{status:.2f}")
    table.goals.append(Goal("arrays against calls of sbatch", arrays / calls, 1 / 20))
    table.goals.append(Goal("status", shown, 1.0, " s"))
    sweep.slurm.run("scancel", "-u", "root")


def _side_by_side(sweep: SmallSweep, hold: str) -> tuple[float, float]:
    """Return the seconds of arrays (a median) and of as many calls of sbatch, in turns."""
    launch, arrays, calls = _launch(sweep, hold), [], 0.0
    launch()  # reads what the disk has cold
    script = next(sweep.folder.glob(".jobs/*/*_submission.sh"))
    single = sweep.folder / "single.sh"
    lines = script.read_text().splitlines(keepends=True)
    single.write_text("".join(line for line in lines if "--array" not in line))
    for part in _parts(len(sweep.trials), TURNS):
        arrays.append(_timed(launch))
        calls += _timed(lambda n=part: [sweep.slurm.sbatch("--hold", single) for _ in range(n)])
    sweep.slurm.run("scancel", "-u", "root")
    return statistics.median(arrays), calls


def _parts(count: int, turns: int) -> list[int]:
    return [count * (turn + 1) // turns - count * turn // turns for turn in range(turns)]


def _launch(sweep: SmallSweep, hold: str) -> Callable[[], object]:
    """Return the submission alone, everything before it done: what submitit and Slurm take."""
    from mlmodeldev.project import project_root
    from mlmodeldev.slurm.commands.launch import plan_on_cluster
    from mlmodeldev.slurm.submit import launch
    from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state

    parser = argparse.ArgumentParser()
    add_sweep_options(parser)
    arguments = ["--sweep", str(sweep.file), "cluster=debug", *sweep.fixed, hold]
    plan = plan_on_cluster(read_sweep_state(parser.parse_args(arguments), lint=False))
    return lambda: launch(plan, project_root())


def _one(table: Table, sweep: SmallSweep) -> None:
    """Follow one trial to its first step, let its node die, and wait for the next step."""
    (trial,) = sweep.trials
    begun = time.monotonic()
    sweep.train("submit", "training.checkpoint_every_n_steps=1")
    sweep.wait_for_step(trial, 1, 300)
    table.add("`submit` to the first optimizer step", f"{time.monotonic() - begun:.1f}")
    assert isinstance(sweep.slurm, Cluster)
    sweep.slurm.kill_node(sweep.node(trial))
    begun, died = time.monotonic(), sweep.step(trial)
    sweep.wait_for_step(trial, died + 1, 300)
    table.add("a node's death to the next step", f"{time.monotonic() - begun:.1f}")


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.perf_counter() - begun


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    print(run().text())
