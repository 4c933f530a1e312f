"""After the monkey: what a user does until every trial has ended, and when to call that in vain.

    submit, again; retry what failed; sbatch slurm/agent.sh, again; sync; by hand what W&B gives up

Nothing here is timed by the clock: it goes on while anything moves, and gives up after many rounds
of the user's, or when nothing at all has moved for minutes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos.cluster_faults import wait_for_launchers
from tests.chaos.scene import Scene
from tests.chaos.trials import OURS_ONLY, SETTINGS, names
from tests.wandb.store import ENTITY

ROUNDS = 6
"""How often the user begins anew what has not ended, at most."""
STILL_SECONDS = 300.0
"""So long without any move, and it is stuck; a loaded machine may be slow."""


class Stuck(Exception):
    """The trials do not come to an end."""


def submit_all(scene: Scene) -> None:
    """Begin: two sweeps by SlurmTrain.py, one by agents."""
    for name in ("ours", "theirs"):
        done = scene.train("submit", name)
        if done.returncode:
            raise Stuck(f"submit of {name}: exit status {done.returncode}\n{done.stdout}")
    scene.submit_agents(scene.size.jobs)


def all_done(scene: Scene) -> bool:
    """Whether every trial has ended well."""
    return not any(unfinished(scene).values())


def unfinished(scene: Scene) -> dict[str, list[str]]:
    """Return the trials of each sweep that are not done, with their states."""
    states = {(f.parent, f.name): r.get("state", "?") for f, r in scene.records()}
    folders = scene.folders()
    return {
        name: [
            f"{trial} {state}"
            for trial in names(scene.trials.files[name])
            if (state := states.get((folders[name], trial), "missing")) != "done"
        ]
        for name in folders
    }


def settle(scene: Scene, print_line: Any = print) -> None:
    """Do what a user does until all trials are done.

    Raises:
        Stuck: they are not after many rounds, or nothing moves.
    """
    scene.released.touch()
    for number in range(ROUNDS + 1):
        wait_for_launchers(scene)
        wait_for_queue(scene)
        left = unfinished(scene)
        if not any(left.values()):
            break
        if number == ROUNDS:
            raise Stuck(f"not done after {ROUNDS} rounds: {left}")
        print_line(f"round {number + 1}: not done: {left}")
        _begin_again(scene, left)
    done = sync(scene)
    if done.returncode:
        raise Stuck(f"sync: exit status {done.returncode}\n{done.stdout}")


def _begin_again(scene: Scene, left: dict[str, list[str]]) -> None:
    for name in ("ours", "theirs"):
        if left[name]:
            scene.keep(scene.train("submit", name))
            if any(line.endswith(" failed") for line in left[name]):
                scene.keep(scene.train("retry", name))
    if left["served"]:
        for line in left["served"]:
            trial, state = line.split()
            if state == "failed":
                scene.keep(by_hand(scene, scene.folders()["served"] / trial))
        _hand_out_again(scene)
        scene.submit_agents(1)


def _hand_out_again(scene: Scene) -> None:
    """Let the server hand out again what it gave to an agent that died before it had begun."""
    held = {record.get("wandb_id") for _, record in scene.records()}
    with scene.server.store.lock:
        for run in scene.sweep.runs:
            if not run.starts and run.name not in held:
                scene.sweep.give_back(run)
        if scene.sweep.preempted:
            scene.sweep.state = "RUNNING"


def by_hand(scene: Scene, folder: Path) -> subprocess.CompletedProcess[str]:
    """Go on with a trial of W&B's that failed, as docs/wandb.md says: its run is handed out no
    more."""
    record = dict(scene.records())[folder]
    run = {
        "WANDB_RUN_ID": record["wandb_id"],
        "WANDB_SWEEP_ID": scene.sweep.name,
        "WANDB_PROJECT": "chaos",
        "WANDB_ENTITY": ENTITY,
        "WANDB_RESUME": "allow",
    }
    seed = names(scene.trials.files["served"])[folder.name]
    words = [*scene.places, f"artefacts.sweep={scene.sweep.name}", "model=ours", "data=ours"]
    words += [f"training.seed={seed}", *SETTINGS, *OURS_ONLY]
    return scene.call([sys.executable, scene.trials.project / "trainer.py", *words], run)


def sync(scene: Scene) -> subprocess.CompletedProcess[str]:
    """Upload what an outage has kept from the server."""
    script = scene.trials.project / "slurm" / "SlurmTrain.py"
    command = [sys.executable, script, "sync", "--runs-dir", scene.runs]
    return scene.call([*command, "--sweep", scene.sweep.name])


def wait_for_queue(scene: Scene) -> None:
    """Wait until no job is left, as long as anything moves."""
    seen: Any = None
    since = time.monotonic()
    while queue := scene.queue():
        now = (queue, [(f, r.get("state"), r.get("step"), r.get("attempts"), r.get("lease"))
                       for f, r in scene.records()])  # fmt: skip
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > STILL_SECONDS:
            squeue = scene.cluster.run("squeue", check=False)
            raise Stuck(f"nothing has moved for {STILL_SECONDS:.0f} s\n{squeue}")
        time.sleep(0.5)
